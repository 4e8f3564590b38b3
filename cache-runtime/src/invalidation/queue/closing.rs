//! The end of the queue, and the invalidations that are lost then.

use std::sync::Arc;

use super::Queue;
use super::lost::LostInvalidations;
use crate::invalidation::batch::Batch;

impl Queue {
    /// Makes all delayed batches ready, because the queue is about to close.
    pub(in crate::invalidation) fn flush_delayed(&mut self) {
        for (_, batch) in std::mem::take(&mut self.delayed) {
            self.ready.merge(batch);
        }
    }

    /// Closes the queue if it is empty. Returns whether it is closed.
    pub(in crate::invalidation) fn close_if_done(&mut self) -> bool {
        let is_done = self.ready.is_empty() && self.in_flight.is_none() && self.delayed.is_empty();
        self.is_closed |= is_done;
        self.is_closed
    }

    /// Closes the queue and drops the acknowledgements, which tells their callers. Returns the lost
    /// invalidations.
    pub(in crate::invalidation) fn close(&mut self) -> LostInvalidations {
        self.is_closed = true;
        self.flush_delayed();
        let mut left = std::mem::take(&mut self.ready);
        self.direct.forget();
        if let Some(interrupted) = self.in_flight.take() {
            left.merge(interrupted);
        }
        self.lose(left)
    }

    pub(super) fn lose(&mut self, batch: Batch) -> LostInvalidations {
        let count = batch.len();
        self.lost += count;
        if batch.everything.is_some() {
            return LostInvalidations {
                names: vec!["the whole namespace".into()],
                count,
            };
        }
        let (deps, mut keys) = batch.names();
        if deps.is_empty() {
            keys.sort_unstable();
            keys.dedup();
            return LostInvalidations { names: keys, count };
        }
        let mut names = Vec::new();
        for dep in deps {
            if self.reported.insert(Arc::clone(&dep)) {
                names.push(dep.key().to_owned());
            }
        }
        LostInvalidations { names, count }
    }
}
