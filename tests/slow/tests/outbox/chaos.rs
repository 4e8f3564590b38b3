//! Writers that use plain SQL behind the cache's back, while relays are killed and stopped, and
//! servers restarted.
//!
//! Each row carries its version. A read is stale if it shows less than a write that was
//! acknowledged before the read began; its age is counted from that write's acknowledgement, in
//! [undisturbed](undisturbed::Undisturbed) time. Without Redis the bound holds whatever happens,
//! since a process that hears nothing serves nothing. With Redis a row has to be delivered, so the
//! time in which Redis or the database was away does not count.
//!
//! Three processes of the demo are read over HTTP, and two caches in this process, which can be
//! read much more often.
//!
//! The database fails over to a standby that has all commits, as a planned one does; `shared.rs`
//! has one that has lost some.
//!
//! `OUTBOX_SECONDS`, `OUTBOX_READS` and `OUTBOX_SEED` ask for more.

mod file;
mod history;
mod undisturbed;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cache_runtime::outbox::{OutboxConfig, table};
use cache_runtime::{CacheConfig, RedisConfig};
use cache_tests::{Demo, Mode, Postgres, Proxy, RedisServer, eventually};
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{AnyPool, Connection};
use tokio::task::JoinHandle;

use self::history::{History, Node, Of, pool, read_demos, read_node, rows, version_sql, write};
use crate::demo::{heard, start};
use crate::{TEST_TIMEOUT, database, install, users};

const PROCESSES: usize = 3;
/// What is promised while Redis and the database answer.
const POLLED: Duration = Duration::from_millis(1_500);
/// `CACHE_LOCAL_MAX_STALENESS`
const FOLLOWED: Duration = Duration::from_secs(1);
/// What is promised at p99 of what is notified.
const NOTIFIED: Duration = Duration::from_millis(50);
/// So long an attempt to connect may wait.
const RECONNECT: Duration = Duration::from_millis(1_100);

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

async fn pause(from: u64, to: u64) {
    tokio::time::sleep(Duration::from_millis(fastrand::u64(from..to))).await;
}

/// The settings of a cache in this process.
fn configs(redis: Option<&RedisServer>) -> [CacheConfig; 2] {
    let config = CacheConfig::default();
    match redis {
        Some(redis) => {
            let config = config.redis(RedisConfig::at("127.0.0.1", redis.port()));
            [config.clone(), config.local_mb(4)]
        }
        None => [config.clone().local_mb(4), config.local_mb(4)],
    }
}

/// Redis is paused, or restarted with what it held.
async fn without_redis(redis: &mut RedisServer, history: &History) {
    let from = Instant::now();
    if fastrand::bool() {
        redis.pause();
        pause(200, 2_000).await;
        redis.resume();
    } else {
        redis.stop();
        pause(200, 1_000).await;
        redis.restart();
    }
    history.excuse(from, RECONNECT);
}

/// Those who write and read until it is over.
fn crew(
    history: &Arc<History>,
    pool: &AnyPool,
    urls: &Arc<Mutex<Vec<String>>>,
    nodes: &[Arc<Node>],
) -> Vec<JoinHandle<()>> {
    let mut tasks = Vec::new();
    for _ in 0..2 {
        tasks.push(tokio::spawn(write(Arc::clone(history), pool.clone())));
    }
    for _ in 0..4 {
        let (history, urls) = (Arc::clone(history), Arc::clone(urls));
        tasks.push(tokio::spawn(read_demos(history, urls)));
    }
    for node in nodes {
        let (history, node) = (Arc::clone(history), Arc::clone(node));
        tasks.push(tokio::spawn(read_node(history, node)));
    }
    tasks
}

/// Whether what was asked for has been done.
fn is_enough(history: &History, begun: Instant, struck: usize, faults: usize) -> bool {
    let seconds = Duration::from_secs(setting("OUTBOX_SECONDS", 15));
    let reads = u64::try_from(history.number_of_reads()).expect("fits");
    let is_tried = history.says_something() || begun.elapsed() > TEST_TIMEOUT * 6;
    begun.elapsed() >= seconds
        && struck >= faults
        && is_tried
        && reads >= setting("OUTBOX_READS", 0)
}

