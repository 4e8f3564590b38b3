//! Writers that use plain SQL behind the cache's back, while relays are killed and stopped, and servers restarted.
//!
//! Each row carries its version. A read is stale if it shows less than a write that was acknowledged before the read
//! began; its age is counted from that write's acknowledgement. Without Redis the bound holds whatever happens, since a process
//! that hears nothing serves nothing. With Redis a row has to be delivered, so the time in which Redis or the database was
//! away does not count.
//!
//! The database fails over to a standby that has all commits, as a planned one does; `shared.rs` has one that has lost some.
//!
//! `OUTBOX_SECONDS` and `OUTBOX_SEED` ask for more, and `OUTBOX_STRICT=1` for the bound without slack, on an idle machine.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cache_tests::{Demo, Mode, Postgres, Proxy, RedisServer, eventually};
use sqlx::postgres::{PgPool, PgPoolOptions};

use crate::PATIENCE;
use crate::demo::{heard, start};

const PROCESSES: usize = 3;
const IDS: std::ops::RangeInclusive<i64> = 1..=6;
/// What is promised while Redis and the database answer.
const POLLED: Duration = Duration::from_millis(1_500);
/// `CACHE_LOCAL_MAX_STALENESS`
const FOLLOWED: Duration = Duration::from_secs(1);
/// A machine that runs other tests at the same time is late by itself: it is counted, and has this much.
const SLACK: Duration = Duration::from_secs(3);

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// What happened, in the order of its time.
#[derive(Default)]
struct History {
    /// The versions of a row, and when each was acknowledged.
    written: Mutex<BTreeMap<i64, Vec<(i64, Instant)>>>,
    reads: Mutex<Vec<Read>>,
    /// When Redis or the database was away, or somebody who holds rows stood still.
    away: Mutex<Vec<(Instant, Instant)>>,
    failed: AtomicU64,
    /// Whether the time in which something was away does not count.
    is_excused: bool,
}

struct Read {
    id: i64,
    version: i64,
    begun: Instant,
    is_hit: bool,
}

async fn write(history: Arc<History>, pool: PgPool, over: Arc<AtomicBool>) {
    while !over.load(Ordering::Relaxed) {
        let id = fastrand::i64(IDS);
        let update =
            sqlx::query_scalar("UPDATE users SET age = age + 1 WHERE id = $1 RETURNING age");
        let version: Result<i64, _> = update.bind(id).fetch_one(&pool).await;
        if let Ok(version) = version {
            let acknowledged = Instant::now();
            let mut written = history.written.lock().expect("sound");
            written.entry(id).or_default().push((version, acknowledged));
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(5..60))).await;
    }
}

async fn read(history: Arc<History>, urls: Arc<Mutex<Vec<String>>>, over: Arc<AtomicBool>) {
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(5))
        .build()
        .expect("a client");
    while !over.load(Ordering::Relaxed) {
        let id = fastrand::i64(IDS);
        let url = urls.lock().expect("sound")[fastrand::usize(..PROCESSES)].clone();
        let begun = Instant::now();
        let answer = async {
            let answer = client.get(format!("{url}/users/{id}")).send().await?;
            let hit = answer
                .headers()
                .get("cache-status")
                .is_some_and(|status| status.to_str().is_ok_and(|status| status.contains("; hit")));
            let text = answer.error_for_status()?.text().await?;
            Ok::<_, reqwest::Error>((hit, text))
        };
        let Ok((is_hit, text)) = answer.await else {
            history.failed.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let user: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let version = user["age"].as_i64().expect("a version");
        let read = Read {
            id,
            version,
            begun,
            is_hit,
        };
        history.reads.lock().expect("sound").push(read);
    }
}

