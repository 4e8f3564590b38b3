//! Services over a database of one process, and what has to hold of them.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cache_runtime::{Acknowledgement, Cache, CacheConfig, Status, cached, invalidates, observe};

const TEST_TIMEOUT: Duration = Duration::from_secs(30);

/// What tests share: a database of one process, and a cache.
#[derive(Clone)]
pub(crate) struct Shop {
    pub(crate) cache: Cache,
    /// The version of all rows.
    row: Arc<AtomicU64>,
}

/// What was written last and what of it was acknowledged, of a few rows.
#[derive(Debug, Default)]
struct Ledger {
    written: [AtomicU64; 4],
    /// Each version, and when it was acknowledged.
    acknowledged: [Mutex<Vec<(Instant, u64)>>; 4],
}

impl Ledger {
    fn acknowledge(&self, id: usize, version: u64) {
        let mut acknowledged = self.acknowledged[id].lock().expect("sound");
        acknowledged.push((Instant::now(), version));
    }

    /// The last version that was acknowledged by then.
    fn acknowledged_by(&self, id: usize, time: Instant) -> u64 {
        let acknowledged = self.acknowledged[id].lock().expect("sound");
        let mut latest_first = acknowledged.iter().rev();
        let last = latest_first.find(|(at, _)| *at <= time);
        last.map_or(0, |(_, version)| *version)
    }
}

/// One process over a [`Ledger`].
#[derive(Clone)]
struct Books {
    cache: Cache,
    ledger: Arc<Ledger>,
    /// How old what is read may be.
    bound: Duration,
}

impl Books {
    async fn over(ledger: &Arc<Ledger>, bound: Duration, config: CacheConfig) -> Self {
        Self {
            cache: Cache::new(config).await,
            ledger: Arc::clone(ledger),
            bound,
        }
    }

    #[cached(resource = "users", ttl = 60, cache = self.cache)]
    async fn user(&self, id: usize) -> u64 {
        self.ledger.written[id].load(Ordering::SeqCst)
    }

    /// Reads, and checks that what comes was not known to be older when the read began; returns
    /// whether it was a hit.
    async fn check(&self, id: usize) -> bool {
        let by = Instant::now().checked_sub(self.bound).expect("a time");
        let least = self.ledger.acknowledged_by(id, by);
        let (seen, outcomes) = observe(self.user(id)).await;
        assert!(
            seen >= least,
            "row {id}: {seen}, and {least} was acknowledged before the read began"
        );
        matches!(outcomes[0].status, Status::Hit { .. })
    }

    /// Writes, and invalidates until that is acknowledged.
    async fn write(&self, id: usize) {
        let version = self.ledger.written[id].fetch_add(1, Ordering::SeqCst) + 1;
        let began = Instant::now();
        while self.cache.invalidate("users", &id).await != Acknowledgement::Delivered {
            assert!(began.elapsed() < TEST_TIMEOUT, "not delivered");
        }
        self.ledger.acknowledge(id, version);
    }
}

impl Shop {
    pub(crate) async fn over(config: CacheConfig) -> Self {
        Self {
            cache: Cache::new(config).await,
            row: Arc::new(AtomicU64::new(1)),
        }
    }

    /// The same database behind another cache.
    pub(crate) async fn node(&self, config: CacheConfig) -> Self {
        Self {
            cache: Cache::new(config).await,
            row: Arc::clone(&self.row),
        }
    }

    #[cached(resource = "users", ttl = 60, cache = self.cache)]
    pub(crate) async fn user(&self, id: i64) -> u64 {
        let _ = id;
        self.row.load(Ordering::SeqCst)
    }

    /// Made of what another function has cached.
    #[cached(resource = "users", op = "card", ttl = 60, cache = self.cache)]
    pub(crate) async fn card(&self, id: i64) -> u64 {
        self.user(id).await
    }

    /// The same, by a function that reads many.
    #[cached(resource = "users", op = "cards", ttl = 60, cache = self.cache)]
    pub(crate) async fn cards(&self, id: i64) -> u64 {
        let many = self.users(&[id]).await;
        many.map_or(0, |many| many[&id])
    }

    /// The same, loaded by hand.
    #[cached(resource = "users", op = "by_hand", ttl = 60, cache = self.cache)]
    pub(crate) async fn by_hand(&self, id: i64) -> u64 {
        let row = self.row.load(Ordering::SeqCst);
        let load = async || Ok::<_, Infallible>(row);
        let key = format!("users:{id}");
        let loaded = self.cache.get_or_load(key.as_str(), None, load).await;
        loaded.unwrap_or(0)
    }

    #[cached(resource = "users", ttl = 60, batch = ids, cache = self.cache)]
    async fn users(&self, ids: &[i64]) -> Result<HashMap<i64, u64>, Infallible> {
        let row = self.row.load(Ordering::SeqCst);
        Ok(ids.iter().map(|id| (*id, row)).collect())
    }

