//! The auditor finds what our own writers can't be blamed for, and nothing else.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cache_runtime::{
    AuditAction, AuditVerdict, Cache, CacheConfig, EventKind, RedisConfig, cached, invalidates,
};
use cache_tests::{Postgres, RedisServer, eventually};
use sqlx::AnyPool;
use tokio::sync::Semaphore;

use crate::SOON;

fn config(server: &RedisServer) -> CacheConfig {
    CacheConfig::default()
        .redis(RedisConfig::at("127.0.0.1", server.port()))
        .command_budget(Duration::from_secs(5))
        .audit(1.0)
        .audit_limit(1_000_000)
}

/// Prices in a PostgreSQL table.
#[derive(Clone)]
struct Prices {
    cache: Cache,
    pool: AnyPool,
    is_broken: Arc<AtomicBool>,
}

impl Prices {
    async fn new(cache: &Cache, url: &str) -> Self {
        sqlx::any::install_default_drivers();
        let pool = AnyPool::connect(url).await.expect("a database");
        let table =
            "CREATE TABLE IF NOT EXISTS prices (id BIGINT PRIMARY KEY, price BIGINT NOT NULL)";
        sqlx::query(table).execute(&pool).await.expect("a table");
        let row = "INSERT INTO prices VALUES (1, 10) ON CONFLICT DO NOTHING";
        sqlx::query(row).execute(&pool).await.expect("a row");
        Self {
            cache: cache.clone(),
            pool,
            is_broken: Arc::default(),
        }
    }

    #[cached(resource = "prices", ttl = 300, cache = self.cache)]
    async fn get(&self, id: i64) -> Result<Option<i64>, String> {
        if self.is_broken.load(Ordering::SeqCst) {
            return Err("the database is away".into());
        }
        sqlx::query_scalar("SELECT price FROM prices WHERE id = $1")
            .bind(id)
            .fetch_optional(&self.pool)
            .await
            .map_err(|error| error.to_string())
    }

    #[invalidates("prices", id = id, cache = self.cache)]
    async fn set(&self, id: i64, price: i64) -> Result<(), String> {
        let update = sqlx::query("UPDATE prices SET price = $2 WHERE id = $1");
        let update = update.bind(id).bind(price);
        let done = update.execute(&self.pool).await;
        done.map(drop).map_err(|error| error.to_string())
    }
}

/// All hits are of one stale entry: the report must not say that few are.
#[tokio::test]
async fn the_bound_holds_while_all_hits_are_stale() {
    let (server, postgres) = (RedisServer::start(), Postgres::shared());
    let database = postgres.database();
    let config = config(&server)
        .audit(0.05)
        .audit_limit(100_000)
        .audit_confirm_after(Duration::from_millis(200))
        .on_stale(|_| AuditAction::Keep);
    let cache = Cache::new(config).await;
    let prices = Rarely::new(&cache, &database).await;
    assert_eq!(prices.get(1).await, Ok(Some(10)));
    psql(&database, "UPDATE prices SET price = 20 WHERE id = 1");
    let loads_before = prices.loads.load(Ordering::SeqCst);
    let hits = 3_000;
    for _ in 0..hits {
        assert!(prices.get(1).await.is_ok());
    }
    let total = cache.audit().total;
    assert!(total.checked > 50, "{}", cache.audit());
    assert!(
        total.checked < hits / 10,
        "no more than were drawn: {}",
        cache.audit()
    );
    assert!(total.stale_upper_bound > 0.9, "{}", cache.audit());
    // One second look for each finding, and for what may be one.
    let loads = prices.loads.load(Ordering::SeqCst) - loads_before;
    assert!(
        loads <= total.checked + total.suspected + 1,
        "{loads}: {}",
        cache.audit()
    );
}

/// As [`Prices`], audited as the cache says.
#[derive(Clone)]
struct Rarely {
    cache: Cache,
    pool: AnyPool,
    loads: Arc<AtomicU64>,
}

impl Rarely {
    async fn new(cache: &Cache, database: &str) -> Self {
        let Prices { pool, .. } = Prices::new(cache, database).await;
        Self {
            cache: cache.clone(),
            pool,
            loads: Arc::default(),
        }
    }

    #[cached(resource = "prices", cache = self.cache, op = "rarely")]
    async fn get(&self, id: i64) -> Result<Option<i64>, String> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        sqlx::query_scalar("SELECT price FROM prices WHERE id = $1")
            .bind(id)
            .fetch_optional(&self.pool)
            .await
            .map_err(|error| error.to_string())
    }
}

