//! Rows that a program writes itself, in the transaction that changes the data.

use std::any::Any;

use ::sqlx::AnyConnection;
use ::sqlx::any::{AnyConnectOptions, AnyRow};
use ::sqlx::pool::PoolConnection;
use ::sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use ::sqlx::{AssertSqlSafe, Connection, Database, Pool, Row as _, Transaction};

use super::row::{NewRow, rows_of};
use crate::call::transaction;
use crate::config::outbox::{OutboxConfig, OutboxLocation};
use crate::engine::Handle;
use crate::key::{KeyPart, is_resource, render_id};

/// How long the rows of a transaction belong to their writer, which invalidates at once and then
/// deletes them. If it dies, the relays take them after this time.
const OWN_MS: u32 = 500;

/// The outbox for writers: its rows are committed with the caller's transaction, or not at all.
///
/// [`sqlx::transaction`](crate::sqlx::transaction) writes the rows of annotated functions by
/// itself. This is for writers without an annotation, also in programs without a cache.
///
/// ```no_run
/// use cache_runtime::outbox::{Outbox, OutboxConfig};
///
/// # async fn example(pool: sqlx::PgPool) -> Result<(), Box<dyn std::error::Error>> {
/// let outbox = Outbox::new(&OutboxConfig::postgres("postgres://app@localhost/shop")?);
/// let mut tx = pool.begin().await?;
/// sqlx::query("UPDATE users SET name = 'Ada' WHERE id = 1").execute(&mut *tx).await?;
/// outbox.invalidate(&mut tx, "users", 1).await?;
/// tx.commit().await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Outbox {
    config: OutboxConfig,
}

impl Outbox {
    /// The outbox of this configuration. Nothing is connected: rows go over the caller's
    /// connection.
    #[must_use]
    pub fn new(config: &OutboxConfig) -> Self {
        Self {
            config: config.clone(),
        }
    }

    /// Invalidates one row and everything derived from its resource when the caller's transaction
    /// is committed. An id that can't be in a key invalidates the resource.
    ///
    /// # Errors
    /// [`sqlx::Error::InvalidArgument`](::sqlx::Error::InvalidArgument) if the name is no resource;
    /// otherwise the database's error, which ends the transaction.
    ///
    /// # Cancel safety
    /// If dropped, the row may have been written: roll the transaction back.
    pub async fn invalidate(
        &self,
        connection: &mut impl OutboxConnection,
        resource: &str,
        id: impl KeyPart,
    ) -> Result<(), ::sqlx::Error> {
        check(resource)?;
        let mut rendered = String::new();
        let row = match render_id(&id, &mut rendered) {
            Ok(_) if rendered.len() < super::row::LONGEST_VALUE / 2 => {
                NewRow::row(resource, &rendered)
            }
            _ => NewRow::all(Some(resource)),
        };
        self.write(connection, &[row]).await
    }

    /// Invalidates everything of a resource.
    ///
    /// # Errors
    /// Like [`invalidate`](Self::invalidate).
    ///
    /// # Cancel safety
    /// Like [`invalidate`](Self::invalidate).
    pub async fn invalidate_all(
        &self,
        connection: &mut impl OutboxConnection,
        resource: &str,
    ) -> Result<(), ::sqlx::Error> {
        check(resource)?;
        self.write(connection, &[NewRow::all(Some(resource))]).await
    }

    /// Invalidates all entries with a tag.
    ///
    /// # Errors
    /// The database's error.
    ///
    /// # Cancel safety
    /// Like [`invalidate`](Self::invalidate).
    pub async fn invalidate_tag(
        &self,
        connection: &mut impl OutboxConnection,
        tag: &str,
    ) -> Result<(), ::sqlx::Error> {
        self.write(connection, &[NewRow::tag(tag)]).await
    }

    async fn write(
        &self,
        connection: &mut impl OutboxConnection,
        rows: &[NewRow],
    ) -> Result<(), ::sqlx::Error> {
        let sql = insert_sql(&self.config, false);
        insert(connection.target(), sql, rows).await.map(drop)
    }
}

