//! The relay: one connection to the database in each process, as long as the cache exists.
//!
//! The same connection listens and reads. So its loss is noticed by the next read, after at most
//! half a second, and a new connection begins with a read. A notification only means that there may
//! be rows: the next poll finds the rows of a lost one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::sqlx::postgres::{PgConnection, PgListener, PgPoolOptions, PgRow};
use ::sqlx::{Acquire, AssertSqlSafe, Row as _};

use crate::base::clock::{self, Instant};
use crate::config::outbox::{OutboxConfig, OutboxTable, Place};
use crate::engine::{Handle, WeakHandle};
use crate::invalidation::outbox::{OutboxLink, Survey};
use crate::local::Cover;
use crate::outbox::migration::VERSION;
use crate::outbox::row::Row;

/// How long a query may take before the connection counts as lost.
const QUERY: Duration = Duration::from_secs(1);
/// How long connecting may take.
pub(super) const CONNECT: Duration = Duration::from_secs(2);
/// How often the table's size is read.
pub(super) const SURVEY: Duration = Duration::from_secs(5);
/// The most rows of a batch that are logged because they can't be read.
const LOGGED: usize = 10;
/// How many rows that can't be read are kept, and for how many days; the oldest are deleted first.
/// They show a writer's mistake. Everything that they may have meant has been invalidated.
pub(super) const MOST_SET_ASIDE: usize = 1_000;
const TOO_OLD: &str = "set_aside < clock_timestamp() - interval '7 days'";
/// In the state table: each process reads the rows. The retention time in milliseconds follows.
pub(super) const EACH: &str = "each/";
/// How long a batch, which holds the locks of its rows, may wait for the store.
pub(super) const ACKNOWLEDGEMENT: Duration = Duration::from_millis(600);

#[derive(Clone)]
pub(super) struct Relay {
    pub(super) config: OutboxConfig,
    pub(super) link: Arc<OutboxLink>,
    /// Only if this process reads all rows.
    pub(super) freshness: Option<Arc<Cover>>,
    pub(super) poll: Duration,
    pub(super) cache: WeakHandle,
}

/// Why a connection is no longer used.
#[derive(Debug)]
pub(super) enum Lost {
    Database(::sqlx::Error),
    /// A query was not answered in time.
    TimedOut,
    /// The connection was closed.
    Closed,
    /// The relay can't use the database; the text says what to do.
    Unusable(String),
    /// The store has not acknowledged an invalidation.
    NotAcknowledged,
    /// The cache was dropped.
    Over,
}

impl From<::sqlx::Error> for Lost {
    fn from(error: ::sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database(error) => write!(f, "{error}"),
            Self::TimedOut => write!(f, "no answer within {} s", QUERY.as_secs()),
            Self::Closed => f.write_str("the connection was closed"),
            Self::Unusable(what) => f.write_str(what),
            Self::NotAcknowledged => f.write_str("the store has not acknowledged an invalidation"),
            Self::Over => f.write_str("the cache is closed"),
        }
    }
}

/// One connection.
pub(super) struct Connection {
    listener: PgListener,
}

impl Connection {
    /// Runs a query, and reads all its rows. `None` parameters are not bound.
    pub(super) async fn rows(&mut self, sql: &str, texts: &[&str]) -> Result<Vec<PgRow>, Lost> {
        let connection = self.listener.acquire().await?;
        within(rows(connection, sql, texts)).await
    }

    pub(super) async fn begin(
        &mut self,
    ) -> Result<::sqlx::Transaction<'_, ::sqlx::Postgres>, Lost> {
        within(async { Ok(self.listener.begin().await?) }).await
    }
}

/// Runs a query on a connection, and reads all its rows.
pub(super) async fn rows(
    connection: &mut PgConnection,
    sql: &str,
    texts: &[&str],
) -> Result<Vec<PgRow>, Lost> {
    let mut query = ::sqlx::query(AssertSqlSafe(sql));
    for text in texts {
        query = query.bind((*text).to_owned());
    }
    Ok(query.fetch_all(connection).await?)
}

/// Gives up a query that is not answered in time.
pub(super) async fn within<T>(query: impl Future<Output = Result<T, Lost>>) -> Result<T, Lost> {
    match tokio::time::timeout(QUERY, query).await {
        Ok(answer) => answer,
        Err(_) => Err(Lost::TimedOut),
    }
}

impl Relay {
    pub(super) fn table(&self) -> &OutboxTable {
        &self.config.table
    }

    pub(super) fn cache(&self) -> Result<Handle, Lost> {
        self.cache.upgrade().ok_or(Lost::Over)
    }

