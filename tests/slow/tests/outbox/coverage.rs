//! Tables that stop being followed, and what is done about what has changed meanwhile.

use cache_runtime::outbox::{self, OutboxConfig, table};
use cache_runtime::{CacheConfig, RedisConfig};
use cache_tests::{Postgres, RedisServer, eventually};
use sqlx::Connection;
use sqlx::postgres::PgConnection;

use crate::{Node, TEST_TIMEOUT, database, install, users, written};

async fn not_followed(url: &str) -> Vec<String> {
    let mut connection = PgConnection::connect(url).await.expect("connects");
    let config = OutboxConfig::postgres(url).expect("a URL");
    let status = outbox::status(&mut connection, &config).await;
    status.expect("read").not_followed
}

/// Somebody switches the triggers off, changes rows, and switches them on again.
#[tokio::test]
async fn rows_changed_while_triggers_are_off_are_read_anew() {
    let (postgres, redis) = (Postgres::shared(), RedisServer::start());
    let shared = CacheConfig::default().redis(RedisConfig::at("127.0.0.1", redis.port()));
    for config in [shared, CacheConfig::default().local_mb(4)] {
        let url = database(postgres, [users()]).await;
        let node = Node::new(config, &url).await;
        node.warm(1).await;
        eventually(TEST_TIMEOUT, async || node.stats().await.depth.is_some()).await;
        postgres.psql(
            &url,
            "ALTER TABLE users DISABLE TRIGGER USER; UPDATE users SET name = 'hidden' WHERE id = 1",
        );
        node.shows(1, "hidden").await;
        assert_eq!(node.stats().await.not_followed, ["users"]);
        let report = node.cache.doctor().await.to_string();
        assert!(report.contains("does not follow: users"), "{report}");

        node.warm(1).await;
        postgres.psql(&url, "UPDATE users SET name = 'more' WHERE id = 1");
        // As after a restored dump: they are switched on, but not as they were.
        postgres.psql(&url, "ALTER TABLE users ENABLE TRIGGER USER");
        node.shows(1, "more").await;
        assert_eq!(node.stats().await.not_followed, ["users"]);
        install(&url, [users()]).await.expect("installed");
        eventually(TEST_TIMEOUT, async || {
            node.stats().await.not_followed.is_empty()
        })
        .await;
        assert_eq!(not_followed(&url).await, Vec::<String>::new());
    }
}

/// Rows go without a statement on them.
#[tokio::test]
async fn a_partition_that_goes_or_comes_is_noticed() {
    let postgres = Postgres::shared();
    let url = postgres.database();
    postgres.psql(
        &url,
        "CREATE TABLE users (id bigint PRIMARY KEY, name text NOT NULL) PARTITION BY RANGE (id);
         CREATE TABLE users_1 PARTITION OF users FOR VALUES FROM (0) TO (100);
         INSERT INTO users VALUES (1, 'old')",
    );
    install(&url, [users()]).await.expect("installed");
    let node = Node::new(CacheConfig::default().local_mb(4), &url).await;
    let names = async |names: &[&str]| {
        eventually(TEST_TIMEOUT, async || {
            node.names().await.expect("read") == names
        })
        .await;
    };
    names(&["old"]).await;
    eventually(TEST_TIMEOUT, async || node.stats().await.depth.is_some()).await;
    postgres.psql(&url, "ALTER TABLE users DETACH PARTITION users_1");
    names(&[]).await;
    let attach = "ALTER TABLE users ATTACH PARTITION users_1 FOR VALUES FROM (0) TO (100)";
    postgres.psql(&url, attach);
    names(&["old"]).await;
    postgres.psql(&url, "DROP TABLE users_1");
    names(&[]).await;
    assert_eq!(node.stats().await.cold_starts, 1);
}

