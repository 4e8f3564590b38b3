//! Statistics: the cache's state and counters, as plain data.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::base::counters::CounterSnapshot;
use crate::local::LocalStats;
use crate::store::{Circuit, NodeInfo};

/// The cache's state and counters. They serialise in the order of the fields.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Whether any tier is on.
    pub enabled: bool,
    /// Whether the store answers.
    pub connected: bool,
    /// Redis's host; `None` without the Redis tier.
    pub host: Option<String>,
    /// Redis's port.
    pub port: Option<u16>,
    /// Redis's database number.
    pub db: Option<u32>,
    /// Keys in the database, those of other programs included. `None` while disconnected, like the
    /// next three.
    pub total_keys: Option<u64>,
    /// Memory that the store uses, in a human-readable form.
    pub used_memory: Option<String>,
    /// Seconds since the store started.
    pub uptime_seconds: Option<u64>,
    /// Connections to the store.
    pub connected_clients: Option<u64>,
    /// The default time to live, in seconds.
    pub default_ttl: u64,
    /// The counters of all resources together.
    #[serde(flatten)]
    pub counters: StatCounters,
    /// The counters per resource.
    pub resources: BTreeMap<String, CounterSnapshot>,
    /// The state of the circuit breaker; `None` with the cache off.
    pub circuit: Option<Circuit>,
    /// Why the store, or a node of it, is not asked, or why it takes no new entries, in words;
    /// `None` while all is well.
    pub reason: Option<String>,
    /// How long the oldest invalidation that has not reached the store has waited, in milliseconds;
    /// `None` if none waits.
    pub oldest_pending_ms: Option<u64>,
    /// How often the caches of this process started one of their own tasks again after a panic.
    pub restarts: u64,
    /// The cache's own tasks that are alive: a few, whatever the load; none after a shutdown.
    pub tasks: u64,
    /// The weight of the entries of this process that threads hold in memory of their own, to find
    /// them again without a table. At most 4 MiB for each thread.
    pub front_bytes: u64,
    /// The local tier in front of Redis; `None` unless both tiers are on.
    pub local: Option<LocalStats>,
    /// The relay of the database's outbox; `None` unless one is configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outbox: Option<OutboxStats>,
    /// Reads that a Redis Cluster or Sentinels have kept from the cache, while it was not certain
    /// who has the data; `None` if there were none. They are among the `bypasses`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unserved: Option<UnservedStats>,
    /// The primaries of a cluster; the server's values above are their sums. Left out of the JSON
    /// if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeInfo>,
}

/// Cached calls that ran without the cache although Redis was connected, since it was not certain
/// who has the data. Serialises in the order of the fields.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct UnservedStats {
    /// See [`BypassReason::Fenced`](crate::BypassReason::Fenced).
    pub fenced: u64,
    /// See [`BypassReason::Unconfirmed`](crate::BypassReason::Unconfirmed).
    pub unconfirmed: u64,
}

/// The state of this process's relay of the database's outbox. Serialises in the order of the
/// fields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct OutboxStats {
    /// The table, quoted for SQL.
    pub table: String,
    /// Whether this process's relay is connected.
    pub connected: bool,
    /// Whether the processes share the rows, since they share Redis. Otherwise each process reads
    /// every row.
    pub shared: bool,
    /// Without Redis: whether the relay has heard from the database recently enough to serve
    /// entries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serving: Option<bool>,
    /// Rows that this process has delivered.
    pub delivered: u64,
    /// The age of the oldest row of the last batch at its delivery, in milliseconds.
    pub lag_ms: Option<u64>,
    /// Rows in the table a few seconds ago, counted up to 100,000. With Redis, they wait to be
    /// delivered. `None` while it is not known: before the first count, and without a connection.
    pub depth: Option<u64>,
    /// The age of the oldest row, in milliseconds. `None` if there is none, or as `depth`.
    pub oldest_ms: Option<u64>,
    /// Rows that are deleted and that the database can't clean up yet, as far as it knows. Many of
    /// them are the sign of a transaction that has been open for long.
    pub dead: Option<u64>,
    /// How long the oldest transaction of the database has been open that keeps them, in
    /// milliseconds, as far as the relay's user may know. `None` if there is none, or as `depth`.
    pub oldest_transaction_ms: Option<u64>,
    /// Transactions that are prepared and not committed (`PREPARE TRANSACTION`). What they have
    /// changed is invalidated when they are.
    pub prepared: u64,
    /// Tables that should be followed, and whose changes are not: the first 20, with the reason if
    /// it is not that triggers are missing or switched off.
    pub not_followed: Vec<String>,
    /// How long ago the relay last read the table, or the cache was made, in milliseconds.
    pub unread_ms: u64,
    /// Statements of the relay that the database did not finish in time; they were tried again.
    pub slow: u64,
    /// Rows that could not be read and are in the set-aside table: 1,000 of the last 7 days at
    /// most.
    pub set_aside: u64,
    /// Rows that were dropped from the set-aside table past these limits, by any process, since
    /// the outbox was installed.
    pub set_aside_dropped: u64,
    /// Whether a failover of the database goes unnoticed, since the relay's user may not ask which
    /// server this is. With Redis only; without it each new connection starts cold.
    pub failovers_unknown: bool,
    /// How often the relay has connected.
    pub connections: u64,
    /// How often this process has emptied its cache, since it may have missed rows.
    pub cold_starts: u64,
}

/// The counters of [`Stats`] in their documented order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StatCounters {
    /// See [`CounterSnapshot::hits`].
    pub hits: u64,
    /// See [`CounterSnapshot::misses`].
    pub misses: u64,
    /// See [`CounterSnapshot::fills`].
    pub fills: u64,
    /// See [`CounterSnapshot::fills_refused`].
    pub fills_refused: u64,
    /// See [`CounterSnapshot::stale_rejected`].
    pub stale_rejected: u64,
    /// See [`CounterSnapshot::invalidations`].
    pub invalidations: u64,
    /// Invalidations that have not reached the store yet; after a shutdown, those that never will.
    pub pending: u64,
    /// See [`CounterSnapshot::errors`].
    pub errors: u64,
    /// See [`CounterSnapshot::bypasses`].
    pub bypasses: u64,
    /// See [`CounterSnapshot::stale_served`].
    pub stale_served: u64,
    /// See [`CounterSnapshot::refreshes`].
    pub refreshes: u64,
    /// See [`CounterSnapshot::local_hits`].
    pub local_hits: u64,
}

impl StatCounters {
    pub(crate) fn new(sum: CounterSnapshot, pending: u64) -> Self {
        Self {
            hits: sum.hits,
            misses: sum.misses,
            fills: sum.fills,
            fills_refused: sum.fills_refused,
            stale_rejected: sum.stale_rejected,
            invalidations: sum.invalidations,
            pending,
            errors: sum.errors,
            bypasses: sum.bypasses,
            stale_served: sum.stale_served,
            refreshes: sum.refreshes,
            local_hits: sum.local_hits,
        }
    }
}
