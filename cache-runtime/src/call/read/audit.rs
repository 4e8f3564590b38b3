//! The auditor: of so many hits the body runs as well, and what it returns is compared.
//!
//! A difference alone proves nothing: a write may have come in between, and some functions never
//! return the same twice. So an entry whose value differed is a *suspect*: its next hits are audited
//! too, and it is stale only if a second run returned the very same other value, and the entry still
//! stands, unchanged and not invalidated, some time after the first. It is the entry in the store that
//! counts: a hit may be of an earlier one, which was replaced while the body ran. The caller gets what
//! its body returned.

use std::sync::Arc;
use std::time::Duration;

use super::audited::Audited;
use super::call::{Call, arrived, load_result, value_of};
use crate::auditor::{Identity, Suspicion};
use crate::base::clock::{self, Instant};
use crate::call::returns::{Gathered, Loaded, Returns};
use crate::coalesce::single_flight::LoadResult;
use crate::engine::Handle;
use crate::invalidation::Order;
use crate::protocol::cacheable::Cacheable;
use crate::protocol::codec::Compare;
use crate::protocol::codec_id::CodecId;
use crate::protocol::entry::{Content, Header, split_list};
use crate::store::{Found, Payload, Probe};
use crate::telemetry::audit::{AuditAction, Finding, Verdict};
use crate::telemetry::events::EventKind;
use crate::telemetry::function::FunctionStats;

/// How a hit compares with what the body has returned.
#[derive(Debug)]
pub(super) enum Compared {
    /// They are the same.
    Same,
    /// The body has failed: nothing can be said, and the caller gets the hit.
    Failed(LoadResult),
    /// They differ.
    Differs(Difference),
}

/// A hit, and what the body has returned in its place.
#[derive(Debug)]
pub(super) struct Difference {
    /// What the body has returned.
    fresh: LoadResult,
    /// Whether it is what a body had returned for this entry before; `None` if none had.
    is_as_before: Option<bool>,
    /// Whether an entry of the store has this value.
    has: fn(&Header, &Payload, &LoadResult, CodecId) -> bool,
}

/// A hit to be checked; `None` for what is not shared, as an error.
pub(super) fn audited<R: Returns<S>, S>(returned: &R) -> Option<Audited> {
    let cached = load_result(returned)?;
    Some(Audited { cached })
}

/// Compares a hit with what the body has returned.
pub(super) fn compare<R: Returns<S>, S>(hit: Audited, call: &Call, returned: &R) -> Compared {
    let fresh = match returned.loaded() {
        Loaded::Failed => return Compared::Failed(hit.cached),
        Loaded::Absent => None,
        Loaded::Value(value) => Some(value),
    };
    compared::<R::Value, R::Compare>(&hit, call, fresh, || load_result(returned))
}

/// Compares the hit of one id with what the body of a batch has returned.
pub(super) fn compare_one<R: Gathered<S>, S>(
    hit: Audited,
    call: &Call,
    returned: &R,
    id: &R::Id,
) -> Compared {
    if returned.has_failed() {
        return Compared::Failed(hit.cached);
    }
    let fresh = returned.get(id);
    compared::<R::Value, R::Compare>(&hit, call, fresh, || match fresh {
        Some(_) => returned.share(id).map(|value| LoadResult::Value(value)),
        None => Some(LoadResult::Absence),
    })
}

fn compared<V: Cacheable, C: Compare<V>>(
    hit: &Audited,
    call: &Call,
    fresh: Option<&V>,
    share: impl FnOnce() -> Option<LoadResult>,
) -> Compared {
    let same = |one: &LoadResult| is_same::<V, C>(one, fresh, call.codec);
    if same(&hit.cached) {
        return Compared::Same;
    }
    let suspects = &call.cache.auditor;
    let is_as_before = suspects.value_before(&call.own.key).map(|it| same(&it));
    match share() {
        Some(fresh) => Compared::Differs(Difference {
            fresh,
            is_as_before,
            has: entry_has::<V, C>,
        }),
        None => Compared::Same,
    }
}

/// What the cache would have answered, for a caller whose body has failed.
pub(super) fn answer<R: Returns<S>, S>(cached: LoadResult) -> Option<R> {
    arrived(cached)
}

/// `None` is an absence.
fn is_same<V: Cacheable, C: Compare<V>>(
    one: &LoadResult,
    other: Option<&V>,
    codec: CodecId,
) -> bool {
    match (one, other) {
        (LoadResult::Absence, None) => true,
        (LoadResult::Value(one), Some(other)) => one
            .downcast_ref::<V>()
            .is_some_and(|one| equal::<V, C>(one, other, codec)),
        _ => false,
    }
}

/// Whether an entry of the store has this value.
fn entry_has<V: Cacheable, C: Compare<V>>(
    header: &Header,
    payload: &Payload,
    fresh: &LoadResult,
    codec: CodecId,
) -> bool {
    let payload = match payload {
        // A list of what the entry depends on stands before its value.
        Payload::Encoded(bytes) if header.content.lists() => match split_list(bytes) {
            Some((_, rest)) => &Payload::Encoded(rest),
            None => return false,
        },
        payload => payload,
    };
    match header.content.plain() {
        Content::Absence => is_same::<V, C>(fresh, None, codec),
        _ => value_of::<V>(header.codec, payload)
            .is_some_and(|stored| is_same::<V, C>(fresh, Some(&stored), codec)),
    }
}