    pub(super) async fn connect(&self) -> Result<Connection, Lost> {
        #[allow(
            clippy::infallible_destructuring_match,
            reason = "with SQLite there is another place"
        )]
        let options = match &self.config.place {
            Place::Postgres(options) => options,
            #[cfg(feature = "outbox-sqlite")]
            Place::Sqlite(_) => return Err(Lost::Unusable("the outbox is in SQLite".into())),
        };
        let options = options.clone().application_name("cache-runtime outbox");
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(CONNECT)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_lazy_with(options);
        let mut listener = PgListener::connect_with(&pool).await?;
        // A new connection begins with a read, so the pool's own check is not needed.
        listener.eager_reconnect(false);
        listener.ignore_pool_close_event(true);
        // Before the first read, so that later commits are notified.
        listener.listen(&self.table().channel()).await?;
        let mut connection = Connection { listener };
        // A process that is stopped in the middle of a batch must not keep its rows locked. This
        // time and the poll of the others add up to less than the promised 1.5 s.
        let settings = "SET idle_in_transaction_session_timeout = '750ms'";
        connection.rows(settings, &[]).await?;
        self.check(&mut connection).await?;
        Ok(connection)
    }

    /// Checks that this is a primary with the table in the version that this crate knows, and that
    /// the other relays share the rows in the same way.
    async fn check(&self, connection: &mut Connection) -> Result<(), Lost> {
        let (outbox, state) = (self.table().quoted(), self.table().beside("_state"));
        let facts = connection
            .rows(
                "SELECT pg_is_in_recovery(), to_regclass($1) IS NOT NULL",
                &[&state],
            )
            .await?;
        let facts = facts.first().ok_or(Lost::Closed)?;
        if facts.try_get(0)? {
            let text =
                "the database is a replica, which lags behind; the outbox is read on the primary";
            return Err(Lost::Unusable(text.into()));
        }
        if !facts.try_get::<bool, _>(1)? {
            let text =
                format!("there is no table {outbox}; the migration of the outbox creates it");
            return Err(Lost::Unusable(text));
        }
        let mine = match &self.freshness {
            None => format!("redis/{}", self.cache()?.space.namespace),
            // Before the first read: rows that were deleted earlier had been committed by then.
            Some(_) => format!("{EACH}{}", self.config.retention.as_millis()),
        };
        let is_longer = format!(
            "left(relay, {}) = '{EACH}' AND substr(relay, {})::numeric < $2::numeric",
            EACH.len(),
            EACH.len() + 1,
        );
        let told = connection
            .rows(
                &format!(
                    "UPDATE {state} SET relay = $1
                        WHERE relay IS NULL OR CASE WHEN $2 <> '' THEN {is_longer} ELSE false END RETURNING 1"
                ),
                &[&mine, mine.strip_prefix(EACH).unwrap_or_default()],
            )
            .await?;
        drop(told);
        let read = connection
            .rows(&format!("SELECT version, relay FROM {state}"), &[])
            .await?;
        let read = read.first().ok_or(Lost::Closed)?;
        let (version, relay): (i32, Option<String>) = (read.try_get(0)?, read.try_get(1)?);
        if version != VERSION {
            return Err(Lost::Unusable(format!(
                "the table {outbox} is of version {version}, and this program reads version {VERSION}; run the migration of the outbox"
            )));
        }
        let is_shared_alike = match relay.as_deref() {
            Some(theirs) if self.freshness.is_some() => theirs.starts_with(EACH),
            theirs => theirs == Some(&mine),
        };
        if !is_shared_alike {
            let theirs = relay.unwrap_or_default();
            return Err(Lost::Unusable(format!(
                "the table {outbox} is read by processes that share its rows as `{theirs}`, and this one would as `{mine}`; give it a table of its own, or run the migration again if the others have been changed, too"
            )));
        }
        Ok(())
    }

    /// Waits until there may be rows to read.
    pub(super) async fn wait(&self, connection: &mut Connection) -> Result<(), Lost> {
        let listener = &mut connection.listener;
        let poll = async {
            if crate::base::mutation::is_active("outbox-listener-trusted") {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(self.poll).await;
        };
        tokio::select! {
            heard = listener.try_recv() => {
                if heard?.is_none() {
                    return Err(Lost::Closed);
                }
            }
            () = poll => {}
            () = self.link.woken() => {}
        }
        // One read sees all of them.
        while listener.next_buffered().is_some() {}
        Ok(())
    }

    /// Reads the table's size at intervals.
    pub(super) async fn survey(
        &self,
        connection: &mut Connection,
        last: &mut Option<Instant>,
    ) -> Result<(), Lost> {
        if last.is_some_and(|last| last.elapsed() < SURVEY) {
            return Ok(());
        }
        *last = Some(clock::now());
        let sql = format!(
            "SELECT (SELECT count(*) FROM (SELECT 1 FROM {outbox} LIMIT 100000) AS counted),
                (SELECT {} FROM {outbox} AS r ORDER BY id LIMIT 1),
                (SELECT count(*) FROM (SELECT 1 FROM {set_aside} LIMIT 100000) AS counted),
                (SELECT dropped FROM {state}),
                EXISTS (SELECT FROM {set_aside} WHERE {TOO_OLD})",
            Row::AGE_MS,
            outbox = self.table().quoted(),
            set_aside = self.table().beside("_set_aside"),
            state = self.table().beside("_state"),
        );
        let read = connection.rows(&sql, &[]).await?;
        let read = read.first().ok_or(Lost::Closed)?;
        let natural = |n: i64| u64::try_from(n).unwrap_or(0);
        self.link.surveyed(Survey {
            depth: natural(read.try_get(0)?),
            oldest_ms: read.try_get::<Option<i64>, _>(1)?.map(natural),
            set_aside: natural(read.try_get(2)?),
            dropped: natural(read.try_get::<Option<i64>, _>(3)?.unwrap_or(0)),
        });
        if read.try_get(4)? {
            self.drop_set_aside(connection).await?;
        }
        Ok(())
    }

    /// The statement that writes rows to the set-aside table. If each process reads all rows, a
    /// later process does not write a row again that has been deleted there.
    pub(super) fn set_aside_sql(&self) -> String {
        let set_aside = self.table().beside("_set_aside");
        let is_kept = match self.freshness {
            None => String::new(),
            Some(_) => format!(
                "WHERE id > coalesce((SELECT id FROM {set_aside} ORDER BY id DESC OFFSET {} LIMIT 1), id - 1)",
                MOST_SET_ASIDE - 1
            ),
        };
        format!(
            "INSERT INTO {set_aside} (id, kind, resource, value, reason)
                SELECT id, kind, resource, left(value, 1000), reason
                FROM json_to_recordset($1::json) AS r(id bigint, kind text, resource text, value text, reason text)
                {is_kept}
                ON CONFLICT (id) DO NOTHING",
        )
    }

    /// Deletes the oldest set-aside rows beyond the limits, and counts them in the state table.
    /// Runs after the transaction that has set some aside, so that relays wait for each other only
    /// briefly.
    pub(super) async fn drop_set_aside(&self, connection: &mut Connection) -> Result<(), Lost> {
        if crate::base::mutation::is_active("outbox-set-aside-kept") {
            return Ok(());
        }
        let (set_aside, state) = (
            self.table().beside("_set_aside"),
            self.table().beside("_state"),
        );
        let sql = format!(
            "WITH dropped AS (
                DELETE FROM {set_aside} WHERE {TOO_OLD}
                    OR id <= (SELECT id FROM {set_aside} ORDER BY id DESC OFFSET {MOST_SET_ASIDE} LIMIT 1)
                RETURNING 1
            )
            UPDATE {state} AS state SET dropped = state.dropped + counted.rows
                FROM (SELECT count(*) AS rows FROM dropped) AS counted WHERE counted.rows > 0"
        );
        match connection.rows(&sql, &[]).await {
            Err(Lost::Database(error @ ::sqlx::Error::Database(_))) => {
                tracing::warn!(
                    table = self.table().channel(),
                    %error,
                    "rows that were set aside could not be dropped; the relay's user needs DELETE on that table"
                );
                Ok(())
            }
            dropped => dropped.map(drop),
        }
    }

    /// A row that can't be set aside is invalidated all the same, and does not delay the others.
    pub(super) fn not_set_aside(&self, error: &::sqlx::Error) {
        tracing::error!(
            table = self.table().channel(),
            %error,
            "a row of the outbox that can't be read could not be set aside"
        );
    }

    /// The parameter of that statement.
    pub(super) fn report(&self, poison: &[(Row, String)]) -> String {
        for (row, reason) in poison.iter().take(LOGGED) {
            tracing::error!(
                table = self.table().channel(),
                row = row.id,
                reason,
                "a row of the outbox can't be read: what it may mean is invalidated, and it is set aside"
            );
        }
        if poison.len() > LOGGED {
            tracing::error!(
                table = self.table().channel(),
                rows = poison.len(),
                "more rows of the outbox can't be read"
            );
        }
        let rows = poison.iter().map(|(row, reason)| {
            serde_json::json!({
                "id": row.id, "kind": row.kind, "resource": row.resource, "value": row.value, "reason": reason,
            })
        });
        serde_json::Value::from_iter(rows).to_string()
    }
}
