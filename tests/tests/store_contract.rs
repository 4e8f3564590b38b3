//! One contract, every store.

use cache_runtime::store::{MemcachedStore, MemoryStore, RedisStore, Store};
use cache_runtime::testing::check_store;
use cache_runtime::{CacheConfig, MemcachedConfig, RedisConfig};
use cache_tests::{MemcachedServer, RedisServer};
use tokio::runtime::Handle;

#[tokio::test]
async fn memory() {
    check_store(&MemoryStore::new(16 << 20)).await;
}

#[tokio::test]
async fn redis() {
    let server = RedisServer::start();
    let redis = RedisConfig::at("127.0.0.1", server.port());
    // The server is started next to other tests' on a small machine: what is slow is not what is
    // tested.
    let config = CacheConfig::default().command_budget(std::time::Duration::from_secs(5));
    let store = RedisStore::connect(&redis, &config, &Handle::current()).await;
    check_store(&store).await;
    let word = store.watch_key("users:1").await.expect("Redis answers");
    assert!(word.is_some(), "the server tells of changes");
    // Scripts that the server has forgotten are loaded again.
    server.cli(&["SCRIPT", "FLUSH"]);
    check_store(&store).await;
}

#[tokio::test]
async fn memcached() {
    let server = MemcachedServer::start();
    let memcached = MemcachedConfig::at("127.0.0.1", server.port());
    let config = CacheConfig::default().command_budget(std::time::Duration::from_secs(5));
    let store = MemcachedStore::connect(&memcached, &config, &Handle::current()).await;
    check_store(&store).await;
}
