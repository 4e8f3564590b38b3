//! A histogram that is cheap to write: fixed buckets, one relaxed addition for each value.
//!
//! The buckets are log-linear, as in HdrHistogram: four for each power of two, so a value that is
//! read back is off by 12.5 % at most. Recording needs no lock and no recorder; a collector reads
//! the buckets from time to time.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::base::counters::{STRIPES, stripe};

/// Four buckets for each power of two up to 2^28: 268 seconds in microseconds, 268 MB in bytes.
const BUCKETS: usize = 108;

/// Values by size. Durations are kept in microseconds.
pub(crate) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            sum: AtomicU64::new(0),
        }
    }
}

impl std::fmt::Debug for Histogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Histogram({} values)", self.snapshot().count())
    }
}

impl Histogram {
    #[inline]
    pub(crate) fn record(&self, value: u64) {
        self.buckets[bucket(value)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn record_duration(&self, duration: Duration) {
        self.record(micros(duration));
    }

    pub(crate) fn snapshot(&self) -> HistogramSnapshot {
        HistogramSnapshot {
            counts: std::array::from_fn(|at| self.buckets[at].load(Ordering::Relaxed)),
            sum: self.sum.load(Ordering::Relaxed),
        }
    }
}

/// A histogram that many threads write all the time. The first threads have one of their own, made
/// when it is first needed: threads that write to the same one slow each other down.
#[derive(Debug, Default)]
pub(crate) struct StripedHistogram([OnceLock<Box<Stripe>>; STRIPES]);

/// Shares no cache line with another one.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe(Histogram);

impl StripedHistogram {
    #[inline]
    pub(crate) fn record_duration(&self, duration: Duration) {
        let stripe = self.0[stripe()].get_or_init(Box::default);
        stripe.0.record_duration(duration);
    }

    pub(crate) fn snapshot(&self) -> HistogramSnapshot {
        let mut sum = HistogramSnapshot::default();
        for stripe in self.0.iter().filter_map(OnceLock::get) {
            sum.add(&stripe.0.snapshot());
        }
        sum
    }
}

/// The contents of a histogram at one moment.
#[derive(Debug, Clone)]
pub(crate) struct HistogramSnapshot {
    counts: [u64; BUCKETS],
    pub(crate) sum: u64,
}

impl Default for HistogramSnapshot {
    fn default() -> Self {
        Self {
            counts: [0; BUCKETS],
            sum: 0,
        }
    }
}

impl HistogramSnapshot {
    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The value that stands for the bucket in which the quantile lies; 0 without any value.
    pub(crate) fn quantile(&self, part: f64) -> u64 {
        let rank = (self.count() as f64 * part).ceil() as u64;
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank && seen > 0 {
                return middle(at);
            }
        }
        0
    }

    /// Adds the values of another one.
    pub(crate) fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum += other.sum;
    }

    /// The values since `earlier`: one for each bucket, with its count.
    #[cfg(feature = "metrics")]
    pub(crate) fn since(&self, earlier: &Self) -> impl Iterator<Item = (u64, u64)> {
        let counts = self.counts.iter().zip(earlier.counts).enumerate();
        counts.filter_map(|(at, (now, then))| {
            let new = now.saturating_sub(then);
            (new > 0).then(|| (middle(at), new))
        })
    }
}

/// Whole microseconds.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn bucket(value: u64) -> usize {
    if value < 4 {
        return value as usize;
    }
    let power = u64::BITS - 1 - value.leading_zeros();
    let quarter = (value >> (power - 2)) & 3;
    ((power as usize - 1) * 4 + quarter as usize).min(BUCKETS - 1)
}

/// The middle of a bucket.
fn middle(at: usize) -> u64 {
    if at < 4 {
        return at as u64;
    }
    let power = at / 4 + 1;
    let width = 1u64 << (power - 2);
    (1 << power) + (at as u64 % 4) * width + width / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_all_threads_are_counted() {
        let striped = StripedHistogram::default();
        std::thread::scope(|scope| {
            for _ in 0..2 * STRIPES {
                scope.spawn(|| striped.record_duration(Duration::from_micros(3)));
            }
        });
        let snapshot = striped.snapshot();
        let threads = 2 * STRIPES as u64;
        assert_eq!((snapshot.count(), snapshot.sum), (threads, 3 * threads));
    }

    #[test]
    fn a_value_lies_near_the_one_that_stands_for_it() {
        for value in (0..1000).chain((0..27).map(|power| (1 << power) + 7)) {
            let near = middle(bucket(value));
            let off = near.abs_diff(value) as f64;
            assert!(off <= value as f64 * 0.125 + 0.5, "{value} as {near}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_and_what_came_since() {
        let histogram = Histogram::default();
        assert_eq!(histogram.snapshot().quantile(0.5), 0);
        for _ in 0..98 {
            histogram.record_duration(Duration::from_micros(2));
        }
        histogram.record(1000);
        histogram.record(1000);
        let snapshot = histogram.snapshot();
        assert_eq!((snapshot.count(), snapshot.sum), (100, 98 * 2 + 2000));
        assert_eq!(snapshot.quantile(0.5), 2);
        assert!(snapshot.quantile(0.99).abs_diff(1000) <= 125);
    }
}
