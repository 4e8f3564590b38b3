//! Without Redis: each process reads the rows for itself.

use std::time::Duration;

use cache_runtime::outbox::OutboxConfig;
use cache_runtime::{BypassReason, Cache, CacheConfig, Status, observe};
use cache_tests::{Mode, Postgres, Proxy, eventually};
use sqlx::Connection;
use sqlx::postgres::{PgConnection, PgPool};

use crate::{Node, TEST_TIMEOUT, database, users};

fn config() -> CacheConfig {
    CacheConfig::default().local_mb(4)
}

#[tokio::test]
async fn processes_without_redis_are_kept_coherent() {
    let postgres = Postgres::shared();
    let url = database(postgres, [users()]).await;
    let nodes = [
        Node::new(config(), &url).await,
        Node::new(config(), &url).await,
    ];
    // Of a resource that nobody writes to.
    let order = async |node: &Node| {
        let (text, outcomes) = observe(node.order("a:b", 1)).await;
        text.expect("read");
        matches!(outcomes[0].status, Status::Hit { .. })
    };
    for node in &nodes {
        eventually(TEST_TIMEOUT, async || order(node).await).await;
    }
    for round in 0..20 {
        let name = format!("name {round}");
        for node in &nodes {
            node.warm(1).await;
        }
        if round % 2 == 0 {
            postgres.psql(
                &url,
                &format!("UPDATE users SET name = '{name}' WHERE id = 1"),
            );
        } else {
            let writer = &nodes[round % 4 / 2];
            let done: Result<(), sqlx::Error> =
                cache_runtime::sqlx::transaction(&writer.cache, &writer.pool, async |tx| {
                    writer.rename(tx, 1, &name).await
                })
                .await;
            done.expect("committed");
            // Its own process is strict.
            assert_eq!(writer.name(1).await.0, name);
        }
        for node in &nodes {
            node.shows(1, &name).await;
        }
    }
    for node in &nodes {
        assert!(order(node).await, "it was not invalidated");
    }
    let set_aside = "SELECT count(*) FROM cache_outbox_set_aside";
    assert_eq!(postgres.psql(&url, set_aside), "0");
    let stats = nodes[0].stats().await;
    assert!(
        !stats.shared && stats.cold_starts == 1 && stats.delivered >= 20,
        "{stats:?}"
    );
}

/// Neither the ids of rows nor those of transactions are in the order of commits.
#[tokio::test]
async fn a_transaction_that_commits_late_is_not_skipped() {
    let postgres = Postgres::shared();
    let url = database(postgres, [users()]).await;
    let node = Node::new(config(), &url).await;
    node.warm(1).await;
    node.warm(2).await;
    let mut late = PgConnection::connect(&url).await.expect("connects");
    let mut late = late.begin().await.expect("begun");
    let update = "UPDATE users SET name = 'late' WHERE id = 1";
    sqlx::query(update)
        .execute(&mut *late)
        .await
        .expect("written");
    // In a subtransaction, whose own number is larger.
    let mut inner = late.begin().await.expect("begun");
    let update = "UPDATE users SET name = 'inner' WHERE id = 3";
    sqlx::query(update)
        .execute(&mut *inner)
        .await
        .expect("written");
    inner.commit().await.expect("released");
    node.warm(3).await;
    for name in ["one", "two"] {
        node.warm(2).await;
        postgres.psql(
            &url,
            &format!("UPDATE users SET name = '{name}' WHERE id = 2"),
        );
        node.shows(2, name).await;
    }
    assert_eq!(node.warm(1).await, "old");
    late.commit().await.expect("committed");
    node.shows(1, "late").await;
    node.shows(3, "inner").await;
    assert_eq!(node.stats().await.cold_starts, 1);
}

/// Nothing is heard: nothing is served, as long as that is so, and all is forgotten.
#[tokio::test]
async fn a_process_that_hears_nothing_serves_nothing() {
    let postgres = Postgres::shared();
    let url = database(postgres, [users()]).await;
    let proxy = Proxy::start(postgres.port());
    let through = url.replace(
        &format!(":{}/", postgres.port()),
        &format!(":{}/", proxy.port()),
    );
    let node = Node::new(config(), &through).await;
    let pool = PgPool::connect(&url).await.expect("connects");
    let node = Node { pool, ..node };
    node.warm(1).await;
    proxy.set(Mode::SwallowAnswers);
    eventually(TEST_TIMEOUT, async || {
        node.stats().await.serving == Some(false)
    })
    .await;
    postgres.psql(&url, "UPDATE users SET name = 'new' WHERE id = 1");
    for _ in 0..3 {
        let (name, outcomes) = observe(node.get(1)).await;
        assert_eq!(name.expect("read"), "new");
        assert_eq!(
            outcomes[0].status,
            Status::Bypass(BypassReason::Unavailable)
        );
    }
    assert_eq!(node.cache.get::<String>("users:1").await, None);
    proxy.cut_then(Mode::Pass);
    node.heard().await;
    assert_eq!(node.name(1).await, ("new".to_owned(), false));
    assert_eq!(node.warm(1).await, "new");
    assert_eq!(node.stats().await.cold_starts, 2);
}

