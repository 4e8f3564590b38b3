//! What a transaction that is open for long, and statements that are slow, do to the relays.

use std::time::Instant;

use cache_runtime::{CacheConfig, RedisConfig};
use cache_tests::{Postgres, RedisServer, eventually};
use sqlx::Connection;
use sqlx::postgres::{PgConnection, PgPool};

use crate::{Node, TEST_TIMEOUT, database, users};

const CHANGES: u64 = 40;

fn shared(redis: &RedisServer) -> CacheConfig {
    CacheConfig::default().redis(RedisConfig::at("127.0.0.1", redis.port()))
}

fn followed() -> CacheConfig {
    CacheConfig::default().local_mb(4)
}

/// A transaction that keeps all that is deleted from now on from being cleaned up.
async fn open(url: &str) -> PgConnection {
    let mut open = PgConnection::connect(url).await.expect("connects");
    for statement in [
        "BEGIN ISOLATION LEVEL REPEATABLE READ",
        "SELECT count(*) FROM users",
        // So that it has a number of its own.
        "SELECT pg_current_xact_id()",
    ] {
        let done = sqlx::query(statement).execute(&mut open).await;
        done.expect("done");
    }
    open
}

async fn run(url: &str, sql: &'static str) {
    let mut connection = PgConnection::connect(url).await.expect("connects");
    let done = sqlx::raw_sql(sql).execute(&mut connection).await;
    done.expect("done");
}

/// How many entries of an index have been read. A relay says so when its connection ends.
async fn entries(postgres: &Postgres, url: &str, index: &str, node: &Node) -> u64 {
    let before = node.stats().await.connections;
    let ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE application_name = 'cache-runtime outbox' AND datname = current_database()";
    postgres.psql(url, ended);
    eventually(TEST_TIMEOUT, async || {
        node.stats().await.connections > before
    })
    .await;
    let alive =
        format!("SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = '{index}'");
    postgres.psql(url, &alive).parse().expect("a number")
}

/// With Redis: rows that were deleted and can't be vacuumed are not walked over for each
/// notification.
#[tokio::test]
async fn dead_rows_are_not_in_the_way_of_new_ones() {
    const DEAD: u64 = 100_000;
    let (postgres, redis) = (Postgres::shared(), RedisServer::start());
    let url = database(postgres, [users()]).await;
    let _open = open(&url).await;
    run(
        &url,
        "INSERT INTO cache_outbox (kind, resource, value) SELECT 'row', 'other', n::text FROM generate_series(1, 100000) n;
         DELETE FROM cache_outbox",
    )
    .await;
    // As autovacuum does, mostly while the table is empty.
    postgres.psql(&url, "ANALYZE cache_outbox");
    let node = Node::new(shared(&redis), &url).await;
    let before = entries(postgres, &url, "cache_outbox_pkey", &node).await;
    let begun = Instant::now();
    for change in 0..CHANGES {
        node.warm(1).await;
        let name = format!("name {change}");
        postgres.psql(
            &url,
            &format!("UPDATE users SET name = '{name}' WHERE id = 1"),
        );
        node.shows(1, &name).await;
    }
    // One at the begin of each connection, and one every five seconds.
    let walks = begun.elapsed().as_secs() / 5 + 3;
    let read = entries(postgres, &url, "cache_outbox_pkey", &node).await - before;
    assert!(
        read < (walks + 1) * DEAD,
        "{read} entries of an index were read, with {walks} walks"
    );
}

/// A row behind very many others is delivered while nearly all of those are still there.
#[tokio::test]
async fn a_bulk_write_holds_nobody_up() {
    const BULK: u64 = 50_000;
    let (postgres, redis) = (Postgres::shared(), RedisServer::start());
    let url = database(postgres, [users()]).await;
    let node = Node::new(shared(&redis), &url).await;
    assert_eq!(node.warm(1).await, "old");
    assert_eq!(node.order("a:b", 1).await.expect("read"), "old");
    run(
        &url,
        "BEGIN;
        UPDATE orders SET text = 'new';
        INSERT INTO cache_outbox (kind, resource, value) SELECT 'row', 'orders', n::text FROM generate_series(1, 50000) n;
        UPDATE users SET name = 'new' WHERE id = 1;
        COMMIT",
    )
    .await;
    node.shows(1, "new").await;
    let count = "SELECT count(*) FROM cache_outbox";
    let left: u64 = postgres.psql(&url, count).parse().expect("a number");
    assert!(left > BULK / 2, "{left} rows were left");
    // The bulk itself is delivered as a whole.
    eventually(TEST_TIMEOUT, async || {
        node.order("a:b", 1).await.expect("read") == "new"
    })
    .await;
    eventually(TEST_TIMEOUT, async || postgres.psql(&url, count) == "0").await;
}

