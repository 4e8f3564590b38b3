//! What the queue, its worker and those who wait share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::acknowledgement::Acknowledgement;
use super::batch::Receipts;
use super::queue::Queue;
use crate::base::clock::{self, Instant};
use crate::base::paused::Held;
use crate::store::ConnectionWatch;

/// The queue, and how its users and its worker hear of each other.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) queue: Mutex<Queue>,
    pub(super) wake: Notify,
    /// [`Queue::is_degraded`], to spare reads the lock.
    pub(super) is_degraded: AtomicBool,
    /// How many writes are running, each of which may still hand an invalidation in, and how many values are being stored.
    pub(super) running: watch::Sender<usize>,
    /// Whether it is delivered on a thread of the cache's own, whatever time it is for the caller.
    pub(super) is_elsewhere: bool,
}

impl Shared {
    /// Changes the queue, and says so to those who look at it without the lock.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Queue) -> T) -> T {
        let mut queue = self.queue.lock();
        let changed = change(&mut queue);
        self.is_degraded
            .store(queue.is_degraded(), Ordering::Release);
        changed
    }

    /// For one who waits for what is done on that thread.
    pub(super) fn hold(&self, limit: Duration) -> Option<Held> {
        self.is_elsewhere.then(|| Held::for_at_most(limit))
    }

    /// What was on its way waits again.
    pub(super) fn take_back(&self) {
        let receipts = self.change(Queue::take_back);
        tell_pending(receipts);
    }

    /// What is ready goes on waiting, and `None` says that nothing is. Until when the receipts are kept.
    pub(super) fn requeue(&self, connection: Option<&ConnectionWatch>) -> Option<Option<Instant>> {
        let status = connection.map(ConnectionWatch::status);
        let requeue = self.change(|queue| queue.requeue(clock::now(), status))?;
        tell_pending(requeue.pending);
        Some(requeue.until)
    }
}

/// To be called after the change: whoever hears `Pending` may read at once, and looks without the lock.
pub(super) fn tell_pending(receipts: Receipts) {
    for waiter in receipts {
        waiter.tell(Acknowledgement::Pending);
    }
}
