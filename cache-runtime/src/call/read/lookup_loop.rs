//! The lookup loop of one reader, up to the point where some caller has to load.

mod classify;
mod decisions;
mod gate;
mod lease;
mod poller;
mod waiting;

use std::time::Duration;

use futures_util::future::BoxFuture;

use self::decisions::LeaseDecision;
pub(crate) use self::decisions::{Action, EntryState, UnleasedRole};
use self::poller::{FIRST_PAUSE, RemoteLoadPoller};
use super::hit::{Fallback, Hit};
use super::{Call, Permit};
use crate::base::call_budget::CallBudget;
use crate::base::clock::{Instant, Millis};
use crate::base::error::Error;
use crate::base::mutation;
use crate::base::nonce::Nonce;
use crate::call::observe::{BypassReason, StaleReason};
use crate::call::scope::{self, Mode};
use crate::coalesce::single_flight::LoadResult;
use crate::local::ReadToken;
use crate::protocol::circuit::Circuit;
use crate::protocol::entry::{Header, Stamp};
use crate::protocol::fingerprint::Fingerprint;
use crate::store::{Expected, LeaseReply};

/// The lookup loop of one reader. Nothing here depends on the types of the function.
#[derive(Debug)]
pub(crate) struct LookupLoop<'a> {
    call: &'a Call,
    fingerprint: Fingerprint,
    call_budget: CallBudget,
    /// Until when this reader waits for others.
    deadline: Option<Instant>,
    pause: Duration,
    /// The token of a lease whose stamp differed from the generations. The lease may be newer than
    /// they are.
    suspect: Option<Nonce>,
    /// An entry that did not decode.
    rejected: Option<Box<Header>>,
    /// The flags of the keys of the last lookup, taken before it.
    read_token: Option<ReadToken>,
    /// The expired entry of the last lookup, if it may be served instead of a new value.
    fallback: Option<Box<Fallback>>,
    /// Whether another caller got the lease that this reader requested.
    has_lost: bool,
    /// Polls the store for another process's load, on behalf of all waiting readers in this
    /// process.
    poller: Option<Box<RemoteLoadPoller>>,
    /// The end of a lease's token, for which the store was asked whether waiting would close a
    /// cycle; 0 for none. The whole token would make every waiting call larger.
    asked_of: u32,
}

impl<'a> LookupLoop<'a> {
    pub(crate) fn new(call: &'a Call, fingerprint: Fingerprint) -> Self {
        Self {
            call,
            fingerprint,
            call_budget: CallBudget::new(call.cache.config.command_budget),
            deadline: None,
            pause: FIRST_PAUSE,
            suspect: None,
            rejected: None,
            read_token: None,
            fallback: None,
            has_lost: false,
            poller: None,
            asked_of: 0,
        }
    }

    /// Hands the value to the readers that wait for the same load of another process. `load_result`
    /// is called only if there are any.
    // Safe because each of them has read the stamp under which the value was stored, and has seen
    // the lease that the value has replaced since. A lookup of its own would give the same result
    // now.
    pub(crate) fn found(&mut self, hit: &Hit, load_result: impl FnOnce() -> Option<LoadResult>) {
        if let Some(poller) = self.poller.take()
            && poller.stamp == hit.header.stamp
        {
            poller.leader.complete(load_result);
        }
    }

    /// Stops polling and wakes the other waiters. They look up the entry, and one of them polls
    /// from then on.
    pub(crate) fn stops_polling(&mut self) {
        self.poller = None;
    }

    /// Returns the flags that are needed to store a local entry of the last lookup.
    pub(crate) fn read_token(&mut self) -> Option<ReadToken> {
        self.read_token.take()
    }

    /// Treats an entry whose value does not decode as if it were absent.
    pub(crate) fn reject(&mut self, header: Header) {
        self.call.resource.counters.errors.add_one();
        self.call.doubts();
        self.rejected = Some(Box::new(header));
    }

