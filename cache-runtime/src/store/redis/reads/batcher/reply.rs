//! Distributes the answer to a batch to its reads.

use super::super::stored::{GenerationSet, StoredValue, Values};
use super::BatchOutcome;
use super::plan::{BatchKeys, BatchPlan, Entry};
use crate::base::clock::Millis;
use crate::base::error::Error;
use crate::base::mutation;
use crate::store::LookupReply;
use crate::store::redis::connection::Connection;

/// The command's answer.
pub(crate) struct BatchReply<'r, V> {
    plan: &'r BatchPlan,
    batch_keys: BatchKeys,
    values: V,
    /// The values that several reads ask for, by entry.
    shared: Vec<Option<StoredValue>>,
    /// By list. `None` if a generation is missing; a read that is repeated alone creates it.
    generation_sets: Vec<Option<GenerationSet>>,
    now: Millis,
    /// The key of an entry that is of another key.
    misplaced: Option<&'r str>,
}

/// The results of a batch.
pub(crate) struct BatchLookups<'r> {
    /// How many entries the answer has, and of how many bytes.
    pub(crate) outcome: BatchOutcome,
    /// The result of each read; `None` for a read that has to be repeated alone.
    pub(crate) lookups: Vec<Option<Box<LookupReply>>>,
    /// The key of an entry that is of another key: the answer may belong to another command.
    pub(crate) misplaced: Option<&'r str>,
    /// For a later batch.
    pub(crate) batch_keys: BatchKeys,
}

impl<'r, V: Values> BatchReply<'r, V> {
    /// From the answer to a plan's command: as many values as it has keys.
    ///
    /// # Errors
    /// If the answer can't be used.
    pub(crate) fn of(
        connection: &Connection,
        plan: &'r BatchPlan,
        batch_keys: BatchKeys,
        values: V,
    ) -> Result<Self, Error> {
        connection.check_confirmed()?;
        let first = batch_keys.entries.len();
        let generation_set = |places: &[usize]| {
            let own = places.iter().map(|at| values.get(first + at));
            GenerationSet::of_all(connection.identity(), own)
        };
        Ok(Self {
            plan,
            generation_sets: batch_keys.lists().map(generation_set).collect(),
            shared: Vec::new(),
            values,
            now: connection.clock.now(),
            misplaced: None,
            batch_keys,
        })
    }

    /// The result of each read.
    pub(crate) fn lookups(mut self) -> BatchLookups<'r> {
        let outcome = self.outcome();
        let reads = 0..self.batch_keys.reads.len();
        let mut lookups: Vec<_> = reads.clone().map(|read| self.lookup(read)).collect();
        if mutation::is_active("joined-a-read-that-has-left") {
            lookups.extend(reads.map(|read| self.lookup(read)));
        }
        BatchLookups {
            outcome,
            lookups,
            misplaced: self.misplaced,
            batch_keys: self.batch_keys,
        }
    }

    /// How many entries the answer has, and of how many bytes.
    fn outcome(&self) -> BatchOutcome {
        let entries = self.batch_keys.entries.len();
        let lens = (0..entries).map(|at| self.values.get(at).map_or(0, <[u8]>::len));
        BatchOutcome::Brought {
            entries,
            bytes: lens.sum(),
        }
    }

    /// The result of the next read. Has to be called in the order in which the reads were added,
    /// once for each.
    fn lookup(&mut self, read: usize) -> Option<Box<LookupReply>> {
        let (at, list) = *self.batch_keys.reads.get(read)?;
        let Entry { readers, .. } = self.batch_keys.entries.get(at)?;
        // A value is moved, and copied only if several reads asked for the same key.
        let stored = if *readers == 1 && !mutation::is_active("joined-a-read-that-has-left") {
            self.values.take(at)
        } else {
            if self.shared.is_empty() {
                self.shared.resize(self.batch_keys.entries.len(), None);
            }
            let shared = self.shared.get_mut(at)?;
            shared.get_or_insert_with(|| self.values.take(at)).clone()
        };
        let generation_set = self.generation_sets.get(list)?.as_ref()?;
        let key = self.plan.key(read);
        let lookup = Box::new(stored.lookup(key, generation_set, self.now));
        if generation_set.is_misplaced(&lookup) {
            self.misplaced = Some(key);
        }
        Some(lookup)
    }
}
