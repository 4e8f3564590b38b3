//! The lookup loop of one reader, up to the point where some caller has to load.

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::hit::{Fallback, Hit};
use super::{Call, Permit};
use crate::base::call_budget::CallBudget;
use crate::base::clock::{self, Instant, Millis};
use crate::base::error::Error;
use crate::base::mutation;
use crate::base::nonce::{Nonce, random_fraction};
use crate::call::observe::{BypassReason, StaleReason};
use crate::call::scope::{self, Mode};
use crate::call::{enclosing, transaction};
use crate::coalesce::load_gate::{self, GateLeader, GateResult, GateRole};
use crate::coalesce::single_flight::{FlightRole, Leader, LoadResult, WaitResult, Waiter};
use crate::coalesce::waits::{WaitDecision, WaitEdges};
use crate::local::ReadToken;
use crate::protocol::circuit::Circuit;
use crate::protocol::entry::{Header, Stamp};
use crate::protocol::fingerprint::Fingerprint;
use crate::store::{Found, LeaseReply, Look, Payload, Seen, Word};
use crate::telemetry::function::Waiting;

/// The first pause of a reader that polls for another process's load, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

const LAST_PAUSE: Duration = Duration::from_millis(25);

/// What the caller should do.
#[derive(Debug)]
pub(crate) enum Action {
    /// Serve this entry.
    Hit(Box<Hit>),
    /// Serve this expired entry.
    Stale(Box<Hit>, StaleReason),
    /// Serve this expired entry, and load a new value in the background.
    Revalidate(Box<(Box<Hit>, Permit)>),
    /// Serve the value that another caller has just loaded.
    Joined(LoadResult),
    /// Load, and store the value under this lease.
    Lead(Permit),
    /// Load, and store nothing.
    Bypass(BypassReason),
}

/// The role of a caller that has to load without a lease.
#[derive(Debug)]
pub(crate) enum UnleasedRole {
    /// Load, and hand the value to the waiters.
    Run(GateLeader),
    /// Serve the value that another caller has just loaded.
    Joined(LoadResult),
    /// Load for this caller only.
    Alone,
}

/// The state of an entry, for a reader that has not decided yet.
#[derive(Debug)]
pub(crate) enum EntryState {
    /// It may be served.
    Hit(Box<Hit>),
    /// It has expired but may still be served. The second field is what a lease may replace, unless
    /// another caller is loading.
    Past(Box<Hit>, Option<Seen>),
    /// There is a lease.
    Leased(Header),
    /// A lease may replace it.
    Vacant(Seen),
    /// It may be neither served nor replaced.
    Bypass(BypassReason),
}

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

/// Polls the store for another process's load.
#[derive(Debug)]
struct RemoteLoadPoller {
    leader: Leader,
    /// The stamp of the lease, which all waiting readers have computed.
    stamp: Stamp,
    /// The notification of the entry's next change, if the store has agreed to send one.
    word: Option<Word>,
    /// Whether a notification has come since the last pause.
    was_told: bool,
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

    /// Treats an entry as if it were absent.
    pub(crate) fn reject(&mut self, header: Header) {
        self.call.resource.counters.errors.add_one();
        self.rejected = Some(Box::new(header));
    }

    /// Returns what the caller should do, given the attribute and the caller's [`Mode`].
    pub(crate) async fn next(&mut self) -> Action {
        // Data that is read in an open transaction may never be committed.
        if transaction::is_open(&self.call.cache)
            && !mutation::is_active("reads-cached-in-transactions")
        {
            return Action::Bypass(BypassReason::Transaction);
        }
        if let Some(reason) = self.barred() {
            return Action::Bypass(reason);
        }
        match scope::mode() {
            Mode::Usual => self.next_action().await,
            Mode::Bypass => Action::Bypass(BypassReason::Asked),
            Mode::Refresh => Box::pin(self.take()).await,
        }
    }

    /// Returns why an enclosing body forces a bypass, if it does.
    pub(crate) fn barred(&self) -> Option<BypassReason> {
        enclosing::bars(&self.call.cache, self.call.probe())
    }

