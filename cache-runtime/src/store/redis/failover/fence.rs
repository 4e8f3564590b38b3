//! Delays acknowledgements while a slot's former owner may still answer.
//!
//! When a slot gets another owner, the former one goes on answering reads until it learns of the
//! change: for milliseconds, or longer if it was stopped and resumes. A process that has not learnt
//! of it either would be served entries that were invalidated at the new owner. So an invalidation
//! is sent at once, and acknowledged later: when the former owner no longer claims the slot,
//! refuses connections, or has been replaced for so long that no process uses it any more (see
//! `confirmation`). Until then nothing is read from the new owner either, because it does not get
//! the invalidations that other processes send to the former one.
//!
//! Most fences last for milliseconds, and the invalidation waits for them. If one lasts longer, the
//! part of the invalidation in its slots is returned as undone, so that it delays no other part.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::super::slots::SlotSet;
use crate::base::clock;
use crate::base::mutation;
use crate::base::paused::PauseGuard;

/// How long an invalidation of several slots waits for a fence: less than its callers wait, and
/// longer than a former owner needs to learn of the change by itself (measured: at most 65 ms).
const ACK_LIMIT: Duration = Duration::from_millis(70);

/// The active fences.
#[derive(Debug, Default)]
pub(crate) struct Fences {
    count: AtomicUsize,
    active: Mutex<Vec<ActiveFence>>,
    ended: Notify,
}

#[derive(Debug)]
struct ActiveFence {
    slots: Arc<SlotSet>,
    /// By the system's clock: a fence is put up on the cache's own thread, and the caller's time may be
    /// paused.
    since: Instant,
}

/// One fence. It is active until it is dropped.
pub(crate) struct Fence {
    fences: Arc<Fences>,
    slots: Arc<SlotSet>,
}

impl Fence {
    pub(crate) fn slots(&self) -> &SlotSet {
        &self.slots
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        let mut active = self.fences.active.lock();
        if let Some(at) = active
            .iter()
            .position(|it| Arc::ptr_eq(&it.slots, &self.slots))
        {
            active.swap_remove(at);
        }
        self.fences.count.store(active.len(), Ordering::Release);
        drop(active);
        self.fences.ended.notify_waiters();
    }
}

impl Fences {
    /// Adds a fence: no invalidation in these slots is acknowledged until it is dropped.
    pub(crate) fn put_up(self: &Arc<Self>, slots: SlotSet) -> Fence {
        let slots = Arc::new(slots);
        let mut active = self.active.lock();
        active.push(ActiveFence {
            slots: Arc::clone(&slots),
            since: clock::system(),
        });
        self.count.store(active.len(), Ordering::Release);
        Fence {
            fences: Arc::clone(self),
            slots,
        }
    }

    /// Whether a slot has a fence.
    pub(crate) fn has(&self, slot: u16) -> bool {
        self.count.load(Ordering::Acquire) > 0
            && self.active.lock().iter().any(|it| it.slots.has(slot))
    }

    /// Returns when there is no fence.
    pub(crate) async fn none(&self) {
        loop {
            let ended = self.ended.notified();
            if self.are_none() {
                return;
            }
            ended.await;
        }
    }

