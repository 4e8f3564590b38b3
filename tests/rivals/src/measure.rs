//! Measuring several contestants against each other: short rounds in turn, so that what the machine
//! does meanwhile meets all of them alike, and ratios within each round.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, join_all};
use hdrhistogram::Histogram;

use crate::data;
use crate::figures::Row;
use crate::progress::Step;

/// How hard a round drives, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Drive {
    /// Callers at once.
    pub tasks: usize,
    /// One round of one contestant.
    pub round: Duration,
    /// Rounds of each.
    pub rounds: usize,
    /// The most calls of a hundred that may be no hits. Entries live for an hour. A cache that runs
    /// the function now and then, because the machine made Redis late, says so in the table; one
    /// that does it often is not measured at what the table claims.
    pub misses: u64,
}

/// What one contestant did in one round, or in all.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Nanoseconds per call.
    pub times: Histogram<u64>,
    pub calls: u64,
    pub elapsed: Duration,
    /// Calls that were meant to be hits and ran the function.
    pub loads: u64,
}

impl Sample {
    fn empty() -> Self {
        Self {
            times: Histogram::new(3).expect("three digits"),
            calls: 0,
            elapsed: Duration::ZERO,
            loads: 0,
        }
    }

    fn add(&mut self, other: &Self) {
        self.times.add(&other.times).expect("histograms that grow");
        self.calls += other.calls;
        self.elapsed += other.elapsed;
        self.loads += other.loads;
    }

    /// Nanoseconds.
    pub fn quantile(&self, quantile: f64) -> f64 {
        self.times.value_at_quantile(quantile) as f64
    }

    /// Calls per second.
    pub fn rate(&self) -> f64 {
        self.calls as f64 / self.elapsed.as_secs_f64()
    }
}

type Round = Box<dyn Fn(usize, Duration) -> BoxFuture<'static, Sample> + Send + Sync>;

/// One of those that are compared. The first of a list is what the others are compared with.
pub struct Contestant {
    name: String,
    round: Round,
}

impl Contestant {
    /// One whose calls take microseconds: each is timed.
    pub fn new<F, C>(name: impl Into<String>, call: F) -> Self
    where
        F: Fn(u64) -> C + Send + Sync + 'static,
        C: Future<Output = ()> + Send + 'static,
    {
        let call = Arc::new(call);
        let round = move |tasks: usize, length: Duration| -> BoxFuture<'static, Sample> {
            let call = call.clone();
            Box::pin(async move {
                let start = Instant::now();
                let tasks = (0..tasks as u64).map(|task| {
                    let call = call.clone();
                    // On the workers, as the handlers of a server.
                    tokio::spawn(async move {
                        let mut sample = Sample::empty();
                        let mut n = task * 1_000_003;
                        let mut before = start;
                        while before.duration_since(start) < length {
                            call(n).await;
                            n += 1;
                            let now = Instant::now();
                            let took = now.duration_since(before).as_nanos() as u64;
                            sample.times.record(took).expect("histograms that grow");
                            before = now;
                        }
                        sample.calls = sample.times.len();
                        sample
                    })
                });
                let mut sum = Sample::empty();
                for sample in join_all(tasks).await {
                    sum.add(&sample.expect("a call panicked"));
                }
                sum.elapsed = start.elapsed();
                sum
            })
        };
        Self {
            name: name.into(),
            round: Box::new(round),
        }
    }

    /// One whose calls take nanoseconds. `batch` makes that many calls in a loop of its own; each
    /// batch is timed, and the quantiles are those of their means.
    pub fn batched<F, C>(name: impl Into<String>, size: u64, batch: F) -> Self
    where
        F: Fn(u64) -> C + Send + Sync + 'static,
        C: Future<Output = ()> + Send + 'static,
    {
        let batch = Arc::new(batch);
        let round = move |tasks: usize, length: Duration| -> BoxFuture<'static, Sample> {
            let batch = batch.clone();
            Box::pin(async move {
                let start = Instant::now();
                let tasks = (0..tasks as u64).map(|task| {
                    let batch = batch.clone();
                    tokio::spawn(async move {
                        let mut sample = Sample::empty();
                        let mut before = start;
                        let mut n = task * 1_000_003;
                        while before.duration_since(start) < length {
                            batch(n).await;
                            // No hit waits for anything. With a task on each thread that never lets
                            // others run, nobody would drive the connection, and a cache that can't
                            // hear from its server stops serving after a second.
                            tokio::task::yield_now().await;
                            n += size;
                            let now = Instant::now();
                            // In tenths of a nanosecond, since the histogram holds whole numbers.
                            let took = now.duration_since(before).as_nanos() as u64;
                            let mean = (took * 10 / size).max(1);
                            sample.times.record(mean).expect("histograms that grow");
                            sample.calls += size;
                            before = now;
                        }
                        sample
                    })
                });
                let mut sum = Sample::empty();
                for sample in join_all(tasks).await {
                    sum.add(&sample.expect("a call panicked"));
                }
                sum.elapsed = start.elapsed();
                sum
            })
        };
        Self {
            name: name.into(),
            round: Box::new(round),
        }
    }
}

