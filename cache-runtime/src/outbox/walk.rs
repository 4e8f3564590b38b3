//! The walk over the whole table, from its beginning: for its size, and for rows that were there
//! before.
//!
//! Its cost grows with the number of rows, and of deleted rows that can't be vacuumed yet: millions
//! while a transaction is open for hours. So new rows don't wait for it. It takes place every few
//! seconds, less often if it is slow, and then over a connection of its own.

use std::time::Duration;

use ::sqlx::Row as _;
use ::sqlx::postgres::{PgConnection, PgRow};
use ::sqlx::{ConnectOptions as _, Connection as _};
use tokio::task::JoinSet;

use super::relay::{Connection, NAME, Relay, RelayError, TOO_OLD, relay_options, rows};
use super::row::{Row, ids_of};
use crate::base::clock::{self, Instant};
use crate::config::outbox::{OutboxLocation, quote_text};
use crate::invalidation::outbox::OpenTransactions;

/// The pause between two walks, if they are quick.
pub(super) const WALK_INTERVAL: Duration = Duration::from_secs(5);
/// A slower walk gets a connection of its own.
const SLOW_WALK: Duration = Duration::from_millis(100);
/// How long a walk over a connection of its own may take.
const WALK_TIMEOUT: Duration = Duration::from_secs(60);
/// A walk may use 1/20 of the time.
const WALK_SHARE: u32 = 20;
/// Rows are counted up to this many.
const MOST_COUNTED: usize = 100_000;
/// A walk returns at most this many ids; the next walk continues after them.
pub(super) const MOST_IDS: usize = 10_000;

/// How long the oldest transaction is open that keeps deleted rows from being vacuumed, as far as
/// the user may see it; and the number of prepared transactions, which no connection shows.
pub(super) const OPEN_TRANSACTIONS: &str = "SELECT (extract(epoch FROM max(clock_timestamp() - since)) * 1000)::bigint AS oldest_ms, \
    count(*) FILTER (WHERE is_prepared) AS prepared FROM (\
        SELECT xact_start AS since, false AS is_prepared FROM pg_stat_activity \
            WHERE datname = current_database() AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL) AND pid <> pg_backend_pid() AND backend_type IS DISTINCT FROM 'autovacuum worker' \
        UNION ALL SELECT prepared, true FROM pg_prepared_xacts WHERE database = current_database()\
    ) AS transactions";

/// The result of a walk.
#[derive(Debug, Default)]
struct WalkResult {
    depth: u64,
    oldest_ms: Option<u64>,
    dead: Option<u64>,
    open: OpenTransactions,
    ids: Vec<i64>,
    took: Duration,
}

/// The walks of one session.
#[derive(Debug, Default)]
pub(super) struct Walks {
    last: Option<Instant>,
    pause: Duration,
    /// The walk over a connection of its own, if one is running.
    background: JoinSet<Result<WalkResult, RelayError>>,
    is_slow: bool,
    /// Where the next one begins: after the last id that was returned.
    from: i64,
    has_failed: bool,
}

impl Walks {
    /// Requests a walk soon: there are more rows than can be remembered.
    pub(super) fn ask(&mut self) {
        self.pause = self.pause.min(WALK_INTERVAL / 10);
    }

    /// Whether the last walk has left ids for the next one.
    pub(super) fn goes_on(&self) -> bool {
        self.from > 0 && self.background.is_empty()
    }

    /// Walks if one is due, and returns the ids of rows in the table.
    pub(super) async fn next(
        &mut self,
        relay: &Relay,
        connection: &mut Connection,
    ) -> Result<Vec<i64>, RelayError> {
        if let Some(done) = self.background.try_join_next() {
            return Ok(match done {
                Ok(Ok(walked)) => self.done(relay, walked),
                Ok(Err(error)) => self.failed(relay, &error),
                Err(_) => self.failed(relay, &RelayError::Closed),
            });
        }
        let is_due = self.last.is_none_or(|last| last.elapsed() >= self.pause);
        if !self.background.is_empty() || !is_due && !self.goes_on() {
            return Ok(Vec::new());
        }
        self.last = Some(clock::now());
        if !self.is_slow {
            match walk(relay, connection, self.from).await {
                Ok(walked) => return Ok(self.done(relay, walked)),
                Err(RelayError::Busy(_)) => {}
                Err(lost) => return Err(lost),
            }
        }
        self.is_slow = true;
        let (relay, from) = (relay.clone(), self.from);
        self.background
            .spawn(async move { walk_in_background(&relay, from).await });
        Ok(Vec::new())
    }

    fn done(&mut self, relay: &Relay, walked: WalkResult) -> Vec<i64> {
        if self.from == 0 {
            relay
                .state
                .walked(walked.depth, walked.oldest_ms, walked.dead, walked.open);
        }
        self.is_slow = walked.took > SLOW_WALK;
        self.pause = WALK_INTERVAL.max(walked.took * WALK_SHARE);
        self.last = Some(clock::now());
        self.from = match walked.ids.last() {
            Some(last) if walked.ids.len() == MOST_IDS => *last,
            _ => 0,
        };
        walked.ids
    }

