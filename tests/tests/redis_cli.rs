//! What people see, and do, with `redis-cli` while the demo runs.

use std::collections::BTreeSet;
use std::time::Duration;

use cache_tests::{Answer, Demo, Postgres, RedisServer, eventually};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(15);

/// The demo with the Redis tier alone.
fn demo(redis: &RedisServer, more: &[(&str, &str)]) -> Demo {
    let port = redis.port().to_string();
    let environment = [
        ("REDIS_ENABLED", "True"),
        ("REDIS_HOST", "127.0.0.1"),
        ("REDIS_PORT", port.as_str()),
    ];
    let demo = Demo::start(environment.into_iter().chain(more.iter().copied()));
    assert_eq!(redis.cli(&["PING"]), "PONG");
    demo
}

fn keys(redis: &RedisServer, pattern: &str) -> BTreeSet<String> {
    let listed = redis.cli(&["--scan", "--pattern", pattern]);
    listed
        .lines()
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

fn hash_of<'a>(key: &'a str, prefix: &str) -> &'a str {
    let hash = key
        .strip_prefix(prefix)
        .unwrap_or_else(|| panic!("{key} does not begin with {prefix}"));
    assert!(
        hash.len() == 32 && hash.bytes().all(|b| b.is_ascii_hexdigit()),
        "{key}"
    );
    hash
}

fn key(answer: &Answer) -> String {
    answer
        .cache_status()
        .key
        .unwrap_or_else(|| panic!("no key in {answer:?}"))
}

/// Reads that must say they come from the database and have been kept.
async fn stored(demo: &Demo, path: &str) -> Answer {
    let answer = demo.get(path).await;
    let status = answer.cache_status();
    assert_eq!(
        (answer.status, status.fwd.as_deref()),
        (200, Some("miss")),
        "{answer:?}"
    );
    assert!(status.stored && !status.hit, "{answer:?}");
    answer
}

async fn hit(demo: &Demo, path: &str) -> Answer {
    let answer = demo.get(path).await;
    assert!(answer.cache_status().hit, "{answer:?}");
    answer
}

fn new_user(email: &str) -> Value {
    json!({"name": "Ada Lovelace", "email": email, "age": 36, "active": true})
}

#[tokio::test]
async fn keys_are_named_after_what_they_hold() {
    let redis = RedisServer::start();
    let demo = demo(&redis, &[]);
    let filter = json!({"conditions": [{"field": "age", "op": "gte", "value": 40}], "limit": 5});

    let one = stored(&demo, "/users/1").await;
    let list = stored(&demo, "/users?skip=0&limit=5").await;
    let filtered = demo.post("/users/filter", &filter).await;
    let paginated = demo.post("/users/filter-paginated", &filter).await;

    assert_eq!(key(&one), "users:1");
    hash_of(&key(&list), "users:list:");
    hash_of(&key(&filtered), "users:filter:");
    hash_of(&key(&paginated), "users:filter:paginated:");
    let said = [&one, &list, &filtered, &paginated].map(key);
    assert_eq!(keys(&redis, "users:*"), BTreeSet::from(said));

    // Listing what is cached shows entries only, and all of ours carry a time to live. Heartbeats
    // live for less than a second, so that one may have 0 left, or be gone.
    for name in keys(&redis, "*") {
        let ttl: i64 = redis
            .cli(&["TTL", &name])
            .parse()
            .expect("a number of seconds");
        assert_ne!(ttl, -1, "{name} stays for ever");
    }
}

#[tokio::test]
async fn an_entry_is_one_line_about_it_and_then_json() {
    let redis = RedisServer::start();
    let demo = demo(&redis, &[]);
    let answer = stored(&demo, "/users/1").await;

    let entry = redis.cli(&["GET", "users:1"]);
    let (header, payload) = entry.split_once('\n').expect("a header line");
    assert!(
        header.bytes().all(|b| b.is_ascii_graphic() || b == b' '),
        "{header:?}"
    );
    let payload: Value = serde_json::from_str(payload).expect("JSON");
    assert_eq!(payload["id"], 1);
    assert_eq!(payload["email"], answer.json()["email"]);

    let list = stored(&demo, "/users?skip=3&limit=2").await;
    let entry = redis.cli(&["GET", &key(&list)]);
    let (_, payload) = entry.split_once('\n').expect("a header line");
    let payload: Value = serde_json::from_str(payload).expect("JSON");
    assert_eq!(payload[1]["id"], list.json()[1]["id"]);
}

