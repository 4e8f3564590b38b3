//! Looks up the ids of a batch: each is found, has to be loaded under a lease, or bypasses the
//! cache.

use std::any::TypeId;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt as _};

use super::super::Call;
use super::super::hit::Hit;
use super::super::lookup_loop::{Action, EntryState, LookupLoop};
use super::super::permit::Permit;
use super::steps::{self, LeaseOutcome, Leases, WantedLease};
use crate::base::call_budget::CallBudget;
use crate::base::error::{Error, ErrorKind};
use crate::base::mutation;
use crate::call::observe::{BypassReason, Status};
use crate::call::returns::Gathered;
use crate::call::scope::{self, Mode};
use crate::coalesce::single_flight::LoadResult;
use crate::engine::Handle;
use crate::local::{AnyValue, ReadToken};
use crate::store::{EntryRef, Expected, LookupReply, Store};

/// How many ids are handled at a time when each needs requests of its own.
pub(crate) const AT_A_TIME: usize = 64;

/// The next step for one id of a batch.
pub(crate) enum IdAnswer<V> {
    /// A value, or an absence.
    Found(Option<Arc<V>>, Tier, Duration),
    /// Load the value, and store it under this lease.
    Load(Permit),
    /// Load the value, and store nothing.
    Bypass(BypassReason),
}

/// The tier that had the entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tier {
    /// A local entry. The hit is counted already.
    Local,
    Store,
}

impl<V> IdAnswer<V> {
    pub(crate) fn tier(&self) -> Tier {
        match self {
            Self::Found(_, tier, _) => *tier,
            Self::Load(_) | Self::Bypass(_) => Tier::Store,
        }
    }

    pub(crate) fn status(&self) -> Status {
        match self {
            Self::Found(_, _, ttl) => Status::Hit { ttl: *ttl },
            // Updated once it is known whether the value was stored.
            Self::Load(_) => Status::Miss {
                stored: false,
                joined: false,
            },
            Self::Bypass(reason) => Status::Bypass(*reason),
        }
    }
}

/// The answers for all ids, and for each what may be served if its load fails.
pub(crate) async fn look_up<R: Gathered<S>, S, K>(
    calls: &[(K, Call)],
    leases: &Leases,
) -> (Vec<IdAnswer<R::Value>>, Vec<Option<Box<Hit>>>) {
    let mut lookup_loops: Vec<LookupLoop<'_>> = calls
        .iter()
        .map(|(_, call)| LookupLoop::new(call, call.fingerprint::<R::Value>()))
        .collect();
    let answers = look_up_with::<R, S, K>(calls, leases, &mut lookup_loops).await;
    let instead = lookup_loops.iter_mut().map(|lookup_loop| {
        let fallback = lookup_loop.fallback().filter(|it| it.covers_errors);
        fallback.map(|fallback| fallback.hit)
    });
    let instead = instead.collect();
    (answers, instead)
}