/// Its triggers have gone with a table, or have been dropped: their function is left, and knows
/// whose it was.
#[tokio::test]
async fn a_table_that_has_lost_its_triggers_is_named() {
    let postgres = Postgres::shared();
    let lost = ["users (it has none of its triggers)"];
    for (sql, names) in [
        (
            "DROP TRIGGER cache_outbox_insert ON users; DROP TRIGGER cache_outbox_update ON users;
             DROP TRIGGER cache_outbox_delete ON users; DROP TRIGGER cache_outbox_truncate ON users",
            &["old", "other", "third"][..],
        ),
        (
            "CREATE TABLE made (LIKE users INCLUDING ALL); INSERT INTO made VALUES (1, 'made');
             ALTER TABLE users RENAME TO before; ALTER TABLE made RENAME TO users",
            &["made"][..],
        ),
        (
            "DROP TABLE users; CREATE TABLE users (id bigint, name text); INSERT INTO users VALUES (1, 'made')",
            &["made"][..],
        ),
    ] {
        let url = database(postgres, [users()]).await;
        let node = Node::new(CacheConfig::default().local_mb(4), &url).await;
        let read = async |names: &[&str]| {
            eventually(TEST_TIMEOUT, async || node.names().await.expect("read") == names).await;
        };
        read(&["old", "other", "third"]).await;
        eventually(TEST_TIMEOUT, async || node.stats().await.depth.is_some()).await;
        let change = format!("BEGIN; {sql}; UPDATE users SET name = 'x' || name; COMMIT");
        postgres.psql(&url, &change);
        let changed: Vec<String> = names.iter().map(|name| format!("x{name}")).collect();
        read(&changed.iter().map(String::as_str).collect::<Vec<_>>()).await;
        eventually(TEST_TIMEOUT, async || node.stats().await.not_followed == lost).await;
        assert_eq!(not_followed(&url).await, lost);
        install(&url, [users()]).await.expect("installed");
        assert_eq!(not_followed(&url).await, Vec::<String>::new());
        let clean = "DELETE FROM cache_outbox; UPDATE users SET name = 'y' WHERE id = 1";
        postgres.psql(&url, clean);
        assert_eq!(written(postgres, &url), ["row users 1"], "{sql}");
    }
    // Another name for the same table is no loss.
    let url = database(postgres, [users()]).await;
    postgres.psql(&url, "ALTER TABLE users RENAME TO people");
    assert_eq!(not_followed(&url).await, Vec::<String>::new());
    postgres.psql(&url, "DROP TABLE people");
    assert_eq!(not_followed(&url).await, Vec::<String>::new());
}

/// A migration that forgets the triggers lets no write fail.
#[tokio::test]
async fn without_their_column_the_triggers_invalidate_the_whole_resource() {
    let postgres = Postgres::shared();
    let tables = [
        users().tag("team:{team_id}"),
        table("orders")
            .resource("users")
            .columns(["tenant", "text"]),
    ];
    let url = database(postgres, tables).await;
    let after = |sql: &str| {
        postgres.psql(&url, sql);
        written(postgres, &url)
    };
    postgres.psql(
        &url,
        "ALTER TABLE users RENAME COLUMN team_id TO team; ALTER TABLE orders DROP COLUMN text",
    );
    for sql in [
        "UPDATE users SET name = 'x' WHERE id = 1",
        "INSERT INTO users VALUES (7, 'y')",
        "DELETE FROM users WHERE id = 7",
        "TRUNCATE users",
    ] {
        assert_eq!(after(sql), ["all teams -", "all users -"], "{sql}");
    }
    assert_eq!(after("UPDATE orders SET id = 2"), ["all users -"]);
    let told = not_followed(&url).await;
    assert!(
        told.len() == 2 && told[0].contains("orders (there is no column text"),
        "{told:?}"
    );
    assert!(told[1].contains("no column team_id"), "{told:?}");
    postgres.psql(&url, "ALTER TABLE users RENAME COLUMN team TO team_id");
    let insert = "INSERT INTO users VALUES (8, 'z', 3)";
    assert_eq!(after(insert), ["row users 8", "tag - \"team:3\""]);
}