/// Nothing is served past the bound, also while nobody has noticed yet that the connection is lost.
#[tokio::test]
async fn nothing_is_served_past_the_bound_before_a_loss_is_noticed() {
    let postgres = Postgres::shared();
    let url = database(postgres, [users()]).await;
    let proxy = Proxy::start(postgres.port());
    let through = url.replace(
        &format!(":{}/", postgres.port()),
        &format!(":{}/", proxy.port()),
    );
    // A query is given up after a second.
    let config = config().local_max_staleness(Duration::from_millis(100));
    let node = Node::new(config, &through).await;
    eventually(TEST_TIMEOUT, async || {
        node.heard().await;
        proxy.set(Mode::SwallowAnswers);
        let mut seen = node.stats().await;
        while seen.serving == Some(true) {
            tokio::time::sleep(Duration::from_millis(5)).await;
            seen = node.stats().await;
        }
        proxy.cut_then(Mode::Pass);
        // Where the machine was slow the loss has been noticed meanwhile, and this says nothing.
        seen.connected
    })
    .await;
}

/// A lost connection forgets everything: commits may be gone with the server.
#[tokio::test]
async fn a_lost_connection_forgets_everything() {
    let postgres = Postgres::shared();
    let url = database(postgres, [users()]).await;
    let node = Node::new(config(), &url).await;
    node.warm(1).await;
    // On a busy machine a connection may have been lost before.
    let before = node.stats().await.cold_starts;
    postgres.psql(
        &url,
        "BEGIN; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cache-runtime outbox' AND datname = current_database();
         ALTER TABLE users DISABLE TRIGGER USER; UPDATE users SET name = 'lost' WHERE id = 1; COMMIT",
    );
    eventually(TEST_TIMEOUT, async || {
        node.stats().await.cold_starts > before
    })
    .await;
    node.heard().await;
    assert_eq!(node.name(1).await.0, "lost");
}

#[tokio::test]
async fn a_strict_call_goes_past_what_may_be_behind() {
    let url = database(Postgres::shared(), [users()]).await;
    let node = Node::new(config(), &url).await;
    node.warm(1).await;
    for _ in 0..2 {
        let (name, outcomes) = observe(node.exact(1)).await;
        assert_eq!(name.expect("read"), "old");
        let bypassed = Status::Bypass(BypassReason::Strict);
        assert!(
            outcomes.iter().all(|outcome| outcome.status == bypassed),
            "{outcomes:?}"
        );
        let (_, outcomes) = observe(node.cache.strict(node.get(1))).await;
        assert_eq!(outcomes[0].status, Status::Bypass(BypassReason::Strict));
    }
    assert!(node.name(1).await.1);
}

/// Rows stay for as long as a process may be away, and go then, whenever they were written.
#[tokio::test]
async fn old_rows_are_deleted_by_time() {
    let postgres = Postgres::shared();
    let url = database(postgres, [users()]).await;
    let outbox = OutboxConfig::postgres(&url)
        .expect("a URL")
        .retention(Duration::from_secs(2));
    let cache = Cache::new(config().outbox(outbox)).await;
    let pool = PgPool::connect(&url).await.expect("connects");
    let node = Node { cache, pool };
    node.heard().await;
    let mut late = PgConnection::connect(&url).await.expect("connects");
    let mut late = late.begin().await.expect("begun");
    sqlx::query("UPDATE users SET name = 'late' WHERE id = 1")
        .execute(&mut *late)
        .await
        .expect("written");
    postgres.psql(&url, "UPDATE users SET name = 'x' WHERE id = 2");
    node.shows(2, "x").await;
    let rows = || postgres.psql(&url, "SELECT count(*) FROM cache_outbox");
    assert_eq!(rows(), "1");
    // A transaction that nobody ends does not keep what was committed later.
    eventually(TEST_TIMEOUT, async || rows() == "0").await;
    node.warm(1).await;
    late.commit().await.expect("committed");
    node.shows(1, "late").await;
    assert_eq!(
        rows(),
        "1",
        "its row was written long ago, and has just been committed"
    );
    eventually(TEST_TIMEOUT, async || rows() == "0").await;
}

