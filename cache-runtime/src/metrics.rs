//! Metrics through the [`metrics`](https://docs.rs/metrics) facade: names, labels and units.
//!
//! With the feature `metrics` each cache publishes its figures to the recorder that the program has
//! installed: once a second, and when [`Cache::publish_metrics`](crate::Cache::publish_metrics) is
//! called:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! # use cache_runtime::{Cache, CacheConfig};
//! // metrics_exporter_prometheus::PrometheusBuilder::new().install()?;
//! let cache = Cache::new(CacheConfig::default().local_mb(16)).await;
//! cache.publish_metrics(); // before a scrape, to be exact to the moment
//! # }
//! ```
//!
//! A call never uses the recorder. It adds to the cache's own atomic counters, with or without this
//! feature, and a background task publishes the differences. So a hit costs the same with the
//! feature and with any recorder, and a recorder that is installed later gets all figures.
//!
//! Durations are in seconds and sizes in bytes. Names follow Prometheus; they are the form that
//! OpenTelemetry's rules give `cache.lookup.duration` and so on. OpenTelemetry has no conventions
//! for caches yet. Histograms have a resolution of one eighth.
//!
//! Labels, where a metric has them:
//!
//! | label | values |
//! |---|---|
//! | `cache` | the namespace; empty without one |
//! | `resource` | the resource |
//! | `op` | the attribute's `op`, or the function's name |
//! | `outcome` | `hit`, `stale`, `miss`, `joined`, `bypass` |
//! | `tier` | `local`, `redis`, `memcached`; of calls also `request`; empty where none has answered |
//! | `reason` | why it was a bypass or stale, as in `Cache-Status`; else empty |

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ::metrics::{Key, Label, Level, Metadata, Recorder, SharedString, Unit, with_recorder};

use crate::base::counters::{Counter, CounterSnapshot};
use crate::base::mutation::is_active;
use crate::call::observe::{BypassReason, StaleReason};
use crate::engine::Engine;
use crate::stats::OutboxStats;
use crate::store::Circuit;
use crate::telemetry::audit;
use crate::telemetry::function::FunctionStats;
use crate::telemetry::histogram::{Histogram, HistogramSnapshot};
use crate::telemetry::published::{Baseline, RECORDERS, RESTARTS};

/// How often a cache publishes by itself.
const INTERVAL: Duration = Duration::from_secs(1);

/// Upper bounds of buckets that suit the durations here, in seconds: 100 ns to 30 s.
pub const DURATION_BUCKETS: [f64; 24] = [
    0.000_000_1,
    0.000_000_25,
    0.000_000_5,
    0.000_001,
    0.000_005,
    0.000_01,
    0.000_05,
    0.000_1,
    0.000_25,
    0.000_5,
    0.001,
    0.002_5,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
];

/// Upper bounds of buckets that suit the sizes here, in bytes: 64 B to 4 MiB.
pub const SIZE_BUCKETS: [f64; 9] = [
    64.0,
    256.0,
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
];

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// It only grows.
    Counter,
    /// It is what it is now.
    Gauge,
    /// Values by size.
    Histogram,
}

/// A metric that this crate publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: MetricKind,
    /// In which unit its values are: `seconds`, `bytes`, or empty for a plain number.
    pub unit: &'static str,
    /// Its labels beside `cache`.
    pub labels: &'static [&'static str],
    /// What it says.
    pub description: &'static str,
}

