//! A Redis that is absent, killed, hung, guarded, restricted or full: the demo answers, rightly,
//! and uses it again as soon as it can.

use std::time::{Duration, Instant};

use cache_tests::{Demo, RedisServer, eventually, free_port};
use serde_json::json;

/// A reconnect may wait its longest backoff, and a breaker its longest pause.
const SOON: Duration = Duration::from_secs(30);
const REFUSED: &str = "✗ Redis connection failed: Connection refused";
const WITHOUT: &str = "  Running without the Redis cache; reconnecting in the background";

fn demo(port: u16, more: &[(&str, &str)]) -> Demo {
    let port = port.to_string();
    let environment = [
        ("REDIS_ENABLED", "True"),
        ("REDIS_HOST", "127.0.0.1"),
        ("REDIS_PORT", port.as_str()),
    ];
    Demo::start(environment.into_iter().chain(more.iter().copied()))
}

fn enabled(port: u16) -> String {
    format!("✓ Redis cache enabled at 127.0.0.1:{port}")
}

/// Reads until the second of two reads of the same is a hit.
async fn hits(demo: &Demo) {
    eventually(SOON, async || {
        assert_eq!(demo.get("/users/7").await.status, 200);
        demo.get("/users/7").await.cache_status().hit
    })
    .await;
}

/// A round of everything, right with or without Redis.
async fn works(demo: &Demo, round: usize) {
    let body = json!({"name": "Ada", "email": format!("ada{round}@example.com"), "age": 36, "active": true});
    let created = demo.post("/users", &body).await;
    assert_eq!(created.status, 201, "{created:?}");
    let path = format!("/users/{}", created.json()["id"]);
    for _ in 0..2 {
        assert_eq!(demo.get(&path).await.json(), created.json());
    }
    let updated = demo.put(&path, &json!({"name": "Eva", "email": format!("eva{round}@example.com"), "age": 37, "active": false})).await;
    assert_eq!(updated.status, 200, "{updated:?}");
    assert_eq!(demo.get(&path).await.json(), updated.json());
    assert_eq!(
        demo.get("/users?skip=0&limit=3")
            .await
            .json()
            .as_array()
            .map(Vec::len),
        Some(3)
    );
    assert_eq!(demo.delete(&path).await.status, 204);
    assert_eq!(demo.get(&path).await.status, 404);
    assert_eq!(demo.get("/health").await.status, 200);
    let stats = demo.get("/cache/stats").await;
    assert_eq!(
        (stats.status, &stats.json()["enabled"]),
        (200, &json!(true)),
        "{stats:?}"
    );
}

#[tokio::test]
async fn redis_is_absent_at_the_start_and_comes_later() {
    let port = free_port();
    let demo = demo(port, &[]);
    eventually(SOON, async || {
        demo.log().iter().any(|line| line.contains(REFUSED))
    })
    .await;
    eventually(SOON, async || {
        demo.log().iter().any(|line| line.ends_with(WITHOUT))
    })
    .await;
    let log = demo.log();
    let refused = log
        .iter()
        .position(|line| line.contains(REFUSED))
        .expect("seen above");
    assert!(log[refused + 1].ends_with(WITHOUT), "{log:#?}");
    assert!(
        !log.iter().any(|line| line.contains("os error")),
        "{log:#?}"
    );

    works(&demo, 0).await;
    assert!(!demo.get("/users/7").await.cache_status().hit);
    let stats = demo.get("/cache/stats").await.json();
    assert_eq!(stats["connected"], false);
    for unknown in [
        "total_keys",
        "used_memory",
        "uptime_seconds",
        "connected_clients",
    ] {
        assert!(stats[unknown].is_null(), "{unknown} in {stats:#}");
    }

    let _redis = RedisServer::options().port(port).start();
    let line = enabled(port);
    eventually(SOON, async || {
        demo.log().iter().any(|seen| seen.contains(&line))
    })
    .await;
    hits(&demo).await;
    works(&demo, 1).await;
    assert_eq!(demo.get("/cache/stats").await.json()["connected"], true);
    // A server that stays away is said once, not at each attempt.
    let said = demo
        .log()
        .iter()
        .filter(|line| line.contains(REFUSED))
        .count();
    assert_eq!(said, 1, "{:#?}", demo.log());
}