fn check(resource: &str) -> Result<(), ::sqlx::Error> {
    if is_resource(resource) {
        return Ok(());
    }
    let shown = crate::base::error::shortened(resource);
    let text = format!("`{shown}` is no resource; use lower-case letters, digits, `-` and `_`");
    Err(::sqlx::Error::InvalidArgument(text))
}

/// A connection, or a transaction, of SQLx's driver for PostgreSQL or of its `Any`; with the
/// feature `outbox-sqlite` also of the driver for SQLite. It has to be in the outbox's database.
pub trait OutboxConnection: Send + Target {}

impl<T: Target + Send> OutboxConnection for T {}

mod sealed {
    use super::{AnyConnection, PgConnection};

    pub enum DatabaseConnection<'c> {
        Postgres(&'c mut PgConnection),
        Any(&'c mut AnyConnection),
        #[cfg(feature = "outbox-sqlite")]
        Sqlite(&'c mut ::sqlx::SqliteConnection),
    }

    pub trait Target {
        fn target(&mut self) -> DatabaseConnection<'_>;
    }
}

use sealed::{DatabaseConnection, Target};

impl Target for PgConnection {
    fn target(&mut self) -> DatabaseConnection<'_> {
        DatabaseConnection::Postgres(self)
    }
}

impl Target for AnyConnection {
    fn target(&mut self) -> DatabaseConnection<'_> {
        DatabaseConnection::Any(self)
    }
}

#[cfg(feature = "outbox-sqlite")]
impl Target for ::sqlx::SqliteConnection {
    fn target(&mut self) -> DatabaseConnection<'_> {
        DatabaseConnection::Sqlite(self)
    }
}

impl<DB: Database<Connection: Target>> Target for Transaction<'_, DB> {
    fn target(&mut self) -> DatabaseConnection<'_> {
        (**self).target()
    }
}

impl<DB: Database<Connection: Target>> Target for PoolConnection<DB> {
    fn target(&mut self) -> DatabaseConnection<'_> {
        (**self).target()
    }
}

impl<T: Target + ?Sized> Target for &mut T {
    fn target(&mut self) -> DatabaseConnection<'_> {
        (**self).target()
    }
}

/// Runs a statement with rows as JSON, which SQLx's `Any` can bind; returns the ids that the
/// statement returns.
async fn insert(
    link: DatabaseConnection<'_>,
    sql: String,
    rows: &[NewRow],
) -> Result<Vec<i64>, ::sqlx::Error> {
    let rows = serde_json::to_string(rows).map_err(|error| ::sqlx::Error::Encode(error.into()))?;
    match link {
        DatabaseConnection::Postgres(connection) => {
            let query = ::sqlx::query(AssertSqlSafe(sql)).bind(rows);
            let read: Vec<PgRow> = query.fetch_all(connection).await?;
            read.iter().map(|row| row.try_get(0)).collect()
        }
        DatabaseConnection::Any(connection) => {
            let query = ::sqlx::query(AssertSqlSafe(sql)).bind(rows);
            let read: Vec<AnyRow> = query.fetch_all(connection).await?;
            read.iter().map(|row| row.try_get(0)).collect()
        }
        #[cfg(feature = "outbox-sqlite")]
        DatabaseConnection::Sqlite(connection) => {
            let query = ::sqlx::query(AssertSqlSafe(sql)).bind(rows);
            let read = query.fetch_all(connection).await?;
            read.iter().map(|row| row.try_get(0)).collect()
        }
    }
}

/// The statement that writes rows. They may belong to their writer for a while, which invalidates
/// by itself.
fn insert_sql(config: &OutboxConfig, is_own: bool) -> String {
    match &config.location {
        OutboxLocation::Postgres(_) => {
            let due = match is_own {
                true => format!("clock_timestamp() + interval '{OWN_MS} ms'"),
                false => "'-infinity'".to_owned(),
            };
            format!(
                "INSERT INTO {} (kind, resource, value, due)
                    SELECT kind, resource, value, {due} FROM json_to_recordset($1::json) AS r(kind text, resource text, value text)
                    RETURNING id",
                config.table.quoted()
            )
        }
        #[cfg(feature = "outbox-sqlite")]
        OutboxLocation::Sqlite(_) => {
            let due = match is_own {
                true => format!("{} + {OWN_MS}", super::sqlite::NOW),
                false => "0".to_owned(),
            };
            format!(
                "INSERT INTO {} (kind, resource, value, due)
                    SELECT json_extract(r.value, '$.kind'), json_extract(r.value, '$.resource'), json_extract(r.value, '$.value'), {due}
                    FROM json_each($1) AS r WHERE true RETURNING id",
                config.table.bare("")
            )
        }
    }
}

