//! What was written and read, and whether a read was staler than is promised.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cache_runtime::outbox::OutboxConfig;
use cache_runtime::{Cache, CacheConfig, Status, cached, observe};
use cache_tests::eventually;
use sqlx::any::AnyPoolOptions;
use sqlx::{AnyPool, AssertSqlSafe};

use super::undisturbed::{Undisturbed, Watch};
use crate::TEST_TIMEOUT;

/// How much later than promised a read may be on a machine where everything else is going on: the
/// relay's threads may wait for a processor while those that look whether there is one don't.
const BUSY: Duration = Duration::from_secs(1);

pub(super) const IDS: std::ops::RangeInclusive<i64> = 1..=6;
/// What is written, and the column with the version.
pub(super) const TABLES: [(&str, &str); 2] = [("users", "age"), ("counters", "version")];

/// A row of one of the tables.
pub(super) type Of = (usize, i64);

fn any_row() -> Of {
    (fastrand::usize(..TABLES.len()), fastrand::i64(IDS))
}

pub(super) fn rows() -> impl Iterator<Item = Of> {
    (0..TABLES.len()).flat_map(|table| IDS.map(move |id| (table, id)))
}

/// The version of a row in the database.
pub(super) fn version_sql((table, id): Of) -> String {
    let (table, column) = TABLES[table];
    format!("SELECT {column} FROM {table} WHERE id = {id}")
}

#[derive(Debug, Clone, Copy)]
struct Read {
    of: Of,
    version: i64,
    begun: Instant,
}

/// What happened, in the order of its time.
pub(super) struct History {
    /// The versions of a row, and when each was acknowledged.
    written: Mutex<BTreeMap<Of, Vec<(i64, Instant)>>>,
    reads: Mutex<Vec<Read>>,
    hits: AtomicU64,
    failed: AtomicU64,
    /// When Redis or the database was away. With Redis this time does not count.
    away: Mutex<Vec<(Instant, Instant)>>,
    with_redis: bool,
    watch: Watch,
    pub(super) over: AtomicBool,
}

impl History {
    pub(super) fn new(with_redis: bool) -> Arc<Self> {
        Arc::new(Self {
            written: Mutex::default(),
            reads: Mutex::default(),
            hits: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            away: Mutex::default(),
            with_redis,
            watch: Watch::start(),
            over: AtomicBool::new(false),
        })
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub(super) fn number_of_reads(&self) -> usize {
        self.reads.lock().expect("sound").len()
    }

    fn number_of_writes(&self) -> usize {
        let written = self.written.lock().expect("sound");
        written.values().map(Vec::len).sum()
    }

    /// Whether enough was tried for the result to say something.
    pub(super) fn says_something(&self) -> bool {
        self.hits.load(Ordering::Relaxed) > 100 && self.number_of_writes() > 50
    }

    /// From then until now something was away.
    pub(super) fn excuse(&self, from: Instant, and: Duration) {
        let mut away = self.away.lock().expect("sound");
        away.push((from, Instant::now() + and));
    }

    fn read(&self, reads: &mut Vec<Read>, hits: u64) {
        self.hits.fetch_add(hits, Ordering::Relaxed);
        self.reads.lock().expect("sound").append(reads);
    }

    /// Forgets acknowledged writes that the database does not have any more: on a busy machine a
    /// server may not end in order within its time, and its last commits don't wait for the disk,
    /// nor for the standby. Returns how many.
    pub(super) fn forget_lost(&self, of: Of, version: i64, asked: Instant) -> usize {
        let mut written = self.written.lock().expect("sound");
        let versions = written.entry(of).or_default();
        let before = versions.len();
        versions.retain(|(known, at)| *known <= version || *at > asked);
        before - versions.len()
    }

    /// Each stale read: how old it was by the clock, and in undisturbed time.
    fn stale(&self) -> Vec<(Duration, Duration)> {
        let away = match self.with_redis {
            true => self.away.lock().expect("sound").clone(),
            // A process that hears nothing serves nothing, so there is no excuse.
            false => Vec::new(),
        };
        let undisturbed = self.watch.undisturbed(&away);
        // By version, with when this one or a later one was acknowledged first.
        let mut missed = self.written.lock().expect("sound").clone();
        for versions in missed.values_mut() {
            versions.sort_unstable();
            for at in (1..versions.len()).rev() {
                versions[at - 1].1 = versions[at - 1].1.min(versions[at].1);
            }
        }
        let reads = self.reads.lock().expect("sound");
        let stale = reads
            .iter()
            .filter_map(|read| age(&missed, &undisturbed, read));
        stale.collect()
    }

    /// Says what was seen, and looks whether a read was staler than is promised, and more than a
    /// busy machine explains.
    pub(super) fn judge(&self, what: &str, promised: Duration) {
        let stale = self.stale();
        let (mut raw, mut ages): (Vec<_>, Vec<_>) = stale.into_iter().unzip();
        raw.sort_unstable();
        ages.sort_unstable();
        let at = |ages: &[Duration], part: usize| {
            let at = (ages.len() * part / 1_000).min(ages.len().saturating_sub(1));
            ages.get(at).copied().unwrap_or_default()
        };
        let past = |ages: &[Duration]| ages.iter().filter(|age| **age > promised).count();
        let hits = self.hits.load(Ordering::Relaxed);
        let writes = self.number_of_writes();
        println!(
            "{what}: {reads} reads ({hits} hits, {failed} failed), {writes} writes; stale {stale} (p50 {p50:?}, p99 {p99:?}, oldest {oldest:?}), past {promised:?}: {past}; by the clock p50 {raw50:?}, oldest {raw_oldest:?}, past: {raw_past}",
            reads = self.number_of_reads(),
            failed = self.failed.load(Ordering::Relaxed),
            stale = ages.len(),
            p50 = at(&ages, 500),
            p99 = at(&ages, 990),
            oldest = at(&ages, 1_000),
            past = past(&ages),
            raw50 = at(&raw, 500),
            raw_oldest = at(&raw, 1_000),
            raw_past = past(&raw),
        );
        assert!(self.says_something(), "nothing was tried");
        let oldest = at(&ages, 1_000);
        assert!(oldest <= promised + BUSY, "stale for {oldest:?}");
    }
}

fn age(
    missed: &BTreeMap<Of, Vec<(i64, Instant)>>,
    undisturbed: &Undisturbed,
    read: &Read,
) -> Option<(Duration, Duration)> {
    let versions = missed.get(&read.of)?;
    let next = versions.partition_point(|(version, _)| *version <= read.version);
    let (_, since) = *versions.get(next)?;
    let age = read.begun.checked_duration_since(since)?;
    Some((age, undisturbed.between(since, read.begun)))
}

/// Plain SQL, by somebody who knows nothing of the cache.
pub(super) async fn write(history: Arc<History>, pool: AnyPool) {
    while !history.is_over() {
        let of = any_row();
        let (table, column) = TABLES[of.0];
        let sql = format!(
            "UPDATE {table} SET {column} = {column} + 1 WHERE id = {} RETURNING CAST({column} AS bigint)",
            of.1
        );
        // All rows: SQLite commits behind the last one.
        let update = sqlx::query_scalar::<_, i64>(AssertSqlSafe(sql)).fetch_all(&pool);
        if let Ok(versions) = update.await
            && let Some(version) = versions.first()
        {
            let acknowledged = Instant::now();
            let mut written = history.written.lock().expect("sound");
            written
                .entry(of)
                .or_default()
                .push((*version, acknowledged));
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(5..60))).await;
    }
}

