//! The relay: one connection to the database in each process, as long as the cache exists.
//!
//! The same connection listens and reads, so to lose it is noticed by the next read, half a second
//! later at most, and to get a new one begins with a read. A notification only says that there may
//! be rows: what is missed is read with the next poll.
//!
//! A statement that is slow ends at the server, frees its rows there, and is tried again over the
//! same connection. Only one that gets no answer at all, not even that, is a sign of a lost
//! connection.
//!
//! New rows are found by the database's *snapshot*: rows that are visible now and were not in the
//! snapshot of the last read, both of which PostgreSQL knows exactly. Such a read costs in
//! proportion to what is new. A walk over the whole table does not: while any transaction is open
//! for long, all that was deleted since it began is still in the way.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::sqlx::postgres::{PgConnectOptions, PgConnection, PgListener, PgPoolOptions, PgRow};
use ::sqlx::{Acquire, AssertSqlSafe, Row as _};

use crate::config::outbox::{OutboxConfig, OutboxLocation, OutboxTable};
use crate::engine::{Handle, WeakHandle};
use crate::invalidation::outbox::OutboxState;
use crate::local::FreshnessBound;
use crate::outbox::migration::VERSION;
use crate::outbox::row::Row;

/// How long a statement may run; then the server ends it.
const STATEMENT_TIMEOUT: Duration = Duration::from_millis(750);
/// How long a query may go without an answer before the connection counts as lost. A server that
/// is only slow has ended the statement by then.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);
/// How long connecting may take.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a process that hangs in the middle of a batch holds its rows. Together with the poll of
/// the other processes this is less than the 1.5 s that are promised.
const IDLE_IN_TRANSACTION_TIMEOUT: &str = "750ms";
/// The application name of relays' connections.
pub(super) const NAME: &str = "cache-runtime outbox";
/// How many rows of a batch that can't be read are logged one by one.
const LOGGED: usize = 10;
/// How many rows that can't be read are kept, and for how many days; the oldest are deleted first.
/// They show a writer's mistake. Everything that they may have meant has been invalidated.
pub(super) const MOST_SET_ASIDE: usize = 1_000;
pub(super) const TOO_OLD: &str = "set_aside < clock_timestamp() - interval '7 days'";
/// The state's mark that each process reads all rows. Behind it is the retention in milliseconds.
pub(super) const EACH: &str = "each/";
/// How long a batch, which holds the locks of its rows, may wait for the store.
pub(super) const DELIVERY_TIMEOUT: Duration = Duration::from_millis(600);

#[derive(Clone)]
pub(super) struct Relay {
    pub(super) config: OutboxConfig,
    pub(super) state: Arc<OutboxState>,
    /// Only if this process reads all rows.
    pub(super) freshness: Option<Arc<FreshnessBound>>,
    pub(super) poll: Duration,
    pub(super) cache: WeakHandle,
}

/// Why a connection is no longer used.
#[derive(Debug)]
pub(super) enum RelayError {
    Database(::sqlx::Error),
    /// The server has ended a statement that took too long or met another one. The connection is as
    /// good as before, and the statement is to be tried again.
    Busy(::sqlx::Error),
    /// A query was not answered at all.
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

impl From<::sqlx::Error> for RelayError {
    fn from(error: ::sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|it| it.code());
        let is_busy = code.is_some_and(|it| is_busy(&it));
        match is_busy && !crate::base::mutation::is_active("outbox-slow-is-lost") {
            true => Self::Busy(error),
            false => Self::Database(error),
        }
    }
}

/// Whether a statement may succeed when it is tried again. In PostgreSQL it was canceled by a
/// limit, met a lock, or is of the class of conflicts between transactions, by five characters; in
/// SQLite the file was locked (5 and 6, in the last byte of a number).
fn is_busy(code: &str) -> bool {
    match code.parse::<u32>() {
        Ok(number) if code.len() < 5 => {
            matches!(number & 0xff, 5 | 6)
                && !crate::base::mutation::is_active("outbox-sqlite-waits-for-writers")
        }
        _ => code == "57014" || code == "55P03" || code.starts_with("40"),
    }
}