/// The transaction's snapshot shows the columns as they were before, and the table has others.
#[tokio::test]
async fn a_column_that_is_renamed_during_a_transaction_lets_no_write_fail() {
    let postgres = Postgres::shared();
    let url = database(postgres, [users().tag("team:{team_id}")]).await;
    let mut open = PgConnection::connect(&url).await.expect("connects");
    let mut run = async |sql: &'static str| {
        let done = sqlx::raw_sql(sql).execute(&mut open).await;
        done.unwrap_or_else(|error| panic!("{sql}: {error}"));
    };
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        run("BEGIN").await;
        run(match level {
            "SERIALIZABLE" => "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            _ => "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        })
        .await;
        run("SELECT count(*) FROM orders").await;
        postgres.psql(&url, "ALTER TABLE users RENAME COLUMN team_id TO team");
        run("UPDATE users SET note = '1' WHERE id = 1; COMMIT").await;
        assert_eq!(
            written(postgres, &url),
            ["all teams -", "all users -"],
            "{level}"
        );
        postgres.psql(&url, "ALTER TABLE users RENAME COLUMN team TO team_id");
        run("UPDATE users SET note = '2' WHERE id = 1").await;
        assert_eq!(written(postgres, &url), ["row users 1", "tag - \"team:1\""]);
    }
}

/// Logical replication runs no triggers of statements.
#[tokio::test]
async fn rows_of_a_subscription_are_followed() {
    let publisher = Postgres::start_with(&["wal_level=logical"]);
    let postgres = Postgres::start();
    let tables = "CREATE TABLE users (id bigint PRIMARY KEY, name text NOT NULL);
        CREATE TABLE orders (tenant text, id bigint, text text, PRIMARY KEY (tenant, id)) PARTITION BY LIST (tenant);
        CREATE TABLE orders_a PARTITION OF orders FOR VALUES IN ('a')";
    let (from, url) = (publisher.database(), postgres.database());
    publisher.psql(&from, tables);
    postgres.psql(&url, tables);
    publisher.psql(
        &from,
        "INSERT INTO users VALUES (1, 'old'), (2, 'other');
         CREATE PUBLICATION shop FOR TABLE users, orders WITH (publish_via_partition_root = true)",
    );
    let orders = || table("orders").resource("orders").id(["tenant", "id"]);
    install(&url, [users(), orders()]).await.expect("installed");
    let subscription = format!("CREATE SUBSCRIPTION shop CONNECTION '{from}' PUBLICATION shop");
    postgres.psql(&url, &subscription);
    assert_eq!(
        not_followed(&url).await,
        [
            "orders_a (what a subscription brings)",
            "users (what a subscription brings)"
        ]
    );
    install(&url, [users(), orders()])
        .await
        .expect("installed again");
    assert_eq!(not_followed(&url).await, Vec::<String>::new());
    let node = Node::new(CacheConfig::default().local_mb(4), &url).await;
    let users_there = "SELECT count(*) FROM users";
    eventually(TEST_TIMEOUT, async || {
        postgres.psql(&url, users_there) == "2"
    })
    .await;
    assert_eq!(node.warm(1).await, "old");
    publisher.psql(
        &from,
        "UPDATE users SET name = 'new' WHERE id = 1; DELETE FROM users WHERE id = 2; INSERT INTO orders VALUES ('a', 1, 'x')",
    );
    node.shows(1, "new").await;
    let rows =
        "SELECT kind, resource, value FROM cache_outbox WHERE resource IS NOT NULL ORDER BY id";
    eventually(TEST_TIMEOUT, async || {
        let rows = postgres.psql(&url, rows);
        [
            "row|users|1",
            "row|users|2",
            "row|orders|{\"id\": [\"a\", 1]}",
        ]
        .iter()
        .all(|row| rows.contains(row))
    })
    .await;
    node.warm(1).await;
    publisher.psql(&from, "TRUNCATE users");
    eventually(TEST_TIMEOUT, async || node.get(1).await.is_err()).await;
    // Before its publisher has gone.
    postgres.psql(&url, "DROP SUBSCRIPTION shop");
    assert_eq!(node.stats().await.cold_starts, 1);
}
