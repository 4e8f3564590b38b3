//! Figures out of samples.

use std::time::Duration;

use crate::load::Sample;

/// How much time a point of the plot stands for.
const BUCKET: Duration = Duration::from_millis(250);
/// Over how much time a hit rate is taken when it is asked whether it is back.
const WINDOW: Duration = Duration::from_secs(1);

/// What a quarter of a second was like.
pub(crate) struct Bucket {
    /// Its middle, in seconds.
    pub(crate) at: f64,
    /// Milliseconds.
    pub p50: f64,
    pub p99: f64,
    pub(crate) max: f64,
    pub(crate) hit_rate: Option<f64>,
    pub(crate) errors: usize,
}

pub(crate) fn buckets(samples: &[Sample], lasts: Duration) -> Vec<Bucket> {
    let count = lasts.as_millis().div_ceil(BUCKET.as_millis()) as u32;
    (0..count)
        .filter_map(|n| {
            let within = between(samples, BUCKET * n, BUCKET * (n + 1));
            let [p50, p99, max] = quantiles(&within)?;
            Some(Bucket {
                at: (BUCKET * n + BUCKET / 2).as_secs_f64(),
                p50,
                p99,
                max,
                hit_rate: hit_rate(&within),
                errors: within
                    .iter()
                    .filter(|sample| sample.error.is_some())
                    .count(),
            })
        })
        .collect()
}

pub(crate) fn between(samples: &[Sample], from: Duration, to: Duration) -> Vec<&Sample> {
    let is_within = |sample: &&Sample| from <= sample.at && sample.at < to;
    samples.iter().filter(is_within).collect()
}

/// The median, the 99th percentile and the longest, in milliseconds.
pub(crate) fn quantiles(samples: &[&Sample]) -> Option<[f64; 3]> {
    let mut took: Vec<Duration> = samples.iter().map(|sample| sample.took).collect();
    took.sort_unstable();
    let last = took.len().checked_sub(1)?;
    Some([0.5, 0.99, 1.0].map(|share| took[(last as f64 * share) as usize].as_secs_f64() * 1e3))
}

pub(crate) fn hit_rate(samples: &[&Sample]) -> Option<f64> {
    let reads: Vec<bool> = samples.iter().filter_map(|sample| sample.is_hit).collect();
    let hits = reads.iter().filter(|is_hit| **is_hit).count();
    (!reads.is_empty()).then(|| hits as f64 / reads.len() as f64)
}

/// When a second began, after `from`, in which the hit rate is within a tenth of `usual` again.
pub(crate) fn back_at(
    samples: &[Sample],
    from: Duration,
    usual: f64,
    lasts: Duration,
) -> Option<Duration> {
    let step = Duration::from_millis(50);
    (0..)
        .map(|n| from + step * n)
        .take_while(|at| *at + WINDOW <= lasts)
        .find(|at| {
            let rate = hit_rate(&between(samples, *at, *at + WINDOW));
            rate.is_some_and(|rate| rate >= 0.9 * usual)
        })
}

/// When the first hit was, after `from`.
pub(crate) fn first_hit(samples: &[Sample], from: Duration) -> Option<Duration> {
    let hits = samples.iter().filter(|sample| sample.is_hit == Some(true));
    hits.map(|sample| sample.at).filter(|at| *at >= from).min()
}
