//! The entries that a thread holds in memory of its own: the rules of the table hold for them too.
//!
//! A test is one thread, so what it has read twice is what it holds. A function remembers four
//! caches, and only entries that it was given there are held: so there are no more caches here.

use std::sync::Arc;

use cache_runtime::{CacheConfig, cached, invalidates};
use cache_tests::{RedisServer, eventually};

use super::{Node, PATIENCE, impatient, over, tier};

/// With functions of its own.
struct Rows(Node);

impl Rows {
    #[cached(resource = "rows", cache = self.0.cache)]
    async fn get(&self, id: i64) -> Option<Arc<String>> {
        self.0.load(id)
    }

    #[invalidates("rows", id = id, cache = self.0.cache)]
    async fn rename(&self, id: i64, name: &str) {
        self.0.commit(id, name);
    }

    #[invalidates("rows", cache = self.0.cache)]
    async fn rename_all(&self, id: i64, name: &str) {
        self.0.commit(id, name);
    }

    async fn name(&self, id: i64) -> String {
        let name = self.get(id).await;
        name.map_or_else(String::new, |name| name.to_string())
    }

    async fn front_bytes(&self) -> u64 {
        self.0.figures().await.front_bytes
    }

    /// Reads a row until this thread holds it, and nothing else.
    async fn hold(&self, id: i64) {
        eventually(PATIENCE, async || {
            let before = self.front_bytes().await;
            let tiers = [tier(self.get(id)).await, tier(self.get(id)).await];
            tiers == ["local"; 2] && self.front_bytes().await == before && before > 0
        })
        .await;
    }
}

#[tokio::test]
async fn what_a_thread_holds_ends_with_the_rest() {
    let mut server = RedisServer::start();
    let rows = Rows(Node::new(impatient(server.port())).await);
    let other = Rows(rows.0.beside(over(server.port())).await);
    rows.0.commit(1, "old");
    rows.hold(1).await;

    // A write of this process.
    for name in ["new", "newer"] {
        rows.rename(1, name).await;
        assert_eq!(rows.name(1).await, name);
        rows.hold(1).await;
        assert_eq!(rows.name(1).await, name);
    }
    rows.rename_all(1, "all").await;
    assert_eq!(rows.name(1).await, "all");
    rows.hold(1).await;

    // A write of another process.
    other.rename(1, "another's").await;
    eventually(PATIENCE, async || rows.name(1).await == "another's").await;
    rows.hold(1).await;

    // A flushed database.
    rows.0.commit(1, "flushed");
    server.cli(&["flushall"]);
    eventually(PATIENCE, async || rows.name(1).await == "flushed").await;
    rows.hold(1).await;

    // A scope and a switch.
    let strict = rows.0.cache.strict(rows.get(1));
    assert_eq!(tier(strict).await, "redis");
    assert_eq!(tier(cache_runtime::bypass(rows.get(1))).await, "");
    rows.0.cache.disable("rows");
    assert_eq!(tier(rows.get(1)).await, "");
    rows.0.cache.enable("rows");
    rows.hold(1).await;

    // Another cache has another value.
    let memory = Rows(Node::new(CacheConfig::default().local_mb(4)).await);
    memory.0.commit(1, "another cache's");
    for _ in 0..3 {
        assert_eq!(memory.name(1).await, "another cache's");
        assert_eq!(rows.name(1).await, "flushed");
    }

    // A server that says nothing any more.
    rows.0.commit(1, "silent");
    server.pause();
    eventually(PATIENCE, async || rows.name(1).await == "silent").await;
    server.resume();
}

#[tokio::test]
async fn what_a_thread_holds_is_bounded_and_counted() {
    const ROWS: i64 = 700;
    let server = RedisServer::start();
    let rows = Rows(Node::new(over(server.port())).await);
    let name = "n".repeat(7500);
    let mut most = 0;
    for id in 0..ROWS {
        rows.0.commit(id, &name);
        eventually(PATIENCE, async || tier(rows.get(id)).await == "local").await;
        rows.get(id).await;
        most = rows.front_bytes().await.max(most);
    }
    assert!((2 << 20..=4 << 20).contains(&most), "{most}");
}
