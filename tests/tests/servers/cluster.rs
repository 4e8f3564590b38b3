//! A cluster: the promises hold over several nodes, while slots move and nodes fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cache_runtime::store::{RedisStore, Store};
use cache_runtime::testing::check_store;
use cache_runtime::{
    Acknowledgement, Cache, CacheConfig, RedisConfig, Status, cached, invalidates, observe,
};
use cache_tests::{RedisCluster, RedisOptions, RedisServer, eventually};
use tokio::runtime::Handle;

const PATIENCE: Duration = Duration::from_secs(30);

/// What tests share: a database of one process, and a cache.
#[derive(Clone)]
struct Shop {
    cache: Cache,
    /// The version of all rows.
    row: Arc<AtomicU64>,
}

/// What was written last and what of it was acknowledged, of a few rows.
#[derive(Debug, Default)]
struct Ledger {
    written: [AtomicU64; 4],
    acknowledged: [AtomicU64; 4],
}

/// One process over a [`Ledger`].
#[derive(Clone)]
struct Books {
    cache: Cache,
    ledger: Arc<Ledger>,
}

impl Books {
    async fn over(ledger: &Arc<Ledger>, config: CacheConfig) -> Self {
        Self {
            cache: Cache::new(config).await,
            ledger: Arc::clone(ledger),
        }
    }

    #[cached(resource = "users", ttl = 60, cache = self.cache)]
    async fn user(&self, id: usize) -> u64 {
        self.ledger.written[id].load(Ordering::SeqCst)
    }

    /// Reads, and checks that what comes was not known to be older when the read began; returns whether it was a hit.
    async fn check(&self, id: usize) -> bool {
        let least = self.ledger.acknowledged[id].load(Ordering::SeqCst);
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
            assert!(began.elapsed() < PATIENCE, "not delivered");
        }
        self.ledger.acknowledged[id].fetch_max(version, Ordering::SeqCst);
    }
}

impl Shop {
    async fn over(config: CacheConfig) -> Self {
        Self {
            cache: Cache::new(config).await,
            row: Arc::new(AtomicU64::new(1)),
        }
    }

    #[cached(resource = "users", ttl = 60, cache = self.cache)]
    async fn user(&self, id: i64) -> u64 {
        let _ = id;
        self.row.load(Ordering::SeqCst)
    }

    #[cached(resource = "users", op = "list", ttl = 60, cache = self.cache)]
    async fn list(&self, page: i64) -> u64 {
        let _ = page;
        self.row.load(Ordering::SeqCst)
    }

    #[invalidates("users", id = id, cache = self.cache)]
    async fn rename(&self, id: i64) -> u64 {
        let _ = id;
        self.row.fetch_add(1, Ordering::SeqCst) + 1
    }

    #[invalidates("users", id = id, crash_safe, cache = self.cache)]
    async fn rename_announced(&self, id: i64) -> u64 {
        let _ = id;
        self.row.fetch_add(1, Ordering::SeqCst) + 1
    }

    #[invalidates("users", cache = self.cache)]
    async fn replace(&self) -> u64 {
        self.row.fetch_add(1, Ordering::SeqCst) + 1
    }
}

fn settings(cluster: &RedisCluster) -> CacheConfig {
    let seeds = (0..cluster.len()).map(|node| ("127.0.0.1", cluster.node(node).port()));
    CacheConfig::default()
        .redis(RedisConfig::cluster(seeds))
        .command_budget(Duration::from_secs(5))
        .advice(false)
}

async fn is_hit(shop: &Shop, id: i64) -> bool {
    matches!(observe(shop.user(id)).await.1[0].status, Status::Hit { .. })
}

