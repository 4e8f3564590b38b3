//! Without Redis: each process reads all rows and keeps its own memory current.
//!
//! Rows carry ids and transaction ids, and neither is in the order of commits: who remembers the
//! largest one skips a transaction that began earlier and commits later. So the position is the
//! database's *snapshot*: a read takes the rows that are visible now and were not in the snapshot
//! of the last read, both of which PostgreSQL knows exactly: those of transactions that have begun
//! since, and of those that were open then.
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

use super::coverage::Coverage;
use super::delivery::deliver;
use super::relay::{Connection, DELIVERY_TIMEOUT, EACH, Relay, RelayError};
use super::row::{Row, meaning};
use super::shared::lag_of;
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
    match pending_ack.acknowledged(DELIVERY_TIMEOUT).await {
        Acknowledgement::Delivered => Ok(()),
        _ => Err(RelayError::NotAcknowledged),
    }
}

/// The position of the last read.
#[derive(Debug, Clone)]
struct Position {
    snapshot: String,
    /// Its time, in milliseconds of the database's clock, and no later than it by the clock of this
    /// process.
    at_ms: i64,
    asked: Instant,
    /// The longest retention time of all processes.
    retention: Duration,
    /// The largest id; used only by the mutation of the horizon.
    last_id: i64,
}

/// The rows that a process knows of, over one connection.
#[derive(Debug, Default)]
struct FollowPosition {
    position: Option<Position>,
    /// Reads in a row that were too slow.
    slow: u32,
    old: Snapshots,
    /// The snapshot whose rows were deleted last.
    deleted: Option<String>,
    walks: Walks,
    set_aside: SetAside,
    coverage: Coverage,
}