fn equal<V: Cacheable, C: Compare<V>>(one: &V, other: &V, codec: CodecId) -> bool {
    // What is not equal to itself, as NaN is not, can't be told by `==`.
    match C::equal(one, other) {
        Some(true) => true,
        _ => one.digest(codec) == other.digest(codec),
    }
}

impl Call {
    /// Counts what came of an audit, and looks again at what differs.
    pub(super) async fn conclude(&self, compared: &Compared) {
        let Some(function) = self.resource.function() else {
            return;
        };
        let stats = &function.audit;
        match compared {
            Compared::Failed(_) => {}
            Compared::Same => {
                stats.checked.add_one();
                self.cache.auditor.clear(&self.own.key);
            }
            Compared::Differs(difference) => {
                stats.checked.add_one();
                self.look_again(function, difference).await;
            }
        }
    }

    async fn look_again(&self, function: &Arc<FunctionStats>, difference: &Difference) {
        let suspect = Suspect {
            cache: self.cache.clone(),
            probe: self.probe().clone(),
            function: Arc::clone(function),
            resource: self.resource.name.clone(),
        };
        let standing = suspect.standing().await;
        // A hit of an entry that has been replaced says nothing of the one that stands now.
        let is_of_another = |it: &Standing| {
            (difference.has)(&it.header, &it.payload, &difference.fresh, self.codec)
                && !crate::base::mutation::is_active("audit-blames-the-next-entry")
        };
        let Some(Standing { identity, age, .. }) = standing.filter(|it| !is_of_another(it)) else {
            // A write came in between, or the store is away.
            self.cache.auditor.clear(&self.own.key);
            return suspect.report(Verdict::Changed, None);
        };
        let auditor = &self.cache.auditor;
        let fresh = difference.fresh.clone();
        let is_as_before = difference.is_as_before;
        match auditor.suspect(&self.own.key, identity, fresh, is_as_before) {
            _ if crate::base::mutation::is_active("one-audit-is-enough") => suspect.confirm(age),
            Suspicion::First => suspect.report(Verdict::Suspected, Some(age)),
            Suspicion::Unstable => suspect.report(Verdict::Unstable, Some(age)),
            Suspicion::Agreed { since } => {
                let due = since + self.cache.config.audit_confirm_after;
                if due <= clock::now() {
                    suspect.confirm(age);
                } else {
                    // The write may be done, and its invalidation on its way.
                    self.cache
                        .background
                        .spawn(suspect.confirm_at(due, identity));
                }
            }
            Suspicion::Waiting => {}
        }
    }
}

/// A valid entry, as the store has it.
struct Standing {
    identity: Identity,
    age: Duration,
    header: Header,
    payload: Payload,
}

/// An entry that may be stale.
struct Suspect {
    cache: Handle,
    probe: Probe,
    function: Arc<FunctionStats>,
    resource: Box<str>,
}

impl Suspect {
    /// Which entry lies under the key, and how old it is; `None` if none is valid.
    async fn standing(&self) -> Option<Standing> {
        let look = self.cache.store.look(&self.probe).await.ok()?;
        let Found::Entry(header, payload) = look.found else {
            return None;
        };
        let is_valid = header.stamp == look.stamp && look.intended.is_none();
        // Who holds a lease is about to replace it.
        (is_valid && !header.is_leased()).then(|| Standing {
            identity: (header.stamp, header.stored),
            age: look.now.since(header.stored),
            header,
            payload,
        })
    }

    async fn confirm_at(self, due: Instant, identity: Identity) {
        tokio::time::sleep_until(due).await;
        match self.standing().await {
            Some(now) if now.identity == identity => self.confirm(now.age),
            _ => {
                self.cache.auditor.clear(&self.probe.key);
                self.report(Verdict::Changed, None);
            }
        }
    }

    fn confirm(&self, age: Duration) {
        self.cache.auditor.clear(&self.probe.key);
        self.report(Verdict::Stale, Some(age));
    }

    fn report(&self, verdict: Verdict, age: Option<Duration>) {
        self.function.audit.count(verdict);
        let telemetry = &self.cache.telemetry;
        let ago = telemetry.last_invalidation(&self.resource);
        let millis = |it: Duration| u64::try_from(it.as_millis()).unwrap_or(u64::MAX);
        let finding = Finding {
            key: self.probe.key.clone(),
            resource: self.resource.to_string(),
            op: self.function.op.to_string(),
            verdict,
            age_ms: age.map(millis),
            last_invalidated_ms: ago.map(millis),
        };
        telemetry
            .events
            .publish(|| EventKind::Audited(finding.clone()));
        if verdict != Verdict::Stale {
            return;
        }
        let auditor = &self.cache.auditor;
        auditor.keep(finding.clone());
        if auditor.may_log(&self.resource) {
            tracing::error!(
                key = finding.key,
                resource = finding.resource,
                op = finding.op,
                age_ms = finding.age_ms,
                last_invalidated_ms = finding.last_invalidated_ms,
                "the audit found a stale entry: its data changed, and nothing invalidated it"
            );
        }
        let action = self
            .cache
            .config
            .on_stale
            .as_ref()
            .map(|it| it.ask(&finding));
        if action == Some(AuditAction::Invalidate) {
            let order = Order {
                kills: vec![self.probe.key.clone()],
                ..Order::default()
            };
            drop(self.cache.delivery.enqueue(order));
        }
    }
}