/// The rows that a transaction has written for its invalidations.
#[derive(Debug, Default)]
pub(crate) struct CommitRows {
    ids: Vec<i64>,
    /// The relay's connection when they were written.
    connection: u64,
}

impl CommitRows {
    /// The store has acknowledged these invalidations: the rows are deleted in the background.
    pub(crate) fn done(self, cache: &Handle) {
        // Without Redis the other processes have to read them.
        if let Some(link) = cache.outbox.as_ref().filter(|link| link.is_shared) {
            link.done(self.ids, self.connection);
        }
    }
}

/// Whether a transaction of this pool writes its rows to the cache's outbox: if the outbox is in
/// the pool's database. Another name of the same server counts as another server: then
/// invalidations are sent after the commit, as without an outbox.
///
/// With Redis, rows only cover a crash, so they are written once the relay has found the table.
/// Without Redis, other processes learn of a write only by rows, so they are written from the first
/// write on.
pub(crate) fn covers<DB: Database>(cache: &Handle, pool: &Pool<DB>) -> bool {
    let (Some(config), Some(link)) = (&cache.config.outbox, &cache.outbox) else {
        return false;
    };
    let waits =
        link.is_shared || crate::base::mutation::is_active("outbox-rows-wait-for-the-relay");
    if waits && !link.is_usable() || crate::base::mutation::is_active("outbox-row-not-written") {
        return false;
    }
    let options = pool.connect_options();
    let is_covered = is_in(&config.location, &*options);
    if is_covered == Some(false) && !link.is_shared && link.is_first_outside() {
        tracing::warn!(
            table = config.table.channel(),
            "a transaction in another database than the outbox's, or in one of another host name, port or name: \
             other processes are not told of its invalidations"
        );
    }
    is_covered.unwrap_or(false)
}

/// Whether these options of a pool lead to the outbox's database; `None` for another kind of
/// database.
fn is_in(location: &OutboxLocation, options: &dyn Any) -> Option<bool> {
    let any = options.downcast_ref::<AnyConnectOptions>();
    let url = any.map(|any| any.database_url.as_str());
    match location {
        OutboxLocation::Postgres(own) => {
            let of_url = url.and_then(|url| match OutboxConfig::postgres(url).ok()?.location {
                OutboxLocation::Postgres(options) => Some(options),
                #[cfg(feature = "outbox-sqlite")]
                OutboxLocation::Sqlite(_) => None,
            });
            let other = options.downcast_ref().or(of_url.as_ref());
            other.map(|other: &PgConnectOptions| is_same(other, own))
        }
        #[cfg(feature = "outbox-sqlite")]
        OutboxLocation::Sqlite(own) => {
            use ::sqlx::sqlite::SqliteConnectOptions as Options;
            let of_url = url
                .filter(|url| url.starts_with("sqlite:"))
                .and_then(|url| url.parse().ok());
            let other: Option<&Options> = options.downcast_ref().or(of_url.as_ref());
            let file = |options: &Options| std::fs::canonicalize(options.get_filename()).ok();
            other.map(|other| file(own).is_some() && file(own) == file(other))
        }
    }
}

fn is_same(one: &PgConnectOptions, other: &PgConnectOptions) -> bool {
    fn host(options: &PgConnectOptions) -> String {
        match options.get_host() {
            "localhost" | "::1" | "[::1]" => "127.0.0.1".to_owned(),
            host => host.to_ascii_lowercase(),
        }
    }
    fn database(options: &PgConnectOptions) -> &str {
        options.get_database().unwrap_or(options.get_username())
    }
    one.get_port() == other.get_port()
        && one.get_socket() == other.get_socket()
        && host(one) == host(other)
        && database(one) == database(other)
}