/// Reads the demo's processes over HTTP.
pub(super) async fn read_demos(history: Arc<History>, urls: Arc<Mutex<Vec<String>>>) {
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(5))
        .build()
        .expect("a client");
    while !history.is_over() {
        let id = fastrand::i64(IDS);
        let url = {
            let urls = urls.lock().expect("sound");
            urls[fastrand::usize(..urls.len())].clone()
        };
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
        let read = Read {
            of: (0, id),
            version: user["age"].as_i64().expect("a version"),
            begun,
        };
        history.read(&mut vec![read], u64::from(is_hit));
    }
}

/// A cache in the test's own process: it takes part like any other, and can be read much more
/// often.
pub(super) struct Node {
    cache: Cache,
    pool: AnyPool,
}

impl Node {
    pub(super) async fn new(config: CacheConfig, outbox: OutboxConfig, url: &str) -> Arc<Self> {
        let config = config.command_budget(Duration::from_secs(5));
        let cache = Cache::new(config.outbox(outbox)).await;
        let pool = pool(url).await;
        let node = Self { cache, pool };
        eventually(TEST_TIMEOUT, async || {
            let stats = node.cache.get_stats().await.outbox.expect("an outbox");
            stats.connected && stats.serving != Some(false)
        })
        .await;
        Arc::new(node)
    }

    #[cached(resource = "counters", cache = self.cache)]
    async fn counter(&self, id: i64) -> Result<i64, sqlx::Error> {
        let version = "SELECT CAST(version AS bigint) FROM counters WHERE id = $1";
        sqlx::query_scalar(version)
            .bind(id)
            .fetch_one(&self.pool)
            .await
    }

    pub(super) async fn shows(&self, id: i64, version: i64) -> bool {
        self.counter(id).await.is_ok_and(|it| it == version)
    }
}

pub(super) async fn pool(url: &str) -> AnyPool {
    sqlx::any::install_default_drivers();
    let pool = AnyPoolOptions::new()
        .max_connections(4)
        .acquire_timeout(Duration::from_secs(1));
    pool.connect(url).await.expect("connects")
}

/// So many reads in a row, and a pause: others have work to do, too.
const ROW: usize = 200;

pub(super) async fn read_node(history: Arc<History>, node: Arc<Node>) {
    while !history.is_over() {
        let (mut reads, mut hits) = (Vec::with_capacity(ROW), 0);
        for _ in 0..ROW {
            let id = fastrand::i64(IDS);
            let begun = Instant::now();
            let (version, outcomes) = observe(node.counter(id)).await;
            let Ok(version) = version else {
                history.failed.fetch_add(1, Ordering::Relaxed);
                break;
            };
            hits += u64::from(matches!(outcomes[0].status, Status::Hit { .. }));
            let of = (1, id);
            reads.push(Read { of, version, begun });
        }
        history.read(&mut reads, hits);
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}