    /// Without a count the statistics show `null`. Nothing else depends on it.
    fn failed(&mut self, relay: &Relay, error: &RelayError) -> Vec<i64> {
        relay.state.not_walked();
        (self.pause, self.last, self.from) = (WALK_TIMEOUT, Some(clock::now()), 0);
        if !std::mem::replace(&mut self.has_failed, true) {
            tracing::warn!(
                table = relay.table().channel(),
                %error,
                "the outbox could not be walked over: how many rows wait in it is not known"
            );
        }
        Vec::new()
    }
}

fn sql(relay: &Relay, from: i64) -> String {
    let limit = match relay.freshness {
        None => MOST_IDS,
        // Each process reads new rows only.
        Some(_) => 0,
    };
    let outbox = relay.table().quoted();
    format!(
        "SELECT count(*), max(age), (array_agg(id ORDER BY id))[1:{limit}]::text, pg_stat_get_dead_tuples({name}::regclass),
            (SELECT oldest_ms FROM ({OPEN_TRANSACTIONS}) AS open), (SELECT prepared FROM ({OPEN_TRANSACTIONS}) AS open)
        FROM (SELECT r.id, {age} AS age FROM {outbox} AS r WHERE r.id > {from} ORDER BY r.id LIMIT {MOST_COUNTED}) AS walked",
        name = quote_text(&outbox),
        age = Row::AGE_MS,
    )
}

async fn walk(
    relay: &Relay,
    connection: &mut Connection,
    from: i64,
) -> Result<WalkResult, RelayError> {
    let begun = clock::now();
    let read = connection.rows(&sql(relay, from), &[]).await?;
    walked(&read, begun)
}

async fn walk_in_background(relay: &Relay, from: i64) -> Result<WalkResult, RelayError> {
    #[allow(
        clippy::infallible_destructuring_match,
        reason = "with SQLite there is another place"
    )]
    let options = match &relay.config.location {
        OutboxLocation::Postgres(options) => options,
        #[cfg(feature = "outbox-sqlite")]
        OutboxLocation::Sqlite(_) => return Err(RelayError::Closed),
    };
    let name = format!("{NAME}, walk");
    let reading = async {
        let options = relay_options(options, &name, WALK_TIMEOUT);
        let mut connection: PgConnection = options.connect().await?;
        let begun = clock::now();
        let read = rows(&mut connection, &sql(relay, from), &[]).await?;
        let walked = walked(&read, begun)?;
        connection.close().await?;
        Ok(walked)
    };
    match crate::base::time::timeout(WALK_TIMEOUT, reading).await {
        Ok(walked) => walked,
        Err(_) => Err(RelayError::TimedOut),
    }
}

fn walked(read: &[PgRow], begun: Instant) -> Result<WalkResult, RelayError> {
    let read = read.first().ok_or(RelayError::Closed)?;
    let natural = |n: i64| u64::try_from(n).unwrap_or(0);
    let ids: Option<String> = read.try_get(2)?;
    Ok(WalkResult {
        depth: natural(read.try_get(0)?),
        oldest_ms: read.try_get::<Option<i64>, _>(1)?.map(natural),
        ids: ids_of(&ids.unwrap_or_default()),
        dead: read.try_get::<Option<i64>, _>(3)?.map(natural),
        open: OpenTransactions {
            oldest_ms: read.try_get::<Option<i64>, _>(4)?.map(natural),
            prepared: natural(read.try_get(5)?),
        },
        took: begun.elapsed(),
    })
}

/// Counts the rows that were set aside, from time to time. They are few.
#[derive(Debug, Default)]
pub(super) struct SetAside {
    last: Option<Instant>,
    has_failed: bool,
}

impl SetAside {
    pub(super) async fn look(
        &mut self,
        relay: &Relay,
        connection: &mut Connection,
    ) -> Result<(), RelayError> {
        if self.last.is_some_and(|last| last.elapsed() < WALK_INTERVAL) {
            return Ok(());
        }
        self.last = Some(clock::now());
        let sql = format!(
            "SELECT (SELECT count(*) FROM (SELECT FROM {set_aside} LIMIT 100000) AS counted),
                coalesce((SELECT dropped FROM {state}), 0), EXISTS (SELECT FROM {set_aside} WHERE {TOO_OLD})",
            set_aside = relay.table().side_table("_set_aside"),
            state = relay.table().side_table("_state"),
        );
        let read = match connection.rows(&sql, &[]).await {
            Err(RelayError::Database(error @ ::sqlx::Error::Database(_))) => {
                if !std::mem::replace(&mut self.has_failed, true) {
                    tracing::warn!(
                        table = relay.table().channel(),
                        %error,
                        "how many rows of the outbox were set aside is not known"
                    );
                }
                return Ok(());
            }
            read => read?,
        };
        let read = read.first().ok_or(RelayError::Closed)?;
        let natural = |n: i64| u64::try_from(n).unwrap_or(0);
        relay
            .state
            .set_aside(natural(read.try_get(0)?), natural(read.try_get(1)?));
        match read.try_get(2)? {
            true => relay.drop_set_aside(connection).await,
            false => Ok(()),
        }
    }
}