    /// Looks up the entry and returns what the caller should do. Waits for another caller's load if
    /// there is one.
    // Many callers may wait here. So the state that only the lookup or a lease request needs is
    // boxed, and is not part of what a waiter holds.
    pub(crate) async fn next_action(&mut self) -> Action {
        let call = self.call;
        if let Some(problem) = call.problem {
            return Action::Bypass(problem);
        }
        loop {
            if call.cache.is_closed() {
                return Action::Bypass(BypassReason::Unavailable);
            }
            if let Some(reason) = call.is_behind() {
                return Action::Bypass(reason);
            }
            if call.cache.invalidations.is_pending(call.probe()) {
                return Action::Bypass(BypassReason::Pending);
            }
            self.read_token = call.read_token();
            let knew = call.has_learnt();
            let began = call.timing.begins_to_look();
            let look = match self.call_budget.spend_running(began, call.look()).await {
                Ok(look) => look,
                Err(error) => return call.fault(&error),
            };
            if call.has_learnt() != knew {
                // The entry lists further dependencies.
                if let Some(reason) = self.barred() {
                    return Action::Bypass(reason);
                }
                continue;
            }
            if mutation::is_active("marked-after-the-read") {
                self.read_token = call.read_token();
            }
            let step = match self.decide(look) {
                NextStep::Action(action) => return action,
                NextStep::LookAgain => continue,
                NextStep::Step(step) => step,
            };
            if let Some(action) = step.await {
                return action;
            }
        }
    }