/// Rows are found that were there before the relay connected. How soon a million of them are passed
/// is measured in `costs.rs`.
#[tokio::test]
async fn rows_from_before_are_found_behind_dead_ones() {
    let (postgres, redis) = (Postgres::shared(), RedisServer::start());
    let url = database(postgres, [users()]).await;
    let _open = open(&url).await;
    let before = Node::new(shared(&redis), &url).await;
    assert_eq!(before.warm(1).await, "old");
    drop(before);
    run(
        &url,
        "INSERT INTO cache_outbox (kind, resource, value) SELECT 'row', 'other', n::text FROM generate_series(1, 100000) n;
         DELETE FROM cache_outbox;
         UPDATE users SET name = 'new' WHERE id = 1",
    )
    .await;
    let node = Node::new(shared(&redis), &url).await;
    node.shows(1, "new").await;
    eventually(TEST_TIMEOUT, async || node.stats().await.depth == Some(0)).await;
}

/// Without Redis: a read goes over what is new, and not over all that was written since the oldest
/// transaction began.
#[tokio::test]
async fn a_read_does_not_go_over_what_has_been_read() {
    const ROWS: u64 = 50_000;
    let postgres = Postgres::shared();
    let url = database(postgres, [users()]).await;
    let _open = open(&url).await;
    run(
        &url,
        "INSERT INTO cache_outbox (kind, resource, value) SELECT 'row', 'other', n::text FROM generate_series(1, 50000) n",
    )
    .await;
    let node = Node::new(followed(), &url).await;
    let before = entries(postgres, &url, "cache_outbox_xid", &node).await;
    for change in 0..CHANGES {
        node.warm(1).await;
        let name = format!("name {change}");
        postgres.psql(
            &url,
            &format!("UPDATE users SET name = '{name}' WHERE id = 1"),
        );
        node.shows(1, &name).await;
    }
    let read = entries(postgres, &url, "cache_outbox_xid", &node).await - before;
    assert!(read < 10 * ROWS, "{read} entries of an index were read");
}

/// A statement that the server ends is tried again over the same connection.
#[tokio::test]
async fn a_slow_statement_is_no_lost_connection() {
    let (postgres, redis) = (Postgres::shared(), RedisServer::start());
    for config in [shared(&redis), followed()] {
        let url = database(postgres, [users()]).await;
        let node = Node::new(config, &url).await;
        assert_eq!(node.warm(1).await, "old");
        let before = node.stats().await;
        let mut locker = PgConnection::connect(&url).await.expect("connects");
        for statement in [
            "BEGIN",
            "LOCK TABLE cache_outbox IN ACCESS EXCLUSIVE MODE",
            "UPDATE users SET name = 'new' WHERE id = 1",
        ] {
            let done = sqlx::query(statement).execute(&mut locker).await;
            done.expect("done");
        }
        eventually(TEST_TIMEOUT, async || {
            node.stats().await.slow > before.slow + 1
        })
        .await;
        // What has been given up is not at work any more: at most its successor is.
        let at_work =
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cache-runtime outbox'
            AND datname = current_database() AND state = 'active'";
        assert!(["0", "1"].contains(&postgres.psql(&url, at_work).as_str()));
        let done = sqlx::query("COMMIT").execute(&mut locker).await;
        done.expect("committed");
        node.shows(1, "new").await;
        let after = node.stats().await;
        assert_eq!(after.connections, before.connections);
        assert_eq!(after.cold_starts, before.cold_starts);
    }
}

