//! Not tests: what the triggers and the rows cost. Run them with `--ignored --nocapture`, in a
//! build with optimisations.

use std::time::{Duration, Instant};

use cache_runtime::{CacheConfig, RedisConfig, invalidates};
use cache_tests::{Postgres, RedisServer};
use sqlx::Connection;
use sqlx::postgres::{PgConnection, PgPool};

use crate::{Node, database, users};

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

async fn timed(pool: &PgPool, sql: &'static str, times: usize) -> Duration {
    let mut took = Vec::new();
    for _ in 0..times {
        let begun = Instant::now();
        sqlx::query(sql).execute(pool).await.expect("written");
        took.push(begun.elapsed());
    }
    median(took)
}

#[tokio::test]
#[ignore = "a measurement"]
async fn updates_with_and_without_triggers() {
    let postgres = Postgres::shared();
    for followed in [false, true, false, true] {
        let url = database(postgres, followed.then(users)).await;
        let pool = PgPool::connect(&url).await.expect("connects");
        let filled =
            "INSERT INTO users SELECT n, 'name ' || n, n % 100 FROM generate_series(10, 10009) n";
        sqlx::query(filled).execute(&pool).await.expect("filled");
        let single = timed(
            &pool,
            "UPDATE users SET name = name || 'x' WHERE id = 10",
            2_000,
        )
        .await;
        let hundred = timed(
            &pool,
            "UPDATE users SET team_id = team_id + 1 WHERE id BETWEEN 10 AND 109",
            200,
        )
        .await;
        let many = timed(
            &pool,
            "UPDATE users SET team_id = team_id + 1 WHERE id >= 10",
            20,
        )
        .await;
        println!(
            "triggers {followed}: 1 row {single:?}, 100 rows {hundred:?}, 10,000 rows {many:?}"
        );
    }
}

impl Node {
    #[invalidates("users", id = id, after_commit, crash_safe, cache = self.cache)]
    async fn rename_crash_safe(&self, tx: &mut PgConnection, id: i64) -> Result<(), sqlx::Error> {
        let update = sqlx::query("UPDATE users SET name = 'new' WHERE id = $1");
        update.bind(id).execute(tx).await.map(drop)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn transactions_with_an_outbox_and_with_intents() {
    let (postgres, redis) = (Postgres::shared(), RedisServer::start());
    let url = database(postgres, []).await;
    let config = CacheConfig::default().redis(RedisConfig::at("127.0.0.1", redis.port()));
    let plain = Node {
        cache: cache_runtime::Cache::new(config.clone()).await,
        pool: PgPool::connect(&url).await.expect("connects"),
    };
    let outbox = Node::new(config, &url).await;
    for _ in 0..3 {
        for (what, node, crash_safe) in [
            ("neither", &plain, false),
            ("crash_safe", &plain, true),
            ("outbox", &outbox, false),
        ] {
            let mut took = Vec::new();
            for _ in 0..2_000 {
                let begun = Instant::now();
                let done: Result<(), sqlx::Error> =
                    cache_runtime::sqlx::transaction(&node.cache, &node.pool, async |tx| {
                        match crash_safe {
                            true => node.rename_crash_safe(tx, 1).await,
                            false => node.rename(tx, 1, "new").await,
                        }
                    })
                    .await;
                done.expect("committed");
                took.push(begun.elapsed());
            }
            took.sort();
            let mean = took.iter().sum::<Duration>() / 2_000;
            println!(
                "{what}: p50 {:?}, p90 {:?}, mean {mean:?}",
                took[1_000], took[1_800]
            );
        }
    }
}

/// How soon two processes read anew what plain SQL has committed, without HTTP in between.
/// `OUTBOX_ROUNDS` says how often.
#[tokio::test]
#[ignore = "a measurement"]
async fn how_soon_a_commit_is_read() {
    let rounds = std::env::var("OUTBOX_ROUNDS").map_or(1_000, |n| n.parse().expect("a number"));
    let (postgres, redis) = (Postgres::shared(), RedisServer::start());
    let shared = CacheConfig::default().redis(RedisConfig::at("127.0.0.1", redis.port()));
    for (what, config) in [
        ("with Redis", shared),
        ("without Redis", CacheConfig::default().local_mb(4)),
    ] {
        let url = database(postgres, [users()]).await;
        let nodes = [
            Node::new(config.clone(), &url).await,
            Node::new(config, &url).await,
        ];
        let pool = PgPool::connect(&url).await.expect("connects");
        let mut times = Vec::new();
        for round in 0..rounds {
            for node in &nodes {
                node.warm(1).await;
            }
            let name = format!("name {round}");
            let update = sqlx::query("UPDATE users SET name = $1 WHERE id = 1").bind(&name);
            update.execute(&pool).await.expect("written");
            let committed = Instant::now();
            for node in &nodes {
                while node.name(1).await.0 != name {
                    tokio::time::sleep(Duration::from_micros(200)).await;
                }
            }
            times.push(committed.elapsed());
        }
        times.sort();
        let at = |part: usize| times[(times.len() * part / 1_000).min(times.len() - 1)];
        println!(
            "{what}: p50 {:?}, p90 {:?}, p99 {:?}, largest {:?}",
            at(500),
            at(900),
            at(990),
            at(1_000)
        );
    }
}

/// How soon a commit is read while a transaction keeps `OUTBOX_DEAD` deleted rows of the outbox, a
/// million by default.
#[tokio::test]
#[ignore = "a measurement"]
async fn how_soon_a_commit_is_read_behind_dead_rows() {
    let dead = std::env::var("OUTBOX_DEAD").unwrap_or_else(|_| "1000000".into());
    let dead: u32 = dead.parse().expect("a number");
    let (postgres, redis) = (Postgres::shared(), RedisServer::start());
    let shared = CacheConfig::default().redis(RedisConfig::at("127.0.0.1", redis.port()));
    for (what, config) in [
        ("with Redis", shared),
        ("without Redis", CacheConfig::default().local_mb(4)),
    ] {
        let url = database(postgres, [users()]).await;
        let mut open = PgConnection::connect(&url).await.expect("connects");
        let begun = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_current_xact_id()";
        let begun = sqlx::raw_sql(begun).execute(&mut open).await;
        begun.expect("begun");
        for from in (0..dead).step_by(100_000) {
            let rows = format!(
                "INSERT INTO cache_outbox (kind, resource, value) SELECT 'row', 'other', n::text FROM generate_series({from}, {from} + 99999) n"
            );
            postgres.psql(&url, &rows);
        }
        postgres.psql(&url, "DELETE FROM cache_outbox");
        let node = Node::new(config, &url).await;
        let pool = PgPool::connect(&url).await.expect("connects");
        let mut times = Vec::new();
        for round in 0..200 {
            node.warm(1).await;
            let name = format!("name {round}");
            let update = sqlx::query("UPDATE users SET name = $1 WHERE id = 1").bind(&name);
            update.execute(&pool).await.expect("written");
            let committed = Instant::now();
            while node.name(1).await.0 != name {
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
            times.push(committed.elapsed());
        }
        times.sort();
        let stats = node.stats().await;
        println!(
            "{what}, {dead} dead rows: p50 {:?}, p99 {:?}, largest {:?}; connections {}, slow {}, dead {:?}",
            times[100], times[198], times[199], stats.connections, stats.slow, stats.dead
        );
    }
}
