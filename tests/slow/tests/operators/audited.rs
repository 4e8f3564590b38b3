//! Each kind of function is audited over each store, and so are hits of each tier.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cache_runtime::{Cache, CacheConfig, Encoded, Error, Loader, RedisConfig, cached};
use cache_tests::{RedisCluster, RedisServer, eventually};

use crate::SOON;

fn config() -> CacheConfig {
    CacheConfig::default()
        .local_mb(4)
        .local_max_staleness(SOON)
        .command_budget(Duration::from_secs(5))
        .audit(1.0)
        .audit_limit(1_000_000)
        .audit_confirm_after(Duration::from_millis(200))
}

/// A number that changes without a word to the cache, and functions of each kind that return it.
#[derive(Clone)]
struct Shelf {
    cache: Cache,
    number: Arc<AtomicU32>,
}

impl Shelf {
    async fn over(config: CacheConfig) -> Self {
        Self {
            cache: Cache::new(config).await,
            number: Arc::new(AtomicU32::new(1)),
        }
    }

    fn now(&self) -> u32 {
        self.number.load(Ordering::SeqCst)
    }

    #[cached(resource = "rows", ttl = 300, cache = self.cache)]
    async fn row(&self, id: u32) -> Option<Arc<u32>> {
        (id > 0).then(|| Arc::new(self.now()))
    }

    #[cached(resource = "lists", op = "list", ttl = 300, cache = self.cache)]
    async fn list(&self, skip: u32, limit: u32) -> Vec<u32> {
        vec![self.now(), skip, limit]
    }

    #[cached(resource = "bytes", ttl = 300, cache = self.cache)]
    async fn encoded(&self, id: u32) -> Result<Encoded<u32>, Error> {
        Encoded::new(&(self.now() * id))
    }

    /// Its body owns what it needs, and may go on without its caller.
    #[cached(resource = "slow", ttl = 300, swr = 60, timeout = "20s", stale_if_error = 60, cache = self.cache)]
    async fn slow(&self, id: u32) -> Result<u32, String> {
        Ok(self.now() * id)
    }

    #[cached(resource = "batches", batch = ids, ttl = 300, cache = self.cache)]
    async fn many(&self, ids: &[u32]) -> Result<HashMap<u32, u32>, Infallible> {
        Ok(ids.iter().map(|id| (*id, self.now() * id)).collect())
    }

    /// By way of a loader, which gathers the ids for a batch.
    async fn loaded(&self) -> u32 {
        let loader = Loader::new(|ids: Vec<u32>| async move { self.many(&ids).await });
        let loaded = loader.load(1).await.expect("it never fails");
        loaded.expect("a number")
    }

    /// Not `async`: only over the store in memory.
    #[cached(resource = "sums", ttl = 300, cache = self.cache)]
    fn sum(&self, id: u32) -> u32 {
        self.now() + id
    }
}

/// Each hit is checked, its caller gets the fresh value, and the entry is found to be stale.
macro_rules! is_audited {
    ($shelf:expr, $resource:literal, $call:expr) => {{
        const HITS: u64 = 8;
        let shelf = &$shelf;
        let figures = || {
            let report = shelf.cache.audit();
            report.resources.get($resource).copied().unwrap_or_default()
        };
        shelf.number.store(1, Ordering::SeqCst);
        assert_eq!($call, 1, $resource);
        for _ in 0..HITS {
            assert_eq!($call, 1, $resource);
        }
        assert_eq!(figures().checked, HITS, "{}: {:?}", $resource, figures());
        shelf.number.store(2, Ordering::SeqCst);
        eventually(SOON, async || {
            assert_eq!($call, 2, "{}: the fresh value", $resource);
            figures().stale > 0
        })
        .await;
    }};
}

async fn each_kind_is_audited(shelf: &Shelf) {
    is_audited!(shelf, "rows", *shelf.row(1).await.expect("a row"));
    is_audited!(shelf, "lists", shelf.list(0, 9).await[0]);
    is_audited!(shelf, "bytes", {
        let encoded = shelf.encoded(1).await.expect("a number");
        encoded.decode().expect("as it was written")
    });
    is_audited!(shelf, "slow", shelf.slow(1).await.expect("a number"));
    is_audited!(shelf, "batches", shelf.loaded().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_is_audited_in_memory() {
    let shelf = Shelf::over(config()).await;
    each_kind_is_audited(&shelf).await;
    is_audited!(shelf, "sums", shelf.sum(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_is_audited_over_redis() {
    let server = RedisServer::start();
    let redis = RedisConfig::at("127.0.0.1", server.port());
    let shelf = Shelf::over(config().redis(redis.clone()).local_mb(0)).await;
    each_kind_is_audited(&shelf).await;
    let beside = config().namespace("beside").redis(redis);
    each_kind_is_audited(&Shelf::over(beside).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_is_audited_over_a_cluster() {
    let cluster = RedisCluster::start(3, 0);
    let seeds = (0..cluster.len()).map(|node| ("127.0.0.1", cluster.node(node).port()));
    let redis = RedisConfig::cluster(seeds);
    let shelf = Shelf::over(config().redis(redis.clone()).local_mb(0)).await;
    each_kind_is_audited(&shelf).await;
    let beside = config().namespace("beside").redis(redis);
    each_kind_is_audited(&Shelf::over(beside).await).await;
}

/// A thread keeps the entries that it was last served. While functions are audited it asks the
/// table, so that these hits are drawn as well.
#[tokio::test]
async fn hits_that_a_thread_would_find_by_itself_are_drawn() {
    const HITS: u64 = 400;
    let server = RedisServer::start();
    let redis = RedisConfig::at("127.0.0.1", server.port());
    let shelf = Shelf::over(config().redis(redis).audit(0.5)).await;
    let local_hits = || {
        let functions = shelf.cache.functions();
        functions.iter().map(|it| it.local_hits).sum::<u64>()
    };
    eventually(SOON, async || {
        shelf.row(1).await;
        local_hits() > 0
    })
    .await;
    let (before, local) = (shelf.cache.audit().total.checked, local_hits());
    for _ in 0..HITS {
        shelf.row(1).await;
    }
    let checked = shelf.cache.audit().total.checked - before;
    assert!(local_hits() - local > HITS / 2, "{}", local_hits() - local);
    assert!((HITS / 4..=3 * HITS / 4).contains(&checked), "{checked}");
}
