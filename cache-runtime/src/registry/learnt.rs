//! Dependencies that loads have named while they ran (`LoadContext::depends_on`): what this process
//! knows of them.
//!
//! Nothing here decides whether an entry may be served. A reader that does not know the list of an
//! entry computes another stamp than the entry has; then it reads the list in the entry, or loads.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;

use crate::base::entry_map::{self, EntryMap};
use crate::protocol::generation::Dependency;

/// The bytes that the lists of all keys may take. Of keys whose list had to make room, the next
/// read costs a round trip more, or in a store in memory a load.
const LISTS: u64 = 8 << 20;

/// Of how many resources a function may name rows. The first load of an entry that depends on
/// others is not stored; its next one is.
pub(crate) const MOST_RESOURCES: usize = 64;

/// The dependencies that loads have named so far.
#[derive(Default)]
pub(crate) struct Learnt {
    in_use: AtomicBool,
    lists: OnceLock<EntryMap<LearntList>>,
    /// The dependencies that each function has named so far, by its address.
    functions: RwLock<HashMap<usize, Named>>,
}

/// The dependencies that loads of one function have named: the resources of rows, and whether there
/// were tags.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) resources: BTreeSet<Box<str>>,
    pub(crate) tags: bool,
}

impl Named {
    pub(crate) fn is_empty(&self) -> bool {
        self.resources.is_empty() && !self.tags
    }

    /// Of what these dependencies are.
    pub(crate) fn of<'d>(deps: impl IntoIterator<Item = &'d Arc<Dependency>>) -> Self {
        let mut named = Self::default();
        for dep in deps {
            match dep.name().split_once('~') {
                Some(("", _)) => named.tags = true,
                Some((resource, _)) => drop(named.resources.insert(resource.into())),
                None => drop(named.resources.insert(dep.name().into())),
            }
        }
        named
    }

    /// Whether it has all of this.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        (self.tags || !other.tags) && other.resources.is_subset(&self.resources)
    }
}

/// The dependencies of the entry under a key that its last load has named.
struct LearntList {
    key: Box<str>,
    deps: Arc<[Arc<Dependency>]>,
}

impl entry_map::Entry for LearntList {
    fn key(&self) -> &str {
        &self.key
    }

    fn weight(&self) -> u64 {
        let of_each = self.deps.iter().map(|dep| dep.key().len() + 96);
        (self.key.len() + 96 + of_each.sum::<usize>()) as u64
    }
}

impl fmt::Debug for Learnt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Learnt")
            .field("lists", &self.lists.get().map(EntryMap::len))
            .finish_non_exhaustive()
    }
}

impl Learnt {
    /// Whether there is anything to know. In most programs no load names anything.
    #[inline]
    pub(crate) fn is_in_use(&self) -> bool {
        self.in_use.load(Ordering::Relaxed)
    }

    /// The dependencies of the entry under a key beside those that its function names, as far as
    /// known.
    #[inline]
    pub(crate) fn list(&self, key: &str) -> Option<Arc<[Arc<Dependency>]>> {
        if !self.is_in_use() {
            return None;
        }
        let list = self.lists.get()?.get(key)?;
        Some(Arc::clone(&list.deps))
    }

    /// Remembers the list of an entry; an empty one is forgotten.
    pub(crate) fn remember(&self, key: &str, deps: &Arc<[Arc<Dependency>]>) {
        let lists = self.lists.get_or_init(|| EntryMap::new(LISTS));
        self.in_use.store(true, Ordering::Relaxed);
        if deps.is_empty() {
            lists.remove_if(key.as_bytes(), |_| true);
            return;
        }
        lists.insert(Arc::new(LearntList {
            key: key.into(),
            deps: Arc::clone(deps),
        }));
    }

    /// The dependencies that a function has named so far; `None` before its first load has ended.
    pub(crate) fn named_by(&self, function: usize) -> Option<Named> {
        self.functions.read().get(&function).cloned()
    }

    /// Notes what a load of a function has named.
    pub(crate) fn note(&self, function: usize, named: Named) {
        let known = self.functions.read().get(&function).cloned();
        if known.is_some_and(|known| known.covers(&named)) {
            return;
        }
        let mut functions = self.functions.write();
        let known = functions.entry(function).or_default();
        known.tags |= named.tags;
        for resource in named.resources {
            if known.resources.len() < MOST_RESOURCES {
                known.resources.insert(resource);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deps(keys: &[&str]) -> Arc<[Arc<Dependency>]> {
        keys.iter()
            .map(|key| Dependency::new((*key).into()))
            .collect()
    }

    #[test]
    fn a_list_is_remembered_until_it_is_empty() {
        let learnt = Learnt::default();
        assert!(!learnt.is_in_use() && learnt.list("a").is_none());
        let list = deps(&["@gen:~team:7"]);
        learnt.remember("a", &list);
        assert_eq!(learnt.list("a"), Some(list));
        assert_eq!(learnt.list("b"), None);
        learnt.remember("a", &deps(&[]));
        assert_eq!(learnt.list("a"), None);
    }

    #[test]
    fn dependencies_that_a_function_named_add_up() {
        let learnt = Learnt::default();
        assert_eq!(learnt.named_by(1), None);
        learnt.note(1, Named::default());
        assert!(learnt.named_by(1).is_some_and(|named| named.is_empty()));
        learnt.note(
            1,
            Named::of(&*deps(&["@gen:authors", "@gen:authors~row:1"])),
        );
        learnt.note(1, Named::of(&*deps(&["@gen:~team:7"])));
        let both = Named::of(&*deps(&["@gen:authors", "@gen:~team:7"]));
        assert_eq!(learnt.named_by(1), Some(both.clone()));
        assert!(both.covers(&Named::of(&*deps(&["@gen:~team:8"]))));
        assert!(!both.covers(&Named::of(&*deps(&["@gen:teams"]))));
    }
}
