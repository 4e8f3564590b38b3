//! One call for many ids: one lookup, one run of the function with the missing ids, one entry for
//! each id.
//!
//! A batch that holds leases waits for nobody, because two overlapping batches would wait for each
//! other. So a batch that got a lease loads at once. It also loads the ids that other callers are
//! loading, without storing them. A batch that got no lease waits for the others, until it gets a
//! lease that one of them gives back.
//!
//! A hit that is to be audited is loaded together with the missing ids, or alone if there are none.

pub(crate) mod batch_lookup;
mod statuses;
pub(crate) mod steps;

use std::any::TypeId;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::marker::PhantomData;
use std::pin::pin;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt as _};

use self::batch_lookup::{AT_A_TIME, IdAnswer, Tier, look_up};
use self::statuses::{mark_stored, report, serve_instead};
use self::steps::Leases;
use super::audit::audited_hit::Audited;
use super::audit::{Compared, compare_one};
use super::context::LoadContext;
use super::dependencies::learnt::NamedLoad;
use super::permit::Permit;
use super::plan::ReadPlan;
use super::report::load_span;
use super::store_filter::{StoreAll, StoreUnlessEach};
use super::{Call, StoreFilter};
use crate::auditor::Draw;
use crate::base::clock;
use crate::base::error::{Error, ErrorKind};
use crate::base::mutation;
use crate::call::enclosing::{self, Frame};
use crate::call::keep_alive::{KeepAlive, KeptAlive};
use crate::call::observe::{self, BypassReason, Status};
use crate::call::returns::{Gathered, ReturnShape};
use crate::call::scope;
use crate::coalesce::bulkhead::{Bulkhead, BulkheadPermit};
use crate::coalesce::single_flight::LoadResult;
use crate::coalesce::waits::{WaitDecision, WaitEdges};
use crate::engine::Handle;
use crate::key::KeyPart;
use crate::protocol::cacheable::Cacheable;
use crate::protocol::codec::Refusal;
use crate::protocol::packable::Packed;
use crate::registry::{Instance, Site};
use crate::telemetry::function::Loading;

/// A call of a cached function that takes many ids, before its body runs.
#[derive(Debug)]
#[must_use]
pub struct Batch<R, S, K, U = StoreAll> {
    /// The call of each distinct id, or all ids if the cache is off.
    calls: Result<Vec<(K, Call)>, Vec<K>>,
    unless: U,
    kind: PhantomData<fn() -> (R, S)>,
}

impl<R, S, K: KeyPart + Clone> Batch<R, S, K> {
    /// Prepares the call. `plan` runs only if the cache is on, and before the arguments move into
    /// the body.
    pub(crate) fn new<P: FnOnce(&mut ReadPlan) -> &mut ReadPlan>(
        cache: Option<Handle>,
        site: &'static Site,
        resource: &'static str,
        ids: &[K],
        plan: P,
    ) -> Self {
        let calls = cache.and_then(|cache| {
            let instance = Instance::of_closure::<P>();
            let (mut planned, held_back) = ReadPlan::begin(&cache, site, resource, instance)?;
            plan(&mut planned);
            drop(held_back);
            let calls = planned.finish_each(&cache, ids);
            let mut seen = HashMap::with_capacity(calls.len());
            // For an id whose key has come before, whether it had the same version then. An id
            // without a key stays in the list, because the function may know it all the same.
            let again = calls.iter().map(move |call| {
                let key = call.problem.is_none().then_some(&*call.own.key)?;
                match seen.entry(key) {
                    Entry::Occupied(first) => Some(*first.get() == call.version),
                    Entry::Vacant(first) => {
                        first.insert(call.version);
                        None
                    }
                }
            });
            let again: Vec<Option<bool>> = again.collect();
            let each = ids.iter().zip(calls).zip(again);
            let once = each.filter_map(|((id, mut call), again)| {
                match again {
                    None => {}
                    Some(true) => return None,
                    // The ids differ in a part that their key leaves out. The entry belongs to the
                    // other id.
                    Some(false) => call.problem = Some(BypassReason::OtherType),
                }
                Some((id.clone(), call))
            });
            Some(once.collect())
        });
        Self {
            calls: calls.ok_or_else(|| ids.to_vec()),
            unless: StoreAll,
            kind: PhantomData,
        }
    }
}

