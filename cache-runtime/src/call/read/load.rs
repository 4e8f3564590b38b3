//! A caller that runs the body: what it does for other callers, and what it returns if the body
//! fails.
//!
//! This code is not compiled for each annotated function. It depends at most on the return type.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::answer_slot::{AnswerSlot, Slot};
use super::audit::Compared;
use super::audit::audited_hit::Audited;
use super::dependencies::learnt::NamedLoad;
use super::hit::{Fallback, Hit};
use super::new_entry::NewEntry;
use super::permit::Permit;
use super::report::load_span;
use super::returned_value::{Returned, ReturnedValue};
use super::{Call, StoreFilter};
use crate::base::call_budget::CallBudget;
use crate::base::clock::{self, Instant};
use crate::base::mutation;
use crate::base::nonce::Nonce;
use crate::call::enclosing::{self, Frame};
use crate::call::keep_alive::{KeepAlive, KeptAlive, Step};
use crate::call::observe::{StaleReason, Status};
use crate::call::returns::Returns;
use crate::coalesce::bulkhead::{Bulkhead, BulkheadPermit};
use crate::coalesce::load_gate::GateLeader;
use crate::coalesce::single_flight::LoadResult;
use crate::coalesce::waits::{WaitDecision, WaitEdges};
use crate::local::{NewLocalEntry, ReadToken};
use crate::protocol::entry::{Content, Stamp};
use crate::store::{Filled, Payload};
use crate::telemetry::function::Loading;

/// The use that a caller makes of the body's result for others.
#[derive(Debug)]
pub(super) enum LoadRole {
    /// Stores the value.
    Leader(Permit),
    /// Hands the value to its waiters.
    Runner(GateLeader),
    /// Keeps it in this process. Has the waiters, the flags that were taken before the load, and
    /// the stamp then.
    InProcess(Box<(GateLeader, ReadToken, Stamp)>),
    /// Nothing.
    Alone,
}

/// A call whose body runs.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) call: Arc<Call>,
    role: LoadRole,
    /// The entry to return if the body fails or is slow.
    pub(super) fallback: Option<Box<Fallback>>,
    /// Renews the lease at a third of its length.
    keep_alive: KeepAlive,
    /// The permit of `max_loads`, and its node in the wait-for graph.
    permit: Option<(BulkheadPermit, Option<WaitEdges>)>,
    /// Its node in the wait-for graph, if that is not its key.
    node: Option<String>,
    /// Whether another caller may have stored the value while this one waits for a permit.
    looks_up_again: bool,
    began: Instant,
    /// Counted once the body may run.
    counted: Option<Loading>,
    /// The hit that is audited.
    audited: Option<Audited>,
}

impl Load {
    /// Boxed, because it is moved often, and most calls need none.
    pub(super) fn new(
        call: Arc<Call>,
        role: LoadRole,
        fallback: Option<Box<Fallback>>,
    ) -> Box<Self> {
        let renewal = match &role {
            LoadRole::Leader(permit) => Some(permit.renewal()),
            LoadRole::Runner(_) | LoadRole::InProcess(_) | LoadRole::Alone => None,
        };
        let span = load_span(&call);
        let lease = match &role {
            LoadRole::Leader(permit) => Some(permit.token()),
            LoadRole::Runner(_) | LoadRole::InProcess(_) | LoadRole::Alone => None,
        };
        let leases: Vec<_> = lease.into_iter().collect();
        let mut keys = vec![call.own.key.clone()];
        // No other caller waits for a load that is not shared. So it does not count as the load of
        // its key in the wait-for graph, and another load of the key may hold a permit.
        let is_alone = matches!(role, LoadRole::Alone) && call.max_loads > 0;
        if is_alone {
            keys.push(format!(" load {}", Nonce::fresh()));
        }
        let node = keys.last().filter(|_| is_alone).cloned();
        let loads = call.loads(keys, leases);
        let frame = Frame::load(&call.cache, loads);
        Box::new(Self {
            call,
            role,
            fallback,
            keep_alive: KeepAlive::new(frame, renewal).within(span),
            permit: None,
            node,
            looks_up_again: false,
            began: clock::now(),
            counted: None,
            audited: None,
        })
    }