/// Writes rows for the invalidations of the innermost block so far, over the connection of its
/// transaction.
pub(crate) async fn write_collected<C: Connection + 'static>(
    cache: &Handle,
    connection: &mut C,
) -> Result<CommitRows, ::sqlx::Error> {
    let rows = collected(cache);
    let (false, Some(config)) = (rows.is_empty(), &cache.config.outbox) else {
        return Ok(CommitRows::default());
    };
    let known = cache.outbox.as_ref().is_some_and(|it| it.is_usable());
    let relay = cache.outbox.as_ref().map_or(0, |it| it.connection());
    if !known && !exists(connection_of(connection), config).await? {
        // A process that follows it later starts with an empty cache.
        return Ok(CommitRows::default());
    }
    let Some(link) = connection_of(connection) else {
        return Ok(CommitRows::default());
    };
    // Without Redis the other processes wait for it.
    let sql = insert_sql(config, cache.freshness.is_none());
    let ids = insert(link, sql, &rows).await?;
    Ok(CommitRows {
        ids,
        connection: relay,
    })
}

fn connection_of<C: Connection + 'static>(connection: &mut C) -> Option<DatabaseConnection<'_>> {
    let connection: &mut dyn Any = connection;
    if connection.is::<PgConnection>() {
        return connection.downcast_mut().map(DatabaseConnection::Postgres);
    }
    #[cfg(feature = "outbox-sqlite")]
    if connection.is::<::sqlx::SqliteConnection>() {
        return connection.downcast_mut().map(DatabaseConnection::Sqlite);
    }
    connection.downcast_mut().map(DatabaseConnection::Any)
}

/// Whether the table exists. Writing to a missing one would abort the caller's transaction.
async fn exists(
    link: Option<DatabaseConnection<'_>>,
    config: &OutboxConfig,
) -> Result<bool, ::sqlx::Error> {
    let (sql, table) = match &config.location {
        OutboxLocation::Postgres(_) => (
            "SELECT CASE WHEN to_regclass($1) IS NULL THEN 0 ELSE 1 END::bigint",
            config.table.quoted(),
        ),
        #[cfg(feature = "outbox-sqlite")]
        OutboxLocation::Sqlite(_) => (
            "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = $1",
            config.table.name().to_owned(),
        ),
    };
    let found: i64 = match link {
        Some(DatabaseConnection::Postgres(connection)) => {
            let query = ::sqlx::query_scalar(sql).bind(table);
            query.fetch_one(connection).await?
        }
        Some(DatabaseConnection::Any(connection)) => {
            let query = ::sqlx::query_scalar(sql).bind(table);
            query.fetch_one(connection).await?
        }
        #[cfg(feature = "outbox-sqlite")]
        Some(DatabaseConnection::Sqlite(connection)) => {
            let query = ::sqlx::query_scalar(sql).bind(table);
            query.fetch_one(connection).await?
        }
        None => 0,
    };
    Ok(found > 0)
}

fn collected(cache: &Handle) -> Vec<NewRow> {
    let (writes, everything) = transaction::collected(cache);
    rows_of(&writes, everything, &cache.space)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_database_is_known_by_host_port_and_name() {
        let options = |url: &str| match OutboxConfig::postgres(url).expect("a URL").location {
            OutboxLocation::Postgres(options) => options,
            #[cfg(feature = "outbox-sqlite")]
            OutboxLocation::Sqlite(_) => unreachable!("a URL of PostgreSQL"),
        };
        let own = options("postgres://app@localhost:5433/shop");
        for (url, is) in [
            ("postgres://other:secret@127.0.0.1:5433/shop", true),
            ("postgres://app@localhost:5432/shop", false),
            ("postgres://app@localhost:5433/other", false),
            ("postgres://app@db:5433/shop", false),
        ] {
            assert_eq!(is_same(&options(url), &own), is, "{url}");
        }
    }
}
