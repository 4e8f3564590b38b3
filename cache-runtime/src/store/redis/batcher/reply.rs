//! Distributes the answer to a batch to its reads.

use super::super::link::Link;
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
    sightings: Vec<Option<StoredValue>>,
    /// By list. `None` if a generation is missing; a read that is repeated alone creates it.
    standings: Vec<Option<GenerationSet>>,
    link: &'r Link,
    now: Millis,
}

impl BatchReply<'_> {
    /// What the batch has returned.
    pub(super) fn outcome(&self) -> BatchOutcome {
        BatchOutcome::Brought {
            entries: self.sightings.len(),
            bytes: self.sightings.iter().flatten().map(StoredValue::len).sum(),
        }
    }

    /// The result of the next read; `None` if it has to be repeated alone. Has to be called in the
    /// order in which the reads were added, once for each. Values are moved, and copied only if
    /// several reads asked for the same key.
    pub(super) fn look(&mut self, read: usize) -> Option<Look> {
        let (entry, list) = *self.batch_keys.reads.get(read)?;
        let Entry { key, readers } = self.batch_keys.entries.get_mut(entry)?;
        *readers = readers.saturating_sub(1);
        let sighting = self.sightings.get_mut(entry)?;
        let sighting = match *readers {
            0 => sighting.take(),
            _ => sighting.clone(),
        };
        let standing = self.standings.get(list)?.as_ref()?;
        sighting?.look(
            key,
            standing,
            |key, stamp| self.link.is_off_by_others(key, stamp),
            self.now,
        )
    }
}

impl<'r> BatchKeys<'r> {
    pub(super) fn complete(
        self,
        link: &'r Link,
        mut values: Vec<Value>,
    ) -> Result<BatchReply<'r>, Error> {
        if values.len() != self.entries.len() + self.deps.len() {
            return Err(link.answers_amiss(miscounted()));
        }
        let generations = values.split_off(self.entries.len());
        let generations: Vec<_> = generations.iter().map(generation).collect();
        let standing = |places: &Vec<usize>| {
            let own = places
                .iter()
                .map(|at| generations.get(*at).copied().flatten());
            let own: Option<Vec<_>> = own.collect();
            own.map(|own| GenerationSet::of(link.identity(), own))
        };
        Ok(BatchReply {
            standings: self.lists.iter().map(standing).collect(),
            sightings: values.into_iter().map(StoredValue::of).map(Some).collect(),
            link,
            now: link.clock.now(),
            batch_keys: self,
        })
    }
}