    /// Whether there is an entry to return instead of waiting for a permit.
    pub(super) fn instead_of_waiting(&mut self, slot: &mut dyn AnswerSlot) -> bool {
        let Some(bulkhead) = self.call.bulkhead() else {
            return false;
        };
        if let Some(permit) = bulkhead.try_enter() {
            self.has(permit);
            return false;
        }
        if let Some(hit) = &self.audited {
            // If the value is known already, nothing has to be waited for.
            return slot.arrived(hit.cached());
        }
        match self.fallback.take_if(|it| it.covers_errors) {
            Some(it) => self.call.fall_back(&it, StaleReason::LoadsBusy, slot),
            None => false,
        }
    }

    /// Another caller was loading the entry for longer than the wait limit. If this one has to wait
    /// for a permit as well, the value may be there by then.
    pub(super) fn looks_up_again(mut self: Box<Self>) -> Box<Self> {
        self.looks_up_again = true;
        self
    }

    /// [`enter`](Self::enter), for code that is compiled in each program.
    pub(super) fn enter_boxed<'s>(
        &'s mut self,
        slot: &'s mut (dyn AnswerSlot + 's),
    ) -> BoxFuture<'s, bool> {
        Box::pin(self.enter(slot))
    }

    /// Waits until the body may run. Returns true if the value has been stored meanwhile.
    pub(super) async fn enter(&mut self, slot: &mut dyn AnswerSlot) -> bool {
        if self.permit.is_none()
            && let Some(bulkhead) = self.call.bulkhead()
        {
            let permit = self.wait_for_permit(bulkhead).await;
            if self.looks_up_again
                && !mutation::is_active("waiters-for-a-permit-load-anew")
                && self.call.stored_meanwhile(slot).await
            {
                return true;
            }
            self.has(permit);
        }
        // The time in the queue does not count as load time.
        self.began = clock::now();
        if let LoadRole::Leader(permit) = &mut self.role {
            permit.begins();
            if let Some(window) = self.call.open_window().await {
                let _ = self.call.window.set(window);
            }
        }
        self.counted = Some(Loading::new(self.call.resource.function()));
        false
    }

    /// Waits for a permit, unless the load that holds it waits for this load.
    async fn wait_for_permit(&mut self, bulkhead: Arc<Bulkhead>) -> BulkheadPermit {
        let cache = &self.call.cache;
        let mut loads = enclosing::keys(cache);
        loads.push(self.node().to_owned());
        let WaitDecision::Fine(_noted) = cache.waits.wait(loads, &bulkhead.name()) else {
            return bulkhead.beyond();
        };
        self.queues(true);
        let waiting = KeptAlive {
            body: std::pin::pin!(bulkhead.enter()),
            keep_alive: &mut self.keep_alive,
        };
        let permit = waiting.await;
        self.queues(false);
        permit
    }

    fn node(&self) -> &str {
        self.node.as_ref().unwrap_or(&self.call.own.key)
    }

    /// Tells the waiters of this load whether it waits for a permit.
    fn queues(&self, is_queued: bool) {
        if let LoadRole::Leader(permit) = &self.role {
            permit.leader.queues(is_queued);
        }
    }

    /// Takes a permit: loads that wait for it wait for this load.
    fn has(&mut self, permit: BulkheadPermit) {
        let waits = &self.call.cache.waits;
        let noted = match waits.wait(vec![permit.name()], self.node()) {
            WaitDecision::Fine(noted) => noted,
            WaitDecision::Cycle => None,
        };
        self.keep_alive.holds_permit(permit.function());
        self.permit = Some((permit, noted));
    }

    /// A body that runs to audit a hit.
    pub(super) fn audited(call: Arc<Call>, audited: Audited) -> Box<Self> {
        let mut load = Self::new(call, LoadRole::Alone, None);
        load.audited = Some(audited);
        load
    }

    /// The cache's answer, if the body runs to check a hit.
    pub(super) fn hit(&self) -> Option<LoadResult> {
        self.audited.as_ref().map(Audited::cached)
    }

    /// Returns what renews the lease while the body runs.
    pub(super) fn keep_alive(&mut self) -> &mut KeepAlive {
        &mut self.keep_alive
    }

    /// Stores the result of the body, and returns the value for the caller.
    pub(super) fn over<R, S, U>(
        self: Box<Self>,
        returned: R,
        unless: U,
    ) -> Pin<Box<impl Future<Output = R>>>
    where
        R: Returns<S>,
        U: StoreFilter<R::Value>,
    {
        let over = self.completes(&returned, unless);
        Box::pin(async move { over.await.returns(returned) })
    }

    /// Hands the value to the waiters, prepares it for the store, and returns the step that stores
    /// it. It does the former before any await, so that `R` need not be `Sync`.
    pub(super) fn completes<R: Returns<S>, S>(
        self: Box<Self>,
        returned: &R,
        unless: impl StoreFilter<R::Value>,
    ) -> Step<EndedLoad> {
        self.complete(&mut Returned::new(returned, unless)).over()
    }

    fn complete(self: Box<Self>, returned: &mut dyn ReturnedValue) -> Completion {
        let mut load = self;
        // The next load may run while this value is stored.
        load.permit = None;
        let (mut is_kept, mut named) = (None, None);
        let call = Arc::clone(&load.call);
        let is_private = load.keep_alive.is_private();
        let audited = load.audited.take();
        let compared = audited.map(|it| returned.compare(it, &call));
        let has_failed = returned.has_failed();
        let ends_older = !has_failed && !is_private;
        let new_entry = match std::mem::replace(&mut load.role, LoadRole::Alone) {
            // The value may contain data that is never committed, or belong to another tenant. So
            // the waiters load by themselves.
            LoadRole::Leader(permit) if is_private => {
                permit.leader.complete(|| Some(LoadResult::Failure));
                load.role = LoadRole::Leader(permit);
                None
            }
            LoadRole::Runner(run) if is_private => {
                run.complete(|| Some(LoadResult::Failure));
                load.role = LoadRole::Runner(run);
                None
            }
            LoadRole::InProcess(kept) if is_private => {
                kept.0.complete(|| Some(LoadResult::Failure));
                is_kept = Some(false);
                None
            }
            LoadRole::Leader(permit) => {
                let list = (!has_failed).then(|| call.names_anew()).flatten();
                named = NamedLoad::hold(&permit, list, || returned.for_waiters(&call));
                load.role = LoadRole::Leader(permit);
                returned.pack(&call)
            }
            LoadRole::Runner(run) => {
                run.complete(|| returned.for_waiters(&call));
                load.role = LoadRole::Runner(run);
                None
            }
            LoadRole::InProcess(kept) => {
                let (run, token, stamp) = *kept;
                // Before the waiters are told, so that a caller that arrives then finds the entry.
                is_kept = Some(call.keep_loaded(returned, token, stamp));
                run.complete(|| returned.for_waiters(&call));
                None
            }
            LoadRole::Alone => None,
        };
        call.loaded_for(load.began.elapsed(), has_failed);
        if !is_private {
            call.remember(|| returned.for_waiters(&call));
        }
        Completion {
            load,
            new_entry,
            has_failed,
            ends_older,
            is_kept,
            compared,
            named,
        }
    }
}