    /// Returns what the caller should do, given the attribute and the caller's [`Mode`].
    pub(crate) async fn next(&mut self) -> Action {
        if let Some(reason) = self.call.barred_by_caller() {
            return Action::Bypass(reason);
        }
        match scope::mode() {
            Mode::Refresh => Box::pin(self.take()).await,
            Mode::Usual | Mode::Bypass => self.next_action().await,
        }
    }

    /// Looks up the entry and returns what the caller should do. Waits for another caller's load if
    /// there is one.
    // Many callers may wait here. So the state that only the lookup or a lease request needs is
    // boxed, and is not part of what a waiter holds.
    pub(crate) async fn next_action(&mut self) -> Action {
        let call = self.call;
        loop {
            if let Some(reason) = call.barred_from_asking() {
                return Action::Bypass(reason);
            }
            self.read_token = call.read_token();
            let knew = call.has_learnt();
            let began = call.timing.begins_lookup();
            let lookup = match self
                .call_budget
                .spend_running(began, call.lookup_in_store())
                .await
            {
                Ok(lookup) => lookup,
                Err(error) => return call.fault(&error),
            };
            if call.has_learnt() != knew {
                // The entry lists further dependencies.
                if let Some(reason) = call.barred_by_body() {
                    return Action::Bypass(reason);
                }
                continue;
            }
            if mutation::is_active("marked-after-the-read") {
                self.read_token = call.read_token();
            }
            let (stamp, now) = (lookup.stamp, lookup.now);
            let step = match self.classify(*lookup) {
                EntryState::Hit(hit) => return Action::Hit(hit),
                state => match self.decide(state, stamp, now) {
                    NextStep::Action(action) => return action,
                    NextStep::LookAgain => continue,
                    NextStep::Step(step) => step,
                },
            };
            if let Some(action) = step.await {
                return action;
            }
        }
    }

