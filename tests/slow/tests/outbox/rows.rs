//! Rows that a program writes by itself.

use cache_runtime::outbox::{Outbox, OutboxConfig};
use cache_runtime::{CacheConfig, RedisConfig};
use cache_tests::{Postgres, RedisServer, eventually};
use sqlx::AnyPool;
use sqlx::Connection;
use sqlx::any::install_default_drivers;
use sqlx::postgres::PgConnection;

use crate::{Node, TEST_TIMEOUT, database, written};

#[tokio::test]
async fn manual_invalidations_are_committed_with_the_data() {
    let postgres = Postgres::shared();
    let url = database(postgres, []).await;
    let outbox = Outbox::new(&OutboxConfig::postgres(&url).expect("a URL"));
    let mut connection = PgConnection::connect(&url).await.expect("connects");

    let mut tx = connection.begin().await.expect("begun");
    outbox
        .invalidate(&mut tx, "users", 1)
        .await
        .expect("written");
    tx.rollback().await.expect("rolled back");
    assert_eq!(written(postgres, &url), Vec::<String>::new());

    let mut tx = connection.begin().await.expect("begun");
    outbox
        .invalidate(&mut tx, "users", 1)
        .await
        .expect("written");
    outbox
        .invalidate(&mut tx, "orders", ("a:b", 7))
        .await
        .expect("written");
    outbox
        .invalidate(&mut tx, "users", f64::NAN)
        .await
        .expect("written");
    outbox
        .invalidate_tag(&mut tx, "team:1")
        .await
        .expect("written");
    tx.commit().await.expect("committed");
    outbox
        .invalidate_all(&mut connection, "teams")
        .await
        .expect("written");
    let rows = [
        "all teams -",
        // An id that is in no key.
        "all users -",
        r#"row orders {"key":"a%3Ab,7"}"#,
        r#"row users {"key":"1"}"#,
        r#"tag - "team:1""#,
    ];
    assert_eq!(written(postgres, &url), rows);

    let refused = outbox.invalidate_all(&mut connection, "No Resource").await;
    refused.expect_err("no resource");

    install_default_drivers();
    let any = AnyPool::connect(&url).await.expect("connects");
    let mut tx = any.begin().await.expect("begun");
    outbox
        .invalidate(&mut tx, "users", "x")
        .await
        .expect("written");
    outbox
        .invalidate(&mut *tx, "users", "y")
        .await
        .expect("written");
    tx.commit().await.expect("committed");
    assert_eq!(
        written(postgres, &url),
        [r#"row users {"key":"x"}"#, r#"row users {"key":"y"}"#]
    );
}

/// The transaction writes what the annotated functions in it invalidate, also over `Any`; a
/// rollback writes nothing.
#[tokio::test]
async fn a_transaction_writes_what_is_invalidated_in_it() {
    let postgres = Postgres::shared();
    let redis = RedisServer::start();
    let url = database(postgres, []).await;
    let config = CacheConfig::default().redis(RedisConfig::at("127.0.0.1", redis.port()));
    let node = Node::new(config, &url).await;
    // Rows that were there for a moment.
    postgres.psql(
        &url,
        "CREATE TABLE seen (LIKE cache_outbox);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO seen VALUES (NEW.*); RETURN NULL; END $$;
         CREATE TRIGGER note AFTER INSERT ON cache_outbox FOR EACH ROW EXECUTE FUNCTION note()",
    );
    let seen = || {
        postgres.psql(
            &url,
            "SELECT concat_ws(' ', kind, coalesce(resource, '-'), value) FROM seen ORDER BY 1",
        )
    };

    let undone: Result<(), sqlx::Error> =
        cache_runtime::sqlx::transaction(&node.cache, &node.pool, async |tx| {
            node.rename(tx, 1, "undone").await?;
            Err(sqlx::Error::RowNotFound)
        })
        .await;
    undone.expect_err("rolled back");
    assert_eq!(seen(), "");

    node.warm(1).await;
    let done: Result<(), sqlx::Error> =
        cache_runtime::sqlx::transaction(&node.cache, &node.pool, async |tx| {
            node.rename(tx, 1, "new").await?;
            node.rename(tx, 2, "new").await
        })
        .await;
    done.expect("committed");
    // As strict as without an outbox.
    assert_eq!(node.name(1).await.0, "new");
    assert_eq!(
        seen(),
        "row users {\"key\":\"1\"}\nrow users {\"key\":\"2\"}"
    );
    // Its writer has invalidated by itself, and deletes them.
    eventually(TEST_TIMEOUT, async || {
        postgres.psql(&url, "SELECT count(*) FROM cache_outbox") == "0"
    })
    .await;
    assert_eq!(node.stats().await.delivered, 0, "no relay had to");

    install_default_drivers();
    let any = AnyPool::connect(&url).await.expect("connects");
    let by_hand: Result<(), sqlx::Error> =
        cache_runtime::sqlx::transaction(&node.cache, &any, async |_| {
            let _ = node.cache.invalidate_tag("team:1").await;
            let _ = node.cache.invalidate_all("teams").await;
            Ok(())
        })
        .await;
    by_hand.expect("committed");
    assert!(
        seen().contains("tag - {\"key\":\"team%3A1\"}"),
        "{}",
        seen()
    );
    assert_eq!(
        postgres.psql(
            &url,
            "SELECT count(*) FROM seen WHERE kind = 'all' AND resource = 'teams'"
        ),
        "1"
    );
}

/// Another database than the outbox's has no such table, and its transactions go as before.
#[tokio::test]
async fn a_transaction_in_another_database_writes_no_rows() {
    let postgres = Postgres::shared();
    let url = database(postgres, []).await;
    let other = postgres.database();
    postgres.psql(
        &other,
        "CREATE TABLE users (id bigint, name text); INSERT INTO users VALUES (1, 'old')",
    );
    let node = Node::new(CacheConfig::default().local_mb(4), &url).await;
    let pool = sqlx::PgPool::connect(&other).await.expect("connects");
    let done: Result<(), sqlx::Error> =
        cache_runtime::sqlx::transaction(&node.cache, &pool, async |tx| {
            node.rename(tx, 1, "new").await
        })
        .await;
    done.expect("committed");
    assert_eq!(postgres.psql(&other, "SELECT name FROM users"), "new");
}

/// What is set around a call stands in the keys of rows, and no database knows it.
#[tokio::test]
async fn a_row_of_a_resource_with_a_context_is_read_anew() {
    let postgres = Postgres::shared();
    let url = database(postgres, []).await;
    let long = "long ".repeat(50);
    postgres.psql(
        &url,
        &format!("INSERT INTO orders VALUES ('{long}', 1, 'old')"),
    );
    let config = || {
        let config = CacheConfig::default().local_mb(4);
        let config = config.resource("users").context("tenant");
        config.resource("orders").context("tenant")
    };
    let nodes = [
        Node::new(config(), &url).await,
        Node::new(config(), &url).await,
    ];
    let tenant = "a-long-tenant";
    let [reader, writer] = &nodes;
    let within = |future| reader.cache.with_key("tenant", tenant, future);
    eventually(TEST_TIMEOUT, async || within(reader.name(1)).await.1).await;
    let mut connection = PgConnection::connect(&url).await.expect("connects");
    let mut tx = connection.begin().await.expect("begun");
    sqlx::query("UPDATE users SET name = 'new' WHERE id = 1")
        .execute(&mut *tx)
        .await
        .expect("written");
    let outbox = writer.cache.outbox().expect("an outbox");
    let by_hand = outbox.invalidate(&mut tx, "users", 1).await;
    by_hand.expect("written");
    tx.commit().await.expect("committed");
    eventually(TEST_TIMEOUT, async || {
        within(reader.name(1)).await.0 == "new"
    })
    .await;

    let text = async || {
        let read = reader.order(&long, 1);
        let read = reader.cache.with_key("tenant", tenant, read).await;
        read.expect("read")
    };
    assert_eq!(text().await, "old");
    let write = async |tx: &mut PgConnection| {
        let write = writer.reorder(tx, &long, 1, "new");
        writer.cache.with_key("tenant", tenant, write).await
    };
    let done: Result<(), sqlx::Error> =
        cache_runtime::sqlx::transaction(&writer.cache, &writer.pool, write).await;
    done.expect("committed");
    eventually(TEST_TIMEOUT, async || text().await == "new").await;
}