impl Call {
    /// The bulkhead of the function, if it has one. A call inside a load that holds one of its
    /// permits does not wait for another.
    pub(super) fn bulkhead(&self) -> Option<Arc<Bulkhead>> {
        let site = self.site.filter(|_| self.max_loads > 0)?;
        if mutation::is_active("loads-without-permits") {
            return None;
        }
        if enclosing::holds_permit(&self.cache, site.address())
            || (enclosing::is_in_load(&self.cache)
                && mutation::is_active("no-permits-inside-loads"))
        {
            return None;
        }
        Some(self.cache.bulkheads.of(site, self.max_loads))
    }

    /// Whether the value is there by now.
    async fn stored_meanwhile(&self, slot: &mut dyn AnswerSlot) -> bool {
        if self.is_kept_here_only() {
            return match self.find_any(slot.value_type().id) {
                Some((Some(value), _)) => slot.take_shared(value),
                Some((None, _)) => slot.take_absence(),
                None => false,
            };
        }
        let cache = &self.cache;
        if self.barred_from_asking().is_some() {
            return false;
        }
        let mut budget = CallBudget::new(cache.config.command_budget);
        let Ok(lookup) = budget.spend(self.lookup_with_learnt()).await else {
            return false;
        };
        // The entry may have listed further dependencies.
        if self.bypass_reason_of_entry().is_some() {
            return false;
        }
        let (fingerprint, _) = self.find_fingerprint_of(slot.value_type());
        Hit::of(*lookup, fingerprint).is_some_and(|hit| slot.restore(&hit))
    }

