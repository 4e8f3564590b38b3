//! The same in a file of SQLite: two processes of the demo, two caches in this process, and writers
//! that know nothing of them.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cache_runtime::outbox::{OutboxConfig, sqlite, table, triggers};
use cache_tests::{Demo, RedisServer};
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};
use tempfile::TempDir;

use super::history::{History, Node, Of, pool, rows, version_sql};
use super::{FOLLOWED, POLLED, agree, configs, crew, is_enough, pause, setting, without_redis};
use crate::demo::{heard, start};

const PROCESSES: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Kill,
    Stop,
    Redis,
    /// Somebody writes for long, and nobody else can.
    Lock,
    /// A transaction that reads is begun and left open, or ended.
    Long,
    /// Many rows are committed at once.
    Bulk,
}

const ALL: [Fault; 6] = [
    Fault::Long,
    Fault::Kill,
    Fault::Bulk,
    Fault::Stop,
    Fault::Redis,
    Fault::Lock,
];

struct World {
    _directory: TempDir,
    url: String,
    redis: Option<RedisServer>,
    demos: Vec<Demo>,
    urls: Arc<Mutex<Vec<String>>>,
    nodes: Vec<Arc<Node>>,
    history: Arc<History>,
    long: Option<SqliteConnection>,
    faults: BTreeMap<Fault, u32>,
}

impl World {
    async fn new(with_redis: bool) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let url = format!(
            "sqlite://{}?mode=rwc",
            directory.path().join("demo.db").display()
        );
        let redis = with_redis.then(RedisServer::start);
        let demos: Vec<Demo> = (0..PROCESSES)
            .map(|_| start(&url, redis.as_ref()))
            .collect();
        for demo in &demos {
            heard(demo).await;
        }
        let outbox = OutboxConfig::sqlite(&url).expect("a URL");
        let mut connection = connect(&url).await;
        let made = "UPDATE users SET age = 0;
            CREATE TABLE counters (id INTEGER PRIMARY KEY, version INTEGER NOT NULL);
            INSERT INTO counters VALUES (1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0)";
        run_sql(&mut connection, made).await;
        let counters = table("counters").resource("counters").id("id");
        let counters = triggers(&cache_runtime::catalog(), [counters]).expect("fits");
        let installed = sqlite::install(&mut connection, &outbox, Some(&counters)).await;
        installed.expect("installed");
        let mut nodes = Vec::new();
        for config in configs(redis.as_ref()) {
            nodes.push(Node::new(config, outbox.clone(), &url).await);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let urls = demos.iter().map(|demo| demo.url("")).collect();
        Self {
            _directory: directory,
            url,
            redis,
            demos,
            urls: Arc::new(Mutex::new(urls)),
            nodes,
            history: History::new(with_redis),
            long: None,
            faults: BTreeMap::new(),
        }
    }

    async fn strike(&mut self, fault: Fault) {
        let of = fastrand::usize(..PROCESSES);
        match fault {
            Fault::Kill => {
                self.demos[of].kill();
                let demo = start(&self.url, self.redis.as_ref());
                self.urls.lock().expect("sound")[of] = demo.url("");
                self.demos[of] = demo;
            }
            Fault::Stop => {
                self.demos[of].pause();
                pause(300, 2_500).await;
                self.demos[of].resume();
            }
            Fault::Redis => match &mut self.redis {
                Some(redis) => without_redis(redis, &self.history).await,
                None => return,
            },
            Fault::Lock => {
                let mut writer = connect(&self.url).await;
                run_sql(&mut writer, "BEGIN IMMEDIATE").await;
                pause(200, 2_500).await;
                run_sql(&mut writer, "ROLLBACK").await;
            }
            Fault::Long => match self.long.take() {
                Some(_) => {}
                None => {
                    let mut long = connect(&self.url).await;
                    run_sql(&mut long, "BEGIN; SELECT count(*) FROM cache_outbox").await;
                    self.long = Some(long);
                }
            },
            Fault::Bulk => {
                let rows = format!(
                    "INSERT INTO cache_outbox (kind, resource, value)
                    WITH RECURSIVE many(n) AS (SELECT 100001 UNION ALL SELECT n + 1 FROM many WHERE n < 100000 + {})
                    SELECT 'row', 'users', n FROM many",
                    setting("OUTBOX_BULK", 20_000)
                );
                run_sql(&mut connect(&self.url).await, &rows).await;
            }
        }
        *self.faults.entry(fault).or_default() += 1;
    }

    async fn versions(&self) -> Vec<(Of, i64)> {
        let mut connection = connect(&self.url).await;
        let mut versions = Vec::new();
        for of in rows() {
            let version = sqlx::query_scalar(AssertSqlSafe(version_sql(of)));
            versions.push((of, version.fetch_one(&mut connection).await.expect("read")));
        }
        versions
    }
}

async fn connect(url: &str) -> SqliteConnection {
    SqliteConnection::connect(url).await.expect("connects")
}

async fn run_sql(connection: &mut SqliteConnection, sql: &str) {
    // One at a time writes to the file; beside much else, the lock may be held for longer than
    // SQLite waits.
    loop {
        let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        match done.execute(&mut *connection).await {
            Err(error) if error.to_string().contains("database is locked") => {}
            done => {
                done.expect("done");
                return;
            }
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
        "SQLite, Redis {with_redis}, seed {seed}, {struck} faults {:?}",
        world.faults
    );
    let promised = if with_redis { POLLED } else { FOLLOWED };
    world.history.judge(&what, promised);
    for (of, version) in world.versions().await {
        agree(&world.demos, &world.nodes, of, version).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_writers_in_a_file_with_redis() {
    run(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_writers_in_a_file_without_redis() {
    run(false).await;
}
