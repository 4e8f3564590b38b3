//! The promises, over each store: loads are held at a gate, and what happens meanwhile is written out.

mod addresses;
mod announced;
mod around;
mod batch;
mod batcher;
mod bound_keys;
mod clear;
mod clock;
mod health;
mod hostile;
mod inside;
mod learnt;
mod loader;
mod loads;
mod manual;
mod memcached;
mod outage;
mod oversized;
mod parts;
mod paused;
mod places;
mod reconnect;
mod redis;
mod requests;
mod restless;
mod runtimes;
mod shop;
mod switches;
mod tenants;
mod transactions;
mod writes;

use cache_runtime::{Cache, CacheConfig, MemcachedConfig, RedisConfig};
use cache_tests::{MemcachedServer, RedisCluster, RedisServer};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Commands get longer than in production: the machine that runs the tests may be slow, and that is not what
/// is tested.
fn patient() -> CacheConfig {
    CacheConfig::default().command_budget(Duration::from_secs(5))
}

fn over(server: &RedisServer) -> CacheConfig {
    patient().redis(RedisConfig::at("127.0.0.1", server.port()))
}

fn over_memcached(port: u16) -> CacheConfig {
    patient().memcached(MemcachedConfig::at("127.0.0.1", port))
}

/// Two handles that share one store: over Redis two caches, as in two processes; in memory one cache twice.
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

    /// One cache twice, as in memory, with copies in the process beside Redis.
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

/// A test that hangs has failed.
async fn bounded(test: impl Future<Output = ()>) {
    let limit = Duration::from_secs(60);
    assert!(
        tokio::time::timeout(limit, test).await.is_ok(),
        "not done after {limit:?}"
    );
}

/// Runs a test over each store.
macro_rules! over_each_store {
    ($($(#[$meta:meta])* $test:ident;)*) => {
        mod memory {
            $($(#[$meta])*
            #[tokio::test]
            async fn $test() {
                crate::bounded(super::$test(crate::Pair::memory().await)).await;
            })*
        }
        mod redis {
            $($(#[$meta])*
            #[tokio::test]
            async fn $test() {
                crate::bounded(super::$test(crate::Pair::redis().await)).await;
            })*
        }
        mod memcached {
            $($(#[$meta])*
            #[tokio::test]
            async fn $test() {
                crate::bounded(super::$test(crate::Pair::memcached().await)).await;
            })*
        }
        mod cluster {
            $($(#[$meta])*
            #[tokio::test]
            #[ignore = "`scripts/test --all` runs it, where it applies"]
            async fn $test() {
                crate::bounded(super::$test(crate::Pair::cluster().await)).await;
            })*
        }
        mod both {
            $($(#[$meta])*
            #[tokio::test]
            async fn $test() {
                crate::bounded(super::$test(crate::Pair::both().await)).await;
            })*
        }
    };
}
pub(crate) use over_each_store;