    /// Whether there is no fence.
    pub(crate) fn are_none(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Those of these slots that have a fence older than [`ACK_LIMIT`]. Waits for younger ones.
    pub(crate) async fn active(&self, slots: &[u16]) -> Vec<u16> {
        while self.count.load(Ordering::Acquire) > 0 {
            let ended = self.ended.notified();
            let (fenced, youngest) = self.fenced(slots);
            let until = match mutation::is_active("fence-holds-up-all") {
                true => None,
                false => youngest.map(|since| since + ACK_LIMIT),
            };
            let now = match mutation::is_active("fences-timed-by-paused-time") {
                true => clock::now().into_std(),
                false => clock::system(),
            };
            if fenced.is_empty() || until.is_some_and(|until| until <= now) {
                return fenced;
            }
            let rest = until.map(|until| until.saturating_duration_since(now));
            // The fence ends on the cache's own thread.
            let _held = (!mutation::is_active("paused-time-moves-on-at-fences"))
                .then(|| PauseGuard::for_at_most(rest.unwrap_or(ACK_LIMIT)));
            tokio::select! {
                () = ended => {}
                () = clock::sleep_until(rest.map(|rest| clock::now() + rest)) => {}
            }
        }
        Vec::new()
    }

    /// Those of these slots that have a fence, and when the youngest of these fences began.
    fn fenced(&self, slots: &[u16]) -> (Vec<u16>, Option<Instant>) {
        if mutation::is_active("fence-not-waited") {
            return (Vec::new(), None);
        }
        let active = self.active.lock();
        let has_any = |fence: &&ActiveFence| slots.iter().any(|slot| fence.slots.has(*slot));
        let fences: Vec<_> = active.iter().filter(has_any).collect();
        let stands = |slot: &&u16| fences.iter().any(|fence| fence.slots.has(**slot));
        let fenced = slots.iter().filter(stands).copied().collect();
        (fenced, fences.iter().map(|fence| fence.since).max())
    }

    /// Returns when none of these slots has an active fence.
    pub(crate) async fn passed(&self, slots: &[u16]) {
        while self.count.load(Ordering::Acquire) > 0 {
            // Created first, so that a fence that ends between the check and the wait is noticed.
            let ended = self.ended.notified();
            if self.fenced(slots).0.is_empty() {
                return;
            }
            ended.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_fence_holds_its_own_slots_until_it_is_dropped() {
        let fences = Arc::new(Fences::default());
        let mut slots = SlotSet::default();
        slots.add(7);
        let fence = fences.put_up(slots);
        assert!(fences.has(7) && !fences.has(8));
        assert!(fences.none().now_or_never().is_none());
        assert!(fences.passed(&[8]).now_or_never().is_some());
        assert!(fences.passed(&[8, 7]).now_or_never().is_none());
        let other = fences.put_up(SlotSet::default());
        drop(fence);
        assert!(fences.passed(&[8, 7]).now_or_never().is_some());
        drop(other);
        assert!(fences.active.lock().is_empty() && !fences.has(7));
        assert!(fences.none().now_or_never().is_some());
    }

    /// The cache's own thread puts it up, and does not know the time of a test.
    #[tokio::test(start_paused = true)]
    async fn a_fence_is_waited_for_at_any_time_of_a_test() {
        tokio::time::advance(Duration::from_secs(3_600)).await;
        loop {
            let before = Instant::now();
            let fences = Arc::new(Fences::default());
            let put_up = {
                let fences = Arc::clone(&fences);
                thread::spawn(move || {
                    let mut slots = SlotSet::default();
                    slots.add(7);
                    fences.put_up(slots)
                })
            };
            let fence = put_up.join().expect("put up");
            let mut active = std::pin::pin!(fences.active(&[7]));
            let is_waited_for = (&mut active).now_or_never().is_none();
            drop(fence);
            // Unless this thread was held up, the fence was young.
            if before.elapsed() < ACK_LIMIT {
                assert!(is_waited_for);
                return assert!(active.await.is_empty());
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_fence_that_stands_for_longer_holds_up_its_own_slots_only() {
        let fences = Arc::new(Fences::default());
        assert!(fences.active(&[7]).await.is_empty());
        let mut slots = SlotSet::default();
        slots.add(7);
        let fence = fences.put_up(slots);
        let began = clock::now();
        assert_eq!(fences.active(&[6, 7, 8]).await, [7]);
        assert_eq!(clock::now() - began, ACK_LIMIT);
        // It was waited for.
        assert_eq!(fences.active(&[6, 7, 8]).await, [7]);
        assert_eq!(clock::now() - began, ACK_LIMIT);
        drop(fence);
        let mut slots = SlotSet::default();
        slots.add(7);
        let fence = fences.put_up(slots);
        let soon = async {
            crate::base::time::sleep(ACK_LIMIT / 2).await;
            drop(fence);
        };
        let (active, ()) = tokio::join!(fences.active(&[6, 7, 8]), soon);
        assert!(active.is_empty());
    }

    /// A fence ends on the cache's own thread. Where that thread does not get to run, the wait ends
    /// before, so there are several attempts.
    #[tokio::test(start_paused = true)]
    async fn paused_time_stands_still_until_another_thread_ends_the_fence() {
        let fences = Arc::new(Fences::default());
        for _ in 0..20 {
            let mut slots = SlotSet::default();
            slots.add(7);
            let fence = fences.put_up(slots);
            let (go, gone) = mpsc::channel::<()>();
            let ends = thread::spawn(move || {
                let _ = gone.recv_timeout(ACK_LIMIT / 10);
                drop(fence);
            });
            let began = clock::now();
            let active = fences.active(&[7]).await;
            drop(go);
            ends.join().expect("it has ended");
            if active.is_empty() {
                assert_eq!(clock::now(), began);
                return;
            }
        }
        panic!("time moves on");
    }
}