async fn look_up_with<R: Gathered<S>, S, K>(
    calls: &[(K, Call)],
    leases: &Leases,
    lookup_loops: &mut [LookupLoop<'_>],
) -> Vec<IdAnswer<R::Value>> {
    if let Some(reason) = calls.first().and_then(|(_, call)| call.barred_by_scope()) {
        let bypass = calls.iter().map(|(_, call)| {
            let reason = match mutation::is_active("scopes-hide-own-writes") {
                true => reason,
                false => call.barred_by_body().unwrap_or(reason),
            };
            IdAnswer::Bypass(reason)
        });
        return bypass.collect();
    }
    match scope::mode() {
        Mode::Usual | Mode::Bypass => {}
        Mode::Refresh => {
            let mut answers: Vec<_> = calls.iter().map(|_| None).collect();
            let looping = lookup_loops.iter_mut().zip(&mut answers).zip(calls);
            stream::iter(looping)
                .for_each_concurrent(AT_A_TIME, async |((lookup_loop, answer), (_, call))| {
                    *answer = Some(match call.barred_by_body() {
                        Some(reason) => IdAnswer::Bypass(reason),
                        None => answer_of(lookup_loop.take().await),
                    });
                })
                .await;
            return answered_all(answers);
        }
    }
    let mut answers = first_lookup::<R::Value, K>(calls, lookup_loops, leases).await;
    let loads = |answer: &Option<_>| matches!(answer, Some(IdAnswer::Load(_)));
    if answers.iter().any(Option::is_none) && !answers.iter().any(loads) {
        // Other callers are loading everything that is missing, and nobody waits for this batch.
        // The wait limit starts now for all ids, in whatever order they are handled.
        lookup_loops.iter_mut().for_each(LookupLoop::begin_to_wait);
        if run_loops(lookup_loops, &mut answers, leases, Until::Lease).await {
            // It may be one of many leases that were given back.
            lookup_loops.iter_mut().for_each(LookupLoop::end_waiting);
            run_loops(lookup_loops, &mut answers, leases, Until::All).await;
        }
    }
    answered_all(answers)
}

/// When to stop handling the remaining ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    All,
    /// After the first lease. The other ids stay without an answer: a holder of a lease waits for
    /// nobody.
    Lease,
}

