//! Publishes the figures of a cache: the difference to what the recorder was given last.

use ::metrics::{Key, Label, Level, Metadata, Recorder, SharedString, with_recorder};

use super::names::*;
use super::same_op::{SameOp, by_op};
use crate::base::counters::CounterSnapshot;
use crate::call::observe::{BypassReason, StaleReason};
use crate::engine::Engine;
use crate::stats::OutboxStats;
use crate::store::Circuit;
use crate::telemetry::audit;
use crate::telemetry::histogram::HistogramSnapshot;
use crate::telemetry::published::{Baseline, RECORDERS, RESTARTS};

const MICROSECOND: f64 = 1e-6;
const NANOSECOND: f64 = 1e-9;

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

    /// The last published value is remembered under a key of its own.
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
        let calls = self.calls(of, stats, tier);
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
        self.distributions(of, stats, tier);
        calls
    }

    /// How calls were answered. Returns how many there were.
    fn calls(&mut self, of: [(&'static str, &str); 2], stats: &SameOp, tier: &'static str) -> u64 {
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
        all
    }

    /// Durations and sizes.
    fn distributions(&mut self, of: [(&'static str, &str); 2], stats: &SameOp, tier: &'static str) {
        let at = [of[0], of[1], ("tier", tier)];
        let local = stats.histogram(|it| it.local_lookup.snapshot());
        self.local_lookups(of, local);
        let lookup = stats.histogram(|it| it.lookup.snapshot());
        self.histogram(LOOKUP_DURATION, &at, lookup, MICROSECOND);
        self.histogram(
            LOAD_DURATION,
            &of,
            stats.histogram(|it| it.load.snapshot()),
            MICROSECOND,
        );
        self.histogram(
            FILL_DURATION,
            &at,
            stats.histogram(|it| it.fill.snapshot()),
            MICROSECOND,
        );
        self.histogram(
            PAYLOAD_SIZE,
            &of,
            stats.histogram(|it| it.sizes.snapshot()),
            1.0,
        );
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
            let (stats, at) = (local.stats(), [("tier", "local")]);
            self.gauge(ENTRIES, &at, stats.entries as f64);
            self.gauge(BYTES, &at, stats.bytes as f64);
            self.counter(EVICTIONS, &at, stats.evictions);
            self.counter(LOCAL_INSERTIONS, &[], stats.kept);
            self.counter(LOCAL_DISCARDED, &[], stats.poisoned);
            self.counter(LOCAL_PUSHES, &[], stats.pushes);
            self.counter(LOCAL_FLUSHES, &[], stats.epochs);
            let age = stats.heartbeat_age_ms;
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
        let is_fresh = outbox.connected && outbox.serving != Some(false);
        self.gauge(OUTBOX_CONNECTED, &[], f64::from(u8::from(is_fresh)));
        // An unknown value is no number: an alert must not take it for zero.
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
