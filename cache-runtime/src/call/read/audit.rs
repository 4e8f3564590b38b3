//! The auditor: of so many hits the body runs as well, and what it returns is compared.
//!
//! A difference alone proves nothing: a write may have come in between, and some functions never
//! return the same twice. So an entry whose value differed is a *suspect*: its next hits are audited
//! too, and it is stale only if a second run returned the very same other value, and the entry still
//! stands, unchanged and not invalidated, some time after the first. The caller gets what its body
//! returned.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::audited::Audited;
use super::call::{Call, arrived, load_result};
use crate::auditor::{Identity, Suspicion};
use crate::base::clock::{self, Instant};
use crate::call::returns::{Loaded, Returns};
use crate::coalesce::single_flight::LoadResult;
use crate::engine::{Engine, Handle};
use crate::invalidation::Order;
use crate::protocol::cacheable::Cacheable;
use crate::protocol::codec::Compare;
use crate::protocol::codec_id::CodecId;
use crate::store::{Found, Probe};
use crate::telemetry::audit::{AuditAction, AuditStats, Finding, Verdict, upper_bound};
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
}

/// A hit to be checked; `None` for what is not shared, as an error.
pub(super) fn audited<R: Returns<S>, S>(returned: &R) -> Option<Audited> {
    let cached = load_result(returned)?;
    Some(Audited { cached })
}

/// Compares a hit with what the body has returned.
pub(super) fn compare<R: Returns<S>, S>(hit: Audited, call: &Call, returned: &R) -> Compared {
    let codec = call.codec;
    let same = |one: &LoadResult| is_same::<R, S>(one, returned, codec);
    if matches!(returned.loaded(), Loaded::Failed) {
        return Compared::Failed(hit.cached);
    }
    if same(&hit.cached) {
        return Compared::Same;
    }
    let suspects = &call.cache.auditor;
    let is_as_before = suspects.value_before(&call.own.key).map(|it| same(&it));
    match load_result(returned) {
        Some(fresh) => Compared::Differs(Difference {
            fresh,
            is_as_before,
        }),
        None => Compared::Same,
    }
}

/// What the cache would have answered, for a caller whose body has failed.
pub(super) fn answer<R: Returns<S>, S>(cached: LoadResult) -> Option<R> {
    arrived(cached)
}

fn is_same<R: Returns<S>, S>(one: &LoadResult, returned: &R, codec: CodecId) -> bool {
    match (one, returned.loaded()) {
        (LoadResult::Absence, Loaded::Absent) => true,
        (LoadResult::Value(one), Loaded::Value(other)) => one
            .downcast_ref::<R::Value>()
            .is_some_and(|one| equal::<R::Value, R::Compare>(one, other, codec)),
        _ => false,
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
        let Some((identity, age)) = suspect.standing().await else {
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

/// An entry that may be stale.
struct Suspect {
    cache: Handle,
    probe: Probe,
    function: Arc<FunctionStats>,
    resource: Box<str>,
}

impl Suspect {
    /// Which entry lies under the key, and how old it is; `None` if none is valid.
    async fn standing(&self) -> Option<(Identity, Duration)> {
        let look = self.cache.store.look(&self.probe).await.ok()?;
        let Found::Entry(header, _) = look.found else {
            return None;
        };
        let is_valid = header.stamp == look.stamp && look.intended.is_none();
        // Who holds a lease is about to replace it.
        (is_valid && !header.is_leased()).then(|| {
            let age = look.now.since(header.stored);
            ((header.stamp, header.stored), age)
        })
    }

    async fn confirm_at(self, due: Instant, identity: Identity) {
        tokio::time::sleep_until(due).await;
        match self.standing().await {
            Some((now, age)) if now == identity => self.confirm(age),
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

/// What the auditor has found; see [`Cache::audit`](crate::Cache::audit).
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct AuditReport {
    /// All of them together.
    #[serde(flatten)]
    pub total: AuditFigures,
    /// By resource.
    pub resources: BTreeMap<String, AuditFigures>,
    /// The last stale entries that were found, the latest last; 32 at most.
    pub stale_entries: Vec<Finding>,
}

/// How many hits were checked, and what came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct AuditFigures {
    /// Hits whose function has run as well.
    pub checked: u64,
    /// Those that were stale: seen twice, and not invalidated.
    pub stale: u64,
    /// Those that differed because a write came in between.
    pub changed: u64,
    /// Those whose function returned another value each time.
    pub unstable: u64,
    /// Those that differed once, and are looked at again.
    pub suspected: u64,
    /// Of all hits, this part at most is stale, with 95 % confidence; 1 before anything is checked.
    pub stale_upper_bound: f64,
}

impl AuditFigures {
    fn add(&mut self, stats: &AuditStats) {
        self.checked += stats.checked.get();
        self.stale += stats.stale.get();
        self.changed += stats.changed.get();
        self.unstable += stats.unstable.get();
        self.suspected += stats.suspected.get();
    }

    fn bounded(mut self) -> Self {
        self.stale_upper_bound = upper_bound(self.checked, self.stale);
        self
    }
}

impl AuditReport {
    pub(crate) fn of(engine: &Engine) -> Self {
        let mut report = Self::default();
        for resource in engine.registry.all() {
            let mut figures = AuditFigures::default();
            for function in resource.functions() {
                figures.add(&function.audit);
                report.total.add(&function.audit);
            }
            if figures.checked > 0 {
                report
                    .resources
                    .insert(resource.name.to_string(), figures.bounded());
            }
        }
        report.total = report.total.bounded();
        report.stale_entries = engine.auditor.kept();
        report
    }
}

impl std::fmt::Display for AuditReport {
    /// A table with a line for each resource.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "{:<20} {:>10} {:>6} {:>8} {:>9}  stale at most (95 %)",
            "resource", "checked", "stale", "changed", "unstable"
        )?;
        let all = self.resources.iter().map(|(name, it)| (name.as_str(), it));
        for (name, it) in all.chain([("all", &self.total)]) {
            writeln!(
                f,
                "{name:<20} {:>10} {:>6} {:>8} {:>9}  {:.4} %",
                it.checked,
                it.stale,
                it.changed,
                it.unstable,
                it.stale_upper_bound * 100.0
            )?;
        }
        for it in &self.stale_entries {
            writeln!(f, "stale: {} ({} ms old)", it.key, it.age_ms.unwrap_or(0))?;
        }
        Ok(())
    }
}
