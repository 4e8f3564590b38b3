//! The keys of a batch, and where each read finds its values in the answer.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

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

struct Read {
    /// Where its key ends.
    end: usize,
    /// The index of its list of dependencies.
    list: usize,
}

impl BatchPlan {
    /// Takes everything out, and keeps the room for it.
    pub(super) fn clear(&mut self) {
        self.keys.clear();
        self.reads.clear();
        self.lists.clear();
        self.dependencies = 0;
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

    /// The keys of the command, each once. Written into those of an earlier batch, whose room is
    /// used again.
    pub(crate) fn batch_keys(&self, earlier: BatchKeys) -> BatchKeys {
        let mut batch_keys = earlier;
        batch_keys.clear();
        match &*self.reads {
            [read] => batch_keys.add_entry(0, read.list),
            _ => self.add_entries(&mut batch_keys),
        }
        match &*self.lists {
            [list] => {
                batch_keys.deps.extend((0..list.len()).map(|at| (0, at)));
                batch_keys.end_list(0..list.len());
            }
            _ => self.add_lists(&mut batch_keys),
        }
        batch_keys
    }

    fn add_entries(&self, batch_keys: &mut BatchKeys) {
        let mut entries = HashMap::with_capacity_and_hasher(self.len(), RandomState::default());
        for (at, read) in self.reads.iter().enumerate() {
            match entries.get(self.key(at)) {
                Some(entry) => batch_keys.add_reader(*entry, read.list),
                None => {
                    entries.insert(self.key(at), batch_keys.entries.len());
                    batch_keys.add_entry(at, read.list);
                }
            }
        }
    }

    fn add_lists(&self, batch_keys: &mut BatchKeys) {
        let mut known: HashMap<&str, usize, RandomState> = HashMap::default();
        for (number, list) in self.lists.iter().enumerate() {
            let deps = &mut batch_keys.deps;
            let places = list.iter().enumerate().map(|(at, dep)| {
                *known.entry(dep.key()).or_insert_with(|| {
                    deps.push((number, at));
                    deps.len() - 1
                })
            });
            let places: Vec<_> = places.collect();
            batch_keys.end_list(places);
        }
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
    /// The indexes of the dependencies of all lists, one list after the other.
    places: Vec<usize>,
    /// For each list, where its part of `places` ends.
    ends: Vec<usize>,
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

    /// The indexes of a list's dependencies.
    pub(crate) fn list(&self, at: usize) -> Option<&[usize]> {
        let start = at
            .checked_sub(1)
            .map_or(Some(0), |before| self.end(before))?;
        self.places.get(start..self.end(at)?)
    }

    /// The same of all lists.
    pub(crate) fn lists(&self) -> impl Iterator<Item = &[usize]> {
        (0..self.ends.len()).filter_map(|at| self.list(at))
    }

    fn end(&self, list: usize) -> Option<usize> {
        self.ends.get(list).copied()
    }

    fn end_list(&mut self, places: impl IntoIterator<Item = usize>) {
        self.places.extend(places);
        self.ends.push(self.places.len());
    }

    /// Adds the entry that a read with this list asks for first.
    fn add_entry(&mut self, read: usize, list: usize) {
        self.reads.push((self.entries.len(), list));
        self.entries.push(Entry { read, readers: 1 });
    }

    /// Adds a read with this list that asks for an entry as well.
    fn add_reader(&mut self, entry: usize, list: usize) {
        self.reads.push((entry, list));
        if let Some(entry) = self.entries.get_mut(entry) {
            entry.readers += 1;
        }
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.deps.clear();
        self.reads.clear();
        self.places.clear();
        self.ends.clear();
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
        let batch_keys = plan.batch_keys(BatchKeys::default());
        let keys: Vec<_> = plan.keys_of(&batch_keys).collect();
        assert_eq!(
            keys,
            ["users:1", "users:list", "@gen:users", "@gen:users~derived"]
        );
        assert_eq!(batch_keys.reads, [(0, 0), (1, 1), (0, 0)]);
        let readers: Vec<_> = batch_keys.entries.iter().map(|it| it.readers).collect();
        assert_eq!(readers, [2, 1]);
        assert_eq!(batch_keys.lists().collect::<Vec<_>>(), [&[0][..], &[0, 1]]);
    }

    #[test]
    fn nothing_of_an_earlier_batch_is_asked_for() {
        let (users, lists) = (
            deps(&["@gen:users"]),
            deps(&["@gen:users", "@gen:users~derived"]),
        );
        let mut plan = BatchPlan::default();
        let mut batch_keys = BatchKeys::default();
        let batches: [&[(&str, _)]; 4] = [
            &[
                ("users:1", &users),
                ("users:list", &lists),
                ("users:1", &users),
            ],
            &[("users:2", &users)],
            &[("users:list", &lists)],
            &[("users:3", &users), ("users:4", &users)],
        ];
        for batch in batches {
            plan.clear();
            let mut fresh = BatchPlan::default();
            for (key, deps) in batch {
                plan.add(&entry_ref(key, deps));
                fresh.add(&entry_ref(key, deps));
            }
            batch_keys = plan.batch_keys(batch_keys);
            let expected = fresh.batch_keys(BatchKeys::default());
            let keys: Vec<_> = plan.keys_of(&batch_keys).collect();
            assert!(fresh.keys_of(&expected).eq(keys));
            assert_eq!(batch_keys.reads, expected.reads);
            assert!(batch_keys.lists().eq(expected.lists()));
            assert_eq!((plan.len(), plan.keys()), (fresh.len(), fresh.keys()));
        }
    }
}
