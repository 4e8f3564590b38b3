//! Without Redis: each process reads all rows and keeps its own memory current.
//!
//! Rows carry ids and transaction ids, and neither is in the order of commits: who remembers the largest one skips a
//! transaction that began earlier and commits later. So the position is the database's *snapshot*: a read takes the rows
//! that are visible now and were not in the snapshot of the last read, both of which PostgreSQL knows exactly: those of
//! transactions that have begun since, and of those that were open then.
//!
//! Each read is also a heartbeat: everything that was committed before it was sent is applied when
//! it is done. So entries are served for
//! [`local_max_staleness`](crate::CacheConfig::local_max_staleness) from when it was sent. A lost
//! connection empties the cache: the next one may lead to a server that has lost commits, and whose
//! transaction ids start below those that were read.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use ::sqlx::Row as _;
use ::sqlx::postgres::PgRow;

use super::relay::{ACKNOWLEDGEMENT, Connection, EACH, Relay, RelayError};
use super::row::{Row, meaning};
use super::shared::{deliver, lag_of};
use super::walk::{SetAside, Walks};
use crate::base::clock::{self, Instant};
use crate::engine::Handle;
use crate::invalidation::Acknowledgement;
use crate::local::{ClockReading, ConnectionId, FreshnessBound};

/// More new rows are not read at once: the cache is emptied instead.
pub(super) const MOST_READ: usize = 10_000;

/// So many reads in a row are too slow before everything is forgotten, and reading begins anew.
const MOST_SLOW: u32 = 10;

/// Empties the memory of this process, since it can't be told what has changed.
pub(super) async fn start_cold(
    relay: &Relay,
    cache: &Handle,
    reason: &str,
) -> Result<(), RelayError> {
    tracing::debug!(reason, "everything in the process is forgotten");
    relay.state.cold_start();
    let pending_ack = cache.invalidations.enqueue_namespace();
    match pending_ack.acknowledged(ACKNOWLEDGEMENT).await {
        Acknowledgement::Delivered => Ok(()),
        _ => Err(RelayError::NotAcknowledged),
    }
}

/// The position of the last read.
#[derive(Debug, Clone)]
struct Position {
    snapshot: String,
    /// Its time, in milliseconds of the database's clock.
    at_ms: i64,
    /// The longest retention time of all processes.
    retention: Duration,
    /// The largest id; used only by the mutation of the horizon.
    last_id: i64,
}

/// What a process knows of the rows, over one connection.
#[derive(Debug, Default)]
struct FollowPosition {
    position: Option<Position>,
    /// Reads in a row that were too slow.
    slow: u32,
    horizons: Horizons,
    walks: Walks,
    set_aside: SetAside,
}

/// Reads rows until the connection is lost.
pub(super) async fn run(
    relay: &Relay,
    connection: &mut Connection,
    freshness: &FreshnessBound,
    connection_id: ConnectionId,
) -> Result<Infallible, RelayError> {
    let mut known = FollowPosition::default();
    // Those of another cluster's transactions, which came with a dump: to delete them first is to read them never.
    delete_old(relay, connection, "0").await?;
    loop {
        let done = known
            .turn(relay, connection, freshness, connection_id)
            .await;
        if matches!(done, Err(RelayError::Busy(_))) {
            known.slow += 1;
        }
        if known.slow >= MOST_SLOW {
            // What there is to read may be too much for the time that a read has.
            known.position = None;
        }
        relay.unless_busy(done)?;
        relay.wait(connection).await?;
    }
}

