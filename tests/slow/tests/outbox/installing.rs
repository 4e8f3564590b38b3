//! Installing beside programs that run, and in a new version.

use cache_runtime::outbox::{self, OutboxConfig, table};
use cache_runtime::{CacheConfig, RedisConfig, cached};
use cache_tests::{Postgres, RedisServer, eventually};
use serde::Serialize;
use sqlx::Connection;
use sqlx::postgres::PgConnection;

use crate::{Node, TEST_TIMEOUT, database, install, users, written};

async fn open(url: &str, statement: &'static str) -> PgConnection {
    let mut open = PgConnection::connect(url).await.expect("connects");
    for statement in ["BEGIN", statement] {
        let done = sqlx::query(statement).execute(&mut open).await;
        done.expect("done");
    }
    open
}

fn config(url: &str) -> OutboxConfig {
    OutboxConfig::postgres(url).expect("a URL")
}

fn shared(redis: &RedisServer) -> CacheConfig {
    CacheConfig::default().redis(RedisConfig::at("127.0.0.1", redis.port()))
}

/// What is there already takes no lock: neither readers nor writers are in the way, nor do they
/// wait.
#[tokio::test]
async fn an_installation_is_repeated_beside_open_transactions() {
    let url = database(Postgres::shared(), [users()]).await;
    let _reader = open(
        &url,
        "SELECT count(*) FROM users, cache_outbox, cache_outbox_state",
    )
    .await;
    let _writer = open(&url, "UPDATE users SET name = 'open' WHERE id = 1").await;
    install(&url, [users()]).await.expect("installed");
}

/// A table that is in use is not waited for without end, since all others would wait behind the
/// installation.
#[tokio::test]
async fn a_table_in_use_is_named_and_nothing_is_installed() {
    let postgres = Postgres::shared();
    let url = database(postgres, []).await;
    // Who reads is not in the way.
    let reader = open(&url, "SELECT count(*) FROM users").await;
    let orders = || table("orders").resource("orders").id(["tenant", "id"]);
    let writer = open(&url, "UPDATE orders SET text = 'open'").await;
    let refused = install(&url, [users(), orders()]).await;
    let refused = refused.expect_err("in use").to_string();
    assert!(
        refused.contains("orders") && refused.contains("2s"),
        "{refused}"
    );
    let triggers = "SELECT count(*) FROM pg_trigger WHERE tgname = 'cache_outbox_update'";
    assert_eq!(postgres.psql(&url, triggers), "0");
    drop(writer);
    eventually(TEST_TIMEOUT, async || {
        install(&url, [users(), orders()]).await.is_ok()
    })
    .await;
    assert_eq!(postgres.psql(&url, triggers), "2");
    drop(reader);
}

/// A deployment runs the migrations again, while processes of before go on.
#[tokio::test]
async fn the_migration_does_not_let_relays_of_another_kind_in() {
    let (postgres, redis) = (Postgres::shared(), RedisServer::start());
    let url = database(postgres, [users()]).await;
    let running = Node::new(shared(&redis), &url).await;
    install(&url, [users()]).await.expect("installed again");
    let other = Node::unheard(CacheConfig::default().local_mb(4), &url).await;
    running.warm(1).await;
    postgres.psql(&url, "UPDATE users SET name = 'new' WHERE id = 1");
    running.shows(1, "new").await;
    let relay = "SELECT relay LIKE 'redis/%' FROM cache_outbox_state";
    assert_eq!(postgres.psql(&url, relay), "t");
    assert_eq!(other.stats().await.connections, 0);

    // Only when somebody says so, and then those of before take nothing from the new ones.
    let mut connection = PgConnection::connect(&url).await.expect("connects");
    postgres.psql(&url, "UPDATE cache_outbox_state SET relay = 'each/300000'");
    eventually(TEST_TIMEOUT, async || !running.stats().await.connected).await;
    other.heard().await;
    other.warm(1).await;
    postgres.psql(&url, "UPDATE users SET name = 'newer' WHERE id = 1");
    other.shows(1, "newer").await;
    outbox::reset(&mut connection, &config(&url))
        .await
        .expect("reset");
    eventually(TEST_TIMEOUT, async || {
        running.stats().await.connected || other.stats().await.connected
    })
    .await;
}

