//! `in_process`: kept in this process alone, never sent to Redis, invalidated as all else is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cache_runtime::{BypassReason, ErrorKind, Key, Lookup, cache_defaults, key_of, refresh};

use super::*;

/// A secret for each account; each load makes another one.
#[derive(Clone)]
struct Vault {
    cache: Cache,
    loads: Arc<AtomicU32>,
}

#[cache_defaults(resource = "secrets", cache = self.cache)]
impl Vault {
    async fn new(config: CacheConfig) -> Self {
        Self {
            cache: Cache::new(config).await,
            loads: Arc::default(),
        }
    }

    async fn beside(&self, port: u16) -> Self {
        Self {
            cache: Cache::new(over(port)).await,
            ..self.clone()
        }
    }

    fn load(&self) -> String {
        let loads = self.loads.fetch_add(1, Ordering::SeqCst);
        format!("hunter{loads}")
    }

    #[cached(in_process)]
    async fn get(&self, id: i64) -> String {
        let _ = id;
        self.load()
    }

    #[cached(op = "token", in_process)]
    async fn token(&self, scope: &str) -> Option<String> {
        (scope != "none").then(|| self.load())
    }

    #[cached(op = "code", in_process, unless = |code| code.ends_with('1'))]
    async fn code(&self, scope: &str) -> String {
        let _ = scope;
        self.load()
    }

    #[cached(resource = "pages", ttl = 300)]
    async fn page(&self, id: i64) -> String {
        let _ = id;
        self.get(1).await
    }

    #[invalidates(id = id)]
    async fn rotate(&self, id: i64) {
        let _ = id;
    }

    #[invalidates(ops("token"))]
    async fn rotate_tokens(&self) {}

    #[invalidates]
    async fn rotate_all(&self) {}
}

/// Calls until it is answered from here.
async fn kept(call: impl AsyncFn() -> String) -> String {
    let mut value = String::new();
    eventually(TEST_TIMEOUT, async || {
        let (found, outcomes) = observe(call()).await;
        value = found;
        matches!(outcomes[0].status, Status::Hit { .. })
    })
    .await;
    value
}

#[tokio::test]
async fn a_secret_is_kept_here_and_never_sent() {
    let server = RedisServer::start();
    let vault = Vault::new(over(server.port())).await;
    let value = kept(async || vault.get(1).await).await;
    let token = kept(async || vault.token("read").await.expect("there")).await;
    for _ in 0..10 {
        assert_eq!(vault.get(1).await, value);
        assert_eq!(vault.token("read").await.as_ref(), Some(&token));
    }
    let dump = server.cli(&[
        "EVAL",
        "local all = '' for _, key in ipairs(redis.call('KEYS', '*')) do all = all .. key .. '=' .. tostring(redis.pcall('GET', key)) .. ' ' end return all",
        "0",
    ]);
    assert!(
        dump.contains("@gen:secrets"),
        "its generations are there: {dump}"
    );
    assert!(!dump.contains("hunter"), "{dump}");
    assert!(!dump.contains(" secrets:"), "no key of it, either: {dump}");
}

#[tokio::test]
async fn no_operation_by_hand_sends_it() {
    let server = RedisServer::start();
    let vault = Vault::new(over(server.port())).await;
    let token = kept(async || vault.token("read").await.expect("there")).await;
    let secret = kept(async || vault.get(1).await).await;
    let keys = [
        key_of(vault.token("read")),
        key_of(vault.get(1)),
        Key::args("secrets", "token", &("read",)),
        Key::entity("secrets", 1),
        "secrets:1".parse(),
    ];
    for key in keys.map(|key| key.expect("a key")) {
        let by_hand = "hunter by hand".to_owned();
        let set = vault.cache.set(&key, &by_hand, 60).await;
        assert_eq!(set.map_err(|e| e.kind()), Err(ErrorKind::Unstorable));
        assert_eq!(vault.cache.get::<String>(&key).await, None);
        let load = async || Ok::<_, ()>(by_hand.clone());
        let loaded = vault.cache.get_or_load(&key, 60, load).await;
        assert_eq!(loaded.as_ref(), Ok(&by_hand));
        match vault.cache.lookup(&key).await.expect("a valid key") {
            Lookup::Miss(lease) => assert!(!lease.fill(&by_hand).await),
            Lookup::Hit(there) => assert_eq!(there, by_hand),
        }
        let entries = server.cli(&["--scan", "--pattern", "secrets:*"]);
        assert_eq!(entries.trim(), "");
    }
    assert_eq!(vault.token("read").await, Some(token));
    // A row may be deleted by hand.
    let deleted = vault.cache.delete(key_of(vault.get(1)).expect("a key"));
    assert!(deleted.await.is_ok());
    assert_ne!(vault.get(1).await, secret);
}