impl FollowPosition {
    async fn turn(
        &mut self,
        relay: &Relay,
        connection: &mut Connection,
        freshness: &FreshnessBound,
        connection_id: ConnectionId,
    ) -> Result<(), RelayError> {
        let heartbeat = freshness.start_heartbeat(connection_id, ClockReading::now());
        let (read, horizon) = read(relay, connection, self.position.as_ref()).await?;
        // Others may need the rows for longer.
        let retention = match crate::base::mutation::is_active("outbox-own-retention") {
            true => relay.config.retention,
            false => relay.config.retention.max(read.retention),
        };
        // The state has forgotten this process's time: the others are told again.
        let is_told = read.retention >= relay.config.retention;
        (self.position, self.slow) = (Some(read), 0);
        if let Some(heartbeat) = heartbeat {
            freshness.returned(connection_id, heartbeat);
        }
        relay.state.read();
        if !is_told {
            relay.claim(connection).await?;
        }
        if let Some(old) = self.horizons.note(horizon, retention) {
            delete_old(relay, connection, &old).await?;
        }
        self.walks.next(relay, connection).await?;
        self.set_aside.look(relay, connection).await
    }
}

/// Applies the rows that were committed since the last position; returns the new position, and its
/// horizon.
async fn read(
    relay: &Relay,
    connection: &mut Connection,
    last: Option<&Position>,
) -> Result<(Position, String), RelayError> {
    let (outbox, state) = (relay.table().quoted(), relay.table().beside("_state"));
    let columns = Row::columns();
    let rows_where =
        |condition: &str| format!("SELECT {columns} FROM {outbox} AS r WHERE {condition}");
    let unseen = match last {
        None => rows_where("false AND $1 = ''"),
        Some(last) if crate::base::mutation::is_active("outbox-horizon-ignored") => {
            rows_where(&format!("r.id > {} AND $1 <> ''", last.last_id))
        }
        Some(_) => relay.unseen_sql(&columns),
    };
    // The largest id only for that mutation: to look for it goes past all that was deleted.
    let last_id = match crate::base::mutation::is_active("outbox-horizon-ignored") {
        true => format!("(SELECT max(id) FROM {outbox})"),
        false => "0::bigint".to_owned(),
    };
    let sql = format!(
        "SELECT now.snapshot::text, pg_snapshot_xmin(now.snapshot)::text,
            (extract(epoch FROM clock_timestamp()) * 1000)::bigint, {last_id}, (SELECT relay FROM {state}), new.*
        FROM (SELECT pg_current_snapshot() AS snapshot) AS now
        LEFT JOIN ({unseen} LIMIT {limit}) AS new(id, resource, kind, value, age_ms) ON true",
        limit = MOST_READ + 1,
    );
    let snapshot = last.map_or("", |last| &last.snapshot);
    let read = connection.rows(&sql, &[snapshot]).await?;
    let first = read.first().ok_or(RelayError::Closed)?;
    relay.is_shared_alike(first.try_get(4)?)?;
    let (position, horizon) = position_of(first)?;
    let rows = read.iter().map(|row| Row::read(row, 5));
    let rows: Vec<Row> = rows
        .filter_map(Result::transpose)
        .collect::<Result<_, _>>()?;
    let reason = match last {
        None if crate::base::mutation::is_active("outbox-lost-connection-forgiven") => None,
        None => Some("it has just connected"),
        Some(_) if rows.len() > MOST_READ => Some("too many rows at once"),
        // By the database's clock: this process's own may have stood still with the process.
        Some(last) if is_away(last.at_ms, position.at_ms, relay.config.retention) => {
            Some("it was away for too long")
        }
        Some(_) => None,
    };
    let cache = relay.cache()?;
    if let Some(reason) = reason {
        start_cold(relay, &cache, reason).await?;
        return Ok((position, horizon));
    }
    if rows.is_empty() {
        return Ok((position, horizon));
    }
    let (number, lag) = (rows.len(), lag_of(&rows));
    let meaning = meaning(&cache, rows);
    if !meaning.poison.is_empty() {
        let report = relay.report(&meaning.poison);
        match connection.rows(&relay.set_aside_sql(), &[&report]).await {
            Err(RelayError::Database(error @ ::sqlx::Error::Database(_))) => {
                relay.not_set_aside(&error)
            }
            set_aside => {
                set_aside?;
                relay.drop_set_aside(connection).await?;
            }
        }
    }
    if !deliver(&cache, meaning).await {
        return Err(RelayError::NotAcknowledged);
    }
    relay.state.delivered(number, lag);
    Ok((position, horizon))
}