/// Runs the lookup loop of each id that has no answer. Returns true if one of them got a lease.
async fn run_loops<V: crate::Cacheable>(
    lookup_loops: &mut [LookupLoop<'_>],
    answers: &mut [Option<IdAnswer<V>>],
    leases: &Leases,
    until: Until,
) -> bool {
    let open: Vec<_> = lookup_loops
        .iter_mut()
        .enumerate()
        .zip(answers.iter())
        .filter(|(_, answer)| answer.is_none())
        .map(|((place, lookup_loop), _)| async move { (place, action::<V>(lookup_loop).await) })
        .collect();
    let mut turns = stream::iter(open).buffer_unordered(AT_A_TIME);
    let mut any = false;
    while let Some((place, answer)) = turns.next().await {
        if let IdAnswer::Load(permit) = &answer {
            leases.add(permit);
            any = true;
        }
        if let Some(place) = answers.get_mut(place) {
            *place = Some(answer);
        }
        if any && until == Until::Lease && !mutation::is_active("batch-waits-with-a-lease") {
            break;
        }
    }
    any
}

fn answered_all<V>(answers: Vec<Option<IdAnswer<V>>>) -> Vec<IdAnswer<V>> {
    let late = || IdAnswer::Bypass(BypassReason::WaitLimit);
    let answers = answers.into_iter();
    answers.map(|answer| answer.unwrap_or_else(late)).collect()
}

/// Looks up all ids once, and requests the leases of those that nobody is loading. `None` for ids
/// that another caller is loading.
async fn first_lookup<V: crate::Cacheable, K>(
    calls: &[(K, Call)],
    lookup_loops: &mut [LookupLoop<'_>],
    leases: &Leases,
) -> Vec<Option<IdAnswer<V>>> {
    let bypass_all = |reason| {
        let bypass = calls.iter().map(|_| Some(IdAnswer::Bypass(reason)));
        bypass.collect()
    };
    let Some((_, first)) = calls.first() else {
        return Vec::new();
    };
    let cache = &first.cache;
    if cache.is_closed() {
        return bypass_all(BypassReason::Unavailable);
    }
    // Local entries first: only the other ids are read from the store.
    let local_answers = calls.iter().map(|(_, call)| call.find::<V>());
    let mut answers: Vec<Option<IdAnswer<V>>> = local_answers
        .map(|answer| answer.map(|(value, ttl)| IdAnswer::Found(value, Tier::Local, ttl)))
        .collect();
    let places = answers.iter().zip(calls);
    let asked = places.filter_map(|(answer, (_, call))| answer.is_none().then_some(call));
    let asked: Vec<_> = asked.collect();
    if asked.is_empty() {
        return answers;
    }
    let mut call_budget = CallBudget::new(cache.config.command_budget);
    let lookups = lookup_all(cache, asked);
    first.begins_lookup();
    let lookups = call_budget.spend(lookups).await;
    first.ends_lookup();
    let lookups = match lookups {
        Ok(lookups) => lookups,
        Err(error) => {
            first.fault(&error);
            let bypass = |answer: Option<IdAnswer<V>>| {
                Some(answer.unwrap_or(IdAnswer::Bypass(BypassReason::of(&error))))
            };
            return answers.into_iter().map(bypass).collect();
        }
    };
    if calls.len() > steps::STEP {
        // The lookup took several steps.
        call_budget.renew();
    }
    let wanted = classify_all(calls, lookup_loops, lookups, &mut answers);
    leases.hold(wanted.iter().map(|wanted| &wanted.permit));
    for (place, outcome) in steps::lease_all(cache.clone(), wanted, call_budget).await {
        if let Some(answer) = answers.get_mut(place) {
            *answer = match outcome {
                LeaseOutcome::Granted(permit) => Some(IdAnswer::Load(permit)),
                LeaseOutcome::Bypass(reason) => Some(IdAnswer::Bypass(reason)),
                LeaseOutcome::Taken => None,
            };
        }
    }
    answers
}

/// Answers the ids that were looked up, as far as the lookups tell. Returns the leases to request.
fn classify_all<'c, V: crate::Cacheable, K>(
    calls: &'c [(K, Call)],
    lookup_loops: &mut [LookupLoop<'_>],
    lookups: Vec<LookedUp>,
    answers: &mut [Option<IdAnswer<V>>],
) -> Vec<WantedLease<'c>> {
    let mut wanted = Vec::new();
    // In the order of the ids that were read.
    let mut lookups = lookups.into_iter();
    let places = lookup_loops.iter_mut().zip(calls).zip(answers);
    for (place, ((lookup_loop, (_, call)), answer)) in places.enumerate() {
        if answer.is_some() {
            continue;
        }
        let Some(LookedUp {
            lookup,
            read_token,
            barred,
        }) = lookups.next()
        else {
            break;
        };
        if let Some(reason) = barred {
            *answer = Some(IdAnswer::Bypass(reason));
            continue;
        }
        let stamp = lookup.stamp;
        *answer = match classified(lookup_loop, call, lookup, read_token) {
            Ok(answer) => answer,
            Err(expected) => {
                wanted.push(WantedLease {
                    place,
                    call,
                    permit: Permit::new(call, stamp, call.fingerprint::<V>()),
                    expected,
                });
                None
            }
        };
    }
    wanted
}

/// The result of the lookup of one id.
struct LookedUp {
    lookup: LookupReply,
    /// Taken before the lookup.
    read_token: Option<ReadToken>,
    /// Why it may not be used.
    barred: Option<BypassReason>,
}

/// Looks up the entries of all these calls. Entries that list more dependencies than were asked for
/// are looked up again.
fn lookup_all<'c>(
    cache: &'c Handle,
    asked: Vec<&'c Call>,
) -> BoxFuture<'c, Result<Vec<LookedUp>, Error>> {
    Box::pin(async move {
        // Both before the lookup: an invalidation that is delivered in between shows in the lookup.
        let mut barred: Vec<_> = asked
            .iter()
            .map(|call| call.bypass_reason_of_entry())
            .collect();
        let mut tokens: Vec<_> = asked.iter().map(|call| call.read_token()).collect();
        let entry_refs: Vec<EntryRef> = asked.iter().map(|call| call.entry_ref().clone()).collect();
        let mut lookups =
            lookup_and_prune(&cache.store, cache.config.longest_intent(), &entry_refs).await?;
        let mut again = Vec::new();
        let places = lookups
            .iter_mut()
            .zip(&asked)
            .zip(&mut barred)
            .zip(&mut tokens);
        for (at, (((lookup, call), barred), token)) in places.enumerate() {
            let knew = call.has_learnt();
            call.reads_list(lookup);
            if call.has_learnt() != knew {
                (*barred, *token) = (call.bypass_reason_of_entry(), call.read_token());
                again.push(lookup_again(at, call));
            }
        }
        let again: Vec<_> = stream::iter(again)
            .buffer_unordered(AT_A_TIME)
            .collect()
            .await;
        for (at, lookup) in again {
            let lookup = lookup?;
            if let Some(place) = lookups.get_mut(at) {
                *place = lookup;
            }
        }
        let looked = lookups.into_iter().zip(tokens).zip(barred);
        let looked = looked.map(|((lookup, read_token), barred)| LookedUp {
            lookup,
            read_token,
            barred,
        });
        Ok(looked.collect())
    })
}

