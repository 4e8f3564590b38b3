//! Distributes the answer to a batch to its reads.

use std::time::Duration;

use super::super::Value;
use super::super::stored::{GenerationSet, StoredValue, generation};
use super::BatchOutcome;
use super::plan::{BatchKeys, Entry};
use crate::base::clock::Millis;
use crate::base::error::Error;
use crate::base::mutation;
use crate::store::LookupReply;
use crate::store::redis::connection::Connection;

/// The command's answer.
pub(super) struct BatchReply<'r> {
    batch_keys: BatchKeys<'r>,
    stored_values: Vec<Option<StoredValue>>,
    /// By list. `None` if a generation is missing; a read that is repeated alone creates it.
    generation_sets: Vec<Option<GenerationSet>>,
    connection: &'r Connection,
    now: Millis,
    /// The key of an entry that is of another key.
    misplaced: Option<&'r str>,
}

impl BatchReply<'_> {
    /// What the batch has returned, and the result of each read; `None` for a read that has to be
    /// repeated alone.
    ///
    /// # Errors
    /// If the answer belongs to another command.
    pub(super) async fn lookups(
        mut self,
        budget: Duration,
    ) -> Result<(BatchOutcome, Vec<Option<Box<LookupReply>>>), Error> {
        let outcome = self.outcome();
        let reads = 0..self.batch_keys.reads.len();
        let mut lookups: Vec<_> = reads.clone().map(|read| self.lookup(read)).collect();
        if mutation::is_active("joined-a-read-that-has-left") {
            lookups.extend(reads.map(|read| self.lookup(read)));
        }
        if let Some(key) = self.misplaced {
            // It may be the runtime's own connection that returns the answers of others.
            if self.connection.runtimes.give_up_own() {
                lookups.fill_with(|| None);
                return Ok((outcome, lookups));
            }
            self.connection.check_sync(key, budget).await?;
        }
        Ok((outcome, lookups))
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
        let Entry { key, readers } = self.batch_keys.entries.get_mut(entry)?;
        *readers = readers.saturating_sub(1);
        let stored = self.stored_values.get_mut(entry)?;
        let stored = match *readers {
            0 if !mutation::is_active("joined-a-read-that-has-left") => stored.take(),
            _ => stored.clone(),
        };
        let generation_set = self.generation_sets.get(list)?.as_ref()?;
        let lookup = Box::new(stored?.lookup(key, generation_set, self.now));
        if generation_set.is_misplaced(&lookup) {
            self.misplaced = Some(*key);
        }
        Some(lookup)
    }
}

impl<'r> BatchKeys<'r> {
    /// How many keys the command asks for.
    pub(super) fn len(&self) -> usize {
        self.entries.len() + self.deps.len()
    }

    pub(super) fn complete(
        self,
        connection: &'r Connection,
        mut values: Vec<Value>,
    ) -> Result<BatchReply<'r>, Error> {
        values = connection.counted(values, self.len())?;
        connection.check_confirmed()?;
        let generations = values.split_off(self.entries.len());
        let generations: Vec<_> = generations.iter().map(generation).collect();
        let generation_set = |places: &Vec<usize>| {
            let own = places
                .iter()
                .map(|at| generations.get(*at).copied().flatten());
            let own: Option<Vec<_>> = own.collect();
            own.map(|own| GenerationSet::of(connection.identity(), own))
        };
        Ok(BatchReply {
            generation_sets: self.lists.iter().map(generation_set).collect(),
            stored_values: values.into_iter().map(StoredValue::of).map(Some).collect(),
            connection,
            now: connection.clock.now(),
            misplaced: None,
            batch_keys: self,
        })
    }
}
