//! With Redis: any process takes rows, invalidates in Redis, and deletes the rows when Redis has
//! acknowledged.
//!
//! The rows of a batch are deleted in a transaction that is committed after the acknowledgement, so
//! until then they are locked and there. `SKIP LOCKED` lets the relays of several processes work
//! side by side. To deliver a row twice is harmless. The order does not matter: an invalidation
//! puts new nonces, and says nothing of values.
//!
//! At each notification and each poll a relay asks which rows are new to it. So a transaction that
//! commits late loses nothing: its rows are new when it has committed. A row that it knows of and
//! can't take yet (another relay has locked it, or its writer delivers it) is remembered by its id
//! and tried again at each poll, until it is gone. Rows from before it connected, or more than it
//! can remember, are found by a [walk](super::walk) over the table.
//!
//! New rows come first. Of the other rows (tried again, found by a walk, or left over from a
//! [bulk write](super::bulk)) one batch is taken between two reads of new rows.

use std::collections::BTreeSet;
use std::convert::Infallible;

use ::sqlx::postgres::PgConnection;
use ::sqlx::{Connection as _, Row as _};
use tokio::sync::watch;

use super::bulk::{self, Bulk, MANY};
use super::coverage::Coverage;
use super::delivery::deliver;
use super::relay::{Connection, DELIVERY_TIMEOUT, Relay, RelayError, rows, within};
use super::row::{BATCH, Row, meaning};
use super::walk::{MOST_IDS, SetAside, Walks};
use crate::base::clock::{self, Instant};
use crate::engine::Handle;
use crate::invalidation::Acknowledgement;
use crate::store::{Circuit, ConnectionStatus};

/// The most ids that are remembered.
const MOST_LEFT: usize = MOST_IDS;

/// The rows that a relay knows of, over one connection.
#[derive(Debug, Default)]
struct RelayPosition {
    /// The snapshot of the last read.
    position: Option<String>,
    /// Known rows that may still be there.
    left: BTreeSet<i64>,
    /// Known rows, and rows that a walk has found, that are still to be tried in this round.
    retry: BTreeSet<i64>,
    /// Rows that need no delivery, since their resource has been invalidated as a whole.
    covered: Vec<i64>,
    tried: Option<Instant>,
    walks: Walks,
    set_aside: SetAside,
    coverage: Coverage,
}

/// Takes rows until the connection is lost.
pub(super) async fn run(
    relay: &Relay,
    connection: &mut Connection,
) -> Result<Infallible, RelayError> {
    let mut known = RelayPosition::default();
    let mut store = relay.cache()?.store.connection().map(|it| it.subscribe());
    invalidate_if_other_server(relay, connection).await?;
    loop {
        let done = known.turn(relay, connection).await;
        relay.unless_busy(done)?;
        if known.walks.goes_on() || !known.retry.is_empty() || !known.covered.is_empty() {
            continue;
        }
        tokio::select! {
            waited = relay.wait(connection) => waited?,
            // Rows that have waited for Redis are taken at once.
            () = changed(&mut store) => known.tried = None,
        }
    }
}

impl RelayPosition {
    async fn turn(&mut self, relay: &Relay, connection: &mut Connection) -> Result<(), RelayError> {
        delete_done(relay, connection).await?;
        let new = self.notice(relay, connection).await?;
        relay.state.read();
        self.take(relay, connection, new).await?;
        self.coverage.look(relay, connection).await?;
        self.retry(relay, connection).await?;
        self.delete_covered(relay, connection).await?;
        self.set_aside.look(relay, connection).await
    }

    /// Takes one batch of the rows that are tried again. After the last batch, the next round
    /// begins when it is due.
    async fn retry(
        &mut self,
        relay: &Relay,
        connection: &mut Connection,
    ) -> Result<(), RelayError> {
        if self.retry.is_empty() {
            let is_due = self.tried.is_none_or(|last| last.elapsed() >= relay.poll);
            let found = self.walks.next(relay, connection).await?;
            if is_due || !found.is_empty() {
                self.tried = Some(clock::now());
                self.retry = self.left.iter().copied().chain(found).collect();
            }
        }
        let batch = self.retry.iter().copied().take(BATCH).collect::<Vec<_>>();
        for id in &batch {
            self.retry.remove(id);
        }
        self.take(relay, connection, batch).await
    }

