//! Two demo processes, and a writer that knows nothing of the cache.

use std::process::Command;
use std::time::{Duration, Instant};

use cache_tests::{Demo, Postgres, RedisServer, demo_program, eventually};
use serde_json::json;

use crate::TEST_TIMEOUT;

pub(crate) fn start(url: &str, redis: Option<&RedisServer>) -> Demo {
    let port = redis.map_or(0, RedisServer::port).to_string();
    let enabled = if redis.is_some() { "True" } else { "False" };
    Demo::start([
        ("DATABASE_URL", url),
        ("OUTBOX", "True"),
        ("REDIS_ENABLED", enabled),
        ("REDIS_HOST", "127.0.0.1"),
        ("REDIS_PORT", &port),
        ("CACHE_TIMEOUT_MS", "5000"),
    ])
}

pub(crate) async fn name(demo: &Demo, id: i64) -> String {
    let user = demo.get(&format!("/users/{id}")).await.json();
    user["name"].as_str().unwrap_or_default().to_owned()
}

pub(crate) async fn heard(demo: &Demo) {
    eventually(TEST_TIMEOUT, async || {
        let stats = demo.get("/cache/stats").await.json();
        stats["outbox"]["connected"] == true && stats["outbox"]["serving"] != false
    })
    .await;
}

/// Returns when the user is answered from the cache.
pub(crate) async fn warm(demo: &Demo, id: i64) {
    eventually(TEST_TIMEOUT, async || {
        demo.get(&format!("/users/{id}")).await.cache_status().hit
    })
    .await;
}

#[tokio::test]
async fn changes_by_psql_are_shown_by_both_processes() {
    let postgres = Postgres::shared();
    let redis = RedisServer::start();
    for redis in [Some(&redis), None] {
        let url = postgres.database();
        let demos = [start(&url, redis), start(&url, redis)];
        for demo in &demos {
            heard(demo).await;
        }
        for round in 0..5 {
            for demo in &demos {
                warm(demo, 1).await;
            }
            let new = format!("Name {round}");
            postgres.psql(
                &url,
                &format!("UPDATE users SET name = '{new}' WHERE id = 1"),
            );
            for demo in &demos {
                eventually(TEST_TIMEOUT, async || name(demo, 1).await == new).await;
            }
        }
    }
}

/// The hole that was open: Redis is away, and the process that has committed dies.
#[tokio::test]
async fn a_crash_while_redis_is_away_leaves_nothing_stale() {
    let postgres = Postgres::shared();
    let mut redis = RedisServer::start();
    let url = postgres.database();
    let mut writer = start(&url, Some(&redis));
    heard(&writer).await;
    let before = writer.get("/products/1").await.json()["stock"]
        .as_i64()
        .expect("stock");
    warm(&writer, 1).await;
    redis.stop();
    let purchase = json!({ "user_id": 1, "product_id": 1, "quantity": 1 });
    let bought = writer.post("/purchases", &purchase).await;
    assert_eq!(bought.status, 204, "{bought:?}");
    writer.kill();
    assert_ne!(
        postgres.psql(&url, "SELECT count(*) FROM cache_outbox"),
        "0"
    );
    // With what it held.
    redis.restart();
    let reader = start(&url, Some(&redis));
    eventually(TEST_TIMEOUT, async || {
        reader.get("/products/1").await.json()["stock"].as_i64() == Some(before - 1)
    })
    .await;
    eventually(TEST_TIMEOUT, async || {
        postgres.psql(&url, "SELECT count(*) FROM cache_outbox") == "0"
    })
    .await;
}

fn run(url: &str, command: &str) -> (bool, String) {
    let output = Command::new(demo_program())
        .args(["outbox", command])
        .env("DATABASE_URL", url)
        .output()
        .expect("runs");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

#[tokio::test]
async fn the_outbox_is_installed_looked_at_and_taken_away() {
    let postgres = Postgres::shared();
    let url = postgres.database();
    let (done, text) = run(&url, "status");
    assert!(done && text.contains("There is no outbox"), "{text}");
    let (done, text) = run(&url, "install");
    assert!(done && text.contains("products, users"), "{text}");
    postgres.psql(&url, "UPDATE users SET age = age + 1 WHERE id = 3");
    let (done, text) = run(&url, "status");
    assert!(done && text.contains("Rows:       1"), "{text}");
    let (done, text) = run(&url, "remove");
    assert!(done && text.contains("There is no outbox"), "{text}");
    let (done, sql) = run(&url, "sql");
    assert!(done);
    postgres.psql(&url, &sql);
    postgres.psql(&url, "UPDATE users SET age = age + 1 WHERE id = 3");
    assert_eq!(postgres.psql(&url, "SELECT value FROM cache_outbox"), "3");
    let (done, text) = run("sqlite::memory:", "status");
    assert!(!done && text.contains("sqlite://path/to/file"), "{text}");
}

/// Not a test by itself: how soon both processes show what psql has written. `OUTBOX_ROUNDS` says
/// how often, 1,000 by default.
#[tokio::test]
#[ignore = "a measurement"]
async fn how_soon_psql_is_seen() {
    let rounds = std::env::var("OUTBOX_ROUNDS").map_or(1_000, |n| n.parse().expect("a number"));
    let postgres = Postgres::shared();
    let redis = RedisServer::start();
    for redis in [Some(&redis), None] {
        let url = postgres.database();
        let demos = [start(&url, redis), start(&url, redis)];
        for demo in &demos {
            heard(demo).await;
        }
        // One session, as psql has it, so that a process's start is not measured.
        let pool = sqlx::PgPool::connect(&url).await.expect("connects");
        let mut times = Vec::new();
        for round in 0..rounds {
            for demo in &demos {
                warm(demo, 1).await;
            }
            let new = format!("Name {round}");
            let update = sqlx::query("UPDATE users SET name = $1 WHERE id = 1").bind(&new);
            update.execute(&pool).await.expect("written");
            let committed = Instant::now();
            for demo in &demos {
                while name(demo, 1).await != new {}
            }
            times.push(committed.elapsed());
        }
        times.sort();
        let at = |part: usize| times[(times.len() * part / 1_000).min(times.len() - 1)];
        println!(
            "{}: p50 {:?}, p90 {:?}, p99 {:?}, p99.9 {:?}, largest {:?}",
            if redis.is_some() {
                "with Redis"
            } else {
                "without Redis"
            },
            at(500),
            at(900),
            at(990),
            at(999),
            times.last().copied().unwrap_or(Duration::ZERO),
        );
    }
}