/// A table of version 2 is brought up to date, with what is in it.
#[tokio::test]
async fn a_table_of_the_version_before_is_brought_up_to_date() {
    let postgres = Postgres::shared();
    let url = database(postgres, [users()]).await;
    postgres.psql(
        &url,
        "ALTER TABLE cache_outbox_state DROP COLUMN server;
         UPDATE cache_outbox_state SET version = 2, relay = 'each/300000', dropped = 7",
    );
    let mut connection = PgConnection::connect(&url).await.expect("connects");
    let status = outbox::status(&mut connection, &config(&url)).await;
    assert_eq!(status.expect("read").version, Some(2));
    install(&url, [users()]).await.expect("installed");
    let state = "SELECT version, relay, dropped, server IS NULL FROM cache_outbox_state";
    assert_eq!(postgres.psql(&url, state), "3|each/300000|7|t");
    let node = Node::new(CacheConfig::default().local_mb(4), &url).await;
    assert_eq!(node.warm(1).await, "old");
}

/// In a rolling deployment processes of the release before start again, too.
#[tokio::test]
async fn an_installation_of_a_later_release_is_not_turned_back() {
    let postgres = Postgres::shared();
    let url = database(postgres, [users()]).await;
    postgres.psql(&url, "UPDATE cache_outbox_state SET version = 99");
    let refused = install(&url, [users()]).await.expect_err("refused");
    let refused = refused.to_string();
    assert!(
        refused.contains("is of version 99, and this release is for version 3"),
        "{refused}"
    );
    let version = "SELECT version FROM cache_outbox_state";
    assert_eq!(postgres.psql(&url, version), "99");
}

/// Several processes start at the same time, each of which installs, and somebody runs the text.
#[tokio::test]
async fn installations_at_the_same_time_take_place_in_turn() {
    let postgres = Postgres::shared();
    for _ in 0..3 {
        let url = postgres.database();
        postgres.psql(
            &url,
            "CREATE TABLE users (id bigint PRIMARY KEY, name text)",
        );
        let text = outbox::triggers(&cache_runtime::catalog(), [users()]).expect("fits");
        let text = format!(
            "BEGIN; {text}{}COMMIT;",
            outbox::migration(outbox::DEFAULT_TABLE).expect("a table")
        );
        let mut tasks = tokio::task::JoinSet::new();
        for at in 0..8 {
            let (url, text) = (url.clone(), text.clone());
            tasks.spawn(async move {
                if at % 2 == 0 {
                    return install(&url, [users()])
                        .await
                        .map_err(|error| error.to_string());
                }
                let connection = PgConnection::connect(&url).await;
                let mut connection = connection.map_err(|error| error.to_string())?;
                let done = sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(&mut connection);
                done.await.map(drop).map_err(|error| error.to_string())
            });
        }
        for done in tasks.join_all().await {
            done.expect("installed");
        }
        postgres.psql(&url, "INSERT INTO users VALUES (1, 'x')");
        assert_eq!(written(postgres, &url), ["row users 1"]);
    }
}

/// Triggers that another version has written are told.
#[tokio::test]
async fn the_status_knows_triggers_of_another_version() {
    let postgres = Postgres::shared();
    let url = database(postgres, [users()]).await;
    let mut connection = PgConnection::connect(&url).await.expect("connects");
    let mut older = async || {
        let status = outbox::status(&mut connection, &config(&url)).await;
        status.expect("read").older
    };
    assert!(older().await.is_empty());
    let name = postgres.psql(
        &url,
        "SELECT DISTINCT tgfoid::regproc FROM pg_trigger WHERE tgname = 'cache_outbox_update'",
    );
    postgres.psql(&url, &format!("COMMENT ON FUNCTION {name} IS 'before'"));
    assert_eq!(older().await, ["users"]);
    install(&url, [users()]).await.expect("installed again");
    assert!(older().await.is_empty());
}