#[tokio::test]
async fn an_older_one_does_not_come_back_after_a_load_that_is_not_kept() {
    let server = RedisServer::start();
    let vault = Vault::new(over(server.port())).await;
    let old = kept(async || vault.code("read").await).await;
    vault.loads.store(11, Ordering::SeqCst);
    assert_eq!(refresh(vault.code("read")).await, "hunter11");
    assert_ne!(vault.code("read").await, old);
}

#[tokio::test]
async fn others_invalidate_it() {
    let server = RedisServer::start();
    let vault = Vault::new(over(server.port())).await;
    let other = vault.beside(server.port()).await;
    let mut value = kept(async || vault.get(1).await).await;
    for write in 0..4 {
        match write {
            0 => other.rotate(1).await,
            1 => other.rotate_all().await,
            2 => vault.rotate(1).await,
            _ => {
                let _ = other.cache.invalidate("secrets", &1).await;
            }
        }
        eventually(TEST_TIMEOUT, async || vault.get(1).await != value).await;
        value = kept(async || vault.get(1).await).await;
    }
    // Another row, and what is derived by another op.
    other.rotate(2).await;
    other.rotate_tokens().await;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(vault.get(1).await, value);
    }
    let token = kept(async || vault.token("read").await.expect("there")).await;
    other.rotate_tokens().await;
    eventually(TEST_TIMEOUT, async || {
        vault.token("read").await.expect("there") != token
    })
    .await;
}

#[tokio::test]
async fn an_own_write_is_seen_at_once() {
    let server = RedisServer::start();
    let vault = Vault::new(over(server.port())).await;
    for _ in 0..20 {
        let value = kept(async || vault.get(1).await).await;
        vault.rotate(1).await;
        assert_ne!(vault.get(1).await, value);
    }
}

#[tokio::test]
async fn an_absence_is_kept_as_well() {
    let server = RedisServer::start();
    let vault = Vault::new(over(server.port())).await;
    eventually(TEST_TIMEOUT, async || {
        let (none, outcomes) = observe(vault.token("none")).await;
        assert_eq!(none, None);
        matches!(outcomes[0].status, Status::Hit { .. })
    })
    .await;
}

#[tokio::test]
async fn a_load_is_made_of_it_where_that_is_certain() {
    let server = RedisServer::start();
    let vault = Vault::new(over(server.port())).await;
    let value = kept(async || vault.get(1).await).await;
    for id in 0..5 {
        assert_eq!(vault.page(id).await, value, "it need not be loaded again");
    }
}

#[tokio::test]
async fn callers_at_once_load_it_once() {
    let server = RedisServer::start();
    let vault = Vault::new(over(server.port())).await;
    // Its generations are made.
    kept(async || vault.get(1).await).await;
    vault.rotate(1).await;
    let before = vault.loads.load(Ordering::SeqCst);
    let calls = (0..50).map(|_| vault.get(1));
    let values = futures_util::future::join_all(calls).await;
    assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
    assert_eq!(vault.loads.load(Ordering::SeqCst), before + 1);
}

#[tokio::test]
async fn without_memory_of_its_own_it_runs() {
    let server = RedisServer::start();
    let vault = Vault::new(over(server.port()).local_mb(0)).await;
    for _ in 0..2 {
        let (_, outcomes) = observe(vault.get(1)).await;
        assert_eq!(
            outcomes[0].status,
            Status::Bypass(BypassReason::Unavailable)
        );
    }
    assert_eq!(vault.loads.load(Ordering::SeqCst), 2);
    let memory = Vault::new(CacheConfig::default().local_mb(4)).await;
    assert_eq!(memory.get(1).await, memory.get(1).await);
}