/// Entries of all slots are served, and all that invalidates takes effect.
async fn is_used(shop: &Shop) {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_keeps_the_contract_and_the_promises() {
    let cluster = RedisCluster::start(3, 0);
    let config = settings(&cluster);
    let RedisConfig { cluster: seeds, .. } =
        RedisConfig::cluster([("127.0.0.1", cluster.node(0).port())]);
    assert_eq!(seeds.len(), 1);
    let redis = RedisConfig::cluster(seeds);
    let store = RedisStore::connect(&redis, &config, &Handle::current()).await;
    check_store(&store).await;
    let word = store.listen("users:1").await.expect("the node answers");
    assert!(word.is_some(), "the node tells of changes");
    for node in 0..cluster.len() {
        cluster.node(node).cli(&["SCRIPT", "FLUSH"]);
    }
    check_store(&store).await;

    let shop = Shop::over(config.clone()).await;
    is_used(&shop).await;
    // A node is found to be of a cluster, and the others by it.
    let found = RedisConfig::at("127.0.0.1", cluster.node(2).port());
    is_used(&Shop::over(config.clone().redis(found)).await).await;
    // All keys in one slot.
    let pinned = Shop::over(config.namespace("{shop}")).await;
    is_used(&pinned).await;
    for id in 0..30 {
        pinned.user(id).await;
    }
    let owner = cluster.owner(cluster.slot("{shop}"));
    for node in 0..cluster.len() {
        let keys = cluster.node(node).cli(&["--scan", "--pattern", "{shop}:*"]);
        assert_eq!(keys.is_empty(), node != owner, "{keys}");
    }

    let stats = shop.cache.get_stats().await;
    assert!(stats.connected && stats.nodes.len() == 3, "{stats:?}");
    let sum: u64 = stats.nodes.iter().filter_map(|node| node.total_keys).sum();
    assert_eq!(stats.total_keys, Some(sum));
    assert!(shop.cache.is_available().await);
    let checkup = shop.cache.checkup().await.to_string();
    assert!(!checkup.contains("can't be used"), "{checkup}");
}

#[tokio::test]
async fn a_server_that_is_no_cluster_is_said_to_be_none() {
    let server = RedisServer::start();
    let redis = RedisConfig::cluster([("127.0.0.1", server.port())]);
    let shop = Shop::over(CacheConfig::default().redis(redis)).await;
    shop.user(1).await;
    assert!(!is_hit(&shop, 1).await);
    let reason = shop.cache.get_stats().await.reason.expect("it is not used");
    assert!(reason.contains("not in cluster mode"), "{reason}");
}

#[tokio::test]
async fn a_password_and_a_user_with_few_permissions_are_enough() {
    let options = RedisOptions::default()
        .password("admin-word")
        .config("masterauth admin-word")
        .config(
            "user app on >app-word ~shop:* resetchannels -@all +hello +info +time +ping +mget +get +getrange \
             +exists +pttl +set +setrange +pexpire +del +unlink +scan +dbsize +evalsha +script|load +asking \
             +client|tracking +client|caching +cluster|nodes",
        );
    let cluster = RedisCluster::start_with(3, 0, options);
    let config = settings(&cluster).namespace("shop");
    let seeds = [("127.0.0.1", cluster.node(1).port())];
    let login = RedisConfig::cluster(seeds).login(Some("app"), "app-word");
    is_used(&Shop::over(config.redis(login)).await).await;
}

/// Reads and writes in two processes while something happens to the cluster.
async fn nothing_stale_while<T: Send + 'static>(
    config: impl Fn() -> CacheConfig,
    happens: impl FnOnce() -> T + Send + 'static,
) -> (u64, u64, T) {
    let ledger = Arc::default();
    let running = Arc::new(AtomicBool::new(true));
    let mut tasks = Vec::new();
    for number in 0..2 {
        let books = Books::over(&ledger, config()).await;
        let (reader, running) = (books.clone(), Arc::clone(&running));
        let runs = Arc::clone(&running);
        tasks.push(tokio::spawn(async move {
            let (mut hits, mut reads) = (0, 0);
            while runs.load(Ordering::SeqCst) {
                for id in 0..4 {
                    hits += u64::from(reader.check(id).await);
                    reads += 1;
                }
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
    let happened = tokio::task::spawn_blocking(happens)
        .await
        .expect("it happens");
    // For a moment more.
    tokio::time::sleep(Duration::from_millis(300)).await;
    running.store(false, Ordering::SeqCst);
    let (mut hits, mut reads) = (0, 0);
    for task in tasks {
        let (more_hits, more_reads) = task.await.expect("nothing stale was read");
        hits += more_hits;
        reads += more_reads;
    }
    (hits, reads, happened)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stale_while_slots_move_and_return() {
    let cluster = RedisCluster::start(3, 0);
    let config = settings(&cluster);
    let (hits, reads, cluster) = nothing_stale_while(
        move || config.clone(),
        move || {
            for round in 0..4 {
                for key in ["users:0", "users:1", "users:2", "@gen:{users}"] {
                    let slot = cluster.slot(key);
                    cluster.move_slot(slot, (cluster.owner(slot) + 1 + round % 2) % 3);
                }
            }
            cluster
        },
    )
    .await;
    assert!(hits > 0, "{hits} of {reads}");
    is_used(&Shop::over(settings(&cluster)).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stale_while_primaries_fail_over_by_hand() {
    let cluster = RedisCluster::start(3, 1);
    let config = settings(&cluster);
    let (hits, reads, _cluster) = nothing_stale_while(
        move || config.clone(),
        move || {
            for key in ["users:1", "@gen:{users}", "users:1", "@gen:{users}"] {
                let owner = cluster.owner(cluster.slot(key));
                let replica = (owner + 3) % 6;
                cluster.wait_for_replica(replica);
                cluster.fail_over(replica, &[]);
            }
            cluster
        },
    )
    .await;
    assert!(hits > 0, "{hits} of {reads}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_on_its_way_bypasses_and_its_invalidations_follow() {
    let cluster = RedisCluster::start(2, 0);
    let shop = Shop::over(settings(&cluster)).await;
    shop.user(1).await;
    assert!(is_hit(&shop, 1).await);
    let slot = cluster.slot("users:1");
    let (from, to) = (cluster.owner(slot), 1 - cluster.owner(slot));
    cluster.begin_to_move(slot, to);
    // The key is at its old node, and served from there.
    assert!(is_hit(&shop, 1).await);
    cluster.move_keys(slot, from, to);
    // It is at the new one, which does not own the slot yet.
    assert!(!is_hit(&shop, 1).await);
    assert!(!is_hit(&shop, 1).await);
    assert_eq!(
        cluster
            .node(to)
            .shell("(echo ASKING; echo EXISTS users:1) | redis-cli")
            .lines()
            .last(),
        Some("1")
    );
    let acknowledged = shop.cache.invalidate("users", &1_i64).await;
    assert_eq!(acknowledged, Acknowledgement::Delivered);
    assert_eq!(
        cluster
            .node(to)
            .shell("(echo ASKING; echo EXISTS users:1) | redis-cli")
            .lines()
            .last(),
        Some("0")
    );
    cluster.end_move(slot, from, to);
    eventually(PATIENCE, async || is_hit(&shop, 1).await).await;
}

/// The entry's node fails over to a replica that has not heard of the invalidation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lossy_failover_of_the_entrys_node_is_cold() {
    lossy_failover("users:1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lossy_failover_of_the_generations_node_is_cold() {
    lossy_failover("@gen:{users}").await;
}

async fn lossy_failover(key: &str) {
    let mut cluster = RedisCluster::start(3, 1);
    let shop = Shop::over(settings(&cluster)).await;
    let before = shop.list(1).await;
    shop.user(1).await;
    assert!(is_hit(&shop, 1).await);
    let primary = cluster.owner(cluster.slot(key));
    let replica = 3 + primary;
    eventually(PATIENCE, async || {
        let offset = |node: usize| {
            let info = cluster.node(node).cli(&["INFO", "replication"]);
            let offset = info
                .lines()
                .find_map(|line| line.strip_prefix("master_repl_offset:"));
            offset.unwrap_or_default().to_owned()
        };
        cluster.node(replica).cli(&["READONLY"]);
        offset(primary) == offset(replica)
    })
    .await;
    // The replica hears nothing any more; the primary takes the invalidation, and is lost with it.
    cluster.node_mut(replica).pause();
    let row = match key.contains("gen") {
        true => shop.replace().await,
        false => shop.rename(1).await,
    };
    assert!(row > before);
    cluster.node_mut(primary).stop();
    cluster.node_mut(replica).resume();
    cluster.wait_for_primary(replica);
    let ends = Instant::now() + PATIENCE;
    loop {
        assert_eq!((shop.user(1).await, shop.list(1).await), (row, row));
        if is_hit(&shop, 1).await {
            break;
        }
        assert!(Instant::now() < ends, "no hits");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// One shard is gone, for good: what lies on the others goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_shard_holds_up_only_its_own() {
    let mut cluster = RedisCluster::start_with(
        3,
        0,
        RedisOptions::default().config("cluster-require-full-coverage no"),
    );
    let config = settings(&cluster).command_budget(Duration::from_millis(500));
    let shop = Shop::over(config.clone()).await;
    is_used(&shop).await;
    let generations = cluster.owner(cluster.slot("@gen:{users}"));
    let away = (generations + 1) % 3;
    let id_on = |node: usize| {
        let on = (0..100).find(|id| cluster.owner(cluster.slot(&format!("users:{id}"))) == node);
        on.expect("an id of each node")
    };
    let (here, there) = (id_on(generations), id_on(away));
    cluster.node_mut(away).stop();
    eventually(PATIENCE, async || {
        let stats = shop.cache.get_stats().await;
        stats
            .reason
            .is_some_and(|reason| reason.contains(&cluster.node(away).port().to_string()))
    })
    .await;
    shop.user(here).await;
    assert!(is_hit(&shop, here).await);
    assert!(!is_hit(&shop, there).await && !is_hit(&shop, there).await);
    // What lies there is pending, and nothing else.
    assert_eq!(
        shop.cache.invalidate("users", &there).await,
        Acknowledgement::Pending
    );
    assert_eq!(
        shop.cache.invalidate("users", &here).await,
        Acknowledgement::Delivered
    );
    let row = shop.rename(here).await;
    assert_eq!(shop.user(here).await, row);
    assert!(is_hit(&shop, here).await);
    assert_eq!(shop.cache.get_stats().await.counters.pending, 1);
    cluster.node_mut(away).restart();
    eventually(PATIENCE, async || {
        shop.cache.get_stats().await.counters.pending == 0
    })
    .await;
    eventually(PATIENCE, async || is_hit(&shop, there).await).await;
}

/// The primary is stopped, its replica takes over, and it resumes: it answers for a moment what it knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_resumes_after_its_failover_serves_nothing_stale() {
    let mut cluster = RedisCluster::start(3, 1);
    let config = settings(&cluster).command_budget(Duration::from_millis(200));
    let (hits, reads, _cluster) = nothing_stale_while(
        move || config.clone(),
        move || {
            let primary = cluster.owner(cluster.slot("users:1"));
            for (old, new) in [(primary, 3 + primary), (3 + primary, primary)] {
                cluster.node_mut(old).pause();
                cluster.wait_for_primary(new);
                cluster.node_mut(old).resume();
                std::thread::sleep(Duration::from_millis(500));
            }
            cluster
        },
    )
    .await;
    assert!(hits > 0, "{hits} of {reads}");
}
