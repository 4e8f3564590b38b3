//! The state that the queue, its worker and waiting callers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::acknowledgement::Acknowledgement;
use super::batch::Waiters;
use super::queue::Queue;
use crate::base::clock::{self, Instant};
use crate::base::error::Error;
use crate::base::paused::PauseGuard;
use crate::store::ConnectionWatch;
use crate::telemetry::Telemetry;

/// The queue, and the signals between its users and its worker.
#[derive(Debug)]
pub(super) struct SharedQueue {
    pub(super) queue: Mutex<Queue>,
    pub(super) wake: Notify,
    /// Why the store has not taken what a caller's task has sent; for the worker, which tries
    /// again.
    pub(super) failure: Mutex<Option<Error>>,
    /// A copy of [`Queue::is_degraded`], so that reads need no lock.
    pub(super) is_degraded: AtomicBool,
    /// How many writes and fills are running. A running write may still enqueue an invalidation.
    pub(super) running: watch::Sender<usize>,
    /// Whether the worker runs on the cache's own thread, where the caller's paused time does not
    /// apply.
    pub(super) is_elsewhere: bool,
    pub(super) telemetry: Arc<Telemetry>,
}

impl SharedQueue {
    /// Changes the queue, and updates the flag for those that read it without the lock.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Queue) -> T) -> T {
        let mut queue = self.queue.lock();
        let changed = change(&mut queue);
        self.is_degraded
            .store(queue.is_degraded(), Ordering::Release);
        changed
    }

    /// Holds paused time for a caller that waits for the cache's own thread.
    pub(super) fn hold(&self, limit: Duration) -> Option<PauseGuard> {
        self.is_elsewhere.then(|| PauseGuard::for_at_most(limit))
    }

    /// Puts the batch in flight back and tells its callers `Pending`. `is_away`: the store has not
    /// answered.
    pub(super) fn take_back(&self, is_away: bool) {
        let waiters = self.change(|queue| queue.take_back(is_away));
        tell_pending(waiters);
    }

    /// Puts the batch in flight back, and returns until when its callers wait for a connection. If
    /// they don't, it is still in flight. Those who have come meanwhile are sent next.
    pub(super) fn put_back(&self, connection: Option<&ConnectionWatch>) -> Option<Instant> {
        let status = connection.map(ConnectionWatch::status);
        self.change(|queue| queue.put_back(clock::now(), status))
    }

    /// Keeps everything ready in the queue, since there is no connection.
    pub(super) fn requeue(&self, connection: Option<&ConnectionWatch>) -> Requeue {
        let status = connection.map(ConnectionWatch::status);
        let Some(requeued) = self.change(|queue| queue.requeue(clock::now(), status)) else {
            return Requeue::NothingReady;
        };
        tell_pending(requeued.pending);
        match requeued.until {
            Some(until) => Requeue::WaitUntil(until),
            None => Requeue::ToldPending,
        }
    }
}

/// How the callers of ready invalidations that can't be sent go on.
#[derive(Debug, Clone, Copy)]
pub(super) enum Requeue {
    NothingReady,
    /// They wait for a connection until then.
    WaitUntil(Instant),
    ToldPending,
}

/// Must be called after the change: a caller that gets `Pending` may read at once, and that read
/// checks the flag without the lock.
pub(super) fn tell_pending(waiters: Waiters) {
    for waiter in waiters {
        // The receiver may be gone.
        waiter.tell(Acknowledgement::Pending);
    }
}