impl<R, S, K> Batch<R, S, K> {
    /// Refuses to store some values.
    pub fn unless<F: Fn(&R::Value) -> bool>(
        self,
        refuses: F,
    ) -> Batch<R, S, K, StoreUnlessEach<F, R::Value>>
    where
        R: Gathered<S>,
    {
        Batch {
            calls: self.calls,
            unless: StoreUnlessEach::each(refuses),
            kind: PhantomData,
        }
    }
}

impl<R, S, K, U> Batch<R, S, K, U> {
    /// Lets the body set how long its values are cached, and name dependencies. Both apply to all
    /// ids that it has loaded.
    pub fn context(mut self, context: &LoadContext) -> Self {
        for (_, call) in self.calls.iter_mut().flatten() {
            context.begin(&call.cache, call.site);
            call.context = Some(context.clone());
        }
        self
    }
}

impl<R, S, K: Clone, U> Batch<R, S, K, U> {
    /// Answers as many ids as possible from the cache, and runs `body` once with the others, if
    /// there are any. Stores each returned value under its own key, and each missing one as an
    /// absence.
    ///
    /// # Cancel safety
    /// Like a read of one id.
    pub async fn run(self, body: impl AsyncFnOnce(ReturnShape<R, S>, &[K]) -> R) -> R
    where
        R: Gathered<S, Id = K>,
        for<'u> &'u U: StoreFilter<R::Value>,
    {
        self.run_owned(async move |kind, ids: Vec<K>| body(kind, &ids).await)
            .await
    }

    /// Does the same with a body that owns its ids.
    ///
    /// # Cancel safety
    /// Like [`run`](Self::run).
    pub async fn run_owned(self, body: impl AsyncFnOnce(ReturnShape<R, S>, Vec<K>) -> R) -> R
    where
        R: Gathered<S, Id = K>,
        for<'u> &'u U: StoreFilter<R::Value>,
    {
        if scope::takes_key(|| Err(many_keys())) {
            return std::future::pending().await;
        }
        let calls = match self.calls {
            Ok(calls) => calls,
            Err(ids) => {
                observe::record_disabled();
                return body(ReturnShape::OF, ids).await;
            }
        };
        let leases = Leases::default();
        let answered = answered::<R, S, K, U>(&calls, self.unless, &leases, body);
        match calls.first() {
            Some((_, first)) => leases.renewing(first.cache.clone(), answered).await,
            None => answered.await,
        }
    }
}

async fn answered<R, S, K, U>(
    calls: &[(K, Call)],
    unless: U,
    leases: &Leases,
    body: impl AsyncFnOnce(ReturnShape<R, S>, Vec<K>) -> R,
) -> R
where
    K: Clone,
    R: Gathered<S, Id = K>,
    for<'u> &'u U: StoreFilter<R::Value>,
{
    let (answers, instead) = look_up::<R, S, K>(calls, leases).await;
    let statuses = answers.iter().map(|it| (it.status(), it.tier()));
    let mut statuses: Vec<(Status, Tier)> = statuses.collect();
    let Divided {
        mut found,
        mut checks,
        mut missed,
        permits,
    } = divide(calls, answers);
    leases.hold(&permits);
    let is_audit = missed.is_empty() && !checks.is_empty();
    let mut limit = LoadLimit::default();
    if is_audit || !missed.is_empty() {
        limit.bulkhead = calls.first().and_then(|(_, first)| first.bulkhead());
    }
    if is_audit && !limit.try_enter() {
        // A value that is known already is returned without waiting for a permit.
        found.extend(known(std::mem::take(&mut checks)));
    }
    missed.extend(checks.iter().map(|((id, _), ..)| id.clone()));
    let mut returned = if missed.is_empty() && !calls.is_empty() {
        R::empty()
    } else {
        let loaded = load(calls, &permits, limit, missed, body).await;
        let compared = compare(&checks, &loaded.returned);
        let is_private = loaded.is_private;
        let stored =
            store::<R, S, K, U>(calls, permits, &loaded.returned, &unless, is_private).await;
        conclude(compared).await;
        // Others may load now.
        let mut returned = loaded.into_returned();
        if returned.has_failed() {
            // The hits that were audited are returned, and entries that may be served in place of
            // an error, if there is one for each id that was to be loaded.
            let instead = match is_audit {
                true => Some(Vec::new()),
                false => serve_instead::<R::Value, K>(calls, &instead, &mut statuses),
            };
            if let Some(instead) = instead {
                returned = R::empty();
                found.extend(known(checks));
                found.extend(instead);
            }
        }
        mark_stored(calls, &stored, &mut statuses);
        returned
    };
    report(calls, &statuses);
    for (id, value) in found {
        returned.insert(id, value);
    }
    returned
}

