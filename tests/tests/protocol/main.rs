//! The promises, over each store: loads are held at a gate, and what happens meanwhile is written
//! out.

mod addresses;
mod announced;
mod batch;
mod batcher;
mod blocking;
mod bound_keys;
mod call_surroundings;
mod calls_in_bodies;
mod changing_leases;
mod clear;
mod clock;
mod combined;
mod health;
mod hostile;
mod in_steps;
mod invalidation_targets;
mod learnt;
mod loader;
mod loads;
mod manual;
mod memcached;
mod other_executors;
mod outage;
mod oversized;
mod paused;
mod permits;
mod reconnect;
mod redis;
mod requests;
mod runtimes;
mod shop;
mod switches;
mod tenants;
mod transactions;
mod writes;

use cache_runtime::{Cache, CacheConfig, MemcachedConfig, RedisConfig};
use cache_tests::{MemcachedServer, RedisCluster, RedisServer};
use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Commands get longer than in production: the machine that runs the tests may be slow, and that is
/// not what is tested. And there is no advice: for it a cache reads from the server a second after
/// it was made, and tests count reads.
fn patient() -> CacheConfig {
    CacheConfig::default()
        .command_budget(Duration::from_secs(5))
        .advice(false)
}

fn over(server: &RedisServer) -> CacheConfig {
    patient().redis(RedisConfig::at("127.0.0.1", server.port()))
}

/// As a user with these rights, which the server is given.
fn over_as(server: &RedisServer, rights: &str) -> CacheConfig {
    let user = ["ACL", "SETUSER", "app", "on", ">word", "resetkeys"];
    let rights: Vec<&str> = rights.split(' ').collect();
    server.cli(&[&user, &rights[..]].concat());
    let mut redis = RedisConfig::at("127.0.0.1", server.port());
    redis.username = Some("app".into());
    redis.password = Some("word".into());
    patient().redis(redis)
}

fn over_memcached(port: u16) -> CacheConfig {
    patient().memcached(MemcachedConfig::at("127.0.0.1", port))
}

/// Two handles that share one store: over Redis two caches, as in two processes; in memory one
/// cache twice.
struct Pair {
    a: Cache,
    b: Cache,
    _server: Option<RedisServer>,
    memcached: Option<MemcachedServer>,
}

impl Pair {
    async fn memory() -> Self {
        let a = Cache::new(patient().local_mb(16)).await;
        Self {
            b: a.clone(),
            a,
            _server: None,
            memcached: None,
        }
    }

    /// One cache twice, as in memory, with local entries beside Redis.
    async fn both() -> Self {
        let server = RedisServer::start();
        let a = Cache::new(over(&server).local_mb(16)).await;
        Self {
            b: a.clone(),
            a,
            _server: Some(server),
            memcached: None,
        }
    }

    async fn redis() -> Self {
        let server = RedisServer::start();
        let (a, b) = (
            Cache::new(over(&server)).await,
            Cache::new(over(&server)).await,
        );
        Self {
            a,
            b,
            _server: Some(server),
            memcached: None,
        }
    }

    /// Two caches over three primaries, which the tests share; each has a namespace of its own.
    async fn cluster() -> Self {
        static CLUSTER: OnceLock<RedisCluster> = OnceLock::new();
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let cluster = CLUSTER.get_or_init(|| RedisCluster::start(3, 0));
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let over = || {
            let seeds = [("127.0.0.1", cluster.node(0).port())];
            let config = patient().redis(RedisConfig::cluster(seeds));
            config.namespace(&format!("test{number}"))
        };
        let (a, b) = (Cache::new(over()).await, Cache::new(over()).await);
        Self {
            a,
            b,
            _server: None,
            memcached: None,
        }
    }

    async fn memcached() -> Self {
        let server = MemcachedServer::start();
        let over = || over_memcached(server.port());
        let (a, b) = (Cache::new(over()).await, Cache::new(over()).await);
        Self {
            a,
            b,
            _server: None,
            memcached: Some(server),
        }
    }
}

/// A future as one type, for what would be compiled once for each test.
type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A test that hangs has failed.
async fn bounded<'a>(test: impl Future<Output = ()> + 'a) {
    let test: Boxed<'a, ()> = Box::pin(test);
    let limit = 2 * cache_tests::test_timeout(Duration::from_secs(30));
    assert!(
        tokio::time::timeout(limit, test).await.is_ok(),
        "not done after {limit:?}"
    );
}

/// Runs a test over one store. Not `#[tokio::test]`, which would be compiled five times for each
/// test.
fn over_a_store(store: fn() -> Boxed<'static, Pair>, test: fn(Pair) -> Boxed<'static, ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(async { bounded(test(store().await)).await });
}

/// Runs a test over each store.
macro_rules! over_each_store {
    ($($(#[$meta:meta])* $test:ident;)*) => {
        crate::over_each_store! { memory, $($(#[$meta])* $test;)* }
        crate::over_each_store! { redis, $($(#[$meta])* $test;)* }
        crate::over_each_store! { memcached, $($(#[$meta])* $test;)* }
        crate::over_each_store! {
            cluster, $($(#[$meta])* #[ignore = "`scripts/test --all` runs it, where it applies"] $test;)*
        }
        crate::over_each_store! { both, $($(#[$meta])* $test;)* }
    };
    ($store:ident, $($(#[$meta:meta])* $test:ident;)*) => {
        mod $store {
            $($(#[$meta])*
            #[test]
            fn $test() {
                crate::over_a_store(
                    || Box::pin(crate::Pair::$store()),
                    |pair| Box::pin(super::$test(pair)),
                );
            })*
        }
    };
}
pub(crate) use over_each_store;