/// A row changed by `psql`, which the cache can't know of, is found, reported, and repaired if the
/// program wants that. Over Redis alone, and with local entries as well.
async fn finds_a_row_that_was_changed_behind_the_caches_back(local_mb: u32) {
    let (server, postgres) = (RedisServer::start(), Postgres::shared());
    let database = postgres.database();
    let reported = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&reported);
    let config = config(&server)
        .local_mb(local_mb)
        .audit_confirm_after(Duration::from_millis(200))
        .on_stale(move |finding| {
            assert_eq!(
                (finding.key.as_str(), finding.verdict),
                ("prices:1", AuditVerdict::Stale)
            );
            counted.fetch_add(1, Ordering::SeqCst);
            AuditAction::Invalidate
        });
    let cache = Cache::new(config).await;
    let prices = Prices::new(&cache, &database).await;
    let mut events = cache.events();
    for _ in 0..3 {
        assert_eq!(prices.get(1).await, Ok(Some(10)));
    }
    assert_eq!(cache.audit().total.checked, 2, "the first was a miss");

    psql(&database, "UPDATE prices SET price = 20 WHERE id = 1");
    assert_eq!(
        prices.get(1).await,
        Ok(Some(20)),
        "the caller gets the fresh value"
    );
    assert_eq!(cache.audit().total.suspected, 1, "{}", cache.audit());
    eventually(SOON, async || {
        assert_eq!(prices.get(1).await, Ok(Some(20)));
        cache.audit().total.stale == 1
    })
    .await;
    let report = cache.audit();
    let found = &report.stale_entries[0];
    assert_eq!(
        (found.resource.as_str(), found.op.as_str()),
        ("prices", "get")
    );
    assert!(report.resources["prices"].stale_upper_bound > 1.0 / report.total.checked as f64);
    assert_eq!(reported.load(Ordering::SeqCst), 1);
    let finding = async {
        loop {
            let event = events.next().await.expect("the cache is on");
            if let EventKind::Audited(finding) = event.kind
                && finding.verdict == AuditVerdict::Stale
            {
                return finding;
            }
        }
    };
    assert_eq!(
        tokio::time::timeout(SOON, finding).await.expect("an event"),
        *found
    );

    // It was removed: what is stored now is as in the database, and is not found again.
    eventually(SOON, async || {
        assert_eq!(prices.get(1).await, Ok(Some(20)));
        server.cli(&["GET", "prices:1"]).ends_with("\n20")
    })
    .await;
    let before = cache.audit().total;
    for _ in 0..20 {
        assert_eq!(prices.get(1).await, Ok(Some(20)));
    }
    assert_eq!(cache.audit().total.stale, before.stale);

    prices.is_broken.store(true, Ordering::SeqCst);
    assert_eq!(
        prices.get(1).await,
        Ok(Some(20)),
        "an audit does not turn a hit into an error"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn finds_a_row_changed_by_psql() {
    finds_a_row_that_was_changed_behind_the_caches_back(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn finds_a_row_changed_by_psql_behind_local_entries() {
    finds_a_row_that_was_changed_behind_the_caches_back(4).await;
}

fn psql(url: &str, sql: &str) {
    let done = std::process::Command::new("psql")
        .args([url, "-qc", sql])
        .status();
    assert!(done.expect("psql is installed").success());
}

/// Two processes' worth of caches, each audited in full, with readers and writers at once:
/// everything that differs is explained by a write in between.
async fn finds_nothing_among_our_own_writers(local_mb: u32) {
    const WRITES: i64 = 300;
    let (server, postgres) = (RedisServer::start(), Postgres::shared());
    let database = postgres.database();
    let config = || {
        let config = config(&server).local_mb(local_mb);
        config.audit_confirm_after(Duration::from_millis(500))
    };
    let caches = [Cache::new(config()).await, Cache::new(config()).await];
    let mut shops = Vec::new();
    for cache in &caches {
        shops.push(Prices::new(cache, &database).await);
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for prices in shops.iter().cycle().take(6) {
        let prices = prices.clone();
        let is_over = Arc::clone(&is_over);
        tasks.push(tokio::spawn(async move {
            while !is_over.load(Ordering::SeqCst) {
                assert!(
                    prices
                        .get(1)
                        .await
                        .expect("the database is there")
                        .is_some()
                );
            }
        }));
    }
    for price in 0..WRITES {
        let prices = &shops[price as usize % 2];
        prices.set(1, price % 7).await.expect("written");
        tokio::task::yield_now().await;
    }
    is_over.store(true, Ordering::SeqCst);
    for task in tasks {
        task.await.expect("a reader");
    }
    // What was suspected last is confirmed, or not, by now.
    tokio::time::sleep(Duration::from_secs(1)).await;
    for cache in &caches {
        let report = cache.audit();
        assert_eq!(report.total.stale, 0, "{report}");
        assert!(report.total.checked > 50, "{report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn finds_nothing_among_our_own_writers_over_redis() {
    finds_nothing_among_our_own_writers(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn finds_nothing_among_our_own_writers_with_local_entries() {
    finds_nothing_among_our_own_writers(4).await;
}

/// Reads a clock, so to say.
struct Ticker {
    cache: Cache,
    ticks: AtomicU64,
}

impl Ticker {
    #[cached(resource = "ticks", ttl = 300, cache = self.cache)]
    async fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::SeqCst)
    }

    #[cached(resource = "ticks", op = "unaudited", audit = 0, ttl = 300, cache = self.cache)]
    async fn unaudited(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::SeqCst)
    }
}

#[tokio::test]
async fn a_value_that_is_never_twice_the_same_raises_no_alarm() {
    let config = CacheConfig::default().local_mb(4).audit(1.0);
    let cache = Cache::new(config.audit_confirm_after(Duration::ZERO)).await;
    let ticker = Ticker {
        cache: cache.clone(),
        ticks: AtomicU64::new(0),
    };
    for _ in 0..50 {
        ticker.tick().await;
        ticker.unaudited().await;
    }
    let total = cache.audit().total;
    assert_eq!((total.checked, total.stale), (49, 0));
    assert!(total.unstable > 0);
}

#[tokio::test]
async fn nothing_is_audited_inside_a_transaction() {
    let cache = Cache::new(CacheConfig::default().local_mb(4).audit(1.0)).await;
    let ticker = Ticker {
        cache: cache.clone(),
        ticks: AtomicU64::new(0),
    };
    ticker.tick().await;
    let inside = cache.after_commit(async {
        ticker.tick().await;
        ticker.tick().await;
        Ok::<(), ()>(())
    });
    inside.await.expect("committed");
    assert_eq!(cache.audit().total.checked, 0);
}

#[tokio::test]
async fn no_more_hits_are_audited_than_the_limit_allows() {
    let config = CacheConfig::default().local_mb(4).audit(1.0).audit_limit(1);
    let cache = Cache::new(config).await;
    let ticker = Ticker {
        cache: cache.clone(),
        ticks: AtomicU64::new(0),
    };
    let began = std::time::Instant::now();
    for _ in 0..1_000 {
        ticker.tick().await;
    }
    let at_most = began.elapsed().as_secs() + 2;
    let checked = cache.audit().total.checked;
    assert!(checked >= 1 && checked <= at_most, "{checked}");
}

/// Rows that are read many at a time.
struct Shelf {
    cache: Cache,
    rows: Mutex<BTreeMap<u32, u32>>,
    /// The ids of each load.
    loads: Mutex<Vec<Vec<u32>>>,
    is_broken: AtomicBool,
}

impl Shelf {
    #[cached(resource = "shelf", batch = ids, ttl = 300, cache = self.cache)]
    async fn many(&self, ids: &[u32]) -> Result<BTreeMap<u32, u32>, String> {
        self.load(ids)
    }

    #[cached(resource = "boxes", batch = ids, audit = 0, ttl = 300, cache = self.cache)]
    async fn unaudited(&self, ids: &[u32]) -> Result<BTreeMap<u32, u32>, String> {
        self.load(ids)
    }

    #[cached(resource = "crates", batch = ids, max_loads = 1, ttl = 300, cache = self.cache)]
    async fn one_load(&self, ids: &[u32]) -> Result<BTreeMap<u32, u32>, String> {
        self.load(ids)
    }

    fn load(&self, ids: &[u32]) -> Result<BTreeMap<u32, u32>, String> {
        self.loads.lock().expect("whole").push(ids.to_vec());
        if self.is_broken.load(Ordering::SeqCst) {
            return Err("the database is away".into());
        }
        let rows = self.rows.lock().expect("whole");
        let wanted = ids.iter().filter_map(|id| Some((*id, *rows.get(id)?)));
        Ok(wanted.collect())
    }

    fn last_load(&self) -> Vec<u32> {
        let loads = self.loads.lock().expect("whole");
        loads.last().cloned().unwrap_or_default()
    }

    /// Without a word to the cache.
    fn change(&self, id: u32, value: u32) {
        self.rows.lock().expect("whole").insert(id, value);
    }
}

/// Each hit of a batch may be audited: its id is loaded with those that are missing.
async fn the_hits_of_a_batch_are_audited(local_mb: u32) {
    let server = RedisServer::start();
    let config = config(&server).local_mb(local_mb);
    let cache = Cache::new(config.audit_confirm_after(Duration::from_millis(200))).await;
    let shelf = Shelf {
        cache: cache.clone(),
        rows: Mutex::new(BTreeMap::from([(1, 10), (2, 20)])),
        loads: Mutex::default(),
        is_broken: AtomicBool::new(false),
    };
    let rows = |rows: &[(u32, u32)]| Ok(rows.iter().copied().collect::<BTreeMap<_, _>>());
    let both = rows(&[(1, 10), (2, 20)]);
    assert_eq!(shelf.many(&[1, 2]).await, both);
    assert_eq!(shelf.many(&[1, 2, 3]).await, both);
    assert_eq!(shelf.last_load(), [3, 1, 2]);
    let total = cache.audit().total;
    assert_eq!((total.checked, total.suspected), (2, 0), "3 was a miss");

    for _ in 0..3 {
        assert_eq!(shelf.unaudited(&[1, 2]).await, both);
        assert_eq!(shelf.one_load(&[1, 2]).await, both);
    }
    let report = cache.audit();
    assert!(!report.resources.contains_key("boxes"), "{report}");
    assert_eq!(report.resources["crates"].checked, 4, "{report}");

    // A value that has changed, and a row that was not there.
    shelf.change(1, 11);
    shelf.change(3, 30);
    let all = rows(&[(1, 11), (2, 20), (3, 30)]);
    assert_eq!(shelf.many(&[1, 2, 3]).await, all, "callers get the fresh");
    assert_eq!(cache.audit().total.suspected, 2, "{}", cache.audit());
    eventually(SOON, async || {
        assert_eq!(shelf.many(&[1, 2, 3]).await, all);
        cache.audit().total.stale >= 2
    })
    .await;
    let report = cache.audit();
    let found = report.stale_entries.iter().map(|it| it.key.as_str());
    let mut found: Vec<_> = found.collect();
    found.sort_unstable();
    found.dedup();
    assert_eq!(found, ["shelf:1", "shelf:3"], "{report}");
    assert_eq!(report.stale_entries[0].op, "many");

    shelf.is_broken.store(true, Ordering::SeqCst);
    assert_eq!(
        shelf.many(&[1, 2, 3]).await,
        both,
        "an audit does not turn hits into an error"
    );
    assert!(shelf.many(&[1, 4]).await.is_err(), "4 was missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hits_of_a_batch_are_audited_over_redis() {
    the_hits_of_a_batch_are_audited(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hits_of_a_batch_are_audited_with_local_entries() {
    the_hits_of_a_batch_are_audited(4).await;
}

/// A price whose loads can be held up.
struct Gated {
    cache: Cache,
    price: AtomicU64,
    is_gated: AtomicBool,
    arrived: AtomicU64,
    gate: Semaphore,
}

impl Gated {
    #[cached(resource = "gated", ttl = 300, cache = self.cache)]
    async fn get(&self, id: u32) -> u64 {
        if self.is_gated.load(Ordering::SeqCst) {
            self.arrived.fetch_add(1, Ordering::SeqCst);
            self.gate.acquire().await.expect("open").forget();
        }
        self.price.load(Ordering::SeqCst) + u64::from(id)
    }

    #[invalidates("gated", id = id, cache = self.cache)]
    async fn set(&self, id: u32, price: u64) {
        self.price.store(price - u64::from(id), Ordering::SeqCst);
    }
}

/// Two hits of an entry, which is replaced by the time that their bodies return: both differ from
/// what they would have got, and neither says anything about the entry that stands now.
#[tokio::test]
async fn a_hit_of_an_entry_that_was_replaced_meanwhile_raises_no_alarm() {
    let server = RedisServer::start();
    let cache = Cache::new(config(&server).audit_confirm_after(Duration::ZERO)).await;
    let gated = Gated {
        cache: cache.clone(),
        price: AtomicU64::new(9),
        is_gated: AtomicBool::new(false),
        arrived: AtomicU64::new(0),
        gate: Semaphore::new(0),
    };
    assert_eq!(gated.get(1).await, 10);
    gated.is_gated.store(true, Ordering::SeqCst);
    let replaced = async {
        eventually(SOON, async || gated.arrived.load(Ordering::SeqCst) == 2).await;
        gated.is_gated.store(false, Ordering::SeqCst);
        gated.set(1, 20).await;
        assert_eq!(gated.get(1).await, 20, "the next entry");
        gated.gate.add_permits(2);
    };
    let (one, other, ()) = tokio::join!(gated.get(1), gated.get(1), replaced);
    assert_eq!((one, other), (20, 20));
    let total = cache.audit().total;
    assert_eq!((total.checked, total.changed), (2, 2), "{}", cache.audit());
    assert_eq!((total.stale, total.suspected), (0, 0), "{}", cache.audit());
}
