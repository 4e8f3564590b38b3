//! Local entries beside Redis: each rule that keeps them right, and what the network does to them.

mod faults;
mod in_process;
mod options;
mod pauses;
mod rules;
mod thread_cache;
#[expect(
    clippy::duplicate_mod,
    reason = "the same promises, and functions of its own"
)]
#[path = "thread_cache.rs"]
mod thread_cache_in_memory;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use cache_runtime::{
    Cache, CacheConfig, LocalStats, RedisConfig, Status, cached, invalidates, observe,
};
use cache_tests::{Proxy, RedisServer, eventually};

const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Both tiers. Commands get longer than in production, where the machine that runs the tests is
/// slow.
fn over(port: u16) -> CacheConfig {
    CacheConfig::default()
        .redis(RedisConfig::at("127.0.0.1", port))
        .command_budget(Duration::from_secs(5))
        .local_mb(16)
        .advice(false)
}

/// Commands end soon, for where the network swallows them, and local entries in half a second.
fn impatient(port: u16) -> CacheConfig {
    over(port)
        .command_budget(Duration::from_millis(50))
        .local_max_staleness(Duration::from_millis(500))
}

/// A node of a service: a database that all nodes share, and the node's own cache.
#[derive(Clone)]
struct Node {
    rows: Arc<Mutex<HashMap<i64, String>>>,
    loads: Arc<AtomicU32>,
    cache: Cache,
}

impl Node {
    async fn new(config: CacheConfig) -> Self {
        Self {
            rows: Arc::default(),
            loads: Arc::default(),
            cache: Cache::new(config).await,
        }
    }

    /// Another node over the same database.
    async fn beside(&self, config: CacheConfig) -> Self {
        Self {
            cache: Cache::new(config).await,
            ..self.clone()
        }
    }

    /// Writes past the cache.
    fn commit(&self, id: i64, name: &str) {
        self.rows.lock().expect("sound").insert(id, name.into());
    }

    fn load(&self, id: i64) -> Option<Arc<String>> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        let rows = self.rows.lock().expect("sound");
        rows.get(&id).cloned().map(Arc::new)
    }

    fn loads(&self) -> u32 {
        self.loads.load(Ordering::SeqCst)
    }

    #[cached(resource = "users", cache = self.cache)]
    async fn get(&self, id: i64) -> Option<Arc<String>> {
        self.load(id)
    }

    #[cached(resource = "users", op = "exact", strict, cache = self.cache)]
    async fn exact(&self, id: i64) -> Option<Arc<String>> {
        self.load(id)
    }

    #[cached(resource = "users", op = "remote", local = false, cache = self.cache)]
    async fn remote(&self, id: i64) -> Option<Arc<String>> {
        self.load(id)
    }

    #[cached(resource = "users", op = "brief", local_ttl = "200ms", cache = self.cache)]
    async fn brief(&self, id: i64) -> Option<Arc<String>> {
        self.load(id)
    }

    /// Made of another cached call.
    #[cached(resource = "greetings", depends("users"), cache = self.cache)]
    async fn greeting(&self, id: i64) -> String {
        format!("hello {}", self.name(id).await)
    }

    /// The same, loaded in a task of its own.
    #[cached(resource = "greetings", op = "detached", depends("users"), timeout = "60s", stale_if_error = 60, cache = self.cache)]
    async fn detached_greeting(&self, id: i64) -> Result<String, String> {
        Ok(format!("hello {}", self.name(id).await))
    }

    #[cached(resource = "letters", batch = ids, depends("users"), cache = self.cache)]
    async fn greetings(&self, ids: &[i64]) -> HashMap<i64, String> {
        let mut greetings = HashMap::new();
        for id in ids {
            greetings.insert(*id, format!("hello {}", self.name(*id).await));
        }
        greetings
    }

    #[cached(resource = "users", batch = ids, cache = self.cache)]
    async fn get_many(&self, ids: &[i64]) -> HashMap<i64, Arc<String>> {
        let found = ids.iter().map(|id| Some((*id, self.load(*id)?)));
        found.flatten().collect()
    }

    #[cached(resource = "users", op = "all", cache = self.cache)]
    async fn all(&self) -> Arc<Vec<String>> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        let rows = self.rows.lock().expect("sound");
        let mut names: Vec<_> = rows.values().cloned().collect();
        names.sort();
        Arc::new(names)
    }

    #[invalidates("users", id = id, cache = self.cache)]
    async fn rename(&self, id: i64, name: &str) {
        self.commit(id, name);
    }

    #[invalidates("users", cache = self.cache)]
    async fn rename_all(&self, name: &str) {
        for row in self.rows.lock().expect("sound").values_mut() {
            *row = name.into();
        }
    }

    async fn name(&self, id: i64) -> String {
        self.get(id)
            .await
            .map_or_else(String::new, |name| name.to_string())
    }

    /// Reads until a local entry answers.
    async fn warm(&self, id: i64) {
        eventually(TEST_TIMEOUT, async || tier(self.get(id)).await == "local").await;
    }

    async fn figures(&self) -> LocalStats {
        self.cache
            .get_stats()
            .await
            .local
            .expect("both tiers are on")
    }

    /// Returns when local entries are served.
    async fn covered(&self) {
        eventually(TEST_TIMEOUT, async || self.figures().await.serving).await;
    }
}

/// Which tier answered a call; empty if its function did.
async fn tier<T>(call: impl Future<Output = T>) -> &'static str {
    let outcomes = observe(call).await.1;
    match outcomes[0].status {
        Status::Hit { .. } => outcomes[0].store,
        _ => "",
    }
}

/// Polls once: what the call sends first is on its way then.
async fn begin<F: Future>(call: Pin<&mut F>) {
    let mut call = Some(call);
    std::future::poll_fn(|context| {
        if let Some(call) = call.take() {
            assert!(
                call.poll(context).is_pending(),
                "it has something to wait for"
            );
        }
        Poll::Ready(())
    })
    .await;
}

/// A server, and a node behind a proxy that has a local entry of its first row.
async fn behind_a_proxy(config: impl FnOnce(u16) -> CacheConfig) -> (RedisServer, Proxy, Node) {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port());
    let node = Node::new(config(proxy.port())).await;
    node.commit(1, "old");
    node.warm(1).await;
    (server, proxy, node)
}