    /// Decides about an entry that is not simply served.
    fn decide(&mut self, state: EntryState, stamp: Stamp, now: Millis) -> NextStep<'_> {
        self.call_budget.stop();
        let (past, expected) = match state {
            EntryState::Hit(hit) => return NextStep::Action(Action::Hit(hit)),
            EntryState::Past(hit, None) => {
                return NextStep::Action(Action::Stale(hit, StaleReason::Revalidating));
            }
            EntryState::Past(hit, Some(expected)) => (Some(hit), expected),
            EntryState::Vacant(expected) => (None, expected),
            EntryState::Bypass(reason) => return NextStep::Action(Action::Bypass(reason)),
            EntryState::Leased(header) => match self.on_lease(header, stamp, now) {
                LeaseDecision::Joins(waiter, noted) if self.may_close_cycle(header.token) => {
                    let wait = self.wait_in_load(header.token, Some((waiter, noted)));
                    return NextStep::Step(Box::pin(wait));
                }
                LeaseDecision::Polls if self.may_close_cycle(header.token) => {
                    return NextStep::Step(Box::pin(self.wait_in_load(header.token, None)));
                }
                LeaseDecision::GivesWay(expected) => (None, expected),
                LeaseDecision::LookAgain => return NextStep::LookAgain,
                LeaseDecision::Bypass(reason) => return NextStep::Action(Action::Bypass(reason)),
                LeaseDecision::Joins(waiter, noted) => {
                    return NextStep::Step(Box::pin(self.wait_for_result(waiter, noted)));
                }
                LeaseDecision::Polls => {
                    return NextStep::Step(Box::pin(self.wait_for_key_change()));
                }
            },
        };
        NextStep::Step(Box::pin(self.ask_for_lease(stamp, expected, past)))
    }

    /// Requests the lease for the state that was seen. Returns `None` if another caller was faster;
    /// then the next lookup tells the new state.
    async fn ask_for_lease(
        &mut self,
        stamp: Stamp,
        expected: Expected,
        past: Option<Box<Hit>>,
    ) -> Option<Action> {
        let call = self.call;
        let mut permit = Permit::new(call, stamp, self.fingerprint);
        permit.call_budget = self.call_budget;
        let reply = permit.take_within(call, expected).await;
        self.call_budget = permit.call_budget;
        if let Some(hit) = past {
            if let Ok(LeaseReply::Granted) = reply {
                return Some(Action::Revalidate(Box::new((hit, permit))));
            }
            if reply.is_ok() {
                permit.forget();
            }
            // Another caller loads the new value, or nobody can now.
            return Some(Action::Stale(hit, StaleReason::Revalidating));
        }
        Some(match reply {
            Ok(LeaseReply::Granted) => Action::Lead(permit),
            Ok(LeaseReply::Foreign) => {
                permit.forget();
                Action::Bypass(BypassReason::Foreign)
            }
            Ok(LeaseReply::WriteInProgress) => {
                permit.forget();
                Action::Bypass(BypassReason::WriteInProgress)
            }
            Ok(LeaseReply::Taken(_)) => {
                permit.forget();
                if self.is_late() {
                    return Some(Action::Bypass(BypassReason::WaitLimit));
                }
                if self.has_lost {
                    // Lost more than once: let the winners make progress.
                    self.pause().await;
                }
                self.has_lost = true;
                return None;
            }
            // The lease may have been granted. Dropping the permit gives it back.
            Err(error) => call.fault(&error),
        })
    }

    /// Returns the expired entry that may be served instead of a new value.
    pub(crate) fn fallback(&mut self) -> Option<Box<Fallback>> {
        self.fallback.take()
    }

    /// Returns the expired entry to serve, because another caller's load failed or is slow.
    pub(crate) fn instead(&mut self, bypass: BypassReason) -> Option<(Box<Hit>, StaleReason)> {
        let (fallback, reason) = match bypass {
            BypassReason::LoadFailed => (
                self.fallback.take_if(|it| it.covers_errors),
                StaleReason::LoadFailed,
            ),
            BypassReason::WaitLimit => (self.fallback.take(), StaleReason::LoadSlow),
            _ => return None,
        };
        Some((fallback?.hit, reason))
    }

    /// Takes the lease whatever the entry's state, for a caller that wants a new value.
    pub(crate) async fn take(&mut self) -> Action {
        let call = self.call;
        if let Some(reason) = call.barred_from_asking() {
            return Action::Bypass(reason);
        }
        let lookup = match self.call_budget.spend(call.lookup_with_learnt()).await {
            Ok(lookup) if lookup.intents_until.is_some() => {
                return Action::Bypass(BypassReason::WriteInProgress);
            }
            Ok(lookup) => lookup,
            Err(error) => return call.fault(&error),
        };
        let mut permit = Permit::new(call, lookup.stamp, self.fingerprint);
        permit.call_budget = self.call_budget;
        match permit.take_within(call, Expected::Anything).await {
            Ok(LeaseReply::Granted) => Action::Lead(permit),
            Ok(LeaseReply::Foreign) => {
                permit.forget();
                Action::Bypass(BypassReason::Foreign)
            }
            Ok(LeaseReply::Taken(_) | LeaseReply::WriteInProgress) => {
                permit.forget();
                Action::Bypass(BypassReason::WriteInProgress)
            }
            Err(error) => call.fault(&error),
        }
    }
}

/// The next step after a lookup that has found no hit.
enum NextStep<'r> {
    Action(Action),
    LookAgain,
    /// Wait for this first. If it gives no action, look up again.
    Step(BoxFuture<'r, Option<Action>>),
}

impl Call {
    pub(super) fn fault(&self, error: &Error) -> Action {
        // While the store is known to be away, only the outage is counted, not every call.
        if self.cache.store.circuit() == Circuit::Closed {
            self.resource.counters.errors.add_one();
            tracing::debug!(key = self.own.key, %error, "a call runs without the cache");
        }
        Action::Bypass(BypassReason::of(error))
    }
}
