//! The published metrics: name, kind, unit and labels of each.

use ::metrics::{Recorder, SharedString, Unit};

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

/// The kind of a metric.
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
    /// Its kind.
    pub kind: MetricKind,
    /// In which unit its values are: `seconds`, `bytes`, or empty for a plain number.
    pub unit: &'static str,
    /// Its labels beside `cache`.
    pub labels: &'static [&'static str],
    /// Its description.
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
        "1 while this process reads the database's outbox and gets its answers in time, else 0.";
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

/// Describes the metrics and their units to this recorder.
pub(super) fn describe_to(recorder: &dyn Recorder) {
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