impl fmt::Display for RelayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database(error) | Self::Busy(error) => write!(f, "{error}"),
            Self::TimedOut => write!(f, "no answer within {} s", QUERY_TIMEOUT.as_secs()),
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
    /// The number of the state table, once it is known.
    table: Option<i64>,
}

impl Connection {
    /// Refuses to go on if the rows are shared in another way than this process would, or if the
    /// tables are others than when it connected: a dump was restored over them, or they were
    /// installed anew, and nobody knows what has changed meanwhile. Reads
    /// [`state_sql`](Relay::state_sql) from column `at` on.
    pub(super) fn is_the_same(
        &mut self,
        relay: &Relay,
        read: &PgRow,
        at: usize,
    ) -> Result<(), RelayError> {
        relay.is_shared_alike(read.try_get(at)?)?;
        let table: Option<i64> = read.try_get(at + 1)?;
        let is_another = *self.table.get_or_insert(table.unwrap_or_default())
            != table.unwrap_or_default()
            && !crate::base::mutation::is_active("outbox-restored-unnoticed");
        match is_another {
            false => Ok(()),
            true => Err(RelayError::Unusable(format!(
                "the table {} is another one than before: it is connected to anew",
                relay.table().quoted()
            ))),
        }
    }

    /// Runs a query, and reads all its rows. `None` parameters are not bound.
    pub(super) async fn rows(
        &mut self,
        sql: &str,
        texts: &[&str],
    ) -> Result<Vec<PgRow>, RelayError> {
        let connection = self.listener.acquire().await?;
        within(rows(connection, sql, texts)).await
    }

    pub(super) async fn begin(
        &mut self,
    ) -> Result<::sqlx::Transaction<'_, ::sqlx::Postgres>, RelayError> {
        within(async { Ok(self.listener.begin().await?) }).await
    }
}

/// Runs a query on a connection, and reads all its rows.
pub(super) async fn rows(
    connection: &mut PgConnection,
    sql: &str,
    texts: &[&str],
) -> Result<Vec<PgRow>, RelayError> {
    let mut query = ::sqlx::query(AssertSqlSafe(sql));
    for text in texts {
        query = query.bind((*text).to_owned());
    }
    Ok(query.fetch_all(connection).await?)
}

/// Gives up a query that is not answered in time.
pub(super) async fn within<T>(
    query: impl Future<Output = Result<T, RelayError>>,
) -> Result<T, RelayError> {
    match crate::base::time::timeout(QUERY_TIMEOUT, query).await {
        Ok(answer) => answer,
        Err(_) => Err(RelayError::TimedOut),
    }
}

/// A connection with the relay's own settings. They are options of its start: a pooler would hand a
/// `SET` on to whoever has the server's connection next, and refuses these.
pub(super) fn relay_options(
    options: &PgConnectOptions,
    name: &str,
    statement: Duration,
) -> PgConnectOptions {
    let statement = format!("{}ms", statement.as_millis());
    options.clone().application_name(name).options([
        ("statement_timeout", statement.as_str()),
        (
            "idle_in_transaction_session_timeout",
            IDLE_IN_TRANSACTION_TIMEOUT,
        ),
        // Each statement sees what is committed, whatever the role's own setting.
        ("default_transaction_isolation", "read committed"),
        // A plan that is made while the table is empty is kept when it is not.
        ("enable_seqscan", "off"),
        // It would take a statement of such a plan for an expensive one, and compile it.
        ("jit", "off"),
        // A policy that hides rows of the outbox is an error, and not an outbox without rows.
        ("row_security", row_security()),
    ])
}

fn row_security() -> &'static str {
    match crate::base::mutation::is_active("outbox-rows-hidden") {
        true => "on",
        false => "off",
    }
}

