//! What the tier counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

use crate::base::counters::Counter;

/// One hit in so many has its age noted: a figure is not worth a write on each that threads share.
const SAMPLE: u64 = 64;
/// Ages are noted by the power of two of their milliseconds.
const BUCKETS: usize = 24;

/// Away from what hits read: it would be fetched again after each write.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Figures {
    pub(super) kept: Counter,
    pub(super) poisoned: Counter,
    pub(super) pushes: Counter,
    ages: [Counter; BUCKETS],
    oldest: Oldest,
}

/// Each hit reads it, and few write it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Oldest(AtomicU64);

impl Figures {
    /// The `n`th hit of somebody who counts.
    #[inline]
    pub(super) fn hit(&self, n: u64, age: Duration) {
        let millis = age.as_millis() as u64;
        if n.is_multiple_of(SAMPLE) {
            let bucket = (u64::BITS - millis.leading_zeros()) as usize;
            self.ages[bucket.min(BUCKETS - 1)].add_one();
        }
        if millis > self.oldest.0.load(Ordering::Relaxed) {
            self.oldest.0.fetch_max(millis, Ordering::Relaxed);
        }
    }

    pub(super) fn snapshot(&self) -> LocalFigures {
        let ages: Vec<u64> = self.ages.iter().map(Counter::get).collect();
        let oldest = self.oldest.0.load(Ordering::Relaxed);
        LocalFigures {
            kept: self.kept.get(),
            poisoned: self.poisoned.get(),
            pushes: self.pushes.get(),
            age_p50_ms: quantile(&ages, 0.5).min(oldest),
            age_p99_ms: quantile(&ages, 0.99).min(oldest),
            age_max_ms: oldest,
            ..LocalFigures::default()
        }
    }
}

/// The upper end of the bucket in which the quantile lies.
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

/// What the local tier does beside Redis.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LocalFigures {
    /// Whether copies are served now: the connection tracks what is read over it, and its last heartbeat is recent.
    pub serving: bool,
    /// Calls answered without asking Redis.
    pub hits: u64,
    /// Copies that are kept.
    pub entries: u64,
    /// What they weigh: the lengths of their keys and encoded values, and a fixed overhead for each.
    pub bytes: u64,
    /// Reads from Redis of which a copy was kept.
    pub kept: u64,
    /// Reads of which none was kept, because something they read had changed before their answer was handled.
    pub poisoned: u64,
    /// Changes of keys that the server reported.
    pub pushes: u64,
    /// How often everything was forgotten, with a lost connection or a flushed database.
    pub epochs: u64,
    /// How old the last heartbeat was at a hit, in milliseconds: the median, to the next power of two. What is served is
    /// never older than that.
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
        let figures = Figures::default();
        for n in 0..100 * SAMPLE {
            figures.hit(
                n,
                Duration::from_millis(if n < 98 * SAMPLE { 3 } else { 200 }),
            );
        }
        let snapshot = figures.snapshot();
        assert_eq!((snapshot.age_p50_ms, snapshot.age_max_ms), (3, 200));
        assert_eq!(snapshot.age_p99_ms, 200);
        assert_eq!(Figures::default().snapshot(), LocalFigures::default());
    }
}
