//! The keys of a batch, and where each read finds its values in the answer.

use std::collections::HashMap;
use std::sync::Arc;

use crate::protocol::generation::Dependency;
use crate::store::EntryRef;

/// The number of recent lists of dependencies that are compared. All reads of a function have the
/// same list, unless they have tags.
const LATE_LISTS: usize = 8;

/// The reads of one batch.
#[derive(Default)]
pub(crate) struct BatchPlan {
    /// The entries' keys, concatenated.
    keys: String,
    reads: Vec<Read>,
    lists: Vec<Arc<[Arc<Dependency>]>>,
    /// The number of dependencies in all lists.
    dependencies: usize,
}

/// The size of a plan.
#[derive(Clone, Copy, Default)]
pub(super) struct Size {
    pub(super) reads: usize,
    /// The total length of the keys.
    bytes: usize,
}

struct Read {
    /// Where its key ends.
    end: usize,
    /// The index of its list of dependencies.
    list: usize,
}

impl BatchPlan {
    pub(super) fn with_room_for(size: Size) -> Self {
        Self {
            keys: String::with_capacity(size.bytes),
            reads: Vec::with_capacity(size.reads),
            ..Self::default()
        }
    }

    pub(super) fn size(&self) -> Size {
        Size {
            reads: self.reads.len(),
            bytes: self.keys.len(),
        }
    }

    /// The number of reads.
    pub(crate) fn len(&self) -> usize {
        self.reads.len()
    }

    /// An upper bound on the number of keys: each is counted as often as it was named.
    pub(super) fn keys(&self) -> usize {
        self.reads.len() + self.dependencies
    }

    pub(crate) fn add(&mut self, entry_ref: &EntryRef) {
        self.keys.push_str(&entry_ref.key);
        let late = self.lists.len().saturating_sub(LATE_LISTS);
        let known = self.lists.iter().skip(late);
        let known = known
            .enumerate()
            .find(|(_, list)| Arc::ptr_eq(list, &entry_ref.deps));
        let list = match known {
            Some((at, _)) => late + at,
            None => {
                self.lists.push(Arc::clone(&entry_ref.deps));
                self.dependencies += entry_ref.deps.len();
                self.lists.len() - 1
            }
        };
        let end = self.keys.len();
        self.reads.push(Read { end, list });
    }

    fn start(&self, at: usize) -> usize {
        let before = at.checked_sub(1).and_then(|before| self.reads.get(before));
        before.map_or(0, |read| read.end)
    }

    /// The key of the entry that a read asks for.
    pub(crate) fn key(&self, at: usize) -> &str {
        let end = self.reads.get(at).map_or(0, |read| read.end);
        self.keys.get(self.start(at)..end).unwrap_or_default()
    }

    /// The keys of the command, each once.
    pub(crate) fn batch_keys(&self) -> BatchKeys {
        let mut batch_keys = BatchKeys {
            entries: Vec::with_capacity(self.len()),
            deps: Vec::new(),
            reads: Vec::with_capacity(self.len()),
            lists: Vec::with_capacity(self.lists.len()),
        };
        if let ([read], [list]) = (&*self.reads, &*self.lists) {
            batch_keys.entries.push(Entry {
                read: 0,
                readers: 1,
            });
            batch_keys.reads.push((0, read.list));
            batch_keys.deps.extend((0..list.len()).map(|at| (0, at)));
            batch_keys.lists.push((0..list.len()).collect());
            return batch_keys;
        }
        let mut entries = HashMap::with_capacity(self.len());
        for (at, read) in self.reads.iter().enumerate() {
            let place = *entries.entry(self.key(at)).or_insert_with(|| {
                let entry = Entry {
                    read: at,
                    readers: 0,
                };
                batch_keys.entries.push(entry);
                batch_keys.entries.len() - 1
            });
            if let Some(entry) = batch_keys.entries.get_mut(place) {
                entry.readers += 1;
            }
            batch_keys.reads.push((place, read.list));
        }
        let mut deps: HashMap<&str, usize> = HashMap::new();
        for (number, list) in self.lists.iter().enumerate() {
            let places = list.iter().enumerate().map(|(at, dep)| {
                *deps.entry(dep.key()).or_insert_with(|| {
                    batch_keys.deps.push((number, at));
                    batch_keys.deps.len() - 1
                })
            });
            batch_keys.lists.push(places.collect());
        }
        batch_keys
    }

    /// The keys of the command in their order: those of entries, then those of generations.
    pub(crate) fn keys_of<'p, 'k>(
        &'p self,
        batch_keys: &'k BatchKeys,
    ) -> impl Iterator<Item = &'p str> + Clone + use<'p, 'k> {
        let entries = batch_keys.entries.iter().map(|entry| self.key(entry.read));
        entries.chain(self.deps_of(batch_keys).map(|dep| dep.key()))
    }

    /// The dependencies in the order of their keys.
    pub(crate) fn deps_of<'p, 'k>(
        &'p self,
        batch_keys: &'k BatchKeys,
    ) -> impl Iterator<Item = &'p Arc<Dependency>> + Clone + use<'p, 'k> {
        let deps = batch_keys.deps.iter();
        deps.filter_map(|(list, at)| self.lists.get(*list)?.get(*at))
    }
}

/// The keys of a batch's command, and the reads that they belong to.
#[derive(Default)]
pub(crate) struct BatchKeys {
    pub(crate) entries: Vec<Entry>,
    /// For each dependency, a list that has it, and where.
    pub(crate) deps: Vec<(usize, usize)>,
    /// For each read, the indexes of its entry and of its list.
    pub(crate) reads: Vec<(usize, usize)>,
    /// For each list, the indexes of its dependencies.
    pub(crate) lists: Vec<Vec<usize>>,
}

pub(crate) struct Entry {
    /// The first of the reads that ask for it.
    pub(crate) read: usize,
    /// How many reads ask for it.
    pub(crate) readers: usize,
}

impl BatchKeys {
    /// How many keys the command asks for.
    pub(crate) fn len(&self) -> usize {
        self.entries.len() + self.deps.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::EntryKind;

    fn entry_ref(key: &str, deps: &Arc<[Arc<Dependency>]>) -> EntryRef {
        EntryRef {
            key: key.into(),
            kind: EntryKind::Entity,
            deps: Arc::clone(deps),
        }
    }

    fn deps(keys: &[&str]) -> Arc<[Arc<Dependency>]> {
        keys.iter()
            .map(|key| Dependency::new((*key).into()))
            .collect()
    }

    #[test]
    fn each_key_is_asked_for_once() {
        let (users, lists) = (
            deps(&["@gen:users"]),
            deps(&["@gen:users", "@gen:users~derived"]),
        );
        let mut plan = BatchPlan::default();
        for (key, deps) in [
            ("users:1", &users),
            ("users:list", &lists),
            ("users:1", &users),
        ] {
            plan.add(&entry_ref(key, deps));
        }
        let batch_keys = plan.batch_keys();
        let keys: Vec<_> = plan.keys_of(&batch_keys).collect();
        assert_eq!(
            keys,
            ["users:1", "users:list", "@gen:users", "@gen:users~derived"]
        );
        assert_eq!(batch_keys.reads, [(0, 0), (1, 1), (0, 0)]);
        assert_eq!(batch_keys.lists, [vec![0], vec![0, 1]]);
    }
}
