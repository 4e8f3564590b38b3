//! An invalidation that the task of its caller sends.
//!
//! The way to the worker's thread and back takes about as long as the command itself. So a caller
//! that waits for the acknowledgement sends its request itself, if nothing waits before it. The
//! request is in the queue all the same, as the batch in flight. If the caller is dropped, or the
//! store does not take the batch, the worker goes on with it; sending twice is harmless. So does
//! the worker if somebody else has to wait behind the batch for [`TAKEOVER`]: perhaps nobody polls
//! its task.

use std::fmt;
use std::sync::Arc;

use super::queue::OutgoingBatch;
use super::reconnect::{is_away, is_lost, number_of};
use super::report;
use super::shared::tell_pending;
use super::worker::Worker;
use crate::base::clock::{self, Millis};
use crate::base::error::Error;
use crate::base::mutation;
use crate::base::span::in_span;
use crate::store::{Invalidation, PartlyInvalidated};

#[cfg(doc)]
use super::queue::TAKEOVER;

/// A batch that the task of its caller sends. If it is dropped before its end, the worker sends it.
pub(super) struct DirectDelivery {
    worker: Arc<Worker>,
    /// Identifies it in the queue.
    number: u64,
    outgoing: OutgoingBatch,
    is_over: bool,
}

impl fmt::Debug for DirectDelivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectDelivery")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl DirectDelivery {
    pub(super) fn new(worker: Arc<Worker>, number: u64, outgoing: OutgoingBatch) -> Self {
        Self {
            worker,
            number,
            outgoing,
            is_over: false,
        }
    }

    /// Sends the batch. After that its callers are told, or the worker tries again.
    pub(super) async fn deliver(mut self) {
        let worker = &self.worker;
        let connections = number_of(worker.connection.as_ref());
        let began = clock::now();
        let span = report::delivery_span(&worker.shared.telemetry, &self.outgoing);
        let mut undone = Invalidation::default();
        let sent = async {
            let invalidation = &self.outgoing.invalidation;
            let sent = worker.store.invalidate_partly(invalidation).await;
            let PartlyInvalidated { done, undone: left } = sent;
            match left {
                None => Ok(done.at),
                Some((left, error)) => {
                    undone = left;
                    Err(error)
                }
            }
        };
        let sent = in_span(span, sent).await;
        match sent {
            Ok(at) => {
                if worker.shared.queue.lock().is_direct(self.number) {
                    // First, so that whoever is told finds it in the log and among the events.
                    let telemetry = &worker.shared.telemetry;
                    report::delivered(telemetry, &self.outgoing.invalidation, began.elapsed());
                }
                worker.direct_done(self.number, at);
            }
            Err(error) => {
                let sent = &self.outgoing.invalidation;
                worker.direct_failed(self.number, error, (sent, &undone), connections);
            }
        }
        self.is_over = true;
    }
}

impl Drop for DirectDelivery {
    fn drop(&mut self) {
        if !self.is_over && !mutation::is_active("direct-lost-with-its-caller") {
            self.worker.take_over(self.number);
        }
    }
}

impl Worker {
    /// The store has taken the batch of a caller's task.
    fn direct_done(&self, number: u64, at: Millis) {
        let Some(done) = self.shared.change(|queue| queue.acknowledge_direct(number)) else {
            return;
        };
        let sweeps = done.batch.sweeps.into_iter();
        self.sweeper
            .request(sweeps.map(|(name, derived)| (Some(name), derived)), at);
        if done.wakes {
            self.shared.wake.notify_one();
        }
    }

    /// The store has not taken it, or not all of it. From here on it is as if the worker had sent
    /// it.
    fn direct_failed(
        &self,
        number: u64,
        error: Error,
        (sent, undone): (&Invalidation, &Invalidation),
        connections: u64,
    ) {
        let is_sent_again = is_away(&error)
            && (self.store.is_split()
                || is_lost(&*self.store, self.connection.as_ref(), connections));
        if is_sent_again {
            return self.take_over(number);
        }
        let waiters = self.shared.change(|queue| {
            let waiters = queue.take_back_direct(number, is_away(&error))?;
            if !is_away(&error) {
                queue.refuse(sent, undone, &error);
            }
            Some(waiters)
        });
        if let Some(waiters) = waiters {
            *self.shared.failure.lock() = Some(error);
            tell_pending(waiters);
        }
        self.shared.wake.notify_one();
    }

    /// The worker sends the batch, if it has not begun to.
    fn take_over(&self, number: u64) {
        if self.shared.change(|queue| queue.hand_back(number)) {
            self.shared.wake.notify_one();
        }
    }
}
