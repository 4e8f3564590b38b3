//! Waits for the load of another caller, in this process or in another one.

use futures_util::FutureExt as _;

use super::LookupLoop;
use super::decisions::Action;
use super::poller::LAST_PAUSE;
use crate::base::clock::{self, Instant};
use crate::base::mutation;
use crate::base::nonce::Nonce;
use crate::call::enclosing;
use crate::call::observe::BypassReason;
use crate::coalesce::single_flight::{LoadResult, WaitResult, Waiter};
use crate::coalesce::waits::WaitEdges;
use crate::telemetry::function::Waiting;

impl LookupLoop<'_> {
    /// Whether this call is part of a load, and the store was not asked yet about this lease.
    pub(super) fn may_close_cycle(&self, lease: Nonce) -> bool {
        enclosing::is_inside()
            && enclosing::is_in_load(&self.call.cache)
            && self.asked_of != end_of(lease)
            && !mutation::is_active("cycles-over-processes-waited-for")
    }

    /// Waits for the load under a lease, unless it waits for a load that this call is part of,
    /// perhaps in another process.
    pub(super) async fn wait_in_load(
        &mut self,
        lease: Nonce,
        joined: Option<(Waiter, Option<WaitEdges>)>,
    ) -> Option<Action> {
        let cache = &self.call.cache;
        self.asked_of = end_of(lease);
        let loads = enclosing::leases(cache);
        if !loads.is_empty() {
            let length = cache.config.wait;
            self.call_budget.renew();
            let asked = cache.store.closes_cycle(&loads, lease, length);
            // If the store can't tell, the wait limit ends a cycle.
            if self.call_budget.spend(asked).await.unwrap_or(false) {
                self.stops_polling();
                return Some(Action::Bypass(BypassReason::OwnLoad));
            }
            self.call_budget.renew();
        }
        match joined {
            Some((waiter, noted)) => self.wait_for_result(waiter, noted).await,
            None => self.wait_for_key_change().await,
        }
    }

    /// Waits for another caller's load. Returns `None` if that caller has gone, or the entry has to
    /// be looked at.
    pub(in crate::call::read) fn wait_for_result(
        &mut self,
        waiter: Waiter,
        noted: Option<WaitEdges>,
    ) -> impl Future<Output = Option<Action>> + use<> {
        self.call_budget.renew();
        let counted = Waiting::new(self.call.resource.function());
        // The load may have begun before the write around this call, and name only now that it
        // depends on what was written. The entry lists it.
        let is_in_write = enclosing::is_in_write(&self.call.cache)
            && !mutation::is_active("loads-joined-inside-of-writes");
        // A caller that has nothing else to serve would have to wait for a permit itself.
        let in_turn = (self.call.max_loads > 0 && self.fallback.is_none())
            .then_some(self.call.cache.config.wait)
            .filter(|_| !mutation::is_active("waiters-for-a-permit-load-anew"));
        waiter.wait(self.deadline(), in_turn).map(move |waited| {
            drop((noted, counted));
            match waited {
                // Errors are not shared: the waiters load themselves.
                WaitResult::LoadResult(LoadResult::Failure) => {
                    Some(Action::Bypass(BypassReason::LoadFailed))
                }
                WaitResult::LoadResult(_) if is_in_write => None,
                WaitResult::LoadResult(load_result) => Some(Action::Joined(load_result)),
                WaitResult::Gone => None,
                WaitResult::TimedOut => Some(Action::Bypass(BypassReason::WaitLimit)),
            }
        })
    }

    /// Waits for the next change of the entry, since a load ends with one. Waits no longer than the
    /// pause, because a notification may be lost. The next lookup tells the new state.
    pub(super) async fn wait_for_key_change(&mut self) -> Option<Action> {
        let _counted = Waiting::new(self.call.resource.function());
        let end = self.end_of_pause();
        let poller = self.poller.as_mut()?;
        // The last notification was of a renewal, or of nothing. Waiting for the next one at once
        // could loop without a pause.
        let listens = !std::mem::take(&mut poller.was_told);
        // With the local tier on, the flags of every lookup report changes.
        if listens && self.read_token.is_none() && poller.word.is_none() {
            let watch = self.call.cache.store.watch_key(&self.call.own.key);
            poller.word = self.call_budget.spend(watch).await.unwrap_or_default();
            // The next lookup follows a wait, so it gets a full budget.
            self.call_budget.renew();
            if poller.word.is_some() {
                // The entry may have changed before the subscription.
                return None;
            }
        }
        let word = async {
            match (&self.read_token, &mut poller.word) {
                (Some(read_token), _) => read_token.changed().await,
                (None, Some(word)) => word.changed().await,
                (None, None) => std::future::pending().await,
            }
        };
        let is_changed = tokio::select! {
            () = crate::base::time::sleep_until(end) => false,
            () = word, if listens => true,
        };
        if is_changed {
            // Each subscription gives one notification.
            poller.word = None;
            poller.was_told = true;
        }
        None
    }

    pub(super) async fn pause(&mut self) {
        crate::base::time::sleep_until(self.end_of_pause()).await;
    }

    /// Returns the end of the next pause, before a lookup with a full budget. Each pause is twice
    /// as long as the last.
    fn end_of_pause(&mut self) -> Instant {
        self.call_budget.renew();
        let pause = self.pause;
        self.pause = (pause * 2).min(LAST_PAUSE);
        self.deadline().min(clock::now() + pause)
    }

    pub(super) fn deadline(&mut self) -> Instant {
        let wait = self.call.cache.config.wait;
        let wait = match self.call.stale_policy.timeout {
            // A fallback can be served after the timeout.
            Some(timeout) if self.fallback.is_some() => wait.min(timeout),
            _ => wait,
        };
        *self.deadline.get_or_insert_with(|| clock::now() + wait)
    }

    /// Starts the wait limit.
    pub(crate) fn begin_to_wait(&mut self) {
        self.deadline();
    }

    /// Stops waiting for other callers. A free lease may still be taken.
    pub(crate) fn end_waiting(&mut self) {
        self.stops_polling();
        self.call_budget.renew();
        self.deadline = Some(clock::now());
    }

    pub(super) fn is_late(&mut self) -> bool {
        self.deadline() <= clock::now()
    }
}

/// Never 0.
fn end_of(lease: Nonce) -> u32 {
    lease.0 as u32 | 1
}