/// Reads rows until the connection is lost.
pub(super) async fn run(
    relay: &Relay,
    connection: &mut Connection,
    freshness: &FreshnessBound,
    connection_id: ConnectionId,
) -> Result<Infallible, RelayError> {
    let mut known = FollowPosition::default();
    // To delete them first is to read them never.
    delete_of_another_cluster(relay, connection).await?;
    loop {
        let done = known
            .turn(relay, connection, freshness, connection_id)
            .await;
        if matches!(done, Err(RelayError::Busy(_))) {
            known.slow += 1;
        }
        if known.slow >= MOST_SLOW {
            // There may be too many rows for the time that a read has.
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
        let read = read(relay, connection, self.position.as_ref()).await?;
        let snapshot = read.snapshot.clone();
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
        if let Some(old) = self.old.note(snapshot, retention)
            && delete_old(relay, connection, self.deleted.as_deref(), &old).await?
        {
            self.deleted = Some(old);
        }
        self.coverage.look(relay, connection).await?;
        self.walks.next(relay, connection).await?;
        self.set_aside.look(relay, connection).await
    }
}

/// Applies the rows that were committed since the last position; returns the new position.
async fn read(
    relay: &Relay,
    connection: &mut Connection,
    last: Option<&Position>,
) -> Result<Position, RelayError> {
    let outbox = relay.table().quoted();
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
        "SELECT now.snapshot::text, (extract(epoch FROM clock_timestamp()) * 1000)::bigint, {last_id}, {state}, new.*
        FROM (SELECT pg_current_snapshot() AS snapshot) AS now
        LEFT JOIN ({unseen} LIMIT {limit}) AS new(id, resource, kind, value, age_ms) ON true",
        state = relay.state_sql(),
        limit = MOST_READ + 1,
    );
    let snapshot = last.map_or("", |last| &last.snapshot);
    let asked = clock::now();
    let read = connection.rows(&sql, &[snapshot]).await?;
    let first = read.first().ok_or(RelayError::Closed)?;
    connection.is_the_same(relay, first, 3)?;
    let position = position_of(first, asked)?;
    let rows = read.iter().map(|row| Row::read(row, 5));
    let rows: Vec<Row> = rows
        .filter_map(Result::transpose)
        .collect::<Result<_, _>>()?;
    let reason = match last {
        None if crate::base::mutation::is_active("outbox-lost-connection-forgiven") => None,
        None => Some("it has just connected"),
        Some(_) if rows.len() > MOST_READ => Some("too many rows at once"),
        Some(last) if is_away(last, position.at_ms, relay.config.retention) => {
            Some("it was away for too long")
        }
        Some(_) => None,
    };
    let cache = relay.cache()?;
    if let Some(reason) = reason {
        start_cold(relay, &cache, reason).await?;
        return Ok(position);
    }
    if rows.is_empty() {
        return Ok(position);
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
    Ok(position)
}

fn position_of(row: &PgRow, asked: Instant) -> Result<Position, RelayError> {
    Ok(Position {
        asked,
        snapshot: row.try_get(0)?,
        at_ms: row.try_get(1)?,
        retention: retention_of(row.try_get(3)?),
        last_id: row.try_get::<Option<i64>, _>(2)?.unwrap_or(0),
    })
}

/// The retention time in the state table.
fn retention_of(state: Option<&str>) -> Duration {
    let millis = state.and_then(|state| state.strip_prefix(EACH)?.parse().ok());
    Duration::from_millis(millis.unwrap_or(0))
}

/// Whether rows may have been deleted between two reads, with a safety factor of two. By the
/// database's clock, since this process's own may have stood still with its machine; and by this
/// process's own, since the database's may have been set back meanwhile.
fn is_away(last: &Position, now_ms: i64, retention: Duration) -> bool {
    if crate::base::mutation::is_active("outbox-away-unnoticed") {
        return false;
    }
    let half = retention / 2;
    let half_ms = i64::try_from(half.as_millis()).unwrap_or(i64::MAX);
    // A clock that was set back proves nothing.
    !(0..half_ms).contains(&now_ms.saturating_sub(last.at_ms)) || last.asked.elapsed() >= half
}

/// Snapshots, or positions in SQLite, by the time they were seen. What was visible then has been
/// read by every process that has read since. The time at which a row was written proves less: its
/// transaction may have been open for a long time.
#[derive(Debug, Default)]
pub(super) struct Snapshots(VecDeque<(Instant, String)>);

impl Snapshots {
    /// Adds a snapshot; returns one that was seen a retention time ago.
    pub(super) fn note(&mut self, snapshot: String, retention: Duration) -> Option<String> {
        let now = clock::now();
        let step = retention / 10;
        if self
            .0
            .back()
            .is_none_or(|(at, _)| now.duration_since(*at) >= step)
        {
            self.0.push_back((now, snapshot));
        }
        let mut old = None;
        while let Some((at, _)) = self.0.front()
            && now.duration_since(*at) >= retention
        {
            old = self.0.pop_front().map(|(_, snapshot)| snapshot);
        }
        old
    }
}

/// Deletes the rows that every process has read: those that were visible in the snapshot `old`,
/// which was taken a retention time ago. What was committed since, by a transaction that was open
/// then, stays. So a transaction that nobody ends keeps no rows but its own.
///
/// Those that were visible in `deleted` have gone already: what is left of them in the index, as
/// long as a transaction is open, is not looked at again. Returns false if somebody else has locked
/// some of the rows: they may be there afterwards.
async fn delete_old(
    relay: &Relay,
    connection: &mut Connection,
    deleted: Option<&str>,
    old: &str,
) -> Result<bool, RelayError> {
    let until = match crate::base::mutation::is_active("outbox-open-transactions-keep-rows") {
        true => "r.xid < pg_snapshot_xmin($2::pg_snapshot)",
        false => {
            "r.xid < pg_snapshot_xmax($2::pg_snapshot) AND pg_visible_in_snapshot(r.xid, $2::pg_snapshot)"
        }
    };
    let outbox = relay.table().quoted();
    let id = format!("SELECT r.id FROM {outbox} AS r WHERE");
    let visible = match deleted {
        None => format!("{id} $1 = '' AND {until}"),
        Some(_) => format!(
            "{id} r.xid >= pg_snapshot_xmax($1::pg_snapshot) AND {until}
            UNION ALL {id} r.xid = ANY (ARRAY(SELECT pg_snapshot_xip($1::pg_snapshot))) AND {until}"
        ),
    };
    let texts = [deleted.unwrap_or_default(), old];
    let is_done = delete(relay, connection, &visible, &texts).await?;
    Ok(is_done || crate::base::mutation::is_active("outbox-locked-rows-forgotten"))
}

/// A visible row belongs to a transaction before the snapshot's end. Any other row came with a dump
/// of another database cluster, and would be new to each read.
async fn delete_of_another_cluster(
    relay: &Relay,
    connection: &mut Connection,
) -> Result<(), RelayError> {
    let outbox = relay.table().quoted();
    let ids = format!(
        "SELECT r.id FROM {outbox} AS r WHERE r.xid >= pg_snapshot_xmax(pg_current_snapshot())"
    );
    delete(relay, connection, &ids, &[]).await.map(drop)
}

/// Deletes rows by a query for their ids. Others may do the same: nobody waits for them. Returns
/// whether all of the rows have been deleted.
async fn delete(
    relay: &Relay,
    connection: &mut Connection,
    ids: &str,
    texts: &[&str],
) -> Result<bool, RelayError> {
    let outbox = relay.table().quoted();
    let sql = format!(
        "WITH old AS MATERIALIZED ({ids} LIMIT {MOST_READ}), taken AS MATERIALIZED (
            SELECT id FROM {outbox} WHERE id = ANY (ARRAY(SELECT id FROM old)) ORDER BY id FOR UPDATE SKIP LOCKED
        ), deleted AS (
            DELETE FROM {outbox} AS r WHERE r.id = ANY (ARRAY(SELECT id FROM taken)) RETURNING 1
        ) SELECT (SELECT count(*) FROM old), (SELECT count(*) FROM deleted)"
    );
    let most = MOST_READ as i64;
    loop {
        let read = connection.rows(&sql, texts).await?;
        let read = read.first().ok_or(RelayError::Closed)?;
        let (found, deleted): (i64, i64) = (read.try_get(0)?, read.try_get(1)?);
        if found < most || deleted == 0 {
            return Ok(found == deleted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rows_go_by_a_snapshot_that_was_seen_a_retention_ago() {
        let mut snapshots = Snapshots::default();
        let retention = Duration::from_secs(100);
        let mut deleted = Vec::new();
        for second in 0..220u32 {
            let old = snapshots.note(second.to_string(), retention);
            deleted.extend(old.map(|it| (second, it)));
            assert!(snapshots.0.len() <= 12);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let first = deleted.first().expect("deleted");
        assert_eq!(first, &(100, "0".to_owned()));
        for (second, snapshot) in deleted {
            let seen: u32 = snapshot.parse().expect("a number");
            assert!(second - seen >= 100, "{second} {seen}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_away_for_half_the_retention_starts_cold() {
        let retention = Duration::from_secs(10);
        let last = Position {
            snapshot: String::new(),
            at_ms: 1_000,
            asked: clock::now(),
            retention,
            last_id: 0,
        };
        assert!(!is_away(&last, 1_000, retention) && !is_away(&last, 5_999, retention));
        assert!(is_away(&last, 6_000, retention) && is_away(&last, 999, retention));
        // The database's clock was set back by as long as it took.
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(is_away(&last, 1_000, retention));
    }
}