/// What the body has returned, and what lasts until its values are stored.
struct Loaded<R> {
    returned: R,
    /// Whether it may contain data that an enclosing write has not committed.
    is_private: bool,
    waits: Vec<WaitEdges>,
    permit: Option<BulkheadPermit>,
}

impl<R> Loaded<R> {
    /// Gives the permit back.
    fn into_returned(self) -> R {
        drop(self.waits);
        drop(self.permit);
        self.returned
    }
}

/// Runs the body with the ids to load, once `max_loads` lets it.
async fn load<R, S, K>(
    calls: &[(K, Call)],
    permits: &[Permit],
    limit: LoadLimit,
    missed: Vec<K>,
    body: impl AsyncFnOnce(ReturnShape<R, S>, Vec<K>) -> R,
) -> Loaded<R>
where
    R: Gathered<S, Id = K>,
{
    let mut keep_alive = calls.first().map_or_else(KeepAlive::default, |(_, first)| {
        let keys: Vec<_> = calls.iter().map(|(_, call)| call.own.key.clone()).collect();
        let leases: Vec<_> = permits.iter().map(Permit::token).collect();
        let frame = Frame::load(&first.cache, first.loads(keys, leases));
        KeepAlive::new(frame, None).within(load_span(first))
    });
    let permit = limit.enter(calls, permits).await;
    if let Some(permit) = &permit {
        keep_alive.holds_permit(permit.function());
    }
    let waits = permit.as_ref().map(|permit| noted(calls, permit));
    if let (Some(_), Some((_, first))) = (permits.first(), calls.first())
        && let Some(window) = first.open_window().await
    {
        for (_, call) in calls {
            let _ = call.window.set(Arc::clone(&window));
        }
    }
    // After the wait for a permit, as for one id.
    let began = clock::now();
    let function = calls
        .first()
        .and_then(|(_, first)| first.resource.function());
    let loading = Loading::new(function);
    let kept_alive = KeptAlive {
        body: pin!(body(ReturnShape::OF, missed)),
        keep_alive: &mut keep_alive,
    };
    let returned = kept_alive.await;
    drop(loading);
    if let Some((_, first)) = calls.first() {
        first.loaded_for(began.elapsed(), returned.has_failed());
    }
    Loaded {
        returned,
        is_private: keep_alive.is_private(),
        waits: waits.unwrap_or_default(),
        permit,
    }
}

/// The answers of the lookup, by what has to be done about them.
struct Divided<'c, K, V> {
    found: Vec<(K, Arc<V>)>,
    /// Hits that are to be audited.
    checks: Checks<'c, K, V>,
    /// The ids to load. Those that got a lease are stored, too.
    missed: Vec<K>,
    permits: Vec<Permit>,
}

fn divide<K: Clone, V>(calls: &[(K, Call)], answers: Vec<IdAnswer<V>>) -> Divided<'_, K, V> {
    let (mut found, mut checks) = (Vec::new(), Vec::new());
    let (mut missed, mut permits) = (Vec::new(), Vec::new());
    for (answered @ (id, call), answer) in calls.iter().zip(answers) {
        match answer {
            IdAnswer::Found(value, ..) => {
                match call.draw() {
                    Some(draw) => checks.push((answered, value, draw)),
                    None => found.extend(value.map(|value| (id.clone(), value))),
                }
                continue;
            }
            IdAnswer::Load(permit) => permits.push(permit),
            IdAnswer::Bypass(_) => {}
        }
        missed.push(id.clone());
    }
    Divided {
        found,
        checks,
        missed,
        permits,
    }
}