    /// Decides after a lookup.
    #[expect(clippy::boxed_local, reason = "unboxed, it would be copied once more")]
    fn decide(&mut self, look: Box<Look>) -> NextStep<'_> {
        let (stamp, now) = (look.stamp, look.now);
        let state = self.classify(*look);
        if !matches!(state, EntryState::Hit(_)) {
            self.call_budget.stop();
        }
        let (past, seen) = match state {
            EntryState::Hit(hit) => return NextStep::Action(Action::Hit(hit)),
            EntryState::Past(hit, None) => {
                return NextStep::Action(Action::Stale(hit, StaleReason::Revalidating));
            }
            EntryState::Past(hit, Some(seen)) => (Some(hit), seen),
            EntryState::Vacant(seen) => (None, seen),
            EntryState::Bypass(reason) => return NextStep::Action(Action::Bypass(reason)),
            EntryState::Leased(header) => match self.on_lease(header, stamp, now) {
                LeaseDecision::Joins(waiter, noted) if self.may_close_circle(header.token) => {
                    let wait = self.wait_in_load(header.token, Some((waiter, noted)));
                    return NextStep::Step(Box::pin(wait));
                }
                LeaseDecision::Polls if self.may_close_circle(header.token) => {
                    return NextStep::Step(Box::pin(self.wait_in_load(header.token, None)));
                }
                LeaseDecision::GivesWay(seen) => (None, seen),
                LeaseDecision::LookAgain => return NextStep::LookAgain,
                LeaseDecision::Bypass(reason) => return NextStep::Action(Action::Bypass(reason)),
                LeaseDecision::Joins(waiter, noted) => {
                    return NextStep::Step(Box::pin(self.wait_for_result(waiter, noted)));
                }
                LeaseDecision::Polls => return NextStep::Step(Box::pin(self.wait_for_word())),
            },
        };
        NextStep::Step(Box::pin(self.ask_for_lease(stamp, seen, past)))
    }

    /// Requests the lease for the state that was seen. Returns `None` if another caller was faster;
    /// then the next lookup tells the new state.
    async fn ask_for_lease(
        &mut self,
        stamp: Stamp,
        seen: Seen,
        past: Option<Box<Hit>>,
    ) -> Option<Action> {
        let call = self.call;
        let mut permit = Permit::new(call, stamp, self.fingerprint);
        permit.call_budget = self.call_budget;
        let reply = permit.take_within(call, seen).await;
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
            Ok(LeaseReply::Intended) => {
                permit.forget();
                Action::Bypass(BypassReason::Intended)
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

    /// Returns what a lookup means for this reader.
    pub(crate) fn classify(&mut self, look: Look) -> EntryState {
        self.fallback = None;
        if look.intended.is_some() && !mutation::is_active("intents-not-seen") {
            return EntryState::Bypass(BypassReason::Intended);
        }
        let (header, payload) = match look.found {
            Found::Foreign => return EntryState::Bypass(BypassReason::Foreign),
            Found::Nothing => return EntryState::Vacant(Seen::Nothing),
            Found::Entry(header, payload) => (header, payload),
        };
        if !self.is_live(&header, look.stamp) || header.is_ahead_of(look.now) {
            if header.is_leased() {
                return EntryState::Leased(header);
            }
            if header.stamp != look.stamp {
                self.call.resource.counters.stale_rejected.add_one();
            }
            return EntryState::Vacant(Seen::Entry(header));
        }
        self.classify_live(header, payload, look.now)
    }

    /// Classifies an entry that was not invalidated: it is served, or kept for the case that its
    /// load fails or is slow.
    fn classify_live(&mut self, header: Header, payload: Payload, now: Millis) -> EntryState {
        let stale_policy = &self.call.stale_policy;
        let hit = Hit::new(header, payload, now);
        let past = hit.past;
        // The holder of the lease may have died.
        let is_loading = header.is_held(now, self.call.cache.config.lease);
        if now < header.fresh {
            if header.is_leased()
                || !stale_policy.is_due_early(hit.ttl, header.took(), random_fraction)
            {
                return EntryState::Hit(hit);
            }
            self.fallback = Some(Box::new(Fallback {
                hit,
                covers_errors: true,
            }));
            return EntryState::Vacant(Seen::Past(header));
        }
        let seen = match header.is_leased() {
            true => Seen::Leased,
            false => Seen::Past(header),
        };
        if now < header.stale && past < stale_policy.swr {
            return EntryState::Past(hit, (!is_loading).then_some(seen));
        }
        if now < header.stale {
            self.fallback = Some(Box::new(Fallback {
                covers_errors: past < stale_policy.stale_if_error,
                hit,
            }));
        }
        if is_loading {
            EntryState::Leased(header)
        } else {
            EntryState::Vacant(seen)
        }
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
        if let Some(problem) = call.problem {
            return Action::Bypass(problem);
        }
        if call.cache.is_closed() {
            return Action::Bypass(BypassReason::Unavailable);
        }
        if let Some(reason) = call.is_behind() {
            return Action::Bypass(reason);
        }
        if call.cache.invalidations.is_pending(call.probe()) {
            return Action::Bypass(BypassReason::Pending);
        }
        let look = match self.call_budget.spend(call.look_at_all()).await {
            Ok(look) if look.intended.is_some() => return Action::Bypass(BypassReason::Intended),
            Ok(look) => look,
            Err(error) => return call.fault(&error),
        };
        let mut permit = Permit::new(call, look.stamp, self.fingerprint);
        permit.call_budget = self.call_budget;
        match permit.take_within(call, Seen::Anything).await {
            Ok(LeaseReply::Granted) => Action::Lead(permit),
            Ok(LeaseReply::Foreign) => {
                permit.forget();
                Action::Bypass(BypassReason::Foreign)
            }
            Ok(LeaseReply::Taken(_) | LeaseReply::Intended) => {
                permit.forget();
                Action::Bypass(BypassReason::Intended)
            }
            Err(error) => call.fault(&error),
        }
    }

    /// Returns true if the entry was not invalidated, is of the right type and did decode.
    fn is_live(&self, header: &Header, stamp: Stamp) -> bool {
        let (mut stamp, mut fingerprint) = (stamp, self.fingerprint);
        if mutation::is_active("stamp-not-compared") {
            stamp = header.stamp;
        }
        if mutation::is_active("type-not-compared") {
            fingerprint = header.fingerprint;
        }
        header.stays_under(stamp, fingerprint) && self.rejected.as_deref() != Some(header)
    }

    fn on_lease(&mut self, lease: Header, stamp: Stamp, now: Millis) -> LeaseDecision {
        if lease.stamp != stamp && !mutation::is_active("joined-by-key") {
            // The lease is dead, unless it was taken between the reads of the generations and of
            // the entry.
            if self.suspect == Some(lease.token) {
                return LeaseDecision::GivesWay(Seen::Entry(lease));
            }
            // A different lease each time, for example because loads keep being refused and
            // invalidated.
            if self.suspect.replace(lease.token).is_some() && self.is_late() {
                return LeaseDecision::Bypass(BypassReason::WaitLimit);
            }
            return LeaseDecision::LookAgain;
        }
        if lease.fingerprint != self.fingerprint {
            return LeaseDecision::Bypass(BypassReason::OtherType);
        }
        if self.polls(lease.token) {
            return self.gives_way(lease, now).unwrap_or(LeaseDecision::Polls);
        }
        self.poller = None;
        if let Some(waiter) = self.call.cache.single_flight.join(lease.token) {
            return self.joins(waiter);
        }
        if let Some(met) = self.gives_way(lease, now) {
            return met;
        }
        match self.call.cache.single_flight.follow(lease.token) {
            FlightRole::Waiter(waiter) => self.joins(waiter),
            FlightRole::Leader(leader) => {
                self.poller = Some(Box::new(RemoteLoadPoller {
                    leader,
                    stamp,
                    word: None,
                    was_told: false,
                }));
                LeaseDecision::Polls
            }
        }
    }

    fn joins(&self, waiter: Waiter) -> LeaseDecision {
        match enclosing::wait(&self.call.cache, &self.call.own.key) {
            WaitDecision::Fine(noted) => LeaseDecision::Joins(waiter, noted),
            WaitDecision::Circular => LeaseDecision::Bypass(BypassReason::OwnLoad),
        }
    }

    fn polls(&self, token: Nonce) -> bool {
        let poller = self.poller.as_ref();
        poller.is_some_and(|poller| poller.leader.token() == token)
    }

    /// Decides about a lease that should not be waited for. `None` if it should.
    fn gives_way(&mut self, lease: Header, now: Millis) -> Option<LeaseDecision> {
        if !lease.is_held(now, self.call.cache.config.lease) {
            return Some(LeaseDecision::GivesWay(Seen::Leased));
        }
        if self.call.cache.single_flight.is_given_up(lease.token) {
            return Some(LeaseDecision::GivesWay(Seen::Past(lease)));
        }
        self.is_late()
            .then_some(LeaseDecision::Bypass(BypassReason::WaitLimit))
    }

    /// Whether this call is part of a load, and the store was not asked yet about this lease.
    fn may_close_circle(&self, lease: Nonce) -> bool {
        enclosing::is_inside()
            && enclosing::is_in_load(&self.call.cache)
            && self.asked_of != end_of(lease)
            && !mutation::is_active("circles-over-processes-waited-for")
    }

    /// Waits for the load under a lease, unless it waits for a load that this call is part of,
    /// perhaps in another process.
    async fn wait_in_load(
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
            let asked = cache.store.closes_circle(&loads, lease, length);
            // If the store can't tell, the wait limit ends a cycle.
            if self.call_budget.spend(asked).await.unwrap_or(false) {
                self.stops_polling();
                return Some(Action::Bypass(BypassReason::OwnLoad));
            }
            self.call_budget.renew();
        }
        match joined {
            Some((waiter, noted)) => self.wait_for_result(waiter, noted).await,
            None => self.wait_for_word().await,
        }
    }

    /// Waits for another caller's load. Returns `None` if that caller has gone.
    pub(super) fn wait_for_result(
        &mut self,
        waiter: Waiter,
        noted: Option<WaitEdges>,
    ) -> impl Future<Output = Option<Action>> + use<> {
        self.call_budget.renew();
        let counted = Waiting::new(self.call.resource.function());
        // A caller that has nothing else to serve would have to wait for a permit itself.
        let in_turn = (self.call.max_loads > 0 && self.fallback.is_none())
            .then_some(self.call.cache.config.wait)
            .filter(|_| !mutation::is_active("waiters-for-a-place-load-anew"));
        waiter.wait(self.deadline(), in_turn).map(move |waited| {
            drop((noted, counted));
            match waited {
                // Errors are not shared: the waiters load themselves.
                WaitResult::LoadResult(LoadResult::Failure) => {
                    Some(Action::Bypass(BypassReason::LoadFailed))
                }
                WaitResult::LoadResult(load_result) => Some(Action::Joined(load_result)),
                WaitResult::Gone => None,
                WaitResult::TimedOut => Some(Action::Bypass(BypassReason::WaitLimit)),
            }
        })
    }

    /// Waits for the next change of the entry, since a load ends with one. Waits no longer than the
    /// pause, because a notification may be lost. The next lookup tells the new state.
    async fn wait_for_word(&mut self) -> Option<Action> {
        let _counted = Waiting::new(self.call.resource.function());
        let end = self.end_of_pause();
        let poller = self.poller.as_mut()?;
        // The last notification was of a renewal, or of nothing. Waiting for the next one at once
        // could loop without a pause.
        let listens = !std::mem::take(&mut poller.was_told);
        // With the local tier on, the flags of every lookup report changes.
        if listens && self.read_token.is_none() && poller.word.is_none() {
            let listen = self.call.cache.store.listen(&self.call.own.key);
            poller.word = self.call_budget.spend(listen).await.unwrap_or_default();
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
                (None, Some(word)) => word.heard().await,
                (None, None) => std::future::pending().await,
            }
        };
        let is_heard = tokio::select! {
            () = tokio::time::sleep_until(end) => false,
            () = word, if listens => true,
        };
        if is_heard {
            // Each subscription gives one notification.
            poller.word = None;
            poller.was_told = true;
        }
        None
    }

    async fn pause(&mut self) {
        tokio::time::sleep_until(self.end_of_pause()).await;
    }

    /// Returns the end of the next pause, before a lookup with a full budget. Each pause is twice
    /// as long as the last.
    fn end_of_pause(&mut self) -> Instant {
        self.call_budget.renew();
        let pause = self.pause;
        self.pause = (pause * 2).min(LAST_PAUSE);
        self.deadline().min(clock::now() + pause)
    }

    /// Enters the load gate, for callers that load without a lease.
    pub(crate) async fn queue(&mut self, reason: BypassReason) -> UnleasedRole {
        // The readers that wait for this one should enter the gate too.
        if !mutation::is_active("poller-keeps-who-waits-in-an-outage") {
            self.stops_polling();
        }
        let mut limit = match reason {
            BypassReason::Unavailable
            | BypassReason::Fenced
            | BypassReason::Unconfirmed
            | BypassReason::Pending => load_gate::WITHOUT_STORE,
            BypassReason::LoadFailed => load_gate::AFTER_FAILURE,
            _ => return UnleasedRole::Alone,
        };
        let call = self.call;
        loop {
            let load_gates = &call.cache.load_gates;
            let waiting = match load_gates.enter(&call.own.key, self.fingerprint, limit) {
                GateRole::Lead(run) => return UnleasedRole::Run(run),
                GateRole::Wait(waiting) => waiting,
            };
            let WaitDecision::Fine(_noted) = enclosing::wait(&call.cache, &call.own.key) else {
                return UnleasedRole::Alone;
            };
            let _counted = Waiting::new(call.resource.function());
            match waiting.wait(self.deadline()).await {
                GateResult::Lead(run) => return UnleasedRole::Run(run),
                GateResult::LoadResult(LoadResult::Failure) => limit = load_gate::AFTER_FAILURE,
                GateResult::LoadResult(load_result) => return UnleasedRole::Joined(load_result),
                GateResult::Gone => {}
                GateResult::TimedOut => return UnleasedRole::Alone,
            }
        }
    }

    fn deadline(&mut self) -> Instant {
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

    fn is_late(&mut self) -> bool {
        self.deadline() <= clock::now()
    }
}

/// Never 0.
fn end_of(lease: Nonce) -> u32 {
    lease.0 as u32 | 1
}

/// What follows from a lookup.
enum NextStep<'r> {
    Action(Action),
    LookAgain,
    /// Wait for this first. If it gives no action, look up again.
    Step(BoxFuture<'r, Option<Action>>),
}

/// What follows from meeting a lease.
enum LeaseDecision {
    GivesWay(Seen),
    LookAgain,
    Bypass(BypassReason),
    /// Waits for a load in this process, or shares the wait for one elsewhere.
    Joins(Waiter, Option<WaitEdges>),
    /// Polls for a load elsewhere.
    Polls,
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