macro_rules! metrics {
    ($($constant:ident = $name:literal, $kind:ident, $unit:literal, [$($label:literal),*], $text:literal;)*) => {
        $(#[doc = $text] pub const $constant: &str = $name;)*

        /// All of them.
        pub const ALL: &[Metric] = &[$(Metric {
            name: $name,
            kind: MetricKind::$kind,
            unit: $unit,
            labels: &[$($label),*],
            description: $text,
        },)*];
    };
}

metrics! {
    CALLS = "cache_calls_total", Counter, "", ["resource", "op", "outcome", "tier", "reason"],
        "Calls of cached functions, by how they were answered.";
    HIT_RATIO = "cache_hit_ratio", Gauge, "", ["resource"],
        "Hits by all calls of a resource since the start, 0 to 1.";
    LOADS_IN_FLIGHT = "cache_loads_in_flight", Gauge, "", ["resource", "op"],
        "Bodies of cached functions that are running.";
    CALLERS_WAITING = "cache_callers_waiting", Gauge, "", ["resource", "op"],
        "Callers who wait for a load of another call.";
    FAILED_LOADS = "cache_failed_loads_total", Counter, "", ["resource", "op"],
        "Bodies of cached functions that returned an error.";
    LOOKUP_DURATION = "cache_lookup_duration_seconds", Histogram, "seconds", ["resource", "op", "tier"],
        "How long the store takes to answer a lookup. Of the lookups that find an entry in this process, one in 64 is timed.";
    LOAD_DURATION = "cache_load_duration_seconds", Histogram, "seconds", ["resource", "op"],
        "How long bodies of cached functions take.";
    FILL_DURATION = "cache_fill_duration_seconds", Histogram, "seconds", ["resource", "op", "tier"],
        "How long the store takes to store a value.";
    PAYLOAD_SIZE = "cache_payload_size_bytes", Histogram, "bytes", ["resource", "op"],
        "Sizes of the values that were stored.";
    FILLS = "cache_fills_total", Counter, "", ["resource", "result"],
        "Values `stored`, and `refused` because their entry was invalidated or taken over meanwhile.";
    STALE_REJECTED = "cache_stale_rejected_total", Counter, "", ["resource"],
        "Entries found dead by their stamp: each would have been a stale read.";
    ERRORS = "cache_errors_total", Counter, "", ["resource"],
        "Faults of the store, payloads that did not decode, values that could not be stored.";
    REFRESHES = "cache_refreshes_total", Counter, "", ["resource"],
        "Loads in the background, while an entry past its time was served.";
    INVALIDATIONS = "cache_invalidations_total", Counter, "", ["resource"],
        "Invalidations that were asked for; without a resource: of tags, patterns, everything.";
    INVALIDATION_OUTCOMES = "cache_invalidation_outcomes_total", Counter, "", ["outcome"],
        "What callers were told of their invalidations: `delivered`, `pending`, `lost`.";
    INVALIDATION_DURATION = "cache_invalidation_duration_seconds", Histogram, "seconds", ["tier"],
        "From the invalidation to the store's acknowledgement, of those that callers waited for.";
    PENDING_INVALIDATIONS = "cache_pending_invalidations", Gauge, "", [],
        "Invalidations that the store has not acknowledged yet.";
    OLDEST_PENDING = "cache_oldest_pending_invalidation_seconds", Gauge, "seconds", [],
        "For how long the oldest of them has waited; 0 if none waits.";
    CIRCUIT_STATE = "cache_circuit_state", Gauge, "", ["state"],
        "1 for the state of the circuit breaker, 0 for the others: `closed`, `open`, `half-open`, `reads-only`.";
    CIRCUIT_OPENED = "cache_circuit_opened_total", Counter, "", [],
        "How often the circuit breaker was seen to open.";
    ENTRIES = "cache_entries", Gauge, "", ["tier"],
        "Entries that lie in this process.";
    BYTES = "cache_entries_size_bytes", Gauge, "bytes", ["tier"],
        "What the entries in this process weigh.";
    EVICTIONS = "cache_evictions_total", Counter, "", ["tier"],
        "Entries in this process that had to make room for others.";
    LOCAL_INSERTIONS = "cache_local_insertions_total", Counter, "", [],
        "Reads from Redis of which a local entry was kept.";
    LOCAL_DISCARDED = "cache_local_discarded_total", Counter, "", [],
        "Reads of which none was kept, because what they read changed meanwhile.";
    LOCAL_PUSHES = "cache_local_pushes_total", Counter, "", [],
        "Changes of keys that Redis has pushed to this process.";
    LOCAL_FLUSHES = "cache_local_flushes_total", Counter, "", [],
        "How often all local entries were forgotten: lost connections, flushed databases.";
    HEARTBEAT_AGE = "cache_local_heartbeat_age_seconds", Gauge, "seconds", [],
        "How old the last heartbeat of the pushes is; infinite while local entries are not served.";
    SWEPT = "cache_swept_entries_total", Counter, "", [],
        "Dead entries that were removed in the background.";
    SWEEP_DURATION = "cache_sweep_duration_seconds", Histogram, "seconds", [],
        "How long the walks over the keys take that remove dead entries.";
    SWITCHED_OFF = "cache_switched_off", Gauge, "", ["scope"],
        "How many resources and functions operators have switched off: `here`, `everywhere`.";
    AUDITS = "cache_audits_total", Counter, "", ["resource", "op", "verdict"],
        "Hits checked against their functions: all `checked`, and what differed: `stale`, `changed`, `unstable`, `suspected`.";
    AUDIT_UPPER_BOUND = "cache_audit_stale_upper_bound", Gauge, "", ["resource"],
        "The part of all hits that is stale at most, with 95 % confidence.";
    OUTBOX_CONNECTED = "cache_outbox_connected", Gauge, "", [],
        "1 while this process reads the database's outbox and hears from it in time, else 0.";
    OUTBOX_LAG = "cache_outbox_lag_seconds", Gauge, "seconds", [],
        "How old the oldest row of the last batch was when it was carried out.";
    OUTBOX_ROWS = "cache_outbox_rows", Gauge, "", [],
        "Rows in the outbox, up to 100,000; with Redis they wait to be carried out. NaN while it is not known.";
    OUTBOX_OLDEST = "cache_outbox_oldest_row_seconds", Gauge, "seconds", [],
        "How long the oldest row has waited to be carried out; 0 if none waits, and without Redis. NaN while it is not known.";
    OUTBOX_UNREAD = "cache_outbox_unread_seconds", Gauge, "seconds", [],
        "How long ago this process last read the outbox, or was started.";
    OUTBOX_DEAD = "cache_outbox_dead_rows", Gauge, "", [],
        "Deleted rows of the outbox that can't be cleaned up yet; many if a transaction is open for long. NaN while it is not known.";
    OUTBOX_TRANSACTION = "cache_outbox_oldest_transaction_seconds", Gauge, "seconds", [],
        "How long the oldest transaction of the database has been open that keeps them; 0 if there is none. NaN while it is not known.";
    OUTBOX_PREPARED = "cache_outbox_prepared_transactions", Gauge, "", [],
        "Transactions that are prepared and not committed: what they have changed is invalidated when they are.";
    OUTBOX_NOT_FOLLOWED = "cache_outbox_not_followed_tables", Gauge, "", [],
        "Tables that should be followed and are not, 20 at most: triggers are missing or switched off, or a column has gone.";
    OUTBOX_SLOW = "cache_outbox_slow_statements_total", Counter, "", [],
        "Statements of this process's relay that the database did not finish in time, and that were tried again.";
    OUTBOX_SET_ASIDE = "cache_outbox_set_aside_rows", Gauge, "", [],
        "Rows of the outbox that could not be read, and are kept: 1,000 of the last 7 days at most.";
    OUTBOX_DROPPED = "cache_outbox_set_aside_dropped_rows", Gauge, "", [],
        "Rows that could not be read and are kept no more, as the database counts them for all processes.";
    OUTBOX_DELIVERED = "cache_outbox_delivered_total", Counter, "", [],
        "Rows of the outbox that this process has carried out.";
    OUTBOX_CONNECTIONS = "cache_outbox_connections_total", Counter, "", [],
        "How often this process has connected to the outbox.";
    OUTBOX_COLD_STARTS = "cache_outbox_cold_starts_total", Counter, "", [],
        "How often everything was invalidated, because rows of the outbox may have been missed.";
    TASK_RESTARTS = "cache_task_restarts_total", Counter, "", [],
        "Tasks of the cache's own that have panicked and were started again.";
}

/// Describes the metrics and their units to the installed recorder. The caches of the program do
/// this when they first publish.
pub fn describe() {
    with_recorder(describe_to);
}

fn describe_to(recorder: &dyn Recorder) {
    for metric in ALL {
        let unit = match metric.unit {
            "seconds" => Some(Unit::Seconds),
            "bytes" => Some(Unit::Bytes),
            _ => None,
        };
        let (name, text) = (
            metric.name.into(),
            SharedString::const_str(metric.description),
        );
        match metric.kind {
            MetricKind::Counter => recorder.describe_counter(name, unit, text),
            MetricKind::Gauge => recorder.describe_gauge(name, unit, text),
            MetricKind::Histogram => recorder.describe_histogram(name, unit, text),
        }
    }
}

/// Publishes from time to time, for as long as the cache is there.
pub(crate) fn start(engine: &Arc<Engine>) {
    // On the runtime of a test, whose time it may pause, there is no clock to go by.
    if !engine.background.is_own() {
        return;
    }
    let weak = Arc::downgrade(engine);
    engine.background.spawn(async move {
        loop {
            tokio::time::sleep(INTERVAL).await;
            match weak.upgrade() {
                Some(engine) => publish(&engine),
                None => return,
            }
        }
    });
}

pub(crate) fn publish(engine: &Engine) {
    with_recorder(|recorder| {
        // Only its identity is wanted.
        let address = std::ptr::from_ref(recorder).cast::<()>().addr();
        let mut published = engine.published.0.lock();
        let known = published.iter().position(|(known, _)| *known == address);
        let at = known.unwrap_or_else(|| {
            if published.len() >= RECORDERS {
                published.remove(0);
            }
            describe_to(recorder);
            published.push((address, Baseline::default()));
            published.len() - 1
        });
        let namespace = engine.space.namespace.trim_end_matches(':');
        let mut publication = Publication {
            recorder,
            baseline: &mut published[at].1,
            cache: SharedString::from_owned(namespace.to_owned()),
        };
        publication.all(engine);
        restarts(recorder, address);
    });
}

/// The restarts are those of the process, so whichever of its caches publishes first adds the new
/// ones, to a series without a namespace. Each cache with a series of its own would add up to a
/// multiple of them.
fn restarts(recorder: &dyn Recorder, address: usize) {
    let now = crate::base::background::restarts();
    let mut told = RESTARTS.lock();
    let known = told.iter().position(|(known, _)| *known == address);
    let at = known.unwrap_or_else(|| {
        if told.len() >= RECORDERS {
            told.remove(0);
        }
        told.push((address, 0));
        told.len() - 1
    });
    let before = std::mem::replace(&mut told[at].1, now);
    let key = Key::from_parts(TASK_RESTARTS, vec![Label::new("cache", "")]);
    let counter = recorder.register_counter(&key, &METADATA);
    counter.increment(now.saturating_sub(before));
}

static METADATA: Metadata<'static> =
    Metadata::new("cache_runtime", Level::INFO, Some(module_path!()));

type Labels<'l> = &'l [(&'static str, &'l str)];

struct Publication<'a> {
    recorder: &'a dyn Recorder,
    baseline: &'a mut Baseline,
    cache: SharedString,
}