#[tokio::test]
async fn entries_deleted_by_hand_are_read_and_stored_again() {
    let redis = RedisServer::start();
    let database = Postgres::shared().database();
    let demo = demo(&redis, &[("DATABASE_URL", &database)]);
    for path in ["/users/1", "/users?skip=0&limit=5"] {
        stored(&demo, path).await;
    }

    // A change behind the cache's back, so that the next reads tell where they come from.
    Postgres::shared().psql(&database, "UPDATE users SET name = 'By Hand' WHERE id = 1");
    assert_ne!(hit(&demo, "/users/1").await.json()["name"], "By Hand");
    redis.shell(r#"redis-cli --scan --pattern "users:*" | xargs redis-cli DEL"#);
    assert_eq!(keys(&redis, "users:*"), BTreeSet::new());

    assert_eq!(stored(&demo, "/users/1").await.json()["name"], "By Hand");
    assert_eq!(
        stored(&demo, "/users?skip=0&limit=5").await.json()[0]["name"],
        "By Hand"
    );
    assert_eq!(hit(&demo, "/users/1").await.json()["name"], "By Hand");

    // Even with everything gone, generations included.
    redis.cli(&["FLUSHALL"]);
    Postgres::shared().psql(&database, "UPDATE users SET name = 'Again' WHERE id = 1");
    assert_eq!(stored(&demo, "/users/1").await.json()["name"], "Again");
    hit(&demo, "/users/1").await;
}

#[tokio::test]
async fn a_foreign_value_under_our_key_is_left_alone() {
    let redis = RedisServer::start();
    let demo = demo(&redis, &[]);
    let list = key(&stored(&demo, "/users?skip=0&limit=3").await);
    stored(&demo, "/users/5").await;
    let list_again = demo.get("/users?skip=0&limit=3").await;

    redis.cli(&["SET", "users:1", "somebody else's"]);
    redis.cli(&["RPUSH", "users:2", "a", "b"]);
    redis.cli(&["HSET", "users:3", "field", "value"]);
    redis.cli(&["SET", "users:4", ""]);
    redis.cli(&["SET", &list, r#"[{"id":1}]"#]);
    let theirs = || {
        [
            redis.cli(&["GET", "users:1"]),
            redis.cli(&["LRANGE", "users:2", "0", "-1"]),
            redis.cli(&["HGETALL", "users:3"]),
            redis.cli(&["STRLEN", "users:4"]) + &redis.cli(&["EXISTS", "users:4"]),
            redis.cli(&["GET", &list]),
        ]
    };
    let before = theirs();
    assert_eq!(
        before,
        [
            "somebody else's",
            "a\nb",
            "field\nvalue",
            "01",
            r#"[{"id":1}]"#
        ]
    );

    for id in 1..=4 {
        for _ in 0..2 {
            let answer = demo.get(&format!("/users/{id}")).await;
            assert_eq!((answer.status, &answer.json()["id"]), (200, &json!(id)));
            let status = answer.cache_status();
            assert_eq!(status.fwd.as_deref(), Some("bypass"), "{answer:?}");
            assert!(!status.stored, "{answer:?}");
        }
    }
    let answer = demo.get("/users?skip=0&limit=3").await;
    assert_eq!(answer.json(), list_again.json());
    assert_eq!(theirs(), before, "after reads");

    let mut changed = demo.get("/users/1").await.json();
    changed["name"] = json!("New Name");
    for id in [1, 2, 3] {
        let body = json!({"name": "New Name", "email": format!("new{id}@example.com"), "age": 41, "active": true});
        assert_eq!(demo.put(&format!("/users/{id}"), &body).await.status, 200);
        assert_eq!(
            demo.get(&format!("/users/{id}")).await.json()["name"],
            "New Name"
        );
    }
    assert_eq!(demo.delete("/users/4").await.status, 204);
    assert_eq!(demo.get("/users/4").await.status, 404);
    // Our own entry goes with the sweep; then it has been past the others too.
    eventually(SOON, async || redis.cli(&["EXISTS", "users:5"]) == "0").await;
    assert_eq!(theirs(), before, "after writes");

    stored(&demo, "/users/5").await;
    for path in ["/cache/users", "/cache"] {
        assert_eq!(demo.delete(path).await.status, 204);
        eventually(SOON, async || redis.cli(&["EXISTS", "users:5"]) == "0").await;
        assert_eq!(theirs(), before, "after DELETE {path}");
    }
}

#[tokio::test]
async fn stale_entries_leave_soon() {
    let redis = RedisServer::start();
    let demo = demo(&redis, &[]);
    for path in [
        "/users/1",
        "/users/2",
        "/users?skip=0&limit=5",
        "/products/1",
        "/products?skip=0&limit=5",
    ] {
        stored(&demo, path).await;
    }
    assert_eq!(
        demo.post("/users", &new_user("new@example.com"))
            .await
            .status,
        201
    );
    eventually(SOON, async || keys(&redis, "users:*").is_empty()).await;
    assert_eq!(keys(&redis, "products:*").len(), 2, "products are no users");
}

#[tokio::test]
async fn a_finer_write_leaves_the_other_rows_cached() {
    let redis = RedisServer::start();
    let demo = demo(&redis, &[]);
    for path in ["/products/1", "/products/2", "/products?skip=0&limit=5"] {
        stored(&demo, path).await;
    }
    let mut product = demo.get("/products/1").await.json();
    product["stock"] = json!(7);
    assert_eq!(demo.put("/products/1", &product).await.status, 200);
    eventually(SOON, async || {
        keys(&redis, "products:*") == BTreeSet::from(["products:2".to_owned()])
    })
    .await;
    hit(&demo, "/products/2").await;
    assert_eq!(stored(&demo, "/products/1").await.json()["stock"], 7);
    assert_eq!(
        stored(&demo, "/products?skip=0&limit=5").await.json()[0]["stock"],
        7
    );
}

#[tokio::test]
async fn clearing_the_cache_takes_what_is_ours_and_nothing_else() {
    let redis = RedisServer::start();
    let demo = demo(&redis, &[]);
    redis.cli(&["SET", "session:1", "theirs"]);
    redis.cli(&["-n", "1", "SET", "users:1", "another database"]);
    for path in ["/users/1", "/products/1"] {
        stored(&demo, path).await;
    }
    assert_eq!(demo.delete("/cache/users").await.status, 204);
    eventually(SOON, async || keys(&redis, "users:*").is_empty()).await;
    hit(&demo, "/products/1").await;

    stored(&demo, "/users/1").await;
    assert_eq!(demo.delete("/cache").await.status, 204);
    eventually(SOON, async || {
        keys(&redis, "users:*").is_empty() && keys(&redis, "products:*").is_empty()
    })
    .await;
    assert_eq!(redis.cli(&["GET", "session:1"]), "theirs");
    assert_eq!(
        redis.cli(&["-n", "1", "GET", "users:1"]),
        "another database"
    );
    stored(&demo, "/users/1").await;
}
