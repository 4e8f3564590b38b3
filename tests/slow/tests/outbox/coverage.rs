//! Tables that stop being followed, and what is done about what has changed meanwhile.

use cache_runtime::outbox::{self, OutboxConfig, table};
use cache_runtime::{CacheConfig, RedisConfig};
use cache_tests::{Postgres, RedisServer, eventually};
use sqlx::Connection;
use sqlx::postgres::PgConnection;

use crate::{Node, PATIENCE, database, install, users, written};

async fn not_followed(url: &str) -> Vec<String> {
    let mut connection = PgConnection::connect(url).await.expect("connects");
    let config = OutboxConfig::postgres(url).expect("a URL");
    let status = outbox::status(&mut connection, &config).await;
    status.expect("read").not_followed
}

/// Somebody switches the triggers off, changes rows, and switches them on again.
#[tokio::test]
async fn what_changes_behind_triggers_that_are_switched_off_is_read_anew() {
    let (postgres, redis) = (Postgres::shared(), RedisServer::start());
    let shared = CacheConfig::default().redis(RedisConfig::at("127.0.0.1", redis.port()));
    for config in [shared, CacheConfig::default().local_mb(4)] {
        let url = database(postgres, [users()]).await;
        let node = Node::new(config, &url).await;
        node.warm(1).await;
        eventually(PATIENCE, async || node.stats().await.depth.is_some()).await;
        postgres.psql(
            &url,
            "ALTER TABLE users DISABLE TRIGGER USER; UPDATE users SET name = 'hidden' WHERE id = 1",
        );
        node.shows(1, "hidden").await;
        assert_eq!(node.stats().await.not_followed, ["users"]);
        let checkup = node.cache.checkup().await.to_string();
        assert!(checkup.contains("does not follow: users"), "{checkup}");

        node.warm(1).await;
        postgres.psql(&url, "UPDATE users SET name = 'more' WHERE id = 1");
        // As after a restored dump: they are switched on, but not as they were.
        postgres.psql(&url, "ALTER TABLE users ENABLE TRIGGER USER");
        node.shows(1, "more").await;
        assert_eq!(node.stats().await.not_followed, ["users"]);
        install(&url, [users()]).await.expect("installed");
        eventually(PATIENCE, async || {
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
        eventually(PATIENCE, async || {
            node.names().await.expect("read") == names
        })
        .await;
    };
    names(&["old"]).await;
    eventually(PATIENCE, async || node.stats().await.depth.is_some()).await;
    postgres.psql(&url, "ALTER TABLE users DETACH PARTITION users_1");
    names(&[]).await;
    let attach = "ALTER TABLE users ATTACH PARTITION users_1 FOR VALUES FROM (0) TO (100)";
    postgres.psql(&url, attach);
    names(&["old"]).await;
    postgres.psql(&url, "DROP TABLE users_1");
    names(&[]).await;
    assert_eq!(node.stats().await.cold_starts, 1);
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

/// Logical replication runs no triggers of statements.
#[tokio::test]
async fn what_a_subscription_brings_is_followed() {
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
    eventually(PATIENCE, async || postgres.psql(&url, users_there) == "2").await;
    assert_eq!(node.warm(1).await, "old");
    publisher.psql(
        &from,
        "UPDATE users SET name = 'new' WHERE id = 1; DELETE FROM users WHERE id = 2; INSERT INTO orders VALUES ('a', 1, 'x')",
    );
    node.shows(1, "new").await;
    let rows =
        "SELECT kind, resource, value FROM cache_outbox WHERE resource IS NOT NULL ORDER BY id";
    eventually(PATIENCE, async || {
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
    eventually(PATIENCE, async || node.get(1).await.is_err()).await;
    // Before its publisher has gone.
    postgres.psql(&url, "DROP SUBSCRIPTION shop");
    assert_eq!(node.stats().await.cold_starts, 1);
}