fn position_of(row: &PgRow) -> Result<(Position, String), RelayError> {
    let position = Position {
        snapshot: row.try_get(0)?,
        at_ms: row.try_get(2)?,
        retention: retention_of(row.try_get(4)?),
        last_id: row.try_get::<Option<i64>, _>(3)?.unwrap_or(0),
    };
    Ok((position, row.try_get(1)?))
}

/// The retention time in the state table.
fn retention_of(state: Option<&str>) -> Duration {
    let millis = state.and_then(|state| state.strip_prefix(EACH)?.parse().ok());
    Duration::from_millis(millis.unwrap_or(0))
}

/// Whether rows may have been deleted between two reads, with a safety factor of two.
fn is_away(last_ms: i64, now_ms: i64, retention: Duration) -> bool {
    if crate::base::mutation::is_active("outbox-away-unnoticed") {
        return false;
    }
    let half = i64::try_from(retention.as_millis() / 2).unwrap_or(i64::MAX);
    // A clock that was set back proves nothing.
    !(0..half).contains(&(now_ms - last_ms))
}

/// The horizons, by the time they were seen. Everything before a horizon had been committed by
/// then, so every process that has read since has seen it. The time at which a row was written
/// proves less: its transaction may have been open for a long time.
#[derive(Debug, Default)]
pub(super) struct Horizons(VecDeque<(Instant, String)>);

impl Horizons {
    /// Adds a horizon; returns one that was seen a retention time ago.
    pub(super) fn note(&mut self, horizon: String, retention: Duration) -> Option<String> {
        let now = clock::now();
        let step = retention / 10;
        if self
            .0
            .back()
            .is_none_or(|(at, _)| now.duration_since(*at) >= step)
        {
            self.0.push_back((now, horizon));
        }
        let mut old = None;
        while let Some((at, _)) = self.0.front()
            && now.duration_since(*at) >= retention
        {
            old = self.0.pop_front().map(|(_, horizon)| horizon);
        }
        old
    }
}

/// Deletes the rows that every process has read. A visible row belongs to a transaction before the
/// snapshot's end. Any other row came with a dump of another database cluster, and would be new to
/// each read.
async fn delete_old(
    relay: &Relay,
    connection: &mut Connection,
    horizon: &str,
) -> Result<(), RelayError> {
    let outbox = relay.table().quoted();
    let sql = format!(
        "WITH old AS MATERIALIZED (
            SELECT id FROM {outbox} WHERE xid < $1::xid8 OR xid >= pg_snapshot_xmax(pg_current_snapshot()) ORDER BY id LIMIT {MOST_READ} FOR UPDATE SKIP LOCKED
        ) DELETE FROM {outbox} AS r USING old WHERE r.id = old.id RETURNING 1"
    );
    loop {
        let deleted = connection.rows(&sql, &[horizon]).await?;
        if deleted.len() < MOST_READ {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rows_go_by_a_horizon_that_was_seen_a_retention_ago() {
        let mut horizons = Horizons::default();
        let retention = Duration::from_secs(100);
        let mut deleted = Vec::new();
        for second in 0..220u32 {
            let old = horizons.note(second.to_string(), retention);
            deleted.extend(old.map(|it| (second, it)));
            assert!(horizons.0.len() <= 12);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let first = deleted.first().expect("deleted");
        assert_eq!(first, &(100, "0".to_owned()));
        for (second, horizon) in deleted {
            let seen: u32 = horizon.parse().expect("a number");
            assert!(second - seen >= 100, "{second} {seen}");
        }
    }

    #[test]
    fn who_was_away_for_half_the_retention_starts_cold() {
        let retention = Duration::from_secs(10);
        assert!(!is_away(1_000, 1_000, retention) && !is_away(1_000, 5_999, retention));
        assert!(is_away(1_000, 6_000, retention) && is_away(1_000, 999, retention));
    }
}