#[tokio::test]
async fn too_many_rows_at_once_are_a_cold_start() {
    let postgres = Postgres::shared();
    let url = database(postgres, []).await;
    let node = Node::new(config(), &url).await;
    node.warm(1).await;
    postgres.psql(
        &url,
        "UPDATE users SET name = 'new';
         INSERT INTO cache_outbox (kind, resource, value) SELECT 'row', 'teams', n::text FROM generate_series(1, 12000) n",
    );
    eventually(TEST_TIMEOUT, async || node.stats().await.cold_starts == 2).await;
    node.shows(1, "new").await;
}

/// A write may name only what is derived: no row goes with it.
#[tokio::test]
async fn entries_of_one_op_are_read_anew_elsewhere() {
    let postgres = Postgres::shared();
    let url = database(postgres, []).await;
    let [writer, reader] = [
        Node::new(config(), &url).await,
        Node::new(config(), &url).await,
    ];
    assert_eq!(reader.names().await.expect("read")[0], "old");
    let done: Result<(), sqlx::Error> =
        cache_runtime::sqlx::transaction(&writer.cache, &writer.pool, async |tx| {
            writer.rename_in_lists(tx, 1, "new").await
        })
        .await;
    done.expect("committed");
    eventually(TEST_TIMEOUT, async || {
        reader.names().await.expect("read")[0] == "new"
    })
    .await;
    let set_aside = "SELECT count(*) FROM cache_outbox_set_aside";
    assert_eq!(postgres.psql(&url, set_aside), "0");
}

/// A process takes requests before its relay is connected: the others hear of its writes all the
/// same.
#[tokio::test]
async fn a_write_before_the_relay_is_connected_reaches_others() {
    let postgres = Postgres::shared();
    let url = database(postgres, []).await;
    let reader = Node::new(config(), &url).await;
    reader.warm(1).await;
    // Whoever connects now waits.
    let mut blocker = PgConnection::connect(&url).await.expect("connects");
    for statement in [
        "BEGIN",
        "LOCK TABLE cache_outbox_state IN SHARE MODE",
        "SET idle_in_transaction_session_timeout = 0",
    ] {
        let done = sqlx::query(statement).execute(&mut blocker).await;
        done.expect("done");
    }
    let late = Node::unheard(config(), &url).await;
    let done: Result<(), sqlx::Error> =
        cache_runtime::sqlx::transaction(&late.cache, &late.pool, async |tx| {
            late.rename(tx, 1, "new").await
        })
        .await;
    done.expect("committed");
    assert_eq!(late.stats().await.connections, 0);
    let rows = postgres.psql(&url, "SELECT count(*) FROM cache_outbox");
    assert_eq!(rows, "1");
    reader.shows(1, "new").await;
}

/// Without the table there are no rows, and transactions go on.
#[tokio::test]
async fn a_transaction_without_the_table_is_committed() {
    let postgres = Postgres::shared();
    let url = database(postgres, []).await;
    postgres.psql(
        &url,
        "DROP TABLE cache_outbox, cache_outbox_state, cache_outbox_set_aside",
    );
    let node = Node::unheard(config(), &url).await;
    let done: Result<(), sqlx::Error> =
        cache_runtime::sqlx::transaction(&node.cache, &node.pool, async |tx| {
            node.rename(tx, 1, "new").await
        })
        .await;
    done.expect("committed");
    assert_eq!(node.name(1).await.0, "new");
}

/// Rows stay for those who need them longest.
#[tokio::test]
async fn the_longest_retention_of_all_processes_counts() {
    let postgres = Postgres::shared();
    let url = database(postgres, [users()]).await;
    let outbox = OutboxConfig::postgres(&url).expect("a URL");
    let short = outbox.retention(Duration::from_secs(2));
    let short = Cache::new(config().outbox(short)).await;
    let long = Node::new(config(), &url).await;
    eventually(TEST_TIMEOUT, async || {
        let stats = short.get_stats().await.outbox.expect("an outbox");
        stats.serving == Some(true)
    })
    .await;
    postgres.psql(&url, "UPDATE users SET name = 'x' WHERE id = 2");
    long.shows(2, "x").await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let rows = postgres.psql(&url, "SELECT count(*) FROM cache_outbox");
    assert_eq!(rows, "1");
}