impl History {
    /// How late each stale read was, without the time that is excused.
    fn ages(&self) -> Vec<Duration> {
        let written = self.written.lock().expect("sound");
        let away = self.away.lock().expect("sound");
        let reads = self.reads.lock().expect("sound");
        // By version, with when this one or a later one was acknowledged first.
        let mut missed: BTreeMap<i64, Vec<(i64, Instant)>> = written.clone();
        for versions in missed.values_mut() {
            versions.sort();
            for at in (1..versions.len()).rev() {
                versions[at - 1].1 = versions[at - 1].1.min(versions[at].1);
            }
        }
        let age = |read: &Read| {
            let versions = missed.get(&read.id)?;
            let next = versions.partition_point(|(version, _)| *version <= read.version);
            let (_, since) = *versions.get(next)?;
            let age = read.begun.checked_duration_since(since)?;
            let away = away.iter().filter(|_| self.is_excused);
            let excused = away.map(|(from, to)| {
                let (from, to) = ((*from).max(since), (*to).min(read.begun));
                to.saturating_duration_since(from)
            });
            Some(age.saturating_sub(excused.sum()))
        };
        reads.iter().filter_map(age).collect()
    }

    /// Forgets acknowledged writes that the database does not have any more: on a busy machine a server may not end in order
    /// within its time, and its last commits don't wait for the disk, nor for the standby. Returns how many.
    fn forget_lost(&self, ids: &[i64], ages: &[i64], asked: Instant) -> usize {
        let mut written = self.written.lock().expect("sound");
        let mut lost = 0;
        for (id, age) in ids.iter().zip(ages) {
            let versions = written.entry(*id).or_default();
            let before = versions.len();
            versions.retain(|(version, at)| version <= age || *at > asked);
            lost += before - versions.len();
        }
        lost
    }

