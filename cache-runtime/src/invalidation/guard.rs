//! An invalidation that its caller sends to the store, because the caller needs the store's answer.
//! For example, `delete` returns whether there was an entry.

use std::time::Duration;

use super::{Acknowledgement, InvalidationQueue, InvalidationRequest, PendingAck, Running};

/// Enqueues the invalidation when dropped while it is armed: the caller has hung up, and the
/// store may not have received the invalidation.
#[derive(Debug)]
#[must_use]
pub(crate) struct InvalidationGuard<'d> {
    invalidations: &'d InvalidationQueue,
    armed: Option<InvalidationRequest>,
    /// Makes a shutdown wait for it, as for a write.
    _running: Running,
}

impl InvalidationQueue {
    /// Guards an invalidation: it will take place even if its caller is dropped.
    pub(crate) fn guard(&self, request: InvalidationRequest) -> InvalidationGuard<'_> {
        InvalidationGuard {
            invalidations: self,
            armed: Some(request),
            _running: self.begin(),
        }
    }
}

impl InvalidationGuard<'_> {
    /// Disarms the guard, because the store has acknowledged the invalidation.
    pub(crate) fn disarm(mut self) {
        self.armed = None;
    }

    /// Enqueues the invalidation now and waits for its acknowledgement.
    pub(crate) async fn acknowledged(mut self, limit: Duration) -> Acknowledgement {
        match self.enter() {
            Some(pending_ack) => pending_ack.acknowledged(limit).await,
            None => Acknowledgement::Delivered,
        }
    }

    fn enter(&mut self) -> Option<PendingAck> {
        Some(self.invalidations.enqueue(self.armed.take()?))
    }
}

impl Drop for InvalidationGuard<'_> {
    fn drop(&mut self) {
        if crate::base::mutation::is_active("removal-by-hand-lost-with-its-caller") {
            return;
        }
        // No caller waits for this acknowledgement.
        drop(self.enter());
    }
}
