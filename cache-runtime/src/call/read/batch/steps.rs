//! Requests and fills many leases in steps. A step is large enough to be fast, and small enough not
//! to delay other commands.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::MissedTickBehavior;

use super::super::Call;
use super::super::new_entry::NewEntry;
use super::super::permit::Permit;
use crate::base::call_budget::CallBudget;
use crate::base::clock;
use crate::base::error::ErrorKind;
use crate::base::nonce::Nonce;
use crate::call::observe::BypassReason;
use crate::coalesce::maintenance::MaintenanceJob;
use crate::engine::Handle;
use crate::protocol::generation::Dependency;
use crate::store::{EntryRef, Expected, Filled, LeaseReply, LeaseRequest};

/// The most ids in one step. Each step has the budget of a call.
pub(crate) const STEP: usize = 256;
/// The most bytes of values in one step, unless a single value is larger.
const STEP_BYTES: usize = 4 << 20;

/// A lease to request.
pub(crate) struct WantedLease<'c> {
    /// The position of the id in its batch.
    pub(crate) place: usize,
    pub(crate) call: &'c Call,
    pub(crate) permit: Permit,
    pub(crate) expected: Expected,
}

/// The result of a request.
pub(crate) enum LeaseOutcome {
    Granted(Permit),
    /// Another caller was faster.
    Taken,
    Bypass(BypassReason),
}

/// The leases of one batch, which are renewed together.
#[derive(Default)]
pub(crate) struct Leases(Mutex<Vec<(String, Nonce)>>);

impl Leases {
    pub(crate) fn hold<'p>(&self, permits: impl IntoIterator<Item = &'p Permit>) {
        *self.0.lock() = permits.into_iter().map(Permit::lease).collect();
    }

    /// Adds a lease.
    pub(crate) fn add(&self, permit: &Permit) {
        self.0.lock().push(permit.lease());
    }

    /// Runs a batch and renews its leases, from the first lease to the last fill. With many ids,
    /// requesting and filling alone may take longer than a lease lasts.
    pub(crate) async fn renewing<F: Future>(&self, cache: Handle, batch: F) -> F::Output {
        let mut batch = std::pin::pin!(batch);
        let length = cache.config.lease;
        let third = length / 3;
        let mut renewal = crate::base::time::interval_at(clock::now() + third, third);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                output = &mut batch => return output,
                _ = renewal.tick() => {
                    let leases = self.0.lock().clone();
                    if !leases.is_empty() {
                        cache.maintenance.send(MaintenanceJob::RenewMany { leases, length });
                    }
                }
            }
        }
    }
}

/// Requests leases. The first step uses what is left of the batch's budget.
pub(crate) async fn lease_all(
    cache: Handle,
    wanted: Vec<WantedLease<'_>>,
    mut call_budget: CallBudget,
) -> Vec<(usize, LeaseOutcome)> {
    let mut answers = Vec::with_capacity(wanted.len());
    let mut is_away = false;
    let mut failed = BypassReason::Unavailable;
    let mut wanted = wanted.into_iter();
    loop {
        let mut step: Vec<_> = wanted.by_ref().take(STEP).collect();
        let Some(call) = step.first().map(|it| it.call) else {
            return answers;
        };
        let requests: Vec<(&EntryRef, LeaseRequest)> = step
            .iter_mut()
            .map(|it| (it.call.entry_ref(), it.permit.request(it.expected.clone())))
            .collect();
        let replies = if is_away {
            None
        } else {
            match call_budget.spend(cache.store.lease_many(&requests)).await {
                Ok(replies) => Some(replies),
                Err(error) => {
                    is_away = error.kind() == ErrorKind::Unavailable;
                    call.fault(&error);
                    failed = BypassReason::of(&error);
                    None
                }
            }
        };
        let mut replies = replies.into_iter().flatten();
        for WantedLease {
            place, mut permit, ..
        } in step
        {
            let asked = match replies.next() {
                Some(LeaseReply::Granted) => {
                    permit.call_budget = call_budget;
                    LeaseOutcome::Granted(permit)
                }
                Some(reply) => {
                    permit.forget();
                    match reply {
                        LeaseReply::WriteInProgress => {
                            LeaseOutcome::Bypass(BypassReason::WriteInProgress)
                        }
                        LeaseReply::Foreign => LeaseOutcome::Bypass(BypassReason::Foreign),
                        LeaseReply::Taken(_) | LeaseReply::Granted => LeaseOutcome::Taken,
                    }
                }
                // The lease may have been granted. Dropping the permit gives it back.
                None => LeaseOutcome::Bypass(failed),
            };
            answers.push((place, asked));
        }
        call_budget.renew();
    }
}

/// Stores the loaded values, each under its lease. Returns the calls whose value was stored.
pub(crate) async fn fill_all(cache: Handle, fills: Vec<(Permit, &Call, NewEntry)>) -> Vec<&Call> {
    // A shutdown waits for the fills.
    let _running = cache.invalidations.begin();
    let Some((_, reported, _)) = fills.first() else {
        return Vec::new();
    };
    let reported = *reported;
    let mut fills = fills.into_iter().peekable();
    let mut budget = None;
    let mut stored = Vec::new();
    loop {
        let (mut permits, mut step, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut sizes = Vec::new();
        let mut deps: Option<&Arc<[Arc<Dependency>]>> = None;
        while let Some((permit, call, new_entry)) = fills.next_if(|(_, call, new_entry)| {
            // All entries of a step depend on the same.
            let fits = deps.is_none_or(|deps| *deps == call.entry_ref().deps);
            let is_small = step.len() < STEP && bytes + new_entry.size <= STEP_BYTES;
            step.is_empty() || (is_small && fits)
        }) {
            bytes += new_entry.size;
            sizes.push(new_entry.size);
            deps = Some(&call.entry_ref().deps);
            step.push((call.entry_ref(), permit.to_fill(call, new_entry, None)));
            permits.push((permit, call));
        }
        let Some((first, call)) = permits.first() else {
            return stored;
        };
        let call_budget = budget.get_or_insert(first.call_budget);
        let began = clock::now();
        let filled = call_budget.spend(cache.store.fill_many(step)).await;
        call_budget.renew();
        let answers = filled.as_ref().map(Vec::as_slice).unwrap_or_default();
        let sizes = sizes.into_iter().zip(answers);
        let sizes = sizes.filter(|(_, filled)| **filled == Filled::Stored);
        reported.filled_many(began.elapsed(), sizes.map(|(size, _)| size));
        match filled {
            Ok(answers) => {
                for ((permit, call), filled) in permits.into_iter().zip(answers) {
                    stored.extend((filled == Filled::Stored).then_some(call));
                    permit.filled(call, filled);
                }
            }
            Err(error) => {
                let counters = &call.resource.counters;
                permits.iter().for_each(|_| counters.errors.add_one());
                tracing::debug!(first = first.key(), %error, "values of a batch were not stored");
                if error.kind() == ErrorKind::Unavailable {
                    // Dropping the other permits gives their leases back, or the leases expire.
                    return stored;
                }
            }
        }
    }
}