/// Who deletes old rows waits for nobody, and comes back to those that somebody has locked.
#[tokio::test]
async fn an_old_row_that_somebody_has_locked_is_deleted_later() {
    let postgres = Postgres::shared();
    let url = database(postgres, [users()]).await;
    let outbox = OutboxConfig::postgres(&url).expect("a URL");
    let outbox = outbox.retention(Duration::from_secs(2));
    let cache = Cache::new(config().outbox(outbox)).await;
    let pool = PgPool::connect(&url).await.expect("connects");
    let node = Node { cache, pool };
    node.heard().await;
    // What is deleted first is everything before some snapshot.
    postgres.psql(&url, "UPDATE users SET name = 'x' WHERE id = 2");
    let rows = || postgres.psql(&url, "SELECT count(*) FROM cache_outbox");
    eventually(TEST_TIMEOUT, async || rows() == "0").await;

    postgres.psql(&url, "UPDATE users SET name = 'x' WHERE id = 1");
    let mut open = PgConnection::connect(&url).await.expect("connects");
    let locked = sqlx::raw_sql("BEGIN; SELECT FROM cache_outbox FOR UPDATE");
    locked.execute(&mut open).await.expect("locked");
    postgres.psql(&url, "UPDATE users SET name = 'x' WHERE id = 3");
    // The one that is not locked has gone, and so has the time of the other.
    eventually(TEST_TIMEOUT, async || rows() == "1").await;
    postgres.psql(&url, "UPDATE users SET name = 'y' WHERE id = 3");
    eventually(TEST_TIMEOUT, async || rows() == "1").await;
    sqlx::raw_sql("COMMIT")
        .execute(&mut open)
        .await
        .expect("committed");
    eventually(TEST_TIMEOUT, async || rows() == "0").await;
    assert_eq!(node.stats().await.connections, 1);
}

/// In another cluster the transactions of a dump's rows lie in the future.
#[tokio::test]
async fn rows_of_a_restored_dump_are_deleted() {
    let postgres = Postgres::shared();
    let url = database(postgres, []).await;
    postgres.psql(
        &url,
        "INSERT INTO cache_outbox (xid, kind, resource) SELECT '999999999999', 'all', 'users' FROM generate_series(1, 3)",
    );
    let node = Node::new(config(), &url).await;
    let rows = "SELECT count(*) FROM cache_outbox";
    eventually(TEST_TIMEOUT, async || postgres.psql(&url, rows) == "0").await;
    node.warm(1).await;
    assert_eq!(node.stats().await.delivered, 0);
}

/// One bad row stops nobody.
#[tokio::test]
async fn a_row_without_a_time_is_read() {
    let postgres = Postgres::shared();
    let url = database(postgres, []).await;
    let node = Node::new(config(), &url).await;
    node.warm(1).await;
    postgres.psql(
        &url,
        "UPDATE users SET name = 'new';
         INSERT INTO cache_outbox (kind, resource, value, created) VALUES ('row', 'users', '1', 'infinity')",
    );
    node.shows(1, "new").await;
    assert_eq!(node.warm(1).await, "new");
    let stats = node.stats().await;
    assert_eq!((stats.connections, stats.cold_starts), (1, 1), "{stats:?}");
}

/// A process that has not read for so long that rows may be gone forgets everything, over the same
/// connection.
#[tokio::test]
async fn a_process_that_was_away_for_too_long_starts_cold() {
    let postgres = Postgres::shared();
    let url = database(postgres, [users()]).await;
    // Nobody is woken.
    let quiet = "ALTER TABLE cache_outbox DISABLE TRIGGER cache_outbox_notify";
    postgres.psql(&url, quiet);
    let outbox = || {
        let outbox = OutboxConfig::postgres(&url).expect("a URL");
        outbox.retention(Duration::from_secs(2))
    };
    let deletes = Cache::new(config().outbox(outbox())).await;
    let slow = config()
        .local_max_staleness(Duration::from_secs(60))
        .outbox(outbox().poll(Duration::from_secs(10)));
    let cache = Cache::new(slow).await;
    let pool = PgPool::connect(&url).await.expect("connects");
    let node = Node { cache, pool };
    node.heard().await;
    assert_eq!(node.warm(1).await, "old");
    postgres.psql(&url, "UPDATE users SET name = 'new' WHERE id = 1");
    let rows = || postgres.psql(&url, "SELECT count(*) FROM cache_outbox");
    eventually(TEST_TIMEOUT, async || rows() == "0").await;
    node.shows(1, "new").await;
    assert_eq!(node.stats().await.connections, 1);
    drop(deletes);
}
