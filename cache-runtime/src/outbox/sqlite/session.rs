//! The relay over one connection: it delivers the rows that it finds, or reads on for its own
//! process.

use std::convert::Infallible;

use ::sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow};
use ::sqlx::{AssertSqlSafe, Connection as _, Row as _};

use super::tables::{NOW, VERSION, exists, names, natural};
use crate::base::clock::{self, Instant};
use crate::config::outbox::quote_sqlite_text;
use crate::engine::Handle;
use crate::invalidation::outbox::OpenTransactions;
use crate::local::{ClockReading, ConnectionId, FreshnessBound};
use crate::outbox::bulk::{MOST_GROUPS, all_in_place_of};
use crate::outbox::coverage::noted;
use crate::outbox::delivery::deliver;
use crate::outbox::file_coverage::{SCHEMA_VERSION, covered_tables};
use crate::outbox::followed::{MOST_READ, Snapshots, start_cold};
use crate::outbox::relay::{CONNECT_TIMEOUT, MOST_SET_ASIDE, Relay, RelayError, within};
use crate::outbox::row::{BATCH, LONGEST_VALUE, MOST_ROWS, Row, lossy, meaning};
use crate::outbox::shared::{changed, lag_of};
use crate::outbox::walk::WALK_INTERVAL;
use crate::store::Circuit;

/// Rows that say nothing more once their resource has been invalidated. The others are to be set
/// aside.
const READABLE: &str = "(r.kind = 'all' OR json_valid(r.value))";

/// How long a statement waits for another process's lock; less than the limit of a query.
const BUSY: std::time::Duration = std::time::Duration::from_millis(600);

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// The connection of a relay.
struct SqliteRelay<'r> {
    relay: &'r Relay,
    connection: SqliteConnection,
}

/// Reads the file over one connection, as long as it can be read.
pub(in crate::outbox) async fn session(
    relay: &Relay,
    options: &SqliteConnectOptions,
) -> RelayError {
    let options = options.clone().create_if_missing(false).busy_timeout(BUSY);
    let connect = SqliteConnection::connect_with(&options);
    let connection = match crate::base::time::timeout(CONNECT_TIMEOUT, connect).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return error.into(),
        Err(_) => return RelayError::TimedOut,
    };
    let mut reader = SqliteRelay { relay, connection };
    if let Err(lost) = reader.check().await {
        return lost;
    }
    relay.state.connected();
    let ended = match &relay.freshness {
        None => reader.share().await,
        Some(freshness) => {
            let connection_id = freshness.announce();
            freshness.open(connection_id);
            let ended = reader.follow(freshness, connection_id).await;
            freshness.close(connection_id);
            ended
        }
    };
    match ended {
        Ok(never) => match never {},
        Err(lost) => lost,
    }
}

