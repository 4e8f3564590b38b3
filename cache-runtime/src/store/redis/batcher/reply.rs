//! Distributes the answer to a batch to its reads.

use super::super::connection::Connection;
use super::super::reads::Value;
use super::super::reply::miscounted;
use super::super::stored::{GenerationSet, StoredValue, generation};
use super::BatchOutcome;
use super::plan::{BatchKeys, Entry};
use crate::base::clock::Millis;
use crate::base::error::Error;
use crate::store::Look;

/// The command's answer.
pub(super) struct BatchReply<'r> {
    batch_keys: BatchKeys<'r>,
    stored_values: Vec<Option<StoredValue>>,
    /// By list. `None` if a generation is missing; a read that is repeated alone creates it.
    generation_sets: Vec<Option<GenerationSet>>,
    connection: &'r Connection,
    now: Millis,
}

impl BatchReply<'_> {
    /// What the batch has returned.
    pub(super) fn outcome(&self) -> BatchOutcome {
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

    /// The result of the next read; `None` if it has to be repeated alone. Has to be called in the
    /// order in which the reads were added, once for each. Values are moved, and copied only if
    /// several reads asked for the same key.
    pub(super) fn look(&mut self, read: usize) -> Option<Look> {
        let (entry, list) = *self.batch_keys.reads.get(read)?;
        let Entry { key, readers } = self.batch_keys.entries.get_mut(entry)?;
        *readers = readers.saturating_sub(1);
        let stored = self.stored_values.get_mut(entry)?;
        let stored = match *readers {
            0 => stored.take(),
            _ => stored.clone(),
        };
        let generation_set = self.generation_sets.get(list)?.as_ref()?;
        stored?.look(
            key,
            generation_set,
            |key, stamp| self.connection.is_off_by_others(key, stamp),
            self.now,
        )
    }
}

impl<'r> BatchKeys<'r> {
    pub(super) fn complete(
        self,
        connection: &'r Connection,
        mut values: Vec<Value>,
    ) -> Result<BatchReply<'r>, Error> {
        if values.len() != self.entries.len() + self.deps.len() {
            return Err(connection.answers_amiss(miscounted()));
        }
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
            batch_keys: self,
        })
    }
}