    #[cached(resource = "users", op = "list", ttl = 60, cache = self.cache)]
    pub(crate) async fn list(&self, page: i64) -> u64 {
        let _ = page;
        self.row.load(Ordering::SeqCst)
    }

    /// Writes past the cache.
    pub(crate) fn commit(&self) -> u64 {
        self.row.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Of a resource whose generations are in another slot.
    #[cached(resource = "orders", ttl = 60, cache = self.cache)]
    pub(crate) async fn order(&self, id: i64) -> u64 {
        let _ = id;
        self.row.load(Ordering::SeqCst)
    }

    #[invalidates("users", id = id, cache = self.cache)]
    pub(crate) async fn rename(&self, id: i64) -> u64 {
        let _ = id;
        self.row.fetch_add(1, Ordering::SeqCst) + 1
    }

    #[invalidates("users", id = id, crash_safe, cache = self.cache)]
    pub(crate) async fn rename_announced(&self, id: i64) -> u64 {
        let _ = id;
        self.row.fetch_add(1, Ordering::SeqCst) + 1
    }

    #[invalidates("users", id = id, required, cache = self.cache)]
    pub(crate) async fn rename_required(&self, id: i64) -> Result<u64, cache_runtime::Error> {
        let _ = id;
        Ok(self.row.fetch_add(1, Ordering::SeqCst) + 1)
    }

    #[invalidates("users", cache = self.cache)]
    pub(crate) async fn replace(&self) -> u64 {
        self.row.fetch_add(1, Ordering::SeqCst) + 1
    }
}

pub(crate) async fn is_hit(shop: &Shop, id: i64) -> bool {
    matches!(observe(shop.user(id)).await.1[0].status, Status::Hit { .. })
}

/// Entries of all slots are served, and all that invalidates takes effect.
pub(crate) async fn is_used(shop: &Shop) {
    for id in 0..30 {
        shop.user(id).await;
        shop.list(id).await;
        assert!(is_hit(shop, id).await, "{id}");
    }
    let row = shop.rename(1).await;
    assert_eq!((shop.user(1).await, shop.list(1).await), (row, row));
    assert!(is_hit(shop, 2).await);
    let row = shop.rename_announced(2).await;
    assert_eq!((shop.user(2).await, shop.list(2).await), (row, row));
    let row = shop.replace().await;
    for id in 0..30 {
        assert_eq!(
            (shop.user(id).await, shop.list(id).await),
            (row, row),
            "{id}"
        );
    }
    shop.user(3).await;
    assert!(is_hit(shop, 3).await);
    shop.cache.clear_all().await.expect("the cluster answers");
    assert!(!is_hit(shop, 3).await);
}

/// Reads and writes in two processes while something happens to the cluster.
pub(crate) async fn nothing_stale_while<T: Send + 'static>(
    config: impl Fn() -> CacheConfig,
    happens: impl FnOnce() -> T + Send + 'static,
) -> (u64, u64, T) {
    nothing_staler_than(Duration::ZERO, config, happens).await
}

/// The same where what is read may be older by so much.
pub(crate) async fn nothing_staler_than<T: Send + 'static>(
    bound: Duration,
    config: impl Fn() -> CacheConfig,
    happens: impl FnOnce() -> T + Send + 'static,
) -> (u64, u64, T) {
    let ledger = Arc::default();
    let running = Arc::new(AtomicBool::new(true));
    let mut tasks = Vec::new();
    for number in 0..2 {
        let books = Books::over(&ledger, bound, config()).await;
        let (reader, running) = (books.clone(), Arc::clone(&running));
        let runs = Arc::clone(&running);
        tasks.push(tokio::spawn(async move {
            let (mut hits, mut reads) = (0, 0);
            while runs.load(Ordering::SeqCst) {
                for id in 0..4 {
                    hits += u64::from(reader.check(id).await);
                    reads += 1;
                }
                // Without a server no call waits for anything, and the runtime's timers would never
                // have a turn.
                tokio::task::yield_now().await;
            }
            (hits, reads)
        }));
        tasks.push(tokio::spawn(async move {
            while running.load(Ordering::SeqCst) {
                for id in [number, number + 2] {
                    books.write(id).await;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            (0, 0)
        }));
    }
    let happened = tokio::task::spawn_blocking(happens).await;
    // For a moment more.
    tokio::time::sleep(Duration::from_millis(300)).await;
    // Also where it has failed: a runtime does not end before those who read without a pause.
    running.store(false, Ordering::SeqCst);
    let happened = happened.expect("it happens");
    let (mut hits, mut reads) = (0, 0);
    for task in tasks {
        let (more_hits, more_reads) = task.await.expect("nothing stale was read");
        hits += more_hits;
        reads += more_reads;
    }
    (hits, reads, happened)
}