impl SqliteRelay<'_> {
    async fn rows(&mut self, sql: String, text: &str) -> Result<Vec<SqliteRow>, RelayError> {
        let query = ::sqlx::query(AssertSqlSafe(sql)).bind(text.to_owned());
        within(async { Ok(query.fetch_all(&mut self.connection).await?) }).await
    }

    /// Checks that the outbox exists in the version that this crate knows, and that others share
    /// its rows in the same way.
    async fn check(&mut self) -> Result<(), RelayError> {
        let table = &self.relay.config.table;
        let (outbox, _, state) = names(table);
        if !within(async { Ok(exists(&mut self.connection, table).await?) }).await? {
            return Err(RelayError::Unusable(format!(
                "there is no table {outbox}; the migration of the outbox creates it"
            )));
        }
        let (version, mut relay, _) = self.state().await?;
        // Only if nobody has said so: an UPDATE that changes nothing waits for the file's lock,
        // too.
        if relay.is_none() || crate::base::mutation::is_active("outbox-sqlite-waits-for-writers") {
            let told = format!("UPDATE {state} SET relay = $1 WHERE relay IS NULL");
            self.rows(told, &self.relay.mine()?).await?;
            (_, relay, _) = self.state().await?;
        }
        if version != VERSION {
            return Err(RelayError::Unusable(format!(
                "the table {outbox} is of version {version}, and this program reads version {VERSION}; run the migration of the outbox"
            )));
        }
        // Rows that were deleted by time are known, so retentions may differ.
        self.relay.is_shared_alike(relay.as_deref())
    }

    /// The version of the tables, how the rows are shared, and the version of the schema.
    async fn state(&mut self) -> Result<(i64, Option<String>, i64), RelayError> {
        let (_, _, state) = names(&self.relay.config.table);
        let read = format!("SELECT version, relay, {SCHEMA_VERSION} FROM {state} WHERE $1 = ''");
        let read = self.rows(read, "").await?;
        let read = read.first().ok_or(RelayError::Closed)?;
        Ok((read.try_get(0)?, read.try_get(1)?, read.try_get(2)?))
    }

    /// With Redis.
    async fn share(&mut self) -> Result<Infallible, RelayError> {
        let relay = self.relay;
        let mut looks = Looks::default();
        let mut store = relay.cache()?.store.connection().map(|it| it.subscribe());
        loop {
            // Rows that could not be deleted are delivered once more, which is harmless.
            let done = self.turn(&mut looks).await;
            relay.unless_busy(done)?;
            tokio::select! {
                () = crate::base::time::sleep(relay.poll) => {}
                () = relay.state.woken() => {}
                // Rows that have waited for Redis are taken at once.
                () = changed(&mut store) => {}
            }
        }
    }

    async fn turn(&mut self, looks: &mut Looks) -> Result<(), RelayError> {
        let done = self.relay.state.take_done();
        self.delete(&done).await?;
        let (_, theirs, schema) = self.state().await?;
        self.relay.is_shared_alike(theirs.as_deref())?;
        // A full batch may not have been all.
        while self.take().await? {}
        self.relay.state.read();
        self.look(looks, schema).await?;
        self.survey(&mut looks.surveyed).await
    }

    /// Looks at the triggers if the schema has been changed.
    async fn look(&mut self, looks: &mut Looks, schema: i64) -> Result<(), RelayError> {
        if looks.schema == Some(schema) {
            return Ok(());
        }
        let table = &self.relay.config.table;
        let connection = &mut self.connection;
        let tables = within(async { Ok(covered_tables(connection, table).await?) }).await?;
        looks.schema = Some(schema);
        noted(self.relay, tables).await
    }

    /// The rows that can be taken. A time that is further away than any writer asks for is a
    /// clock's, or somebody's mistake.
    fn due_sql(&self) -> String {
        let (outbox, _, state) = names(&self.relay.config.table);
        format!(
            "{outbox} AS r WHERE due NOT BETWEEN {NOW} + 1 AND {NOW} + 5000
                AND (SELECT relay FROM {state}) = $1"
        )
    }

    /// Delivers a batch; returns whether there may be more to take at once.
    async fn take(&mut self) -> Result<bool, RelayError> {
        let cache = self.relay.cache()?;
        if cache.store.circuit() != Circuit::Closed {
            // The rows wait in the table.
            return Ok(false);
        }
        let sql = format!(
            "SELECT {} FROM {} ORDER BY id LIMIT {BATCH}",
            columns(),
            self.due_sql()
        );
        let read = self.rows(sql, &self.relay.mine()?).await?;
        let batch = read.iter().map(|row| row_at(row, 0));
        let batch: Vec<Row> = batch
            .filter_map(Result::transpose)
            .collect::<Result<_, _>>()?;
        if batch.is_empty() {
            return Ok(false);
        }
        if batch.len() == BATCH && self.take_bulk(&cache).await? {
            return Ok(true);
        }
        let (ids, lag): (Vec<i64>, _) = (batch.iter().map(|row| row.id).collect(), lag_of(&batch));
        let mut meaning = meaning(&cache, batch);
        let poison = std::mem::take(&mut meaning.poison);
        if !deliver(&cache, meaning).await {
            return Ok(false);
        }
        self.set_aside(&poison).await?;
        self.delete(&ids).await?;
        self.relay.state.delivered(ids.len(), lag);
        Ok(ids.len() == BATCH)
    }

    /// Invalidates resources with very many rows as a whole, and deletes these rows, which say
    /// nothing more then; returns whether there were any. One after another they would hold up all
    /// rows behind them.
    async fn take_bulk(&mut self, cache: &Handle) -> Result<bool, RelayError> {
        if crate::base::mutation::is_active("outbox-bulk-in-order") {
            return Ok(false);
        }
        let sql = format!(
            "SELECT substr(CAST(r.resource AS BLOB), 1, 200), substr(CAST(r.kind AS BLOB), 1, 20), count(*), max(id),
                {NOW} - min(CAST(r.created AS INTEGER))
                FROM {} AND {READABLE} GROUP BY 1, 2 HAVING count(*) > {MOST_ROWS} LIMIT {MOST_GROUPS}",
            self.due_sql()
        );
        let (mut whole, mut covered, mut number) = (Vec::new(), Vec::new(), 0);
        for row in self.rows(sql, &self.relay.mine()?).await? {
            let resource = row.try_get::<Option<Vec<u8>>, _>(0)?.map(lossy);
            let kind = lossy(row.try_get(1)?);
            let Some(row_of_all) = all_in_place_of(&kind, resource, row.try_get(4)?) else {
                continue;
            };
            covered.push(covered_sql(
                &kind,
                row_of_all.resource.as_deref(),
                row.try_get(3)?,
            ));
            number += usize::try_from(row.try_get::<i64, _>(2)?).unwrap_or(0);
            whole.push(row_of_all);
        }
        let lag = lag_of(&whole);
        if whole.is_empty() || !deliver(cache, meaning(cache, whole)).await {
            return Ok(false);
        }
        let (outbox, ..) = names(&self.relay.config.table);
        let ids = format!(
            "SELECT r.id FROM {} AND ({})",
            self.due_sql(),
            covered.join(" OR ")
        );
        let deleted = format!("DELETE FROM {outbox} WHERE id IN ({ids})");
        self.rows(deleted, &self.relay.mine()?).await?;
        self.relay.state.delivered(number, lag);
        Ok(true)
    }

    async fn delete(&mut self, ids: &[i64]) -> Result<(), RelayError> {
        if ids.is_empty() {
            return Ok(());
        }
        let (outbox, ..) = names(&self.relay.config.table);
        let sql = format!("DELETE FROM {outbox} WHERE id IN (SELECT value FROM json_each($1))");
        let ids = serde_json::Value::from(ids.to_vec()).to_string();
        self.rows(sql, &ids).await.map(drop)
    }

    /// Without Redis.
    async fn follow(
        &mut self,
        freshness: &FreshnessBound,
        connection_id: ConnectionId,
    ) -> Result<Infallible, RelayError> {
        let relay = self.relay;
        let mut known = Known::default();
        loop {
            // While somebody holds the file's lock nothing is told to be fresh, and nothing is
            // forgotten.
            let done = self.follow_on(freshness, connection_id, &mut known).await;
            relay.unless_busy(done)?;
            crate::base::time::sleep(relay.poll).await;
        }
    }

    async fn follow_on(
        &mut self,
        freshness: &FreshnessBound,
        connection_id: ConnectionId,
        known: &mut Known,
    ) -> Result<(), RelayError> {
        let relay = self.relay;
        let heartbeat = freshness.start_heartbeat(connection_id, ClockReading::now());
        let (read, schema) = self.read(known.position).await?;
        known.position = Some(read);
        relay.state.read();
        // Changes without a row are known before entries count as fresh.
        self.look(&mut known.looks, schema).await?;
        if let Some(heartbeat) = heartbeat {
            freshness.returned(connection_id, heartbeat);
        }
        if let Some(old) = known.old.note(read.to_string(), relay.config.retention) {
            self.delete_old(&old).await?;
        }
        self.survey(&mut known.looks.surveyed).await
    }

    /// Applies the rows that were committed after the last position; returns the new position, and
    /// the version of the schema.
    async fn read(&mut self, last: Option<i64>) -> Result<(i64, i64), RelayError> {
        let relay = self.relay;
        let (outbox, _, state) = names(&relay.config.table);
        let sql = format!(
            "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = {}), 0), state.deleted, state.relay, {SCHEMA_VERSION}, new.*
                FROM {state} AS state
                LEFT JOIN (SELECT {} FROM {outbox} AS r WHERE r.id > {} ORDER BY id LIMIT {}) AS new ON $1 = ''",
            quote_sqlite_text(relay.config.table.name()),
            columns(),
            last.unwrap_or(i64::MAX),
            MOST_READ + 1,
        );
        let read = self.rows(sql, "").await?;
        let first = read.first().ok_or(RelayError::Closed)?;
        let (position, deleted): (i64, i64) = (first.try_get(0)?, first.try_get(1)?);
        let schema = first.try_get(3)?;
        relay.is_shared_alike(first.try_get(2)?)?;
        let rows = read.iter().map(|row| row_at(row, 4));
        let rows: Vec<Row> = rows
            .filter_map(Result::transpose)
            .collect::<Result<_, _>>()?;
        let is_missed = |last| {
            deleted > last && !crate::base::mutation::is_active("outbox-sqlite-gap-unnoticed")
        };
        let reason = match last {
            None => Some("it has just connected"),
            Some(last) if is_missed(last) => Some("rows are gone that it had not read"),
            // The file has been replaced by another one.
            Some(last) if position < last => Some("ids begin again"),
            Some(_) if rows.len() > MOST_READ => Some("too many rows at once"),
            Some(_) => None,
        };
        let cache = relay.cache()?;
        if let Some(reason) = reason {
            start_cold(relay, &cache, reason).await?;
        } else if !rows.is_empty() {
            let (number, lag) = (rows.len(), lag_of(&rows));
            let meaning = meaning(&cache, rows);
            self.set_aside(&meaning.poison).await?;
            if !deliver(&cache, meaning).await {
                return Err(RelayError::NotAcknowledged);
            }
            relay.state.delivered(number, lag);
        }
        Ok((position, schema))
    }

    /// Deletes the rows that existed a retention time ago. Before that it records how far: a
    /// process that has not read that far must not continue.
    async fn delete_old(&mut self, until: &str) -> Result<(), RelayError> {
        let (outbox, _, state) = names(&self.relay.config.table);
        let id = "CAST($1 AS INTEGER)";
        let any = format!("SELECT 1 FROM {outbox} WHERE id <= {id} LIMIT 1");
        if self.rows(any, until).await?.is_empty() {
            return Ok(());
        }
        let said = format!("UPDATE {state} SET deleted = max(deleted, {id})");
        self.rows(said, until).await?;
        let deleted = format!("DELETE FROM {outbox} WHERE id <= {id}");
        self.rows(deleted, until).await.map(drop)
    }

    /// Copies rows that can't be read, and deletes the oldest beyond the limits. A later process
    /// does not write a row again that has been deleted there.
    async fn set_aside(&mut self, poison: &[(Row, String)]) -> Result<(), RelayError> {
        if poison.is_empty() {
            return Ok(());
        }
        let (_, set_aside, _) = names(&self.relay.config.table);
        let part = |name: &str| format!("json_extract(value, '$.{name}')");
        let sql = format!(
            "INSERT OR IGNORE INTO {set_aside} (id, kind, resource, value, reason)
                SELECT {}, {}, {}, substr({}, 1, 1000), {} FROM json_each($1)
                WHERE {} > coalesce((SELECT id FROM {set_aside} ORDER BY id DESC LIMIT 1 OFFSET {}), -1)",
            part("id"),
            part("kind"),
            part("resource"),
            part("value"),
            part("reason"),
            part("id"),
            MOST_SET_ASIDE - 1,
        );
        let report = self.relay.report(poison);
        self.rows(sql, &report).await?;
        self.drop_set_aside().await
    }

    async fn drop_set_aside(&mut self) -> Result<(), RelayError> {
        let (_, set_aside, state) = names(&self.relay.config.table);
        let sql = format!(
            "DELETE FROM {set_aside} WHERE $1 = '' AND (set_aside < {NOW} - {}
                OR id <= (SELECT id FROM {set_aside} ORDER BY id DESC LIMIT 1 OFFSET {MOST_SET_ASIDE})) RETURNING 1",
            7 * DAY_MS
        );
        let dropped = self.rows(sql, "").await?.len();
        if dropped == 0 {
            return Ok(());
        }
        let sql = format!("UPDATE {state} SET dropped = dropped + {dropped} WHERE $1 = ''");
        self.rows(sql, "").await.map(drop)
    }

    /// Reads the tables' sizes at intervals.
    async fn survey(&mut self, last: &mut Option<Instant>) -> Result<(), RelayError> {
        if last.is_some_and(|last| last.elapsed() < WALK_INTERVAL) {
            return Ok(());
        }
        *last = Some(clock::now());
        let (outbox, set_aside, state) = names(&self.relay.config.table);
        let sql = format!(
            "SELECT (SELECT count(*) FROM {outbox}), (SELECT {NOW} - created FROM {outbox} ORDER BY id LIMIT 1),
                (SELECT count(*) FROM {set_aside}), dropped,
                EXISTS (SELECT 1 FROM {set_aside} WHERE set_aside < {NOW} - {})
                FROM {state} WHERE $1 = ''",
            7 * DAY_MS
        );
        let read = self.rows(sql, "").await?;
        let read = read.first().ok_or(RelayError::Closed)?;
        let oldest = read.try_get::<Option<i64>, _>(1)?.map(natural);
        let state = &self.relay.state;
        state.walked(
            natural(read.try_get(0)?),
            oldest,
            None,
            OpenTransactions::default(),
        );
        state.set_aside(natural(read.try_get(2)?), natural(read.try_get(3)?));
        if read.try_get::<i64, _>(4)? != 0 {
            self.drop_set_aside().await?;
        }
        Ok(())
    }
}