async fn lookup_again(at: usize, call: &Call) -> (usize, Result<LookupReply, Error>) {
    (at, call.lookup_in_store().await.map(|lookup| *lookup))
}

/// Returns what a lookup means for one id: an answer, `None` if another caller is loading it, or an
/// error with what a lease may replace.
fn classified<V: crate::Cacheable>(
    lookup_loop: &mut LookupLoop<'_>,
    call: &Call,
    lookup: LookupReply,
    read_token: Option<ReadToken>,
) -> Result<Option<IdAnswer<V>>, Expected> {
    match lookup_loop.classify(lookup) {
        EntryState::Bypass(reason) => Ok(Some(IdAnswer::Bypass(reason))),
        EntryState::Leased(_) => Ok(None),
        EntryState::Vacant(expected) => Err(expected),
        EntryState::Hit(hit) | EntryState::Past(hit, _) => {
            let value = hit.value::<V>();
            if value.is_none() && !hit.is_absence() {
                lookup_loop.reject(hit.header);
                return Err(Expected::Entry(hit.header));
            }
            if let Some(read_token) = read_token {
                let kept = value.clone().map(|value| value as AnyValue);
                call.keep(&hit, TypeId::of::<V>(), kept, read_token);
            }
            Ok(Some(IdAnswer::Found(value, Tier::Store, hit.ttl)))
        }
    }
}

/// Looks up many entries. Ends expired intents first, as the lookup of one entry does.
async fn lookup_and_prune(
    store: &Arc<dyn Store>,
    longest: Duration,
    entry_refs: &[EntryRef],
) -> Result<Vec<LookupReply>, Error> {
    let lookups = lookup_each(store, entry_refs).await?;
    let Some(first) = expired(longest, entry_refs, &lookups).next() else {
        return Ok(lookups);
    };
    // All ids share their dependencies, so pruning one clears the shared intents. There is rarely
    // anything else.
    store.prune(first).await?;
    let lookups = lookup_each(store, entry_refs).await?;
    if expired(longest, entry_refs, &lookups).next().is_none() {
        return Ok(lookups);
    }
    let prunes: Vec<_> = expired(longest, entry_refs, &lookups)
        .map(|entry_ref| store.prune(entry_ref))
        .collect();
    let pruned: Vec<_> = stream::iter(prunes)
        .buffer_unordered(AT_A_TIME)
        .collect()
        .await;
    pruned.into_iter().collect::<Result<(), _>>()?;
    lookup_each(store, entry_refs).await
}

