//! Values that are compressed in Redis: `codec = "json+zstd"`, and `CACHE_COMPRESS_OVER`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cache_runtime::{
    Cache, CacheConfig, Encoded, RedisConfig, Status, cached, invalidates, observe,
};
use cache_tests::RedisServer;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct User {
    id: i64,
    name: String,
}

fn users(number: i64) -> Vec<User> {
    let user = |id| User {
        id,
        name: format!("Ada Lovelace {id}"),
    };
    (0..number).map(user).collect()
}

struct Lists {
    cache: Cache,
    loads: AtomicU32,
}

impl Lists {
    async fn new(config: CacheConfig) -> Self {
        Self {
            cache: Cache::new(config).await,
            loads: AtomicU32::new(0),
        }
    }

    fn load(&self) {
        self.loads.fetch_add(1, Ordering::SeqCst);
    }

    #[cached(resource = "lists", codec = "json+zstd", cache = self.cache)]
    async fn packed(&self, id: i64) -> Option<Arc<Vec<User>>> {
        self.load();
        (id > 0).then(|| Arc::new(users(id)))
    }

    #[cached(resource = "lists", codec = "json+zstd", batch = ids, cache = self.cache)]
    async fn many_packed(&self, ids: &[i64]) -> HashMap<i64, Arc<Vec<User>>> {
        self.load();
        let found = ids.iter().filter(|id| **id > 0);
        found.map(|id| (*id, Arc::new(users(*id)))).collect()
    }

    #[cached(resource = "pages", codec = "json+zstd", cache = self.cache)]
    async fn encoded(&self, id: i64) -> Result<Encoded<Vec<User>>, cache_runtime::Error> {
        self.load();
        Encoded::new(&users(id))
    }

    #[cached(resource = "plain", cache = self.cache)]
    async fn plain(&self, id: i64) -> Vec<User> {
        self.load();
        users(id)
    }

    #[cached(resource = "binary", codec = "msgpack", cache = self.cache)]
    async fn binary(&self, id: i64) -> BTreeMap<i64, User> {
        self.load();
        users(id).into_iter().map(|user| (user.id, user)).collect()
    }

    #[invalidates("lists", ids = ids, cache = self.cache)]
    async fn write(&self, ids: &[i64]) {
        let _ = ids;
    }

    async fn is_hit<T>(&self, call: impl Future<Output = T>) -> (bool, T) {
        let (value, outcomes) = observe(call).await;
        let is_hit = |status| matches!(status, Status::Hit { .. });
        (outcomes.iter().all(|it| is_hit(it.status)), value)
    }
}

fn over(server: &RedisServer) -> CacheConfig {
    CacheConfig::default()
        .redis(RedisConfig::at("127.0.0.1", server.port()))
        .command_budget(Duration::from_secs(5))
}

fn bytes(server: &RedisServer, key: &str) -> usize {
    let length = server.cli(&["STRLEN", key]);
    length.trim().parse().expect("a length")
}

#[tokio::test]
async fn a_function_whose_values_are_compressed() {
    let server = RedisServer::start();
    let (a, b) = (
        Lists::new(over(&server)).await,
        Lists::new(over(&server).local_mb(8)).await,
    );
    a.packed(100).await;
    let json = serde_json::to_vec(&users(100)).expect("JSON").len();
    assert!(bytes(&server, "lists:100") * 3 < json);
    // Twice in the other process: from Redis, and then perhaps from its own memory.
    for _ in 0..2 {
        let (is_hit, list) = b.is_hit(b.packed(100)).await;
        assert!(is_hit && *list.expect("a list") == users(100));
    }
    assert_eq!(a.packed(-1).await, None);
    assert_eq!(b.is_hit(b.packed(-1)).await, (true, None));
    // A row would not become smaller, so people can read it.
    a.packed(1).await;
    let text = server.cli(&["GET", "lists:1"]);
    assert!(text.contains("Ada Lovelace 0"), "{text}");
    assert!(b.is_hit(b.packed(1)).await.0);
    // A batch reads what single calls have stored, and the other way round.
    let loads = b.loads.load(Ordering::SeqCst);
    let (is_hit, lists) = b.is_hit(b.many_packed(&[100, 1, -1])).await;
    assert!(is_hit && lists.len() == 2 && *lists[&100] == users(100));
    assert_eq!(b.loads.load(Ordering::SeqCst), loads);
    b.many_packed(&[100, 50]).await;
    assert!(a.is_hit(a.packed(50)).await.0);
    a.write(&[50]).await;
    let (is_hit, list) = a.is_hit(a.packed(50)).await;
    assert!(!is_hit && *list.expect("a list") == users(50));
}

#[tokio::test]
async fn an_encoded_value_is_compressed_and_sent_as_it_was() {
    let server = RedisServer::start();
    let (a, b) = (
        Lists::new(over(&server)).await,
        Lists::new(over(&server)).await,
    );
    let first = a.encoded(100).await.expect("encoded");
    let (is_hit, second) = b.is_hit(b.encoded(100)).await;
    let second = second.expect("encoded");
    assert!(is_hit && bytes(&server, "pages:100") * 3 < first.json().len());
    assert_eq!((first.json(), first.etag()), (second.json(), second.etag()));
    assert_eq!(second.decode().expect("decoded"), users(100));
}

#[tokio::test]
async fn values_over_a_size_are_compressed() {
    let server = RedisServer::start();
    let compressing = Lists::new(over(&server).compress_over(1_000)).await;
    let other = Lists::new(over(&server)).await;
    let json = serde_json::to_vec(&users(100)).expect("JSON").len();
    compressing.plain(2).await;
    compressing.plain(100).await;
    let text = server.cli(&["GET", "plain:2"]);
    assert!(text.contains("Ada Lovelace 1"), "{text}");
    assert!(bytes(&server, "plain:100") * 3 < json);
    // A process that compresses nothing reads it, and the other way round.
    assert_eq!(other.is_hit(other.plain(100)).await, (true, users(100)));
    other.plain(101).await;
    assert!(bytes(&server, "plain:101") > json);
    assert_eq!(
        compressing.is_hit(compressing.plain(101)).await,
        (true, users(101))
    );
    let rows = compressing.binary(100).await;
    assert!(bytes(&server, "binary:100") * 2 < json);
    assert_eq!(other.is_hit(other.binary(100)).await, (true, rows));
    // By hand as well.
    let set = compressing.cache.set("plain:300", &users(300), 60).await;
    set.expect("stored");
    assert!(bytes(&server, "plain:300") < json);
    let found = other.cache.get::<Vec<User>>("plain:300").await;
    assert_eq!(found, Some(users(300)));
}

#[tokio::test]
async fn a_value_is_too_large_by_its_length_before_it_is_compressed() {
    let server = RedisServer::start();
    let lists = Lists::new(over(&server).value_limit(2_000)).await;
    lists.packed(100).await;
    assert!(!lists.is_hit(lists.packed(100)).await.0);
}

#[test]
fn the_size_is_read_from_the_environment() {
    let with = |size: &str| {
        let vars = [("CACHE_COMPRESS_OVER", size)];
        CacheConfig::from_vars(vars.map(|(name, value)| (name.to_owned(), value.to_owned())))
    };
    for size in ["", "0", "1", "4096", "16k", "16K", "16kb", "1m", "8M"] {
        with(size).unwrap_or_else(|error| panic!("{size}: {error}"));
    }
    for size in ["-1", "16x", "1.5k", "k", "9m", "1g"] {
        let error = with(size).expect_err(size).to_string();
        assert!(error.contains("CACHE_COMPRESS_OVER"), "{error}");
    }
}