/// All rounds of one contestant.
#[derive(Clone, Debug)]
pub struct Result {
    pub name: String,
    pub sum: Sample,
    /// Medians over the rounds, of this one's figure by the first one's in the same round.
    pub p50_ratio: f64,
    pub p99_ratio: f64,
    pub rate_ratio: f64,
}

impl Result {
    /// As a row of a table; `unit` is what the histogram counts, in nanoseconds.
    pub fn row(&self, unit: f64) -> Row {
        let mut more = Vec::new();
        if self.sum.loads > 0 {
            let share = self.sum.loads as f64 * 1e6 / self.sum.calls as f64;
            more.push(("no hits, per million".to_owned(), format!("{share:.1}")));
        }
        Row {
            name: self.name.clone(),
            more,
            p50: Some(self.sum.quantile(0.5) * unit),
            p99: Some(self.sum.quantile(0.99) * unit),
            rate: Some(self.sum.rate()),
            p50_ratio: Some(self.p50_ratio),
            p99_ratio: Some(self.p99_ratio),
            rate_ratio: Some(self.rate_ratio),
        }
    }
}

/// Lets them run in turn: A B C, B C A, ..
pub async fn compare(contestants: &[Contestant], drive: Drive, step: &Step) -> Vec<Result> {
    let Drive {
        tasks,
        round,
        rounds,
        misses,
    } = drive;
    for contestant in contestants {
        // Connections, scripts, entries and the branch predictor.
        step.say(&format!("{} (warming up)", contestant.name));
        (contestant.round)(tasks, round.min(Duration::from_millis(200))).await;
    }
    let mut samples: Vec<Vec<Sample>> = contestants.iter().map(|_| Vec::new()).collect();
    for number in 0..rounds {
        for place in 0..contestants.len() {
            let index = (place + number) % contestants.len();
            let name = &contestants[index].name;
            step.say(&format!("{name}, round {} of {rounds}", number + 1));
            let loads = data::loads();
            let mut sample = (contestants[index].round)(tasks, round).await;
            sample.loads = data::loads() - loads;
            samples[index].push(sample);
        }
    }
    let ratio = |index: usize, figure: &dyn Fn(&Sample) -> f64| {
        let pairs = samples[index].iter().zip(&samples[0]);
        median(
            pairs
                .map(|(own, first)| figure(own) / figure(first))
                .collect(),
        )
    };
    contestants
        .iter()
        .enumerate()
        .map(|(index, contestant)| {
            let mut sum = Sample::empty();
            for sample in &samples[index] {
                sum.add(sample);
            }
            assert!(
                sum.loads * 100 <= sum.calls * misses,
                "{}: {} of {} calls were no hits",
                contestant.name,
                sum.loads,
                sum.calls
            );
            Result {
                name: contestant.name.clone(),
                sum,
                p50_ratio: ratio(index, &|sample| sample.quantile(0.5)),
                p99_ratio: ratio(index, &|sample| sample.quantile(0.99)),
                rate_ratio: ratio(index, &Sample::rate),
            }
        })
        .collect()
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => values[length / 2],
        length => f64::midpoint(values[length / 2 - 1], values[length / 2]),
    }
}

/// The value below which that share of `values` lies.
pub fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    let place = (share * last as f64).round() as usize;
    values.get(place).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_quantiles() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0]), 2.5);
        assert_eq!(quantile(vec![5.0, 1.0, 3.0], 0.99), 5.0);
        assert!(median(Vec::new()).is_nan());
    }
}