    /// Deletes one batch of the rows that need no delivery.
    async fn delete_covered(
        &mut self,
        relay: &Relay,
        connection: &mut Connection,
    ) -> Result<(), RelayError> {
        let from = self.covered.len().saturating_sub(BATCH);
        let batch = self.covered.split_off(from);
        if batch.is_empty() {
            return Ok(());
        }
        let cache = relay.cache()?;
        let rest = take(
            relay,
            connection,
            &cache,
            &batch,
            RowHandling::AlreadyDelivered,
        )
        .await?;
        self.left.extend(rest.unwrap_or(batch));
        Ok(())
    }

    /// Invalidates the resources with very many rows as a whole, and returns the rows that are to
    /// be taken one by one.
    async fn take_bulk(&mut self, relay: &Relay, bulk: Bulk) -> Result<Vec<i64>, RelayError> {
        if bulk.has_more {
            self.walks.ask();
        }
        let cache = relay.cache()?;
        let lag = lag_of(&bulk.whole);
        let mut ids = bulk.others;
        if deliver(&cache, meaning(&cache, bulk.whole)).await {
            relay.state.delivered(0, lag);
            self.covered.extend(bulk.covered);
        } else {
            ids.extend(bulk.covered);
        }
        Ok(ids)
    }

    /// The ids of rows that have been committed since the last read.
    async fn notice(
        &mut self,
        relay: &Relay,
        connection: &mut Connection,
    ) -> Result<Vec<i64>, RelayError> {
        let unseen = match self.position {
            _ if crate::base::mutation::is_active("outbox-walks-each-time") => format!(
                "SELECT r.id FROM {} AS r WHERE $1 IS NOT NULL ORDER BY r.id",
                relay.table().quoted()
            ),
            Some(_) => relay.unseen_sql("r.id"),
            None => "SELECT 1::bigint WHERE $1 IS NULL".to_owned(),
        };
        let sql = format!(
            "SELECT pg_current_snapshot()::text, new.id, {state}
            FROM (SELECT 1) AS one LEFT JOIN ({unseen} LIMIT {limit}) AS new(id) ON true",
            state = relay.state_sql(),
            limit = MOST_LEFT + 1,
        );
        let position = self.position.as_deref().unwrap_or_default();
        let read = connection.rows(&sql, &[position]).await?;
        let first = read.first().ok_or(RelayError::Closed)?;
        connection.is_the_same(relay, first, 2)?;
        let ids = read.iter().map(|row| row.try_get::<Option<i64>, _>(1));
        let ids: Vec<i64> = ids
            .filter_map(Result::transpose)
            .collect::<Result<_, _>>()?;
        let now: String = first.try_get(0)?;
        // Before the position moves on: if this fails, the rows are seen again.
        let bulk = match &self.position {
            Some(position) if ids.len() > MANY => bulk::divide(relay, connection, position).await?,
            _ => None,
        };
        self.position = Some(now);
        if let Some(bulk) = bulk {
            return self.take_bulk(relay, bulk).await;
        }
        if ids.len() > MOST_LEFT {
            self.walks.ask();
        }
        Ok(ids)
    }

    /// Takes those of these rows that can be taken. From here on they are known, whatever happens.
    async fn take(
        &mut self,
        relay: &Relay,
        connection: &mut Connection,
        ids: Vec<i64>,
    ) -> Result<(), RelayError> {
        self.left.extend(&ids);
        let cache = relay.cache()?;
        for batch in ids.chunks(BATCH) {
            // While the store is away they wait where they are.
            if cache.store.circuit() != Circuit::Closed {
                break;
            }
            let Some(rest) = take(relay, connection, &cache, batch, RowHandling::Deliver).await?
            else {
                break;
            };
            for id in batch {
                self.left.remove(id);
            }
            self.left.extend(rest);
        }
        while self.left.len() > MOST_LEFT {
            self.left.pop_last();
            self.walks.ask();
        }
        Ok(())
    }
}

