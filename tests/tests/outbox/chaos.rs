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
use sqlx::Connection;
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};

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
        let mut away = self.away.lock().expect("sound").clone();
        away.sort();
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
            // In order of their begin. Where they overlap, the time counts once.
            let mut excused = Duration::ZERO;
            let mut from = since;
            for (begun, over) in away.iter().filter(|_| self.is_excused) {
                let until = (*over).min(read.begun);
                excused += until.saturating_duration_since((*begun).max(from));
                from = from.max(until);
            }
            Some(age.saturating_sub(excused))
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
    /// A transaction is begun and left open, or ended.
    Long,
    /// Many rows are committed at once.
    Bulk,
}

const ALL: [Fault; 9] = [
    Fault::Long,
    Fault::Kill,
    Fault::Bulk,
    Fault::Stop,
    Fault::Relays,
    Fault::Redis,
    Fault::Hang,
    Fault::Database,
    Fault::Failover,
];

/// So long an attempt to connect may wait.
const RECONNECT: Duration = Duration::from_millis(1_100);

async fn pause(from: u64, to: u64) {
    tokio::time::sleep(Duration::from_millis(fastrand::u64(from..to))).await;
}

/// The servers and processes, and what was done to them.
struct World {
    postgres: Postgres,
    redis: Option<RedisServer>,
    proxy: Proxy,
    url: String,
    demos: Vec<Demo>,
    urls: Arc<Mutex<Vec<String>>>,
    history: Arc<History>,
    long: Option<PgConnection>,
    faults: BTreeMap<Fault, u32>,
    /// Acknowledged writes that the database has lost.
    lost: usize,
}

impl World {
    async fn new(with_redis: bool) -> Self {
        let postgres = Postgres::start();
        let redis = with_redis.then(RedisServer::start);
        let proxy = Proxy::start(postgres.port());
        let url = postgres.database().replace(
            &format!(":{}/", postgres.port()),
            &format!(":{}/", proxy.port()),
        );
        let demos: Vec<Demo> = (0..PROCESSES)
            .map(|_| start(&url, redis.as_ref()))
            .collect();
        for demo in &demos {
            heard(demo).await;
        }
        postgres.psql(&url, "UPDATE users SET age = 0");
        tokio::time::sleep(Duration::from_secs(2)).await;
        let urls = demos.iter().map(|demo| demo.url("")).collect();
        Self {
            postgres,
            redis,
            proxy,
            url,
            demos,
            urls: Arc::new(Mutex::new(urls)),
            history: Arc::new(History {
                is_excused: with_redis,
                ..History::default()
            }),
            long: None,
            faults: BTreeMap::new(),
            lost: 0,
        }
    }

    async fn strike(&mut self, fault: Fault) {
        let of = fastrand::usize(..PROCESSES);
        match fault {
            Fault::Kill => self.kill(of),
            Fault::Stop => {
                self.demos[of].pause();
                pause(300, 2_500).await;
                self.demos[of].resume();
            }
            Fault::Database => self.restart().await,
            Fault::Relays => {
                let ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'cache-runtime outbox'";
                self.postgres.psql(&self.url, ended);
            }
            Fault::Redis if self.redis.is_none() => return,
            Fault::Redis => self.without_redis().await,
            Fault::Hang => {
                let from = Instant::now();
                self.proxy.set(Mode::Hold);
                pause(300, 2_500).await;
                self.proxy.cut_then(Mode::Pass);
                self.history.excuse(from, Instant::now() + RECONNECT);
            }
            Fault::Failover => self.fail_over().await,
            Fault::Long => self.begin_or_end().await,
            Fault::Bulk => {
                // Of rows that nobody reads. With so many their resource is invalidated as a whole.
                let rows = format!(
                    "INSERT INTO cache_outbox (kind, resource, value)
                    SELECT 'row', 'users', n::text FROM generate_series(100001, 100000 + {}) n",
                    setting("OUTBOX_BULK", 20_000)
                );
                self.postgres.psql(&self.url, &rows);
            }
        }
        *self.faults.entry(fault).or_default() += 1;
    }

    fn kill(&mut self, of: usize) {
        self.demos[of].kill();
        let demo = start(&self.url, self.redis.as_ref());
        self.urls.lock().expect("sound")[of] = demo.url("");
        self.demos[of] = demo;
    }

    async fn restart(&mut self) {
        let from = Instant::now();
        self.postgres.shut_down();
        pause(100, 1_500).await;
        self.postgres.start_again();
        // A relay that has waited longest tries again within a second.
        self.history.excuse(from, Instant::now() + RECONNECT);
        self.forget_lost();
    }

    async fn without_redis(&mut self) {
        let from = Instant::now();
        let redis = self.redis.as_mut().expect("asked before");
        if fastrand::bool() {
            redis.pause();
            pause(200, 2_000).await;
            redis.resume();
        } else {
            redis.stop();
            pause(200, 1_000).await;
            redis.restart();
        }
        self.history.excuse(from, Instant::now() + RECONNECT);
    }