/// In the end all show the same.
async fn agree(demos: &[Demo], nodes: &[Arc<Node>], of: Of, version: i64) {
    for demo in demos.iter().filter(|_| of.0 == 0) {
        eventually(TEST_TIMEOUT, async || {
            let answer = demo.get(&format!("/users/{}", of.1)).await;
            answer.json()["age"].as_i64() == Some(version)
        })
        .await;
    }
    for node in nodes.iter().filter(|_| of.0 == 1) {
        eventually(TEST_TIMEOUT, async || node.shows(of.1, version).await).await;
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

/// The servers and processes, and what was done to them.
struct World {
    postgres: Postgres,
    redis: Option<RedisServer>,
    proxy: Proxy,
    url: String,
    demos: Vec<Demo>,
    urls: Arc<Mutex<Vec<String>>>,
    nodes: Vec<Arc<Node>>,
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
        postgres.psql(
            &url,
            "UPDATE users SET age = 0; CREATE TABLE counters (id bigint PRIMARY KEY, version bigint NOT NULL);
             INSERT INTO counters SELECT n, 0 FROM generate_series(1, 6) n",
        );
        let counters = table("counters").resource("counters").id("id");
        install(&url, [counters]).await.expect("installed");
        let mut nodes = Vec::new();
        for config in configs(redis.as_ref()) {
            let outbox = OutboxConfig::postgres(&url).expect("a URL");
            nodes.push(Node::new(config, outbox, &url).await);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let urls = demos.iter().map(|demo| demo.url("")).collect();
        Self {
            postgres,
            redis,
            proxy,
            url,
            demos,
            urls: Arc::new(Mutex::new(urls)),
            nodes,
            history: History::new(with_redis),
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
            Fault::Redis => match &mut self.redis {
                Some(redis) => without_redis(redis, &self.history).await,
                None => return,
            },
            Fault::Hang => {
                let from = Instant::now();
                self.proxy.set(Mode::Hold);
                pause(300, 2_500).await;
                self.proxy.cut_then(Mode::Pass);
                self.history.excuse(from, RECONNECT);
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
        self.history.excuse(from, RECONNECT);
        self.forget_lost();
    }

    async fn fail_over(&mut self) {
        let standby = self.postgres.standby();
        let streams = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        let own = self.postgres.url();
        eventually(TEST_TIMEOUT, async || {
            self.postgres.psql(&own, streams) == "1"
        })
        .await;
        let from = Instant::now();
        // It sends all that was committed before it ends.
        self.postgres.shut_down();
        standby.promote();
        self.proxy.lead_to(standby.port());
        self.postgres = standby;
        self.history.excuse(from, RECONNECT);
        self.forget_lost();
    }

    /// A transaction that keeps what is deleted. It goes on through the next faults, until its
    /// connection is lost.
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

    fn versions(&self) -> Vec<(Of, i64)> {
        let sql: Vec<String> = rows().map(|of| format!("({})", version_sql(of))).collect();
        let read = self
            .postgres
            .psql(&self.url, &format!("SELECT {}", sql.join(", ")));
        let versions = read.split('|').map(|it| it.parse().expect("a version"));
        rows().zip(versions).collect()
    }

    fn forget_lost(&mut self) {
        let asked = Instant::now();
        for (of, version) in self.versions() {
            self.lost += self.history.forget_lost(of, version, asked);
        }
    }
}

async fn run(with_redis: bool) {
    let seed = setting("OUTBOX_SEED", 7);
    fastrand::seed(seed);
    let mut world = World::new(with_redis).await;
    let pool = pool(&world.url).await;
    let tasks = crew(&world.history, &pool, &world.urls, &world.nodes);
    let begun = Instant::now();
    let mut faults = ALL.iter().cycle();
    let mut struck = 0;
    while !is_enough(&world.history, begun, struck, ALL.len()) {
        pause(300, 1_500).await;
        world.strike(*faults.next().expect("for ever")).await;
        struck += 1;
    }
    world.history.over.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.expect("no panic");
    }
    let what = format!(
        "PostgreSQL, Redis {with_redis}, seed {seed}, {struck} faults {:?}, {} writes lost by the database",
        world.faults, world.lost
    );
    let promised = if with_redis { POLLED } else { FOLLOWED };
    world.history.judge(&what, promised);
    for (of, version) in world.versions() {
        agree(&world.demos, &world.nodes, of, version).await;
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

/// What is promised where nothing is wrong: notified, and read within 50 ms by both, 99 times of 100.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notified_rows_are_read_at_once() {
    let rounds = usize::try_from(setting("OUTBOX_ROUNDS", 200)).expect("fits");
    let (postgres, redis) = (Postgres::shared(), RedisServer::start());
    for redis in [Some(&redis), None] {
        let url = database(postgres, [users()]).await;
        let [one, other] = configs(redis);
        let nodes = [
            crate::Node::new(one, &url).await,
            crate::Node::new(other, &url).await,
        ];
        let pool = PgPool::connect(&url).await.expect("connects");
        let watch = undisturbed::Watch::start();
        let mut spans = Vec::new();
        for round in 0..rounds {
            for node in &nodes {
                node.warm(1).await;
            }
            let name = format!("name {round}");
            let update = sqlx::query("UPDATE users SET name = $1 WHERE id = 1").bind(&name);
            update.execute(&pool).await.expect("written");
            let committed = Instant::now();
            for node in &nodes {
                while node.name(1).await.0 != name {
                    tokio::time::sleep(Duration::from_micros(200)).await;
                }
            }
            spans.push((committed, Instant::now()));
        }
        let time = watch.undisturbed(&[]);
        let of = |rounds: &[(Instant, Instant)]| {
            let ages = rounds.iter().map(|(committed, seen)| *seen - *committed);
            let mut ages: Vec<Duration> = ages.collect();
            ages.sort_unstable();
            ages
        };
        // Those in which the machine had at least half of its time for us.
        let is_calm = |(from, to): &(Instant, Instant)| time.between(*from, *to) * 2 >= *to - *from;
        let (all, calm) = (
            of(&spans),
            of(&spans.iter().copied().filter(is_calm).collect::<Vec<_>>()),
        );
        println!(
            "{}: p50 {:?}, p99 {:?}, largest {:?}; of these {} while the machine was calm: p99 {:?}",
            if redis.is_some() {
                "with Redis"
            } else {
                "without Redis"
            },
            all[rounds / 2],
            all[rounds * 99 / 100],
            all[rounds - 1],
            calm.len(),
            calm.get(calm.len() * 99 / 100),
        );
        // With fewer the machine was so busy that these were not calm either.
        if calm.len() >= rounds * 9 / 10 {
            let p99 = calm[calm.len() * 99 / 100];
            assert!(p99 <= NOTIFIED, "{p99:?}");
        }
    }
}
