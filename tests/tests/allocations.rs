//! What a hit allocates: nothing, whichever tier answers in the process. A file of its own, since
//! all of it is counted.

use std::alloc::System;
use std::sync::Arc;
use std::time::Duration;

use cache_runtime::{Cache, CacheConfig, RedisConfig, cached};
use cache_tests::{RedisServer, eventually};
use futures_util::FutureExt;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const TEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Other threads allocate now and then; what each hit allocated would be seen this often.
const HITS: usize = 1_000;

struct Users {
    cache: Cache,
}

impl Users {
    #[cached(resource = "users", cache = self.cache)]
    async fn get(&self, id: i64) -> Option<Arc<String>> {
        Some(Arc::new(format!("user {id}")))
    }

    #[cached(resource = "users", cache = self.cache)]
    async fn list(&self, skip: u32, limit: u32, name: &str) -> Arc<Vec<String>> {
        Arc::new(vec![format!("{skip} {limit} {name}")])
    }
}

/// What each call allocated in the end, when what it needs lies ready.
async fn allocated<T, F: Future<Output = T>>(call: impl Fn() -> F) -> usize {
    eventually(TEST_TIMEOUT, async || {
        call().await;
        call().now_or_never().is_some()
    })
    .await;
    let region = Region::new(ALLOCATOR);
    for _ in 0..HITS {
        // Where another thread was slow with a heartbeat, it is no hit, and counts as what it
        // allocates.
        let _ = call().now_or_never();
    }
    let change = region.change();
    (change.allocations + change.reallocations) / HITS
}

async fn no_hit_allocates(config: CacheConfig) {
    let cache = Cache::new(config.advice(false)).await;
    let users = Users { cache };
    assert_eq!(allocated(|| users.get(1)).await, 0);
    assert_eq!(allocated(|| users.list(0, 100, "ada")).await, 0);
    let counters = users.cache.get_stats().await.counters;
    assert!(counters.hits as usize >= 2 * HITS, "{counters:?}");
}

#[tokio::test]
async fn no_hit_allocates_in_memory() {
    no_hit_allocates(CacheConfig::default().local_mb(16)).await;
}

#[tokio::test]
async fn no_hit_allocates_beside_redis() {
    let server = RedisServer::start();
    let config = CacheConfig::default().redis(RedisConfig::at("127.0.0.1", server.port()));
    // Whatever else the machine does.
    let config = config.local_max_staleness(TEST_TIMEOUT).local_mb(16);
    no_hit_allocates(config.command_budget(TEST_TIMEOUT)).await;
}
