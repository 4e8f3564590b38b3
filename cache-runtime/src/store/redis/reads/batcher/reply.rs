//! Distributes the answer to a batch to its reads.

use super::super::stored::{GenerationSet, StoredValue, Value, generation};
use super::BatchOutcome;
use super::plan::{BatchKeys, BatchPlan, Entry};
use crate::base::clock::Millis;
use crate::base::error::Error;
use crate::base::mutation;
use crate::store::LookupReply;
use crate::store::redis::connection::Connection;

/// The command's answer.
pub(crate) struct BatchReply<'r> {
    plan: &'r BatchPlan,
    batch_keys: BatchKeys,
    stored_values: Vec<Option<StoredValue>>,
    /// By list. `None` if a generation is missing; a read that is repeated alone creates it.
    generation_sets: Vec<Option<GenerationSet>>,
    now: Millis,
    /// The key of an entry that is of another key.
    misplaced: Option<&'r str>,
}

/// The results of a batch.
pub(crate) struct BatchLookups<'r> {
    /// What the batch has returned.
    pub(crate) outcome: BatchOutcome,
    /// The result of each read; `None` for a read that has to be repeated alone.
    pub(crate) lookups: Vec<Option<Box<LookupReply>>>,
    /// The key of an entry that is of another key: the answer may belong to another command.
    pub(crate) misplaced: Option<&'r str>,
}

impl<'r> BatchReply<'r> {
    /// From the answer to a plan's command.
    ///
    /// # Errors
    /// If the answer can't be used.
    pub(crate) fn of(
        connection: &Connection,
        plan: &'r BatchPlan,
        batch_keys: BatchKeys,
        values: Vec<Value>,
    ) -> Result<Self, Error> {
        let mut values = connection.counted(values, batch_keys.len())?;
        connection.check_confirmed()?;
        let generations = values.split_off(batch_keys.entries.len());
        let generations: Vec<_> = generations.iter().map(generation).collect();
        let generation_set = |places: &Vec<usize>| {
            let own = places
                .iter()
                .map(|at| generations.get(*at).copied().flatten());
            let own: Option<Vec<_>> = own.collect();
            own.map(|own| GenerationSet::of(connection.identity(), own))
        };
        Ok(Self {
            plan,
            generation_sets: batch_keys.lists.iter().map(generation_set).collect(),
            stored_values: values.into_iter().map(StoredValue::of).map(Some).collect(),
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
        }
    }

    /// What the batch has returned.
    fn outcome(&self) -> BatchOutcome {
        BatchOutcome::Brought {
            entries: self.stored_values.len(),
            bytes: self
                .stored_values
                .iter()
                .flatten()
                .map(StoredValue::len)
                .sum(),
        }
    }

    /// The result of the next read. Has to be called in the order in which the reads were added,
    /// once for each. Values are moved, and copied only if several reads asked for the same key.
    fn lookup(&mut self, read: usize) -> Option<Box<LookupReply>> {
        let (entry, list) = *self.batch_keys.reads.get(read)?;
        let Entry { readers, .. } = self.batch_keys.entries.get_mut(entry)?;
        *readers = readers.saturating_sub(1);
        let stored = self.stored_values.get_mut(entry)?;
        let stored = match *readers {
            0 if !mutation::is_active("joined-a-read-that-has-left") => stored.take(),
            _ => stored.clone(),
        };
        let generation_set = self.generation_sets.get(list)?.as_ref()?;
        let key = self.plan.key(read);
        let lookup = Box::new(stored?.lookup(key, generation_set, self.now));
        if generation_set.is_misplaced(&lookup) {
            self.misplaced = Some(key);
        }
        Some(lookup)
    }
}