    fn excuse(&self, from: Instant, to: Instant) {
        self.away.lock().expect("sound").push((from, to));
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Kill,
    Stop,
    Database,
    Relays,
    Redis,
    Hang,
    Failover,
}

async fn run(with_redis: bool) {
    let (seconds, seed) = (setting("OUTBOX_SECONDS", 15), setting("OUTBOX_SEED", 7));
    fastrand::seed(seed);
    let mut postgres = Postgres::start();
    let mut redis = with_redis.then(RedisServer::start);
    let proxy = Proxy::start(postgres.port());
    let url = postgres.database();
    let url = url.replace(
        &format!(":{}/", postgres.port()),
        &format!(":{}/", proxy.port()),
    );
    let mut demos: Vec<Demo> = (0..PROCESSES)
        .map(|_| start(&url, redis.as_ref()))
        .collect();
    for demo in &demos {
        heard(demo).await;
    }
    postgres.psql(&url, "UPDATE users SET age = 0");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let history = Arc::new(History {
        is_excused: with_redis,
        ..History::default()
    });
    let over = Arc::new(AtomicBool::new(false));
    let urls = Arc::new(Mutex::new(
        demos.iter().map(|demo| demo.url("")).collect::<Vec<_>>(),
    ));
    let pool = PgPoolOptions::new()
        .max_connections(4)
        .acquire_timeout(Duration::from_secs(1));
    let pool = pool.connect(&url).await.expect("connects");
    let mut tasks = Vec::new();
    for _ in 0..2 {
        tasks.push(tokio::spawn(write(
            Arc::clone(&history),
            pool.clone(),
            Arc::clone(&over),
        )));
    }
    for _ in 0..6 {
        tasks.push(tokio::spawn(read(
            Arc::clone(&history),
            Arc::clone(&urls),
            Arc::clone(&over),
        )));
    }
    let mut faults: BTreeMap<Fault, u32> = BTreeMap::new();
    let pause = async |from: u64, to: u64| {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(from..to))).await;
    };
    let end = Instant::now() + Duration::from_secs(seconds);
    let all = [
        Fault::Kill,
        Fault::Stop,
        Fault::Database,
        Fault::Relays,
        Fault::Redis,
        Fault::Hang,
        Fault::Failover,
    ];
    let (mut next, mut lost) = (0, 0);
    while Instant::now() < end || next < all.len() {
        pause(300, 1_500).await;
        let fault = all[next % all.len()];
        next += 1;
        let of = fastrand::usize(..PROCESSES);
        let from = Instant::now();
        match (fault, &mut redis) {
            (Fault::Kill, redis) => {
                demos[of].kill();
                let demo = start(&url, redis.as_ref());
                urls.lock().expect("sound")[of] = demo.url("");
                demos[of] = demo;
            }
            (Fault::Stop, _) => {
                demos[of].pause();
                pause(300, 2_500).await;
                demos[of].resume();
            }
            (Fault::Database, _) => {
                postgres.shut_down();
                pause(100, 1_500).await;
                postgres.start_again();
                // A relay that has waited longest tries again within a second.
                history.excuse(from, Instant::now() + Duration::from_millis(1_100));
            }
            (Fault::Relays, _) => {
                let ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'cache-runtime outbox'";
                postgres.psql(&url, ended);
            }
            (Fault::Redis, Some(redis)) => {
                if fastrand::bool() {
                    redis.pause();
                    pause(200, 2_000).await;
                    redis.resume();
                } else {
                    redis.stop();
                    pause(200, 1_000).await;
                    redis.restart();
                }
                // So long the next attempt to connect may wait.
                history.excuse(from, Instant::now() + Duration::from_millis(1_100));
            }
            (Fault::Redis, None) => continue,
            (Fault::Hang, _) => {
                proxy.set(Mode::Hold);
                pause(300, 2_500).await;
                proxy.cut_then(Mode::Pass);
                history.excuse(from, Instant::now() + Duration::from_millis(1_100));
            }
            (Fault::Failover, _) => {
                let standby = postgres.standby();
                let streams = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
                let own = postgres.url();
                eventually(PATIENCE, async || postgres.psql(&own, streams) == "1").await;
                let from = Instant::now();
                // It sends all that was committed before it ends.
                postgres.shut_down();
                standby.promote();
                proxy.lead_to(standby.port());
                postgres = standby;
                history.excuse(from, Instant::now() + Duration::from_millis(1_100));
            }
        }
        if matches!(fault, Fault::Database | Fault::Failover) {
            let asked = Instant::now();
            let ids: Vec<i64> = IDS.collect();
            let sql =
                "SELECT string_agg(age::text, ',' ORDER BY id) FROM users WHERE id BETWEEN 1 AND 6";
            let ages = postgres.psql(&url, sql);
            let ages = ages.split(',').map(|age| age.parse().expect("a version"));
            lost += history.forget_lost(&ids, &ages.collect::<Vec<i64>>(), asked);
        }
        *faults.entry(fault).or_default() += 1;
    }
    over.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.expect("no panic");
    }
    let mut ages = history.ages();
    ages.sort();
    let (reads, hits) = {
        let reads = history.reads.lock().expect("sound");
        (reads.len(), reads.iter().filter(|read| read.is_hit).count())
    };
    let writes: usize = history
        .written
        .lock()
        .expect("sound")
        .values()
        .map(Vec::len)
        .sum();
    let at = |part: usize| {
        let at = (ages.len() * part / 1_000).min(ages.len().saturating_sub(1));
        ages.get(at).copied().unwrap_or_default()
    };
    let largest = ages.last().copied().unwrap_or_default();
    let promised = if with_redis { POLLED } else { FOLLOWED };
    let past = ages.iter().filter(|age| **age > promised).count();
    println!(
        "Redis {with_redis}, seed {seed}: {} reads ({hits} hits, {} failed), {writes} writes ({lost} lost by the database), faults {faults:?}; stale {} (p50 {:?}, p99 {:?}, largest {largest:?}), past {promised:?}: {past}",
        reads,
        history.failed.load(Ordering::Relaxed),
        ages.len(),
        at(500),
        at(990),
    );
    assert!(hits > 100 && writes > 50, "nothing was tried");
    let bound = match with_redis && setting("OUTBOX_STRICT", 0) == 0 {
        true => promised + SLACK,
        false => promised,
    };
    assert!(largest <= bound, "stale for {largest:?}");
    // In the end all show the same.
    for id in IDS {
        let sql = format!("SELECT age FROM users WHERE id = {id}");
        let version: i64 = postgres.psql(&url, &sql).parse().expect("a version");
        for demo in &demos {
            eventually(PATIENCE, async || {
                demo.get(&format!("/users/{id}")).await.json()["age"].as_i64() == Some(version)
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_writers_and_every_fault_with_redis() {
    run(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_writers_and_every_fault_without_redis() {
    run(false).await;
}
