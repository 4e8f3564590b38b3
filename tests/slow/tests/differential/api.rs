//! The same calls of the demo's API, with and without a cache.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cache_tests::RedisServer;
use fastrand::Rng;
use futures_util::future::join_all;

use crate::calls::{Call, Partition, calls};
use crate::subject::{Mode, Shown, Subject};
use crate::{seed, sequences};

/// Calls of one sequence.
const LENGTH: usize = 25;
/// So many sequences follow one another on the same demos.
const TOGETHER: usize = 50;
/// For how long a list of calls is made shorter, at the most.
const SHRINKING: Duration = Duration::from_secs(60);

#[expect(
    clippy::print_stdout,
    reason = "a test's own words, for who asks for them"
)]
fn say(text: &str) {
    println!("{text}");
}

/// A call that is answered in another way than without a cache.
struct Difference {
    mode: Mode,
    /// The call, as the last of those that came before it.
    calls: Vec<Call>,
    right: Shown,
    shown: Shown,
}

impl Difference {
    fn report(&self) -> String {
        let mut text = format!("{:?} differs after these calls:\n", self.mode);
        for call in &self.calls {
            let _ = writeln!(text, "  {call}");
        }
        let _ = write!(
            text,
            "without a cache: {:?}\nwith it:         {:?}",
            self.right, self.shown
        );
        text
    }
}

/// Sends each call to all, one after the other, and compares.
async fn first_difference(
    off: &Subject,
    subjects: &[Subject],
    calls: &[Call],
) -> Option<(usize, Mode, Shown, Shown)> {
    for (at, call) in calls.iter().enumerate() {
        let right = off.ask(call);
        let shown = join_all(subjects.iter().map(|subject| subject.ask(call)));
        let (right, shown) = tokio::join!(right, shown);
        for (subject, shown) in subjects.iter().zip(shown) {
            if shown != right {
                return Some((at, subject.mode, right, shown));
            }
        }
    }
    None
}

/// The same on new demos.
async fn replay(redis: &RedisServer, mode: Mode, calls: &[Call]) -> Option<Difference> {
    let off = Subject::start(Mode::Off, redis);
    let subject = Subject::start(mode, redis);
    let (at, mode, right, shown) = first_difference(&off, &[subject], calls).await?;
    Some(Difference {
        mode,
        calls: calls[..=at].to_vec(),
        right,
        shown,
    })
}

/// Leaves out calls for as long as there is still a difference: halves first, then smaller pieces,
/// then single ones.
async fn shrink(redis: &RedisServer, mut found: Difference) -> Difference {
    let began = Instant::now();
    // The last call shows it and stays.
    let mut piece = found.calls.len() / 2;
    while piece > 0 {
        let mut from = 0;
        while from + 1 < found.calls.len() && began.elapsed() < SHRINKING {
            let to = (from + piece).min(found.calls.len() - 1);
            let mut fewer = found.calls.clone();
            fewer.drain(from..to);
            match replay(redis, found.mode, &fewer).await {
                Some(difference) => found = difference,
                None => from = to,
            }
        }
        piece /= 2;
    }
    found
}

/// Runs sequences on a mode each, with a cache and without; the difference that was found first,
/// made short.
async fn run(modes: &[Mode], seed: u64, sequences: usize) -> Option<Difference> {
    let redis = RedisServer::start();
    let mut left = sequences;
    let (mut calls_in_all, mut hits) = (0, vec![0; modes.len()]);
    let mut round = 0;
    while left > 0 {
        let count = left.min(TOGETHER);
        left -= count;
        let mut rng = Rng::with_seed(seed ^ (round << 32));
        round += 1;
        let calls = calls(Partition::WHOLE, count * LENGTH, &mut rng);
        let off = [Mode::Off];
        let mut subjects = Subject::start_all(off.iter().chain(modes), &redis);
        let off = subjects.remove(0);
        if let Some((at, mode, right, shown)) = first_difference(&off, &subjects, &calls).await {
            let calls = calls[..=at].to_vec();
            let found = Difference {
                mode,
                calls,
                right,
                shown,
            };
            return Some(shrink(&redis, found).await);
        }
        calls_in_all += calls.len();
        for (hits, subject) in hits.iter_mut().zip(&subjects) {
            *hits += subject.hits.load(Ordering::Relaxed);
        }
    }
    say(&format!(
        "{sequences} sequences, {calls_in_all} calls, hits: {modes:?} {hits:?}"
    ));
    // Otherwise the caches were not asked, and equality says nothing.
    for (mode, hits) in modes.iter().zip(hits) {
        assert!(
            hits * 10 > calls_in_all as u64,
            "{mode:?} answered {hits} of {calls_in_all} calls from its cache"
        );
    }
    None
}

#[tokio::test]
async fn the_same_calls_get_the_same_answers() {
    let found = run(&Mode::RIGHT, seed(), sequences(40)).await;
    assert!(
        found.is_none(),
        "{}",
        found.map_or_else(String::new, |it| it.report())
    );
}

/// The test of the test: two caches that do not learn of each other's writes.
#[tokio::test]
async fn a_missed_write_is_found_and_made_short() {
    let found = run(&[Mode::Apart], seed(), 20).await;
    let found = found.expect("a difference");
    assert!(found.calls.len() <= 4, "{}", found.report());
    let mut calls = found.calls.iter();
    assert!(calls.any(|call| !call.is_read()), "{}", found.report());
}

/// What the partitions' clients are answered, each going its own way.
async fn all_partitions(subject: &Arc<Subject>, partitions: &[Vec<Call>]) -> Vec<Vec<Shown>> {
    let clients = partitions.iter().map(|calls| {
        let (subject, calls) = (Arc::clone(subject), calls.clone());
        tokio::spawn(async move {
            let mut shown = Vec::new();
            for call in &calls {
                shown.push(subject.ask(call).await.without_new_ids());
            }
            shown
        })
    });
    let shown = join_all(clients.collect::<Vec<_>>()).await;
    shown
        .into_iter()
        .map(|partition| partition.expect("a client that ends"))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_with_rows_of_their_own_get_the_same_answers_at_the_same_time() {
    const PARTITIONS: i64 = 4;
    let redis = RedisServer::start();
    let mut left = sequences(16).div_ceil(4);
    let mut round = 0;
    while left > 0 {
        let count = left.min(TOGETHER);
        left -= count;
        let partitions: Vec<Vec<Call>> = (0..PARTITIONS)
            .map(|number| {
                let partition = Partition {
                    number,
                    of: PARTITIONS,
                };
                let mut rng =
                    Rng::with_seed(seed() ^ (round << 32) ^ (number.unsigned_abs() << 56));
                calls(partition, count * LENGTH, &mut rng)
            })
            .collect();
        round += 1;
        let off = Arc::new(Subject::start(Mode::Off, &redis));
        let right = all_partitions(&off, &partitions).await;
        for mode in Mode::RIGHT {
            let subject = Arc::new(Subject::start(mode, &redis));
            let shown = all_partitions(&subject, &partitions).await;
            for (partition, (right, shown)) in right.iter().zip(&shown).enumerate() {
                let different = (0..right.len()).find(|at| right[*at] != shown[*at]);
                if let Some(at) = different {
                    let difference = Difference {
                        mode,
                        calls: partitions[partition][..=at].to_vec(),
                        right: right[at].clone(),
                        shown: shown[at].clone(),
                    };
                    panic!(
                        "partition {partition}, seed {}: {}",
                        seed(),
                        difference.report()
                    );
                }
            }
            assert!(subject.hits.load(Ordering::Relaxed) > 0, "{mode:?}");
        }
    }
}
