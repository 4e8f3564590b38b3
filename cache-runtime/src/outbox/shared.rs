//! With Redis: any process takes rows, invalidates in Redis, and deletes the rows when Redis has
//! acknowledged.
//!
//! The rows of a batch are deleted in a transaction that is committed after the acknowledgement.
//! Until then they are locked and not lost. `SKIP LOCKED` lets the relays of several processes work
//! at the same time. There is no position to remember, so a transaction that commits late loses
//! nothing: its rows are there once it has committed. Delivering a row twice is harmless. The order
//! does not matter: an invalidation sets new nonces, and contains no values.

use std::convert::Infallible;

use ::sqlx::postgres::PgConnection;
use ::sqlx::{Connection as _, Row as _};
use tokio::sync::watch;

use super::relay::{ACKNOWLEDGEMENT, Connection, Lost, Relay, rows, within};
use super::row::{Row, meaning};
use crate::engine::Handle;
use crate::invalidation::{Acknowledgement, Order};
use crate::outbox::row::Meaning;
use crate::store::{Circuit, ConnectionStatus};

/// The most rows of one batch.
pub(super) const BATCH: usize = 1_000;

/// Takes rows until the connection is lost.
pub(super) async fn run(relay: &Relay, connection: &mut Connection) -> Result<Infallible, Lost> {
    let mut surveyed = None;
    let mut store = relay.cache()?.store.connection().map(|it| it.subscribe());
    forget_if_another(relay, connection).await?;
    loop {
        delete_done(relay, connection).await?;
        // After a full batch there may be more.
        while take(relay, connection).await? {}
        relay.survey(connection, &mut surveyed).await?;
        tokio::select! {
            waited = relay.wait(connection) => waited?,
            // Rows that have waited for Redis are taken at once.
            () = changed(&mut store) => {}
        }
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

/// After a failover, commits may be lost that entries were loaded from. Then everything is
/// invalidated.
async fn forget_if_another(relay: &Relay, connection: &mut Connection) -> Result<(), Lost> {
    // The timeline is in the first digits of a segment's name, and changes with the promotion.
    let sql = "SELECT system_identifier || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8) FROM pg_control_system()";
    let server: String = match connection.rows(sql, &[]).await {
        Ok(read) => read.first().ok_or(Lost::Closed)?.try_get(0)?,
        // Some providers don't permit everybody to ask.
        Err(Lost::Database(::sqlx::Error::Database(_))) => return Ok(()),
        Err(lost) => return Err(lost),
    };
    let is_another = relay.link.is_another_server(&server);
    if is_another && !crate::base::mutation::is_active("outbox-failover-ignored") {
        tracing::warn!(
            "the database has failed over: everything is invalidated, since commits may be lost"
        );
        let cache = relay.cache()?;
        relay.link.cold_start();
        let receipt = cache.delivery.enqueue_namespace();
        // If the store is away, the queue keeps it.
        let _ = receipt.acknowledged(ACKNOWLEDGEMENT).await;
    }
    Ok(())
}

/// Delivers a batch; returns whether there may be more to take at once.
async fn take(relay: &Relay, connection: &mut Connection) -> Result<bool, Lost> {
    let cache = relay.cache()?;
    if cache.store.circuit() != Circuit::Closed {
        // The rows wait in the table.
        return Ok(false);
    }
    let outbox = relay.table().quoted();
    // Materialised, so that the limit holds with any query plan.
    let taken = format!(
        "WITH taken AS MATERIALIZED (
            SELECT id FROM {outbox} WHERE due <= clock_timestamp() ORDER BY id LIMIT {BATCH} FOR UPDATE SKIP LOCKED
        ) DELETE FROM {outbox} AS r USING taken WHERE r.id = taken.id RETURNING {}",
        Row::columns()
    );
    let mut transaction = connection.begin().await?;
    let read = within(rows(&mut transaction, &taken, &[])).await?;
    let batch = read.iter().map(|row| Row::read(row, 0));
    let batch: Vec<Row> = batch
        .filter_map(Result::transpose)
        .collect::<Result<_, _>>()?;
    let (number, lag) = (batch.len(), lag_of(&batch));
    if number == 0 {
        within(async { Ok(transaction.rollback().await?) }).await?;
        return Ok(false);
    }
    let meaning = meaning(&cache, batch);
    let has_poison = !meaning.poison.is_empty();
    if has_poison {
        let report = relay.report(&meaning.poison);
        set_aside(relay, &mut transaction, &report).await?;
    }
    if crate::base::mutation::is_active("outbox-deleted-before-acknowledged") {
        within(async { Ok(transaction.commit().await?) }).await?;
        let _ = deliver(&cache, meaning).await;
        return Ok(number == BATCH);
    }
    if !deliver(&cache, meaning).await {
        within(async { Ok(transaction.rollback().await?) }).await?;
        return Ok(false);
    }
    within(async { Ok(transaction.commit().await?) }).await?;
    relay.link.delivered(number, lag);
    if has_poison {
        relay.drop_set_aside(connection).await?;
    }
    Ok(number == BATCH)
}

/// Copies rows that can't be read to the set-aside table. In a savepoint, so that the batch
/// continues without the permission.
async fn set_aside(
    relay: &Relay,
    transaction: &mut PgConnection,
    report: &str,
) -> Result<(), Lost> {
    let mut inner = within(async { Ok(transaction.begin().await?) }).await?;
    match within(rows(&mut inner, &relay.set_aside_sql(), &[report])).await {
        Ok(_) => within(async { Ok(inner.commit().await?) }).await,
        Err(Lost::Database(error @ ::sqlx::Error::Database(_))) => {
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

/// Invalidates what rows mean; returns whether the store has acknowledged all of it. Anything else
/// stays in the queue too, so that this process does not read it meanwhile.
pub(super) async fn deliver(cache: &Handle, meaning: Meaning) -> bool {
    let Meaning {
        order, everything, ..
    } = meaning;
    let everything = everything.then(|| cache.delivery.enqueue_namespace());
    let order = (!Order::is_empty(&order)).then(|| cache.delivery.enqueue(order));
    for receipt in everything.into_iter().chain(order) {
        if receipt.acknowledged(ACKNOWLEDGEMENT).await != Acknowledgement::Delivered {
            return false;
        }
    }
    true
}

/// Deletes the rows of this process whose invalidation was acknowledged already.
async fn delete_done(relay: &Relay, connection: &mut Connection) -> Result<(), Lost> {
    let done = relay.link.take_done();
    if done.is_empty() {
        return Ok(());
    }
    let ids = serde_json::Value::from(done).to_string();
    let sql = format!(
        "DELETE FROM {} WHERE id IN (SELECT value::bigint FROM json_array_elements_text($1::json))",
        relay.table().quoted()
    );
    connection.rows(&sql, &[&ids]).await.map(drop)
}