#[tokio::test]
async fn each_reason_of_an_outage_is_said_once() {
    const GUARDED: &str = "✗ Redis connection failed: NOAUTH";
    let port = free_port();
    let demo = demo(port, &[]);
    let said = |reason: &str| {
        let log = demo.log();
        log.iter().filter(|line| line.contains(reason)).count()
    };
    eventually(SOON, async || said(REFUSED) > 0).await;
    let server = RedisServer::options()
        .port(port)
        .password("s3cret-word")
        .start();
    eventually(SOON, async || said(GUARDED) > 0).await;
    // It is tried, and refused, some more times.
    let tried = server.calls("hello");
    eventually(SOON, async || server.calls("hello") > tried + 2).await;
    let counts = [REFUSED, GUARDED, WITHOUT].map(said);
    assert_eq!(counts, [1, 1, 1], "{:#?}", demo.log());
}

#[tokio::test]
async fn redis_is_killed_and_started_again_and_again() {
    let mut redis = RedisServer::start();
    let demo = demo(redis.port(), &[]);
    let line = enabled(redis.port());
    eventually(SOON, async || {
        demo.log().iter().any(|seen| seen.contains(&line))
    })
    .await;
    hits(&demo).await;
    for round in 0..3 {
        redis.stop();
        works(&demo, 10 * round).await;
        redis.restart();
        works(&demo, 10 * round + 1).await;
        hits(&demo).await;
        works(&demo, 10 * round + 2).await;
    }
}