/// The state of a process that reads for itself, over one connection.
#[derive(Default)]
struct Known {
    position: Option<i64>,
    old: Snapshots,
    looks: Looks,
}

/// The checks of a relay over one connection.
#[derive(Default)]
struct Looks {
    /// When the tables' sizes were read.
    surveyed: Option<Instant>,
    /// Of which version the schema was when the triggers were looked at.
    schema: Option<i64>,
}

/// Which rows are deleted once everything of their resource has been invalidated. Both texts are
/// known, and need no quotes of their own.
fn covered_sql(kind: &str, resource: Option<&str>, until: i64) -> String {
    let resource = resource.map_or_else(|| "NULL".to_owned(), quote_sqlite_text);
    format!(
        "r.id <= {until} AND CAST(r.kind AS TEXT) = {} AND CAST(r.resource AS TEXT) IS {resource}",
        quote_sqlite_text(kind)
    )
}

/// The columns that [`row_at`] needs, of the row `r`: as bytes, since a text may not be UTF-8.
fn columns() -> String {
    format!(
        "r.id, substr(CAST(r.resource AS BLOB), 1, 200), substr(CAST(r.kind AS BLOB), 1, 20),
         CASE WHEN length(CAST(r.value AS BLOB)) <= {LONGEST_VALUE} THEN CAST(r.value AS BLOB) END,
         {NOW} - CAST(r.created AS INTEGER)"
    )
}

fn row_at(row: &SqliteRow, at: usize) -> Result<Option<Row>, ::sqlx::Error> {
    let Some(id) = row.try_get(at)? else {
        return Ok(None);
    };
    Ok(Some(Row {
        id,
        resource: row.try_get::<Option<Vec<u8>>, _>(at + 1)?.map(lossy),
        kind: lossy(row.try_get(at + 2)?),
        value: row
            .try_get::<Option<Vec<u8>>, _>(at + 3)?
            .and_then(|value| String::from_utf8(value).ok()),
        age_ms: row.try_get(at + 4)?,
    }))
}