/// Compares hits that are audited with what the body returned.
fn compare<'c, R, S, K>(checks: &Checks<'c, K, R::Value>, returned: &R) -> Vec<(&'c Call, Compared)>
where
    R: Gathered<S, Id = K>,
{
    let compared = checks.iter().map(|((id, call), hit, draw)| {
        let cached = hit
            .clone()
            .map_or(LoadResult::Absence, |hit| LoadResult::Value(hit as Arc<_>));
        let draw = draw.clone();
        let hit = Audited { cached, draw };
        (call, compare_one(hit, call, returned, id))
    });
    compared.collect()
}

/// The limit of `max_loads`, if the function has one and its body is to run.
#[derive(Default)]
struct LoadLimit {
    bulkhead: Option<Arc<Bulkhead>>,
    permit: Option<BulkheadPermit>,
}

impl LoadLimit {
    /// Whether the body may run now.
    fn try_enter(&mut self) -> bool {
        let Some(bulkhead) = &self.bulkhead else {
            return true;
        };
        self.permit = bulkhead.try_enter();
        self.permit.is_some()
    }

    /// Waits until the body may run. The wait is boxed, since few functions have a limit.
    async fn enter<K>(self, calls: &[(K, Call)], permits: &[Permit]) -> Option<BulkheadPermit> {
        match (self.permit, self.bulkhead) {
            (None, Some(bulkhead)) => {
                Some(Box::pin(wait_for_permit(calls, permits, bulkhead)).await)
            }
            (permit, _) => permit,
        }
    }
}

/// Waits for a permit of `max_loads`, unless a load that holds one waits for this one.
async fn wait_for_permit<K>(
    calls: &[(K, Call)],
    permits: &[Permit],
    bulkhead: Arc<Bulkhead>,
) -> BulkheadPermit {
    let _noted = match calls.first() {
        Some((_, first)) => {
            let mut loads = enclosing::keys(&first.cache);
            loads.extend(calls.iter().map(|(_, call)| call.own.key.clone()));
            match first.cache.waits.wait(loads, &bulkhead.name()) {
                WaitDecision::Fine(noted) => noted,
                WaitDecision::Cycle => return bulkhead.beyond(),
            }
        }
        None => None,
    };
    permits.iter().for_each(|it| it.leader.queues(true));
    let load_permit = bulkhead.enter().await;
    permits.iter().for_each(|it| it.leader.queues(false));
    load_permit
}

/// Loads that wait for the permit wait for these loads.
fn noted<K>(calls: &[(K, Call)], load_permit: &BulkheadPermit) -> Vec<WaitEdges> {
    let waits = calls.iter().filter_map(|(_, call)| {
        match call
            .cache
            .waits
            .wait(vec![load_permit.name()], &call.own.key)
        {
            WaitDecision::Fine(noted) => noted,
            WaitDecision::Cycle => None,
        }
    });
    waits.collect()
}

/// Hits that are to be checked; `None` is an absence.
type Checks<'c, K, V> = Vec<(&'c (K, Call), Option<Arc<V>>, Draw)>;

/// The cache's answers for ids that were to be audited.
fn known<K: Clone, V>(checks: Checks<'_, K, V>) -> impl Iterator<Item = (K, Arc<V>)> {
    let values = checks.into_iter();
    values.filter_map(|((id, _), value, _)| Some((id.clone(), value?)))
}

/// Counts the results of a batch's audits, and looks up the entries again that differ.
async fn conclude(compared: Vec<(&Call, Compared)>) {
    let audits: Vec<_> = compared.iter().map(concluded).collect();
    let mut audits = stream::iter(audits).buffer_unordered(AT_A_TIME);
    while audits.next().await.is_some() {}
}

async fn concluded((call, compared): &(&Call, Compared)) {
    call.conclude(compared).await;
}