impl Relay {
    /// A statement that is to be tried again is counted, and ends nothing else.
    pub(super) fn unless_busy(&self, done: Result<(), RelayError>) -> Result<(), RelayError> {
        let Err(RelayError::Busy(error)) = done else {
            return done;
        };
        if self.state.slow() {
            tracing::warn!(
                table = self.table().channel(),
                %error,
                "a statement of the outbox's relay was too slow, and is tried again"
            );
        }
        Ok(())
    }

    /// Selects rows `r` that are visible now and were not in the snapshot `$1`. Each is of a
    /// transaction that has begun since, or that was open then: both are found by the index,
    /// whatever has been deleted.
    pub(super) fn unseen_sql(&self, columns: &str) -> String {
        let outbox = self.table().quoted();
        if crate::base::mutation::is_active("outbox-reads-from-the-horizon") {
            return format!(
                "SELECT {columns} FROM {outbox} AS r WHERE r.xid >= pg_snapshot_xmin($1::pg_snapshot)
                    AND NOT pg_visible_in_snapshot(r.xid, $1::pg_snapshot)"
            );
        }
        format!(
            "SELECT {columns} FROM {outbox} AS r WHERE r.xid >= pg_snapshot_xmax($1::pg_snapshot)
            UNION ALL
            SELECT {columns} FROM {outbox} AS r WHERE r.xid = ANY (ARRAY(SELECT pg_snapshot_xip($1::pg_snapshot)))"
        )
    }

    pub(super) fn table(&self) -> &OutboxTable {
        &self.config.table
    }

    pub(super) fn cache(&self) -> Result<Handle, RelayError> {
        self.cache.upgrade().ok_or(RelayError::Over)
    }