    async fn fail_over(&mut self) {
        let standby = self.postgres.standby();
        let streams = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        let own = self.postgres.url();
        eventually(PATIENCE, async || self.postgres.psql(&own, streams) == "1").await;
        let from = Instant::now();
        // It sends all that was committed before it ends.
        self.postgres.shut_down();
        standby.promote();
        self.proxy.lead_to(standby.port());
        self.postgres = standby;
        self.history.excuse(from, Instant::now() + RECONNECT);
        self.forget_lost();
    }

    /// A transaction that keeps what is deleted. It goes on through the next faults, until its connection is lost.
    async fn begin_or_end(&mut self) {
        if self.long.take().is_some() {
            return;
        }
        let Ok(mut long) = PgConnection::connect(&self.url).await else {
            return;
        };
        let begun = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_current_xact_id()";
        if sqlx::raw_sql(begun).execute(&mut long).await.is_ok() {
            self.long = Some(long);
        }
    }

    fn forget_lost(&mut self) {
        let asked = Instant::now();
        let ids: Vec<i64> = IDS.collect();
        let sql =
            "SELECT string_agg(age::text, ',' ORDER BY id) FROM users WHERE id BETWEEN 1 AND 6";
        let ages = self.postgres.psql(&self.url, sql);
        let ages = ages.split(',').map(|age| age.parse().expect("a version"));
        self.lost += self
            .history
            .forget_lost(&ids, &ages.collect::<Vec<i64>>(), asked);
    }

    /// In the end all show the same.
    async fn agree(&self) {
        for id in IDS {
            let sql = format!("SELECT age FROM users WHERE id = {id}");
            let version = self.postgres.psql(&self.url, &sql);
            let version: i64 = version.parse().expect("a version");
            for demo in &self.demos {
                eventually(PATIENCE, async || {
                    demo.get(&format!("/users/{id}")).await.json()["age"].as_i64() == Some(version)
                })
                .await;
            }
        }
    }

    /// Says what was seen, and looks whether a read was staler than is promised.
    fn judge(&self, seed: u64) {
        let mut ages = self.history.ages();
        ages.sort();
        let (reads, hits) = {
            let reads = self.history.reads.lock().expect("sound");
            (reads.len(), reads.iter().filter(|read| read.is_hit).count())
        };
        let writes: usize = {
            let written = self.history.written.lock().expect("sound");
            written.values().map(Vec::len).sum()
        };
        let at = |part: usize| {
            let at = (ages.len() * part / 1_000).min(ages.len().saturating_sub(1));
            ages.get(at).copied().unwrap_or_default()
        };
        let largest = ages.last().copied().unwrap_or_default();
        let with_redis = self.redis.is_some();
        let promised = if with_redis { POLLED } else { FOLLOWED };
        let past = ages.iter().filter(|age| **age > promised).count();
        println!(
            "Redis {with_redis}, seed {seed}: {reads} reads ({hits} hits, {failed} failed), {writes} writes ({lost} lost by the database), faults {faults:?}; stale {stale} (p50 {p50:?}, p99 {p99:?}, largest {largest:?}), past {promised:?}: {past}",
            failed = self.history.failed.load(Ordering::Relaxed),
            lost = self.lost,
            faults = self.faults,
            stale = ages.len(),
            p50 = at(500),
            p99 = at(990),
        );
        assert!(hits > 100 && writes > 50, "nothing was tried");
        let bound = match with_redis && setting("OUTBOX_STRICT", 0) == 0 {
            true => promised + SLACK,
            false => promised,
        };
        assert!(largest <= bound, "stale for {largest:?}");
    }
}

async fn run(with_redis: bool) {
    let (seconds, seed) = (setting("OUTBOX_SECONDS", 15), setting("OUTBOX_SEED", 7));
    fastrand::seed(seed);
    let mut world = World::new(with_redis).await;
    let over = Arc::new(AtomicBool::new(false));
    let pool = PgPoolOptions::new()
        .max_connections(4)
        .acquire_timeout(Duration::from_secs(1));
    let pool = pool.connect(&world.url).await.expect("connects");
    let mut tasks = Vec::new();
    for _ in 0..2 {
        let (history, over) = (Arc::clone(&world.history), Arc::clone(&over));
        tasks.push(tokio::spawn(write(history, pool.clone(), over)));
    }
    for _ in 0..6 {
        let (history, urls) = (Arc::clone(&world.history), Arc::clone(&world.urls));
        tasks.push(tokio::spawn(read(history, urls, Arc::clone(&over))));
    }
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut faults = ALL.iter().cycle();
    let mut struck = 0;
    while Instant::now() < end || struck < ALL.len() {
        pause(300, 1_500).await;
        world.strike(*faults.next().expect("for ever")).await;
        struck += 1;
    }
    over.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.expect("no panic");
    }
    world.judge(seed);
    world.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_writers_and_every_fault_with_redis() {
    run(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_writers_and_every_fault_without_redis() {
    run(false).await;
}