/// What is not known is not said to be nothing.
#[tokio::test]
async fn figures_are_unknown_without_a_connection() {
    let (mut postgres, redis) = (Postgres::start(), RedisServer::start());
    let url = database(&postgres, [users()]).await;
    let node = Node::new(shared(&redis), &url).await;
    eventually(TEST_TIMEOUT, async || node.stats().await.depth == Some(0)).await;
    postgres.shut_down();
    eventually(TEST_TIMEOUT, async || !node.stats().await.connected).await;
    let stats = node.stats().await;
    assert_eq!(
        (stats.depth, stats.oldest_ms, stats.dead),
        (None, None, None)
    );
    eventually(TEST_TIMEOUT, async || node.stats().await.unread_ms > 1_000).await;
    postgres.start_again();
    eventually(TEST_TIMEOUT, async || {
        let stats = node.stats().await;
        stats.depth == Some(0) && stats.unread_ms < 1_000
    })
    .await;
}

/// In a database whose encoding is none, a text may be no text to anybody else. Such a row is set
/// aside, and does not hold the others up.
#[tokio::test]
async fn a_text_that_cannot_be_sent_holds_nobody_up() {
    let (postgres, redis) = (Postgres::shared(), RedisServer::start());
    for (name, config) in [
        ("ascii_shared", shared(&redis)),
        ("ascii_followed", followed()),
    ] {
        postgres.psql(
            &postgres.url(),
            &format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'"),
        );
        let url = postgres.url();
        let (server, _) = url.rsplit_once('/').expect("a URL");
        let url = format!("{server}/{name}");
        run(
            &url,
            "CREATE TABLE users (id bigint PRIMARY KEY, name text NOT NULL, team_id bigint, note json); INSERT INTO users VALUES (1, 'old', 1)",
        )
        .await;
        crate::install(&url, [users()]).await.expect("installed");
        let node = Node::new(config, &url).await;
        assert_eq!(node.warm(1).await, "old");
        run(
            &url,
            r#"INSERT INTO cache_outbox (kind, resource, value) VALUES ('row', 'users', E'"m\xfcller"'), ('row', E'm\xfcller', '1'), (E'r\xf6w', 'users', '1')"#,
        )
        .await;
        let set_aside = "SELECT count(*) FROM cache_outbox_set_aside";
        eventually(TEST_TIMEOUT, async || postgres.psql(&url, set_aside) == "3").await;
        node.warm(1).await;
        run(&url, "UPDATE users SET name = 'new' WHERE id = 1").await;
        node.shows(1, "new").await;
        assert_eq!(node.stats().await.connections, 1);
    }
}

/// A time that no writer asks for: by hand, or of a clock that was set back.
#[tokio::test]
async fn a_row_that_is_due_in_a_year_is_taken_now() {
    let (postgres, redis) = (Postgres::shared(), RedisServer::start());
    let url = database(postgres, []).await;
    let node = Node::new(shared(&redis), &url).await;
    assert_eq!(node.warm(1).await, "old");
    run(
        &url,
        "UPDATE users SET name = 'new' WHERE id = 1;
         INSERT INTO cache_outbox (kind, resource, value, created, due)
            VALUES ('row', 'users', '1', clock_timestamp() + interval '1 year', clock_timestamp() + interval '1 year')",
    )
    .await;
    node.shows(1, "new").await;
}

/// The setting of a role or a database is not the relay's.
#[tokio::test]
async fn relays_work_side_by_side_whatever_the_isolation_of_the_role() {
    let (postgres, redis) = (Postgres::shared(), RedisServer::start());
    let url = database(postgres, [users()]).await;
    let database = url.rsplit('/').next().expect("a name");
    postgres.psql(
        &url,
        &format!("ALTER DATABASE {database} SET default_transaction_isolation = 'repeatable read'"),
    );
    let nodes = [
        Node::new(shared(&redis), &url).await,
        Node::new(shared(&redis), &url).await,
    ];
    let isolation = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cache-runtime outbox' AND datname = current_database()";
    assert_eq!(postgres.psql(&url, isolation), "2");
    let pool = PgPool::connect(&url).await.expect("connects");
    for change in 0..50 {
        let update = sqlx::query("UPDATE users SET name = $1 WHERE id = 1");
        let update = update.bind(format!("name {change}")).execute(&pool).await;
        update.expect("written");
    }
    for node in &nodes {
        node.shows(1, "name 49").await;
    }
    for node in &nodes {
        let stats = node.stats().await;
        assert_eq!((stats.connections, stats.slow), (1, 0), "{stats:?}");
    }
}
