//! The database invalidates: an outbox in PostgreSQL, the triggers that write to it, and the relays
//! that read it.

#![allow(
    clippy::print_stdout,
    reason = "measurements and random runs say what they have seen"
)]

mod chaos;
mod costs;
mod coverage;
mod demo;
mod followed;
mod installing;
mod rows;
mod shared;
mod slow;
mod sqlite;
mod transactions;
mod triggers;
mod writers;

use std::time::Duration;

use cache_runtime::outbox::{self, OutboxConfig, Table, table};
use cache_runtime::{Cache, CacheConfig, OutboxStats, Status, cached, invalidates, observe};
use cache_tests::{Postgres, eventually};
use serde::{Serialize, Serializer};
use sqlx::Connection;
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};

/// A look at the triggers that has taken long, on a busy machine, comes again after 200 times as
/// long.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// One process, as far as the cache is concerned.
struct Node {
    cache: Cache,
    pool: PgPool,
}

impl Node {
    async fn new(config: CacheConfig, url: &str) -> Self {
        let node = Self::unheard(config, url).await;
        node.heard().await;
        node
    }

    /// Whose relay may not have connected yet.
    async fn unheard(config: CacheConfig, url: &str) -> Self {
        let pool = PgPoolOptions::new().max_connections(4);
        let pool = pool.connect(url).await.expect("the database is there");
        let outbox = OutboxConfig::postgres(url).expect("a URL");
        let config = config.command_budget(Duration::from_secs(5));
        let cache = Cache::new(config.outbox(outbox)).await;
        Self { cache, pool }
    }

    async fn stats(&self) -> OutboxStats {
        self.cache.get_stats().await.outbox.expect("an outbox")
    }

    /// Returns when the relay reads.
    async fn heard(&self) {
        eventually(TEST_TIMEOUT, async || {
            let stats = self.stats().await;
            stats.connected && stats.serving != Some(false)
        })
        .await;
    }

    #[cached(resource = "users", cache = self.cache)]
    async fn get(&self, id: i64) -> Result<String, sqlx::Error> {
        let name = sqlx::query_scalar("SELECT name FROM users WHERE id = $1");
        name.bind(id).fetch_one(&self.pool).await
    }

    #[cached(resource = "users", op = "names", cache = self.cache)]
    async fn names(&self) -> Result<Vec<String>, sqlx::Error> {
        let names = sqlx::query_scalar("SELECT name FROM users ORDER BY id");
        names.fetch_all(&self.pool).await
    }

    #[cached(resource = "teams", op = "of", tags("team:{team_id}"), cache = self.cache)]
    async fn team(&self, team_id: i64) -> Result<Vec<String>, sqlx::Error> {
        let names = sqlx::query_scalar("SELECT name FROM users WHERE team_id = $1 ORDER BY id");
        names.bind(team_id).fetch_all(&self.pool).await
    }

    #[cached(resource = "users", op = "exact", strict, cache = self.cache)]
    async fn exact(&self, id: i64) -> Result<String, sqlx::Error> {
        self.get(id).await
    }

    #[cached(resource = "orders", id = (tenant, id), cache = self.cache)]
    async fn order(&self, tenant: &str, id: i64) -> Result<String, sqlx::Error> {
        let text = sqlx::query_scalar("SELECT text FROM orders WHERE tenant = $1 AND id = $2");
        text.bind(tenant).bind(id).fetch_one(&self.pool).await
    }

    #[invalidates("users", id = id, after_commit, cache = self.cache)]
    async fn rename(&self, tx: &mut PgConnection, id: i64, name: &str) -> Result<(), sqlx::Error> {
        let update = sqlx::query("UPDATE users SET name = $1 WHERE id = $2");
        update.bind(name).bind(id).execute(tx).await.map(drop)
    }

    #[invalidates("users", ops("names"), after_commit, cache = self.cache)]
    async fn rename_in_lists(
        &self,
        tx: &mut PgConnection,
        id: i64,
        name: &str,
    ) -> Result<(), sqlx::Error> {
        let update = sqlx::query("UPDATE users SET name = $1 WHERE id = $2");
        update.bind(name).bind(id).execute(tx).await.map(drop)
    }

    #[invalidates("orders", id = (tenant, id), after_commit, cache = self.cache)]
    async fn reorder(
        &self,
        tx: &mut PgConnection,
        tenant: &str,
        id: i64,
        text: &str,
    ) -> Result<(), sqlx::Error> {
        let update = sqlx::query("UPDATE orders SET text = $3 WHERE tenant = $1 AND id = $2");
        let update = update.bind(tenant).bind(id).bind(text);
        update.execute(tx).await.map(drop)
    }

    #[cached(resource = "badges", cache = self.cache)]
    async fn badge(&self, id: BadgeId) -> Result<String, sqlx::Error> {
        let text = sqlx::query_scalar("SELECT text FROM badges WHERE id = $1");
        text.bind(id.0).fetch_one(&self.pool).await
    }

    /// The name that a reader gets, and whether from the cache.
    async fn name(&self, id: i64) -> (String, bool) {
        let (name, outcomes) = observe(self.get(id)).await;
        let is_hit = matches!(outcomes[0].status, Status::Hit { .. });
        (name.expect("read"), is_hit)
    }

    /// Reads until it is answered from the cache.
    async fn warm(&self, id: i64) -> String {
        let mut last = String::new();
        eventually(TEST_TIMEOUT, async || {
            let (name, is_hit) = self.name(id).await;
            last = name;
            is_hit
        })
        .await;
        last
    }

    /// Returns when a reader gets this name.
    async fn shows(&self, id: i64, name: &str) {
        eventually(TEST_TIMEOUT, async || self.name(id).await.0 == name).await;
    }
}

/// An id whose text in keys is another one than in the database. Without `Debug` or `Hash` nothing
/// would tell whether that text leaves something out, and calls would bypass the cache.
#[derive(Debug, Clone, Copy)]
struct BadgeId(i64);

impl Serialize for BadgeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("b{}", self.0))
    }
}

/// A database with a table of users, the outbox, and the triggers of some tables.
async fn database(postgres: &Postgres, tables: impl IntoIterator<Item = Table>) -> String {
    let url = postgres.database();
    let made =
        "CREATE TABLE users (id bigint PRIMARY KEY, name text NOT NULL, team_id bigint, note json);
        CREATE TABLE orders (tenant text, id bigint, text text, PRIMARY KEY (tenant, id));
        INSERT INTO users VALUES (1, 'old', 1), (2, 'other', 1), (3, 'third', 2);
        INSERT INTO orders VALUES ('a:b', 1, 'old')";
    postgres.psql(&url, made);
    install(&url, tables).await.expect("installed");
    url
}

async fn install(
    url: &str,
    tables: impl IntoIterator<Item = Table>,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut connection = PgConnection::connect(url).await?;
    let config = OutboxConfig::postgres(url)?;
    let triggers = outbox::triggers(&cache_runtime::catalog(), tables)?;
    outbox::install(&mut connection, &config, Some(&triggers)).await?;
    Ok(())
}

fn users() -> Table {
    table("users").resource("users").id("id")
}

/// What the outbox holds, in the order of kind, resource and value.
fn written(postgres: &Postgres, url: &str) -> Vec<String> {
    let sql = "SELECT kind || ' ' || coalesce(resource, '-') || ' ' || coalesce(value, '-') \
               FROM cache_outbox ORDER BY kind, resource, value";
    let lines = postgres.psql(url, sql);
    postgres.psql(url, "DELETE FROM cache_outbox");
    lines.lines().map(str::to_owned).collect()
}