#[tokio::test]
async fn a_foreign_table_is_refused() {
    let postgres = Postgres::shared();
    let url = postgres.database();
    postgres.psql(
        &url,
        "CREATE EXTENSION postgres_fdw; CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw;
         CREATE FOREIGN TABLE users (id bigint) SERVER elsewhere",
    );
    let refused = install(&url, [users()]).await.expect_err("foreign");
    let refused = refused.to_string();
    assert!(refused.contains("is a foreign table"), "{refused}");
}

/// As the type of the crate of that name looks in a signature.
#[derive(Debug, Clone, Serialize)]
struct Uuid(String);

#[allow(dead_code, reason = "only the signatures are looked at")]
impl Node {
    #[cached(resource = "tokens", cache = self.cache)]
    async fn token(&self, id: String) -> String {
        id
    }

    #[cached(resource = "things", cache = self.cache)]
    async fn thing(&self, id: Uuid) -> String {
        id.0
    }
}

/// `7` and `007` are one number and two texts, and one UUID has many texts: an id in the column is
/// that in the key only where both are of one type.
#[tokio::test]
async fn ids_of_another_type_than_their_column_invalidate_the_whole_resource() {
    let (postgres, id) = (Postgres::shared(), "5f9b8c2e-0000-4000-8000-00000000abcd");
    for (resource, kind, value, is_row) in [
        ("users", "bigint", "7", true),
        ("users", "smallint", "7", true),
        ("users", "whole", "7", true),
        ("users", "text", "007", false),
        ("users", "uuid", id, false),
        ("tokens", "text", "007", true),
        ("tokens", "varchar(40)", "007", true),
        ("tokens", "uuid", id, false),
        ("tokens", "bigint", "7", false),
        ("things", "uuid", id, true),
        ("things", "text", "5F9B8C2E00004000800000000000ABCD", false),
    ] {
        let url = postgres.database();
        postgres.psql(
            &url,
            &format!("CREATE DOMAIN whole AS int CHECK (value > 0); CREATE TABLE made (id {kind}, name text)"),
        );
        let made = table("made").resource(resource).id("id");
        install(&url, [made]).await.expect("installed");
        postgres.psql(&url, &format!("INSERT INTO made VALUES ('{value}', 'x')"));
        let json = match kind {
            "bigint" | "smallint" | "whole" => value.to_owned(),
            _ => format!("\"{value}\""),
        };
        let row = match is_row {
            true => format!("row {resource} {json}"),
            false => format!("all {resource} -"),
        };
        assert_eq!(written(postgres, &url), [row], "{resource} {kind}");
        postgres.psql(&url, "UPDATE made SET name = name");
        assert!(written(postgres, &url).is_empty());
    }
}

/// Only the columns that functions read, and those of ids and tags.
#[tokio::test]
async fn an_update_is_looked_at_for_some_columns_only() {
    let postgres = Postgres::shared();
    let url = database(postgres, [users().columns(["name"])]).await;
    postgres.psql(&url, "UPDATE users SET note = '{}', team_id = 9");
    assert!(written(postgres, &url).is_empty());
    postgres.psql(
        &url,
        "UPDATE users SET name = 'x', note = '[]' WHERE id = 1",
    );
    assert_eq!(written(postgres, &url), ["row users 1"]);
    postgres.psql(&url, "UPDATE users SET id = 9 WHERE id = 3");
    assert_eq!(written(postgres, &url), ["row users 3", "row users 9"]);
    let refused = install(&url, [users().columns(["nome"])]).await;
    let refused = refused.expect_err("no such column").to_string();
    assert!(refused.contains("column nome does not exist"), "{refused}");
}