fn many_keys() -> Error {
    Error::new(
        ErrorKind::InvalidKey,
        "this call has no key of its own: each of its ids has one",
    )
}

/// Whether the function has returned ids that it was not asked for. They are in no hit. So a hit
/// would differ from what the function returns, and nothing is stored.
fn has_more<R: Gathered<S, Id = K>, S, K>(calls: &[(K, Call)], returned: &R) -> bool {
    let asked = calls.iter().filter(|(id, _)| returned.get(id).is_some());
    let has_more = returned.count() > asked.count() && !mutation::is_active("batches-lose-ids");
    if let (true, Some((_, first))) = (has_more, calls.first()) {
        let refusal = Refusal::new(
            String::new(),
            "is in a map with ids that were not asked for, which a hit would not have",
            "return the ids that were asked for, and no others",
        );
        first.loses(TypeId::of::<R::Value>(), refusal);
    }
    has_more
}

/// Ends the older values of ids whose loaded value is not stored. Boxed, because most batches have
/// none.
fn end_older(ended: Vec<(Permit, &Call)>) -> BoxFuture<'_, ()> {
    let ends = ended.into_iter();
    let ends: Vec<_> = ends.map(|(permit, call)| permit.end_older(call)).collect();
    Box::pin(async move {
        let mut ends = stream::iter(ends).buffer_unordered(AT_A_TIME);
        while ends.next().await.is_some() {}
    })
}

/// Hands the values to the waiters, stores them, and returns the calls whose value was stored.
/// Everything is prepared before any await, so that `R` need not be `Sync`.
fn store<'c, R: Gathered<S, Id = K>, S, K, U>(
    calls: &'c [(K, Call)],
    permits: Vec<Permit>,
    returned: &R,
    unless: &U,
    is_private: bool,
) -> impl Future<Output = Vec<&'c Call>> + use<'c, R, S, K, U>
where
    for<'u> &'u U: StoreFilter<R::Value>,
{
    let mut fills = Vec::with_capacity(permits.len());
    let (mut anew, mut ended) = (Vec::new(), Vec::new());
    let by_key: HashMap<&str, &(K, Call)> = calls
        .iter()
        .filter(|(_, call)| call.problem.is_none())
        .map(|call| (call.1.own.key.as_str(), call))
        .collect();
    let has_more = has_more(calls, returned);
    for permit in permits {
        let Some((id, call)) = by_key.get(permit.key()) else {
            continue;
        };
        // The value may contain data that an enclosing write has not committed, so no other caller
        // gets it.
        if is_private || returned.has_failed() {
            permit.leader.complete(|| Some(LoadResult::Failure));
            continue;
        }
        let value = returned.get(id);
        if value.is_some_and(Cacheable::is_error) {
            permit.leader.complete(|| Some(LoadResult::Failure));
            continue;
        }
        let named = NamedLoad::hold(&permit, call.names_anew(), || match value {
            Some(value) => {
                let share = || returned.share(id);
                call.value_for_waiters(&Packed::<_, R::Compare>::new(value, &share))
            }
            None => Some(LoadResult::Absence),
        });
        let new_entry = match value {
            _ if has_more || call.is_no_store() => None,
            None => call.pack_absence(),
            Some(value) if unless.refuses(value) => None,
            Some(value) => {
                let share = || returned.share(id);
                call.pack_or_count(&Packed::<_, R::Compare>::new(value, &share))
            }
        };
        match named {
            Some(named) => anew.push(async move {
                let is_stored = named.store(call, permit, new_entry).await;
                is_stored.then_some(call)
            }),
            None => match new_entry {
                Some(new_entry) => fills.push((permit, call, new_entry)),
                None => ended.push((permit, call)),
            },
        }
    }
    async move {
        let mut stored = match calls.first() {
            Some((_, first)) => steps::fill_all(first.cache.clone(), fills).await,
            None => Vec::new(),
        };
        if !ended.is_empty() {
            end_older(ended).await;
        }
        let anew = stream::iter(anew).buffer_unordered(AT_A_TIME);
        let anew: Vec<_> = anew.collect().await;
        stored.extend(anew.into_iter().flatten());
        stored
    }
}