#[tokio::test]
async fn a_hung_redis_costs_the_budget_and_then_nothing() {
    let mut redis = RedisServer::start();
    let demo = demo(redis.port(), &[]);
    hits(&demo).await;
    redis.pause();
    // Each is answered before Redis goes on, and the first ones by the end of their budget.
    for id in 1..=40 {
        let answer = demo.get(&format!("/users/{id}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.cache_status().detail.as_deref(), Some("unavailable"));
    }
    // Then the breaker is open, and no call asks Redis: a command without an answer is an error.
    let errors = async || {
        let stats = demo.get("/cache/stats").await.json();
        assert_ne!(stats["circuit"], "closed", "{stats:#}");
        stats["errors"].as_u64()
    };
    let before = errors().await;
    for _ in 0..20 {
        let answer = demo.get("/users/8").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.cache_status().detail.as_deref(), Some("unavailable"));
    }
    assert_eq!(errors().await, before);

    // A write meanwhile is never unseen by the process that made it, also once Redis answers again.
    let mut user = demo.get("/users/7").await.json();
    user["name"] = json!("While Redis Hung");
    assert_eq!(demo.put("/users/7", &user).await.status, 200);
    assert_eq!(
        demo.get("/users/7").await.json()["name"],
        "While Redis Hung"
    );
    redis.resume();
    let end = Instant::now() + SOON;
    loop {
        let answer = demo.get("/users/7").await;
        assert_eq!(answer.json()["name"], "While Redis Hung", "{answer:?}");
        if answer.cache_status().hit {
            break;
        }
        assert!(Instant::now() < end, "no hit after the outage: {answer:?}");
    }
}

#[tokio::test]
async fn a_password_is_used_and_never_told() {
    let redis = RedisServer::options().password("s3cret-word").start();
    let right = demo(redis.port(), &[("REDIS_PASSWORD", "s3cret-word")]);
    hits(&right).await;
    works(&right, 0).await;

    let url = demo(1, &[("REDIS_URL", &redis.url())]);
    hits(&url).await;

    let wrong = demo(redis.port(), &[("REDIS_PASSWORD", "wr0ng-word")]);
    eventually(SOON, async || {
        wrong.log().iter().any(|line| line.ends_with(WITHOUT))
    })
    .await;
    works(&wrong, 1).await;
    assert!(!wrong.get("/users/7").await.cache_status().hit);
    let none = demo(redis.port(), &[]);
    works(&none, 2).await;

    for demo in [&right, &url, &wrong, &none] {
        let stats = demo.get("/cache/stats").await.body;
        let log = demo.log().join("\n");
        for word in ["s3cret-word", "wr0ng-word"] {
            assert!(
                !log.contains(word) && !stats.contains(word),
                "{log}\n{stats}"
            );
        }
    }
}

/// What the book says a user needs, and no more: the commands sent, then those the scripts use. (A
/// load of more than a second, which renews its lease, is what `setrange` and `pexpire` are for.)
const PERMISSIONS: &str = "user app on >app-word resetchannels ~* -@all \
                           +hello +info +time +mget +scan +dbsize +evalsha +script|load +client|tracking +client|caching \
                           +get +getrange +exists +pttl +set +setrange +pexpire +del +unlink";

#[tokio::test]
async fn a_user_with_few_permissions_is_enough() {
    let redis = RedisServer::options()
        .password("admin-word")
        .config(PERMISSIONS)
        .start();
    let demo = demo(
        redis.port(),
        &[("REDIS_USERNAME", "app"), ("REDIS_PASSWORD", "app-word")],
    );
    hits(&demo).await;
    works(&demo, 0).await;
    let stats = demo.get("/cache/stats").await.json();
    assert_eq!(stats["connected"], true, "{stats:#}");
    assert!(stats["total_keys"].is_u64(), "{stats:#}");
    for path in ["/cache/users", "/cache"] {
        hits(&demo).await;
        assert_eq!(demo.delete(path).await.status, 204);
        assert!(!demo.get("/users/7").await.cache_status().hit);
    }
    eventually(SOON, async || {
        // What a write made stale is swept with these permissions, too.
        redis
            .cli(&["--scan", "--pattern", "users:list:*"])
            .is_empty()
    })
    .await;
    let mut product = demo.get("/products/1").await.json();
    product["stock"] = json!(7);
    assert_eq!(demo.put("/products/1", &product).await.status, 200);
    assert_eq!(redis.cli(&["EXISTS", "products:1"]), "0");
    assert_eq!(demo.get("/products/1").await.json()["stock"], 7);

    let log = redis.cli(&["ACL", "LOG"]);
    let lines: Vec<&str> = log.lines().collect();
    let refused = lines.windows(2).filter(|pair| pair[0] == "object");
    // The client library introduces itself where the server can be told, and does not mind a
    // refusal.
    let refused: Vec<&str> = refused
        .map(|pair| pair[1])
        .filter(|object| *object != "client|setinfo")
        .collect();
    assert!(refused.is_empty(), "{refused:?}");
}

#[tokio::test]
async fn commands_that_operators_rename_away_are_not_missed() {
    let mut options = RedisServer::options();
    for command in ["FLUSHDB", "FLUSHALL", "CONFIG", "KEYS"] {
        options = options.config(&format!("rename-command {command} \"\""));
    }
    let redis = options.start();
    let demo = demo(redis.port(), &[]);
    hits(&demo).await;
    works(&demo, 0).await;
    for path in ["/cache/users", "/cache"] {
        hits(&demo).await;
        assert_eq!(demo.delete(path).await.status, 204);
        assert!(!demo.get("/users/7").await.cache_status().hit);
    }
    let stats = demo.get("/cache/stats").await.json();
    assert_eq!(
        (&stats["connected"], stats["used_memory"].is_string()),
        (&json!(true), true),
        "{stats:#}"
    );
}

#[tokio::test]
async fn eviction_costs_hits_and_nothing_else() {
    let redis = RedisServer::options()
        .config("maxmemory 8mb")
        .config("maxmemory-policy allkeys-lru")
        .start();
    let demo = demo(redis.port(), &[]);
    hits(&demo).await;
    let page = |skip: usize| format!("/users?skip={skip}&limit=500");
    for skip in 0..250 {
        let answer = demo.get(&page(skip)).await;
        assert_eq!(
            (answer.status, &answer.json()[0]["id"]),
            (200, &json!(skip + 1)),
            "{}",
            answer.status
        );
    }
    let evicted = redis.cli(&["INFO", "stats"]);
    let evicted = evicted
        .lines()
        .find_map(|line| line.trim().strip_prefix("evicted_keys:"));
    assert_ne!(evicted, Some("0"), "8 MB were to be too little");

    // Entries and generations go alike: a write is still seen by each read after it.
    for round in 0..20 {
        let path = page(round);
        let _stored = demo.get(&path).await;
        let mut user = demo.get("/users/200").await.json();
        user["age"] = json!(20 + round);
        assert_eq!(demo.put("/users/200", &user).await.status, 200);
        let _pressure = (
            demo.get(&page(300 + round)).await,
            demo.get(&page(340 + round)).await,
        );
        assert_eq!(demo.get("/users/200").await.json()["age"], 20 + round);
        assert_eq!(demo.get(&path).await.json()[199 - round]["age"], 20 + round);
    }
    hits(&demo).await;
    let stats = demo.get("/cache/stats").await.json();
    assert_eq!(stats["connected"], true, "{stats:#}");
}