    pub(super) async fn connect(&self) -> Result<Connection, RelayError> {
        #[allow(
            clippy::infallible_destructuring_match,
            reason = "with SQLite there is another place"
        )]
        let options = match &self.config.location {
            OutboxLocation::Postgres(options) => options,
            #[cfg(feature = "outbox-sqlite")]
            OutboxLocation::Sqlite(_) => {
                return Err(RelayError::Unusable("the outbox is in SQLite".into()));
            }
        };
        let options = relay_options(options, NAME, STATEMENT_TIMEOUT);
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(CONNECT_TIMEOUT)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_lazy_with(options);
        let mut listener = PgListener::connect_with(&pool).await?;
        // A new connection begins with a read, so the pool's own check is not needed.
        listener.eager_reconnect(false);
        listener.ignore_pool_close_event(true);
        // Before the first read, so that later commits are notified.
        listener.listen(&self.table().channel()).await?;
        let mut connection = Connection {
            listener,
            table: None,
        };
        self.check(&mut connection).await?;
        Ok(connection)
    }

    /// Checks that this is a primary with the table in the version that this crate knows, and that
    /// the other relays share the rows in the same way.
    async fn check(&self, connection: &mut Connection) -> Result<(), RelayError> {
        let (outbox, state) = (self.table().quoted(), self.table().side_table("_state"));
        let facts = "SELECT pg_is_in_recovery(), to_regclass($1) IS NOT NULL, current_setting('idle_in_transaction_session_timeout')";
        let facts = connection.rows(facts, &[&state]).await?;
        let facts = facts.first().ok_or(RelayError::Closed)?;
        if facts.try_get::<String, _>(2)? != IDLE_IN_TRANSACTION_TIMEOUT {
            let text = "the settings of the connection did not reach the server; a relay needs a direct connection, without a pooler in between";
            return Err(RelayError::Unusable(text.into()));
        }
        if facts.try_get(0)? {
            let text =
                "the database is a replica, which lags behind; the outbox is read on the primary";
            return Err(RelayError::Unusable(text.into()));
        }
        if !facts.try_get::<bool, _>(1)? {
            let text =
                format!("there is no table {outbox}; the migration of the outbox creates it");
            return Err(RelayError::Unusable(text));
        }
        self.claim(connection).await?;
        // A user who may not read the rows has no use for the connection.
        let sql = format!("SELECT 1 FROM {outbox} LIMIT 0");
        connection.rows(&sql, &[]).await?;
        let sql = format!("SELECT version, {} FROM {state}", self.state_sql());
        let read = connection.rows(&sql, &[]).await?;
        let read = read.first().ok_or(RelayError::Closed)?;
        let version: i32 = read.try_get(0)?;
        if version != VERSION {
            return Err(RelayError::Unusable(format!(
                "the table {outbox} is of version {version}, and this program reads version {VERSION}; run the migration of the outbox"
            )));
        }
        connection.is_the_same(self, read, 1)
    }

    /// Two columns, for [`Connection::is_the_same`].
    pub(super) fn state_sql(&self) -> String {
        let state = self.table().side_table("_state");
        format!("(SELECT relay FROM {state}), (SELECT tableoid::bigint FROM {state})")
    }

    /// How this process shares the rows, as the state says it.
    pub(super) fn mine(&self) -> Result<String, RelayError> {
        Ok(match &self.freshness {
            None => format!("redis/{}", self.cache()?.space.namespace),
            Some(_) => format!("{EACH}{}", self.config.retention.as_millis()),
        })
    }

    /// Says in the state how the rows are shared, if nobody has said so, and how long they stay, if
    /// nobody needs them for longer. Before the first read: what was deleted earlier had been
    /// committed by then.
    pub(super) async fn claim(&self, connection: &mut Connection) -> Result<(), RelayError> {
        let sql = format!(
            "UPDATE {state} SET relay = $1 WHERE relay IS NULL OR CASE
                WHEN $2 <> '' AND left(relay, {length}) = '{EACH}'
                THEN substr(relay, {length} + 1)::numeric < $2::numeric ELSE false END",
            state = self.table().side_table("_state"),
            length = EACH.len(),
        );
        let mine = self.mine()?;
        let retention = mine.strip_prefix(EACH).unwrap_or_default();
        connection.rows(&sql, &[&mine, retention]).await.map(drop)
    }

    /// Refuses to read what others share in another way: they would delete rows that this process
    /// has not read, or it theirs.
    pub(super) fn is_shared_alike(&self, theirs: Option<&str>) -> Result<(), RelayError> {
        let (mine, theirs) = (self.mine()?, theirs.unwrap_or_default());
        let is_alike = match self.freshness {
            Some(_) => theirs.starts_with(EACH),
            None => theirs == mine,
        };
        if is_alike {
            return Ok(());
        }
        let outbox = self.table().quoted();
        Err(RelayError::Unusable(format!(
            "the table {outbox} is read by processes that share its rows as `{theirs}`, and this one would as `{mine}`; give it a table of its own, or reset the outbox if the others have been changed, too"
        )))
    }

    /// Waits until there may be rows to read.
    pub(super) async fn wait(&self, connection: &mut Connection) -> Result<(), RelayError> {
        let listener = &mut connection.listener;
        let poll = async {
            if crate::base::mutation::is_active("outbox-listener-trusted") {
                std::future::pending::<()>().await;
            }
            crate::base::time::sleep(self.poll).await;
        };
        tokio::select! {
            heard = listener.try_recv() => {
                if heard?.is_none() {
                    return Err(RelayError::Closed);
                }
            }
            () = poll => {}
            () = self.state.woken() => {}
        }
        // One read sees all of them.
        while listener.next_buffered().is_some() {}
        Ok(())
    }

    /// The statement that moves rows to the table of rows that were set aside. Where each process
    /// reads all rows, one that comes later does not put back what has been dropped.
    pub(super) fn set_aside_sql(&self) -> String {
        let set_aside = self.table().side_table("_set_aside");
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
    pub(super) async fn drop_set_aside(
        &self,
        connection: &mut Connection,
    ) -> Result<(), RelayError> {
        if crate::base::mutation::is_active("outbox-set-aside-kept") {
            return Ok(());
        }
        let (set_aside, state) = (
            self.table().side_table("_set_aside"),
            self.table().side_table("_state"),
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
            Err(RelayError::Database(error @ ::sqlx::Error::Database(_))) => {
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