/// Looks up entries with the same dependencies in few round trips. Entries whose loads have named
/// more are looked up one by one.
async fn lookup_each(
    store: &Arc<dyn Store>,
    entry_refs: &[EntryRef],
) -> Result<Vec<LookupReply>, Error> {
    let lists = entry_refs.iter().map(|entry_ref| &entry_ref.deps);
    let Some(usual) = lists.min_by_key(|deps| deps.len()) else {
        return Ok(Vec::new());
    };
    if entry_refs.iter().all(|entry_ref| entry_ref.deps == *usual) {
        return store.lookup_many(entry_refs).await;
    }
    let (mut together, mut alone) = (Vec::new(), Vec::new());
    for (at, entry_ref) in entry_refs.iter().enumerate() {
        match entry_ref.deps == *usual {
            true => together.push(entry_ref.clone()),
            false => alone.push(look_one(at, store, entry_ref)),
        }
    }
    let mut together = store.lookup_many(&together).await?.into_iter();
    let alone = stream::iter(alone).buffer_unordered(AT_A_TIME);
    let mut alone: HashMap<usize, Result<LookupReply, Error>> = alone.collect().await;
    let lookups = (0..entry_refs.len()).map(|at| match alone.remove(&at) {
        Some(lookup) => lookup,
        None => together.next().ok_or_else(|| {
            Error::new(
                ErrorKind::Store,
                "the store returned fewer answers than there were keys",
            )
        }),
    });
    lookups.collect()
}

async fn look_one(
    at: usize,
    store: &Arc<dyn Store>,
    entry_ref: &EntryRef,
) -> (usize, Result<LookupReply, Error>) {
    (at, store.lookup(entry_ref).await)
}

fn expired<'p>(
    longest: Duration,
    entry_refs: &'p [EntryRef],
    lookups: &'p [LookupReply],
) -> impl Iterator<Item = &'p EntryRef> {
    entry_refs
        .iter()
        .zip(lookups)
        .filter(move |(_, lookup)| lookup.has_expired_intents(longest))
        .map(|(entry_ref, _)| entry_ref)
}

/// Runs the lookup loop of one id, which may wait for other callers. The reader lives until all ids
/// have answers, so the callers that wait with it are told here.
async fn action<V: crate::Cacheable>(lookup_loop: &mut LookupLoop<'_>) -> IdAnswer<V> {
    let tells = !mutation::is_active("batch-keeps-who-waits");
    let answer = loop {
        match lookup_loop.next_action().await {
            Action::Hit(hit) if hit.is_absence() => {
                lookup_loop.found(&hit, || Some(LoadResult::Absence));
                break IdAnswer::Found(None, Tier::Store, hit.ttl);
            }
            Action::Hit(hit) => match hit.value::<V>() {
                Some(value) => {
                    if tells {
                        lookup_loop
                            .found(&hit, || Some(LoadResult::Value(Arc::clone(&value) as _)));
                    }
                    break IdAnswer::Found(Some(value), Tier::Store, hit.ttl);
                }
                None => lookup_loop.reject(hit.header),
            },
            Action::Stale(hit, _) => match hit.value::<V>() {
                Some(value) => break IdAnswer::Found(Some(value), Tier::Store, hit.ttl),
                None => lookup_loop.reject(hit.header),
            },
            other => break answer_of(other),
        }
    };
    if tells {
        lookup_loop.stops_polling();
    }
    answer
}

/// The answer for an id whose lookup loop has ended with this action.
fn answer_of<V: crate::Cacheable>(action: Action) -> IdAnswer<V> {
    match action {
        Action::Lead(permit) => IdAnswer::Load(permit),
        Action::Bypass(reason) => IdAnswer::Bypass(reason),
        Action::Joined(LoadResult::Absence) => IdAnswer::Found(None, Tier::Store, Duration::MAX),
        Action::Joined(LoadResult::Value(value)) => match value.downcast() {
            Ok(value) => IdAnswer::Found(Some(value), Tier::Store, Duration::MAX),
            Err(_) => IdAnswer::Bypass(BypassReason::OtherType),
        },
        Action::Joined(LoadResult::Failure) => IdAnswer::Bypass(BypassReason::LoadFailed),
        // `action` handles hits itself, and a batch never revalidates: it has no `swr`.
        Action::Hit(_) | Action::Stale(..) | Action::Revalidate(..) => {
            IdAnswer::Bypass(BypassReason::OtherType)
        }
    }
}