impl Publication<'_> {
    fn key(&self, name: &'static str, labels: Labels<'_>) -> Key {
        let cache = Label::new("cache", self.cache.clone());
        let labels = labels
            .iter()
            .map(|(name, value)| Label::new(*name, (*value).to_owned()));
        Key::from_parts(
            name,
            std::iter::once(cache).chain(labels).collect::<Vec<_>>(),
        )
    }

    fn counter(&mut self, name: &'static str, labels: Labels<'_>, value: u64) {
        let key = self.key(name, labels);
        let counter = self.recorder.register_counter(&key, &METADATA);
        let before = self.baseline.counters.insert(key, value).unwrap_or(0);
        counter.increment(value.saturating_sub(before));
    }

    /// One of many series of which most are never used.
    fn counter_if_any(&mut self, name: &'static str, labels: Labels<'_>, value: u64) {
        if value > 0 {
            self.counter(name, labels, value);
        }
    }

    fn gauge(&self, name: &'static str, labels: Labels<'_>, value: f64) {
        let key = self.key(name, labels);
        self.recorder.register_gauge(&key, &METADATA).set(value);
    }

    /// Of durations in microseconds with a `scale` of a millionth.
    fn histogram(
        &mut self,
        name: &'static str,
        labels: Labels<'_>,
        now: HistogramSnapshot,
        scale: f64,
    ) {
        let key = self.key(name, labels);
        self.histogram_under(&key, key.clone(), now, scale);
    }

    /// What was published last is remembered under a key of its own.
    fn histogram_under(&mut self, key: &Key, baseline: Key, now: HistogramSnapshot, scale: f64) {
        let histogram = self.recorder.register_histogram(key, &METADATA);
        let before = self.baseline.histograms.entry(baseline).or_default();
        for (value, count) in now.since(before) {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            histogram.record_many(value as f64 * scale, count);
        }
        *before = now;
    }

    fn all(&mut self, engine: &Engine) {
        let tier = engine.store.name();
        for resource in engine.registry.all() {
            let (mut calls, mut hits, mut checked, mut stale) = (0, 0, 0, 0);
            for function in by_op(resource.functions()) {
                calls += self.function(&resource.name, &function, tier);
                hits += function.sum(|it| it.hits.get() + it.local_hits.get() + it.recalled.get());
                checked += function.count(|it| &it.audit.checked);
                stale += function.sum(|it| it.audit.stale_hits.get() + it.audit.open());
            }
            let sum = resource.snapshot();
            self.resource(&resource.name, &sum);
            let bound = audit::upper_bound(checked, stale);
            self.gauge(AUDIT_UPPER_BOUND, &[("resource", &resource.name)], bound);
            if calls > 0 {
                // Both are of functions: what is read by hand is not in it.
                let ratio = hits as f64 / calls as f64;
                self.gauge(HIT_RATIO, &[("resource", &resource.name)], ratio);
            }
        }
        let others = engine.registry.others.snapshot();
        self.counter(INVALIDATIONS, &[("resource", "")], others.invalidations);
        self.invalidations(engine, tier);
        self.state(engine, tier);
    }

    /// Returns how many calls there were.
    fn function(&mut self, resource: &str, stats: &SameOp, tier: &'static str) -> u64 {
        let of = [("resource", resource), ("op", stats.op())];
        let mut all = 0;
        let mut calls = |this: &mut Self, outcome, tier, reason, count| {
            let how = [("outcome", outcome), ("tier", tier), ("reason", reason)];
            let labels = [of[0], of[1], how[0], how[1], how[2]];
            match outcome {
                "hit" | "miss" if tier != "local" || count > 0 => {
                    this.counter(CALLS, &labels, count);
                }
                _ => this.counter_if_any(CALLS, &labels, count),
            }
            all += count;
        };
        let stale: Vec<_> = StaleReason::ALL
            .into_iter()
            .map(|reason| (reason, stats.count(|it| &it.stale[reason as usize])))
            .collect();
        // A stale hit is a hit to the figures by resource; here each call has one outcome.
        let stale_hits: u64 = stale.iter().map(|(_, count)| count).sum();
        let store_hits = stats.sum(|it| it.hits.get()).saturating_sub(stale_hits);
        let local_hits = stats.sum(|it| it.local_hits.get());
        match tier {
            // The store in memory is the local tier.
            "local" => calls(self, "hit", "local", "", store_hits + local_hits),
            tier => {
                calls(self, "hit", tier, "", store_hits);
                calls(self, "hit", "local", "", local_hits);
            }
        }
        // Left out if there are none, since few functions have a memo.
        let recalled = stats.count(|it| &it.recalled);
        if recalled > 0 {
            calls(self, "hit", "request", "", recalled);
        }
        for (reason, count) in stale {
            calls(self, "stale", tier, reason.as_str(), count);
        }
        let misses = stats.sum(|it| it.stored.get() + it.not_stored.get());
        calls(self, "miss", "", "", misses);
        calls(self, "joined", "", "", stats.count(|it| &it.joined));
        for reason in BypassReason::ALL {
            let count = stats.count(|it| &it.bypasses[reason as usize]);
            calls(self, "bypass", "", reason.as_str(), count);
        }
        self.audits(of, stats);
        self.counter(FAILED_LOADS, &of, stats.count(|it| &it.failed_loads));
        self.gauge(
            LOADS_IN_FLIGHT,
            &of,
            stats.sum(|it| it.loading.now()) as f64,
        );
        self.gauge(
            CALLERS_WAITING,
            &of,
            stats.sum(|it| it.waiting.now()) as f64,
        );
        let at = [of[0], of[1], ("tier", tier)];
        let local = stats.histogram(|it| &it.local_lookup);
        self.local_lookups(of, local);
        let lookup = stats.histogram(|it| &it.lookup);
        self.histogram(LOOKUP_DURATION, &at, lookup, MICROSECOND);
        self.histogram(
            LOAD_DURATION,
            &of,
            stats.histogram(|it| &it.load),
            MICROSECOND,
        );
        self.histogram(
            FILL_DURATION,
            &at,
            stats.histogram(|it| &it.fill),
            MICROSECOND,
        );
        self.histogram(PAYLOAD_SIZE, &of, stats.histogram(|it| &it.sizes), 1.0);
        all
    }

    /// In nanoseconds, and beside the lookups of a store in memory, which may have the same series.
    fn local_lookups(&mut self, of: [(&'static str, &str); 2], now: HistogramSnapshot) {
        if now.count() == 0 {
            return;
        }
        let key = self.key(LOOKUP_DURATION, &[of[0], of[1], ("tier", "local")]);
        let baseline = key.with_extra_labels(vec![Label::new("drawn", "")]);
        self.histogram_under(&key, baseline, now, NANOSECOND);
    }

    fn audits(&mut self, of: [(&'static str, &str); 2], stats: &SameOp) {
        let audits = [
            ("checked", stats.count(|it| &it.audit.checked)),
            ("stale", stats.count(|it| &it.audit.stale)),
            ("changed", stats.count(|it| &it.audit.changed)),
            ("unstable", stats.count(|it| &it.audit.unstable)),
            ("suspected", stats.count(|it| &it.audit.suspected)),
        ];
        for (verdict, count) in audits {
            self.counter(AUDITS, &[of[0], of[1], ("verdict", verdict)], count);
        }
    }

    fn resource(&mut self, resource: &str, sum: &CounterSnapshot) {
        let of = ("resource", resource);
        self.counter(FILLS, &[of, ("result", "stored")], sum.fills);
        self.counter(FILLS, &[of, ("result", "refused")], sum.fills_refused);
        self.counter(STALE_REJECTED, &[of], sum.stale_rejected);
        self.counter(ERRORS, &[of], sum.errors);
        self.counter(REFRESHES, &[of], sum.refreshes);
        self.counter(INVALIDATIONS, &[of], sum.invalidations);
    }

    fn invalidations(&mut self, engine: &Engine, tier: &'static str) {
        let stats = &engine.telemetry.invalidations;
        let acknowledged = stats.acknowledged.snapshot();
        let delivered = acknowledged.count();
        let outcomes = [
            ("delivered", delivered),
            ("pending", stats.pending.get()),
            ("lost", stats.lost.get()),
        ];
        for (outcome, count) in outcomes {
            self.counter(INVALIDATION_OUTCOMES, &[("outcome", outcome)], count);
        }
        let at = [("tier", tier)];
        self.histogram(INVALIDATION_DURATION, &at, acknowledged, MICROSECOND);
        self.gauge(
            PENDING_INVALIDATIONS,
            &[],
            engine.invalidations.pending() as f64,
        );
        let oldest = engine.invalidations.oldest_pending().unwrap_or_default();
        self.gauge(OLDEST_PENDING, &[], oldest.as_secs_f64());
        self.counter(SWEPT, &[], stats.swept.get());
        self.histogram(SWEEP_DURATION, &[], stats.sweeps.snapshot(), MICROSECOND);
    }

    fn state(&mut self, engine: &Engine, tier: &'static str) {
        let circuit = engine.store.circuit();
        for state in [
            Circuit::Closed,
            Circuit::Open,
            Circuit::HalfOpen,
            Circuit::ReadsOnly,
        ] {
            let is = f64::from(u8::from(state == circuit));
            self.gauge(CIRCUIT_STATE, &[("state", state.as_str())], is);
        }
        self.counter(CIRCUIT_OPENED, &[], engine.telemetry.circuit_opened.get());
        if let Some(usage) = engine.store.usage() {
            let at = [("tier", tier)];
            self.gauge(ENTRIES, &at, usage.entries as f64);
            self.gauge(BYTES, &at, usage.bytes as f64);
            self.counter(EVICTIONS, &at, usage.evictions);
        }
        if let Some(local) = &engine.local {
            let (figures, at) = (local.figures(), [("tier", "local")]);
            self.gauge(ENTRIES, &at, figures.entries as f64);
            self.gauge(BYTES, &at, figures.bytes as f64);
            self.counter(EVICTIONS, &at, figures.evictions);
            self.counter(LOCAL_INSERTIONS, &[], figures.kept);
            self.counter(LOCAL_DISCARDED, &[], figures.poisoned);
            self.counter(LOCAL_PUSHES, &[], figures.pushes);
            self.counter(LOCAL_FLUSHES, &[], figures.epochs);
            let age = figures.heartbeat_age_ms;
            let age = age.map_or(f64::INFINITY, |millis| millis as f64 / 1000.0);
            self.gauge(HEARTBEAT_AGE, &[], age);
        }
        if let Some(outbox) = engine.outbox_stats() {
            self.outbox(&outbox);
        }
        let (here, everywhere) = engine.telemetry.switches.listed();
        self.gauge(SWITCHED_OFF, &[("scope", "here")], here.len() as f64);
        self.gauge(
            SWITCHED_OFF,
            &[("scope", "everywhere")],
            everywhere.len() as f64,
        );
    }
}

impl Publication<'_> {
    fn outbox(&mut self, outbox: &OutboxStats) {
        let is_heard = outbox.connected && outbox.serving != Some(false);
        self.gauge(OUTBOX_CONNECTED, &[], f64::from(u8::from(is_heard)));
        // What is not known is no number: an alert must not take it for nothing.
        let known = |value: Option<u64>| value.map_or(f64::NAN, |value| value as f64);
        self.gauge(OUTBOX_LAG, &[], known(outbox.lag_ms) / 1000.0);
        self.gauge(OUTBOX_ROWS, &[], known(outbox.depth));
        // Where each process reads all rows they stay for a while, and wait for nothing.
        let oldest = match (outbox.shared, outbox.depth) {
            (true, None) => None,
            (true, Some(_)) => Some(outbox.oldest_ms.unwrap_or(0)),
            (false, _) => Some(0),
        };
        self.gauge(OUTBOX_OLDEST, &[], known(oldest) / 1000.0);
        self.gauge(OUTBOX_UNREAD, &[], outbox.unread_ms as f64 / 1000.0);
        self.gauge(OUTBOX_DEAD, &[], known(outbox.dead));
        // None is open, or nobody has looked.
        let open = outbox
            .depth
            .map(|_| outbox.oldest_transaction_ms.unwrap_or(0));
        self.gauge(OUTBOX_TRANSACTION, &[], known(open) / 1000.0);
        self.gauge(OUTBOX_PREPARED, &[], outbox.prepared as f64);
        self.gauge(OUTBOX_NOT_FOLLOWED, &[], outbox.not_followed.len() as f64);
        self.counter(OUTBOX_SLOW, &[], outbox.slow);
        self.gauge(OUTBOX_SET_ASIDE, &[], outbox.set_aside as f64);
        self.gauge(OUTBOX_DROPPED, &[], outbox.set_aside_dropped as f64);
        self.counter(OUTBOX_DELIVERED, &[], outbox.delivered);
        self.counter(OUTBOX_CONNECTIONS, &[], outbox.connections);
        self.counter(OUTBOX_COLD_STARTS, &[], outbox.cold_starts);
    }
}

const MICROSECOND: f64 = 1e-6;
const NANOSECOND: f64 = 1e-9;

/// The functions of one resource and `op`: one series, since a function is no label.
struct SameOp(Vec<Arc<FunctionStats>>);

/// Functions that share an `op`, and those that were refused since another one has it, are added
/// up. One series for each of them would take the figures of one for a growth of the other's.
fn by_op(functions: Vec<Arc<FunctionStats>>) -> Vec<SameOp> {
    if is_active("metrics-by-function") {
        return functions.into_iter().map(|it| SameOp(vec![it])).collect();
    }
    let mut by_op: BTreeMap<Box<str>, Vec<_>> = BTreeMap::new();
    for function in functions {
        by_op.entry(function.op.clone()).or_default().push(function);
    }
    by_op.into_values().map(SameOp).collect()
}

impl SameOp {
    fn op(&self) -> &str {
        self.0.first().map_or("", |function| &function.op)
    }

    fn sum(&self, of: impl Fn(&FunctionStats) -> u64) -> u64 {
        self.0.iter().map(|function| of(function)).sum()
    }

    fn count(&self, of: impl Fn(&FunctionStats) -> &Counter) -> u64 {
        self.sum(|function| of(function).get())
    }

    fn histogram(&self, of: impl Fn(&FunctionStats) -> &Histogram) -> HistogramSnapshot {
        let mut sum = HistogramSnapshot::default();
        for function in &self.0 {
            sum.add(&of(function).snapshot());
        }
        sum
    }
}
