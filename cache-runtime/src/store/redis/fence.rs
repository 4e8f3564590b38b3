//! Slots whose former owner may still answer.
//!
//! When a slot has another owner, the former one goes on answering reads until it has heard of that: milliseconds, or longer for
//! one that was stopped and resumes. A process that has not heard either is served what was invalidated at the new owner. So an
//! invalidation is sent at once and acknowledged only when the former owner takes itself for the owner no more, or refuses
//! connections, or some time has passed by when every process has asked again who owns what.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::slots::SlotSet;

/// The fences that stand.
#[derive(Debug, Default)]
pub(super) struct Fences {
    count: AtomicUsize,
    standing: Mutex<Vec<Arc<SlotSet>>>,
    ended: Notify,
}

/// Stands until it is dropped.
pub(super) struct Fence {
    fences: Arc<Fences>,
    slots: Arc<SlotSet>,
}

impl Fence {
    pub(super) fn slots(&self) -> &SlotSet {
        &self.slots
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        let mut standing = self.fences.standing.lock();
        if let Some(at) = standing.iter().position(|it| Arc::ptr_eq(it, &self.slots)) {
            standing.swap_remove(at);
        }
        self.fences.count.store(standing.len(), Ordering::Release);
        drop(standing);
        self.fences.ended.notify_waiters();
    }
}

impl Fences {
    /// Nothing is acknowledged in these slots until what is returned is dropped.
    pub(super) fn put_up(self: &Arc<Self>, slots: SlotSet) -> Fence {
        let slots = Arc::new(slots);
        let mut standing = self.standing.lock();
        standing.push(Arc::clone(&slots));
        self.count.store(standing.len(), Ordering::Release);
        Fence {
            fences: Arc::clone(self),
            slots,
        }
    }

    /// Returns when none stands in one of these slots.
    pub(super) async fn passed(&self, slots: &[u16]) {
        if crate::base::mutation::is_active("fence-not-waited") {
            return;
        }
        while self.count.load(Ordering::Acquire) > 0 {
            // Made first, so that an end between the look and the wait is not lost.
            let ended = self.ended.notified();
            let stands = self
                .standing
                .lock()
                .iter()
                .any(|fence| slots.iter().any(|slot| fence.has(*slot)));
            if !stands {
                return;
            }
            ended.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_fence_holds_its_own_slots_until_it_is_dropped() {
        let fences = Arc::new(Fences::default());
        let mut slots = SlotSet::default();
        slots.add(7);
        let fence = fences.put_up(slots);
        assert!(fences.passed(&[8]).now_or_never().is_some());
        assert!(fences.passed(&[8, 7]).now_or_never().is_none());
        let other = fences.put_up(SlotSet::default());
        drop(fence);
        assert!(fences.passed(&[8, 7]).now_or_never().is_some());
        drop(other);
        assert!(fences.standing.lock().is_empty());
    }
}
