//! The figures of each annotated function.

use std::time::Duration;

use serde::Serialize;

use super::Cache;
use crate::base::counters::Counter;
use crate::registry::Resource;
use crate::telemetry::function::FunctionCounters;
use crate::telemetry::histogram::HistogramSnapshot;

/// The figures of one annotated function on one resource, since the cache was created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FunctionStats {
    /// The resource.
    pub resource: String,
    /// The attribute's `op`, or the function's name.
    pub op: String,
    /// The function's name.
    pub function: String,
    /// Calls answered from the cache, by the store or a local entry.
    pub hits: u64,
    /// Those of the hits that a local entry in front of Redis answered.
    pub local_hits: u64,
    /// Those of the hits whose entry had expired.
    pub stale_hits: u64,
    /// Calls answered by the function, under a lease.
    pub misses: u64,
    /// Calls answered by a load of another call.
    pub joined: u64,
    /// Calls that ran their function without the cache.
    pub bypasses: u64,
    /// Bodies that returned an error.
    pub failed_loads: u64,
    /// Bodies that are running now.
    pub loading: u64,
    /// Callers who are waiting for a load of another call now.
    pub waiting: u64,
    /// How long the store takes to answer a lookup.
    pub lookup: Latency,
    /// How long the body takes.
    pub load: Latency,
    /// How long the store takes to answer a fill.
    pub fill: Latency,
}

/// Durations in microseconds, with an error of at most one eighth.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Latency {
    /// The number of measurements.
    pub count: u64,
    /// The median.
    pub p50_us: u64,
    /// The 99th percentile.
    pub p99_us: u64,
    /// Their sum.
    pub sum_us: u64,
}

impl Latency {
    pub(crate) fn of(snapshot: &HistogramSnapshot) -> Self {
        Self {
            count: snapshot.count(),
            p50_us: snapshot.quantile(0.5),
            p99_us: snapshot.quantile(0.99),
            sum_us: snapshot.sum,
        }
    }

    /// The mean; zero without measurements.
    #[must_use]
    pub fn mean(&self) -> Duration {
        Duration::from_micros(self.sum_us.checked_div(self.count).unwrap_or(0))
    }
}

impl FunctionStats {
    fn new(resource: &Resource, stats: &FunctionCounters) -> Self {
        let sum = |counters: &[Counter]| counters.iter().map(Counter::get).sum();
        let local_hits = stats.local_hits.get();
        Self {
            resource: resource.name.to_string(),
            op: stats.op.to_string(),
            function: stats.function.to_owned(),
            hits: stats.hits.get() + local_hits,
            local_hits,
            stale_hits: sum(&stats.stale),
            misses: stats.stored.get() + stats.not_stored.get(),
            joined: stats.joined.get(),
            bypasses: sum(&stats.bypasses),
            failed_loads: stats.failed_loads.get(),
            loading: stats.loading.now(),
            waiting: stats.waiting.now(),
            lookup: Latency::of(&stats.lookup.snapshot()),
            load: Latency::of(&stats.load.snapshot()),
            fill: Latency::of(&stats.fill.snapshot()),
        }
    }
}

impl Cache {
    /// The figures of each annotated function that has been called, by resource and `op`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use cache_runtime::{Cache, CacheConfig, cached};
    ///
    /// #[cached(resource = "rates", cache = cache, skip(cache))]
    /// async fn rate(cache: &Cache, id: u32) -> u32 { id * 2 }
    ///
    /// let cache = Cache::new(CacheConfig::default().local_mb(4)).await;
    /// rate(&cache, 1).await;
    /// rate(&cache, 1).await;
    /// let stats = &cache.functions()[0];
    /// assert_eq!((stats.op.as_str(), stats.hits, stats.misses), ("rate", 1, 1));
    /// # }
    /// ```
    #[must_use]
    pub fn functions(&self) -> Vec<FunctionStats> {
        let Some(cache) = self.handle() else {
            return Vec::new();
        };
        let mut all = Vec::new();
        for resource in cache.registry.all() {
            let functions = resource.functions();
            all.extend(functions.iter().map(|it| FunctionStats::new(&resource, it)));
        }
        all.sort_by(|a, b| (&a.resource, &a.op).cmp(&(&b.resource, &b.op)));
        all
    }
}