    /// Keeps the loaded value in this process; returns whether it is kept.
    fn keep_loaded(
        &self,
        returned: &mut dyn ReturnedValue,
        token: ReadToken,
        stamp: Stamp,
    ) -> bool {
        let Some(local) = &self.cache.local else {
            return false;
        };
        let new_entry = returned.pack(self);
        let named = self.names_anew();
        if let Some(list) = &named {
            self.note_named(list);
        }
        let (Some(entry), None) = (new_entry, named) else {
            // No flags were taken for dependencies that were named. The next load knows them.
            if !returned.has_failed() && !mutation::is_active("older-values-outlive-a-load") {
                local.forget([self.own.key.as_str()]);
            }
            return false;
        };
        let value = match entry.payload {
            Payload::Decoded(value) => Some(value),
            Payload::Empty if entry.content == Content::Absence => None,
            Payload::Empty | Payload::Encoded(_) => return false,
        };
        let local_entry = NewLocalEntry {
            value,
            type_id: returned.type_id(),
            version: self.version,
            extras: self.extras.as_slice().into(),
            ttl: entry.fresh_for,
            local_ttl: entry.fresh_for,
            encoded: entry.size,
            stamp: Some(stamp),
        };
        let is_kept = local.keep(token, local_entry);
        if is_kept {
            self.resource.counters.fills.add_one();
        }
        is_kept
    }
}

/// A body that has returned.
#[derive(Debug)]
pub(super) struct Completion {
    load: Box<Load>,
    new_entry: Option<NewEntry>,
    has_failed: bool,
    /// Whether an older value, which the lease keeps, ends also if this one is not stored.
    ends_older: bool,
    /// Whether the value is kept, if it may only be kept in this process.
    is_kept: Option<bool>,
    /// The result of an audit.
    compared: Option<Compared>,
    named: Option<NamedLoad>,
}

impl Completion {
    /// Stores the value, if there is one.
    pub(super) fn over(self) -> Step<EndedLoad> {
        Box::pin(self.store())
    }

    async fn store(self) -> EndedLoad {
        let Load {
            call,
            role,
            fallback,
            keep_alive,
            counted,
            ..
        } = *self.load;
        drop((keep_alive, counted));
        let leads = match role {
            LoadRole::Leader(permit) => Some(permit),
            LoadRole::Runner(_) | LoadRole::InProcess(_) | LoadRole::Alone => None,
        };
        if let Some(compared) = &self.compared {
            call.conclude(compared).await;
        }
        let cached = match self.compared {
            Some(Compared::Failed(cached)) => Some(cached),
            _ => None,
        };
        let status = match (leads, self.new_entry, self.named) {
            (Some(permit), new_entry, Some(named)) => {
                Some(named.store(&call, permit, new_entry).await)
            }
            (Some(permit), Some(new_entry), None) => {
                let filled = permit.fill(&call, new_entry).await;
                Some(filled == Some(Filled::Stored))
            }
            (Some(permit), None, None) => {
                if self.ends_older {
                    permit.end_older(&call).await;
                }
                Some(false)
            }
            (None, ..) => self.is_kept,
        };
        EndedLoad {
            call,
            status: status.map(|stored| Status::Miss {
                stored,
                joined: false,
            }),
            fallback: fallback.filter(|it| self.has_failed && it.covers_errors),
            cached,
        }
    }
}

/// A call that has ended, except for the value to return.
#[derive(Debug)]
pub(super) struct EndedLoad {
    call: Arc<Call>,
    /// The status to report, for a call that had a lease.
    pub(super) status: Option<Status>,
    /// The entry to return instead of an error, if it decodes.
    fallback: Option<Box<Fallback>>,
    /// The hit that was audited, if the body has failed.
    pub(super) cached: Option<LoadResult>,
}

impl EndedLoad {
    /// Finds what to return instead, or reports the status.
    fn instead(self, slot: &mut dyn AnswerSlot) {
        let is_audited = self.cached.is_some_and(|cached| slot.arrived(cached));
        let falls_back = |it: Box<Fallback>, slot: &mut dyn AnswerSlot| {
            self.call.fall_back(&it, StaleReason::LoadFailed, slot)
        };
        if !is_audited && !self.fallback.is_some_and(|it| falls_back(it, slot)) {
            self.call.said(self.status);
        }
    }

    pub(super) fn returns<R: Returns<S>, S>(self, returned: R) -> R {
        if self.cached.is_none() && self.fallback.is_none() {
            self.call.said(self.status);
            return returned;
        }
        let mut slot = Slot::of::<R, S>();
        self.instead(&mut slot);
        slot.returned().unwrap_or(returned)
    }
}