/// Returns when the store has a new connection.
pub(super) async fn changed(store: &mut Option<watch::Receiver<ConnectionStatus>>) {
    if let Some(store) = store
        && store.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// Invalidates everything if the server or the table is another one than before: after a failover,
/// after a dump was restored, or after a crash of a server that does not wait for its disk. Commits
/// may be lost then whose data was cached. The identity of the server and of the table is stored in
/// the database, so it is on standbys and in dumps too, and processes that start later find it. A
/// process that finds another identity invalidates first, and stores the new one then.
async fn invalidate_if_other_server(
    relay: &Relay,
    connection: &mut Connection,
) -> Result<(), RelayError> {
    let state = relay.table().side_table("_state");
    // A restored table has another number.
    let table = format!(
        "{}::regclass::oid",
        crate::config::outbox::quote_text(&state)
    );
    // The timeline is in the first digits of a segment's name, and is another one from the
    // promotion on.
    let sql = format!(
        "SELECT system_identifier || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8) || '/' || {table} || {crash},
            (SELECT server FROM {state})
        FROM pg_control_system()",
        crash = crash_sql(),
    );
    let read = match connection.rows(&sql, &[]).await {
        // Some providers don't permit it.
        Err(RelayError::Database(error @ ::sqlx::Error::Database(_))) => {
            if relay.state.failovers_unknown() {
                tracing::warn!(
                    table = relay.table().channel(),
                    %error,
                    "a failover of the database will not be noticed: the relay's user needs EXECUTE on pg_control_system()"
                );
            }
            return invalidate_if_other_table(relay, connection, &table).await;
        }
        read => read?,
    };
    let read = read.first().ok_or(RelayError::Closed)?;
    let (server, stored_server): (String, Option<String>) = (read.try_get(0)?, read.try_get(1)?);
    let is_new = stored_server.as_deref() != Some(&server);
    // The standby may have been behind what the state said.
    let is_known_otherwise = relay.state.is_another_server(&server);
    let stored_server =
        stored_server.filter(|_| !crate::base::mutation::is_active("outbox-failover-forgotten"));
    let is_another = (stored_server.is_some() && is_new || is_known_otherwise)
        && !crate::base::mutation::is_active("outbox-failover-ignored");
    if is_another && !invalidate_everything(relay).await? {
        // This process's queue keeps it. If that is gone before it takes place, the next one finds
        // the state as it is.
        return Ok(());
    }
    if !is_new {
        return Ok(());
    }
    let sql = format!("UPDATE {state} SET server = $1");
    connection.rows(&sql, &[&server]).await.map(drop)
}

/// Identifies the last crash of the server. Commits that others have read may be lost by it, since
/// any session may have had `synchronous_commit` off. Statistics are reset after a crash, and not
/// after a shutdown.
fn crash_sql() -> &'static str {
    if crate::base::mutation::is_active("outbox-crashes-ignored") {
        return "''";
    }
    "'/' || coalesce((SELECT extract(epoch FROM stats_reset)::text FROM pg_stat_bgwriter), '')"
}

/// The check without that permission: whether the table is the one that this process has seen
/// before.
async fn invalidate_if_other_table(
    relay: &Relay,
    connection: &mut Connection,
    table: &str,
) -> Result<(), RelayError> {
    let sql = format!("SELECT {table} || {}", crash_sql());
    let read = connection.rows(&sql, &[]).await?;
    let read = read.first().ok_or(RelayError::Closed)?;
    let table: String = read.try_get(0)?;
    if relay.state.is_another_server(&table) {
        invalidate_everything(relay).await?;
    }
    Ok(())
}

/// Invalidates everything; returns whether the store has acknowledged it.
async fn invalidate_everything(relay: &Relay) -> Result<bool, RelayError> {
    tracing::warn!(
        table = relay.table().channel(),
        "the outbox's database or table is another one than before, as after a failover, a crash without synchronous commits or a restored dump: everything is invalidated, since commits may be lost"
    );
    relay.state.cold_start();
    let pending_ack = relay.cache()?.invalidations.enqueue_namespace();
    Ok(pending_ack.acknowledged(DELIVERY_TIMEOUT).await == Acknowledgement::Delivered)
}

/// The treatment of the rows of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RowHandling {
    /// They are delivered, then deleted.
    Deliver,
    /// They are only deleted.
    AlreadyDelivered,
}

