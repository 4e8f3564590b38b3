//! Statistics of the local tier.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::base::counters::Counter;

/// One hit in this many records its age, because each record writes to memory that threads share.
const SAMPLE: u64 = 64;
/// Ages are counted in buckets: one per power of two, in milliseconds.
const BUCKETS: usize = 24;
/// A millisecond in nanoseconds.
const MILLI: u64 = 1_000_000;

/// In cache lines of its own. Otherwise each write here would evict what hits read.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct LocalCounters {
    pub(super) kept: Counter,
    pub(super) poisoned: Counter,
    pub(super) pushes: Counter,
    ages: [Counter; BUCKETS],
    oldest: Oldest,
}

/// Every hit reads it, few write it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Oldest(AtomicU64);

impl LocalCounters {
    /// Records a hit, the `n`th of the counter that the caller uses. Its age is in nanoseconds.
    #[inline]
    pub(super) fn hit(&self, n: u64, age: u64) {
        if n.is_multiple_of(SAMPLE) {
            let bucket = (u64::BITS - (age / MILLI).leading_zeros()) as usize;
            self.ages[bucket.min(BUCKETS - 1)].add_one();
        }
        if age > self.oldest.0.load(Ordering::Relaxed) {
            self.oldest.0.fetch_max(age, Ordering::Relaxed);
        }
    }

    pub(super) fn snapshot(&self) -> LocalStats {
        let ages: Vec<u64> = self.ages.iter().map(Counter::get).collect();
        let oldest = self.oldest.0.load(Ordering::Relaxed) / MILLI;
        LocalStats {
            kept: self.kept.get(),
            poisoned: self.poisoned.get(),
            pushes: self.pushes.get(),
            age_p50_ms: quantile(&ages, 0.5).min(oldest),
            age_p99_ms: quantile(&ages, 0.99).min(oldest),
            age_max_ms: oldest,
            ..LocalStats::default()
        }
    }
}

/// Returns the upper bound of the bucket that holds the quantile.
fn quantile(buckets: &[u64], part: f64) -> u64 {
    let all: u64 = buckets.iter().sum();
    let rank = (all as f64 * part).ceil() as u64;
    let mut seen = 0;
    let at = buckets.iter().position(|count| {
        seen += count;
        seen >= rank
    });
    (1 << at.unwrap_or(0)) - 1
}

/// Statistics of the local tier with Redis.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LocalStats {
    /// Whether local entries are served now: the connection tracks the keys it reads, and its last
    /// heartbeat is recent.
    pub serving: bool,
    /// Calls answered without asking Redis.
    pub hits: u64,
    /// Local entries.
    pub entries: u64,
    /// Their total weight: the lengths of keys and encoded values, plus a fixed overhead for each.
    pub bytes: u64,
    /// The weight of the entries that threads hold in memory of their own, to find them again
    /// without the table. Most are in `bytes` too; one that was dropped there is freed when its
    /// thread needs the place. At most 4 MiB for each thread.
    pub front_bytes: u64,
    /// Reads from Redis whose value was stored as a local entry.
    pub kept: u64,
    /// Reads whose value was discarded, because one of their keys changed before the answer was
    /// handled.
    pub poisoned: u64,
    /// Key changes that the server reported.
    pub pushes: u64,
    /// How often all local entries were dropped: after a lost connection or a flushed database.
    pub epochs: u64,
    /// Entries that had to make room for others.
    pub evictions: u64,
    /// How old the last heartbeat is now, in milliseconds; `None` while local entries are not
    /// served.
    pub heartbeat_age_ms: Option<u64>,
    /// Age of the last heartbeat at a hit, in milliseconds: the median, rounded up to a power of
    /// two. A served value is never older than that age.
    pub age_p50_ms: u64,
    /// The 99th percentile of the same.
    pub age_p99_ms: u64,
    /// The maximum of the same.
    pub age_max_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_by_quantile() {
        let counters = LocalCounters::default();
        for n in 0..100 * SAMPLE {
            counters.hit(n, MILLI * if n < 98 * SAMPLE { 3 } else { 200 });
        }
        let snapshot = counters.snapshot();
        assert_eq!((snapshot.age_p50_ms, snapshot.age_max_ms), (3, 200));
        assert_eq!(snapshot.age_p99_ms, 200);
        assert_eq!(LocalCounters::default().snapshot(), LocalStats::default());
    }
}