/// Delivers those rows of a batch that can be taken, and returns the ids of those that are left;
/// `None` if the store has not acknowledged them.
async fn take(
    relay: &Relay,
    connection: &mut Connection,
    cache: &Handle,
    ids: &[i64],
    handling: RowHandling,
) -> Result<Option<Vec<i64>>, RelayError> {
    let mut transaction = connection.begin().await?;
    let texts = [list_of(ids), relay.mine()?];
    let texts = texts.each_ref().map(String::as_str);
    let read = within(rows(&mut transaction, &take_sql(relay), &texts)).await?;
    let (mut batch, mut rest) = (Vec::new(), Vec::new());
    for row in &read {
        match Row::read(row, 1)? {
            Some(row) => batch.push(row),
            None => rest.push(row.try_get(0)?),
        }
    }
    let (number, lag) = (batch.len(), lag_of(&batch));
    if number == 0 {
        within(async { Ok(transaction.rollback().await?) }).await?;
        return Ok(Some(rest));
    }
    let mut meaning = meaning(cache, batch);
    if handling == RowHandling::AlreadyDelivered {
        (meaning.request, meaning.everything) = Default::default();
    }
    let has_poison = !meaning.poison.is_empty();
    if has_poison {
        let report = relay.report(&meaning.poison);
        set_aside(relay, &mut transaction, &report).await?;
    }
    if crate::base::mutation::is_active("outbox-deleted-before-acknowledged") {
        within(async { Ok(transaction.commit().await?) }).await?;
        let _ = deliver(cache, meaning).await;
        return Ok(Some(rest));
    }
    if !deliver(cache, meaning).await {
        within(async { Ok(transaction.rollback().await?) }).await?;
        return Ok(None);
    }
    within(async { Ok(transaction.commit().await?) }).await?;
    match handling {
        RowHandling::Deliver => relay.state.delivered(number, lag),
        RowHandling::AlreadyDelivered => relay.state.covered(number),
    }
    if has_poison {
        relay.drop_set_aside(connection).await?;
    }
    Ok(Some(rest))
}

/// Deletes the rows `$1` that are due and that nobody else has locked. Each row that was there
/// comes with its id, and with its contents if it was deleted. A due time that is further away than
/// any writer asks for is ignored: a clock was wrong, or a writer. Processes that share the rows in
/// another way than `$2` must not lose them.
///
/// By an array, and not by a join: where statistics say that the table is empty, as they often do,
/// a join may go over the whole index.
fn take_sql(relay: &Relay) -> String {
    let is_due = match crate::base::mutation::is_active("outbox-due-believed") {
        true => "true",
        false => "due <= clock_timestamp() + interval '5 s'",
    };
    format!(
        "WITH taken AS MATERIALIZED (
            SELECT id FROM {outbox} WHERE id = ANY ($1::bigint[])
                AND NOT (due > clock_timestamp() AND {is_due})
                AND (SELECT relay FROM {state}) = $2
            ORDER BY id FOR UPDATE SKIP LOCKED
        ), deleted(id, resource, kind, value, age_ms) AS (
            DELETE FROM {outbox} AS r WHERE r.id = ANY (ARRAY(SELECT id FROM taken)) RETURNING {columns}
        )
        SELECT seen.id, deleted.* FROM {outbox} AS seen LEFT JOIN deleted ON deleted.id = seen.id
        WHERE seen.id = ANY ($1::bigint[])",
        outbox = relay.table().quoted(),
        state = relay.table().side_table("_state"),
        columns = Row::columns(),
    )
}

/// An array of PostgreSQL.
fn list_of(ids: &[i64]) -> String {
    let ids: Vec<String> = ids.iter().map(i64::to_string).collect();
    format!("{{{}}}", ids.join(","))
}

/// Copies rows that can't be read to the set-aside table. In a savepoint, so that the batch
/// continues without the permission.
async fn set_aside(
    relay: &Relay,
    transaction: &mut PgConnection,
    report: &str,
) -> Result<(), RelayError> {
    let mut inner = within(async { Ok(transaction.begin().await?) }).await?;
    match within(rows(&mut inner, &relay.set_aside_sql(), &[report])).await {
        Ok(_) => within(async { Ok(inner.commit().await?) }).await,
        Err(RelayError::Database(error @ ::sqlx::Error::Database(_))) => {
            relay.not_set_aside(&error);
            within(async { Ok(inner.rollback().await?) }).await
        }
        Err(lost) => Err(lost),
    }
}

/// The age of the oldest row.
pub(super) fn lag_of(rows: &[Row]) -> u64 {
    let oldest = rows.iter().map(|row| row.age_ms).max().unwrap_or(0);
    u64::try_from(oldest).unwrap_or(0)
}

/// Deletes the rows of this process whose invalidation was acknowledged already.
async fn delete_done(relay: &Relay, connection: &mut Connection) -> Result<(), RelayError> {
    let done = relay.state.take_done();
    if done.is_empty() {
        return Ok(());
    }
    let outbox = relay.table().quoted();
    let sql = format!("DELETE FROM {outbox} WHERE id = ANY ($1::bigint[])");
    connection.rows(&sql, &[&list_of(&done)]).await.map(drop)
}
