//! State that the relay of the database's outbox shares with the writers of rows and the
//! statistics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::base::clock::{self, Instant};
use crate::stats::OutboxStats;

/// Past this many, the ids of own rows are dropped: the relays find the rows when they are due.
const MOST_DONE: usize = 10_000;
/// For how long they are collected, so that one statement deletes those of many transactions. It is
/// shorter than the time during which rows belong to their writer.
const COLLECTED: Duration = Duration::from_millis(100);
/// So many tables are named that are not followed.
const MOST_NAMED: usize = 20;
const UNKNOWN: u64 = u64::MAX;

/// Transactions that keep what was deleted.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct OpenTransactions {
    /// How long the oldest has been open.
    pub(crate) oldest_ms: Option<u64>,
    /// How many are prepared.
    pub(crate) prepared: u64,
}

/// The followed tables as they were last seen: for each, by its number, its shape, and the
/// resources that depend on it, if they are known.
pub(crate) type Shapes = BTreeMap<i64, (String, Option<Vec<String>>)>;

/// One outbox of one cache.
#[derive(Debug)]
pub(crate) struct OutboxState {
    table: String,
    /// Whether any process may take the rows, since all share Redis.
    pub(crate) is_shared: bool,
    /// Whether the table existed when the relay connected.
    usable: AtomicBool,
    connected: AtomicBool,
    /// Whether a transaction has been in another database.
    outside: AtomicBool,
    delivered: AtomicU64,
    lag_ms: AtomicU64,
    depth: AtomicU64,
    oldest_ms: AtomicU64,
    /// Deleted rows that can't be vacuumed yet, as far as the database knows.
    dead: AtomicU64,
    /// How long the oldest open transaction has been open, and how many are prepared.
    oldest_transaction_ms: AtomicU64,
    prepared: AtomicU64,
    /// When the table was last read, or else when the cache was made.
    read: Mutex<Instant>,
    /// Statements that were too slow and are tried again.
    slow: AtomicU64,
    is_slow: AtomicBool,
    set_aside: AtomicU64,
    dropped: AtomicU64,
    connections: AtomicU64,
    cold_starts: AtomicU64,
    /// Rows of this process whose invalidation the store has acknowledged already.
    done: Mutex<Vec<i64>>,
    /// Tables whose changes are not followed, and why.
    not_followed: Mutex<Vec<String>>,
    /// The state of the followed tables, and the resources that depend on them.
    shapes: Mutex<Option<Shapes>>,
    /// Which server the database was: its cluster and timeline.
    server: Mutex<Option<String>>,
    /// Whether the relay's user may not ask that.
    failovers_unknown: AtomicBool,
    wake: Notify,
}

impl OutboxState {
    pub(crate) fn new(table: String, is_shared: bool) -> Self {
        let unknown = || AtomicU64::new(UNKNOWN);
        Self {
            table,
            is_shared,
            usable: AtomicBool::new(false),
            connected: AtomicBool::new(false),
            outside: AtomicBool::new(false),
            delivered: AtomicU64::new(0),
            lag_ms: unknown(),
            depth: unknown(),
            oldest_ms: unknown(),
            dead: unknown(),
            oldest_transaction_ms: unknown(),
            prepared: AtomicU64::new(0),
            read: Mutex::new(clock::now()),
            slow: AtomicU64::new(0),
            is_slow: AtomicBool::new(false),
            set_aside: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            cold_starts: AtomicU64::new(0),
            done: Mutex::default(),
            not_followed: Mutex::default(),
            shapes: Mutex::default(),
            server: Mutex::default(),
            failovers_unknown: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }

    /// Records that the relay now reads the table.
    pub(crate) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        if !crate::base::mutation::is_active("outbox-done-at-another-server") {
            self.done.lock().clear();
        }
        self.connected.store(true, Ordering::Relaxed);
        self.is_slow.store(false, Ordering::Relaxed);
        self.usable.store(true, Ordering::Release);
    }

    pub(crate) fn disconnected(&self) {
        self.connected.store(false, Ordering::Relaxed);
        self.not_walked();
    }

    /// Records that the table has been read.
    pub(crate) fn read(&self) {
        *self.read.lock() = clock::now();
    }

    /// Records that a statement was too slow; true for the first one of a connection.
    pub(crate) fn slow(&self) -> bool {
        self.slow.fetch_add(1, Ordering::Relaxed);
        !self.is_slow.swap(true, Ordering::Relaxed)
    }

    /// Returns true if the table is known to exist.
    pub(crate) fn is_usable(&self) -> bool {
        self.usable.load(Ordering::Acquire)
    }

    /// Records that a transaction is in another database than the outbox; true for the first one.
    pub(crate) fn is_first_outside(&self) -> bool {
        !self.outside.swap(true, Ordering::Relaxed)
    }

    /// Records that rows were delivered, and how long ago the oldest of them was written.
    pub(crate) fn delivered(&self, rows: usize, lag_ms: u64) {
        self.covered(rows);
        self.lag_ms.store(lag_ms, Ordering::Relaxed);
    }

    /// Counts rows that an earlier invalidation stands for.
    pub(crate) fn covered(&self, rows: usize) {
        self.delivered.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// Whether this process has known the database as another server.
    pub(crate) fn is_another_server(&self, server: &str) -> bool {
        let last = self.server.lock().replace(server.to_owned());
        last.is_some_and(|last| last != server)
    }

    /// Records that a failover of the database will not be noticed; true for the first time.
    pub(crate) fn failovers_unknown(&self) -> bool {
        !self.failovers_unknown.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn cold_start(&self) {
        self.cold_starts.fetch_add(1, Ordering::Relaxed);
    }

    /// Records how many rows are in the table, the age of the oldest, and what may keep them.
    pub(crate) fn walked(
        &self,
        depth: u64,
        oldest_ms: Option<u64>,
        dead: Option<u64>,
        open: OpenTransactions,
    ) {
        self.depth.store(depth, Ordering::Relaxed);
        let known = |value: Option<u64>| value.unwrap_or(UNKNOWN);
        self.oldest_ms.store(known(oldest_ms), Ordering::Relaxed);
        self.dead.store(known(dead), Ordering::Relaxed);
        self.oldest_transaction_ms
            .store(known(open.oldest_ms), Ordering::Relaxed);
        self.prepared.store(open.prepared, Ordering::Relaxed);
    }

    /// Records which tables are not followed.
    pub(crate) fn not_followed(&self, mut tables: Vec<String>) {
        tables.truncate(MOST_NAMED);
        *self.not_followed.lock() = tables;
    }

    /// Remembers what the followed tables look like, and returns what they looked like before.
    pub(crate) fn shapes(&self, now: Shapes) -> Option<Shapes> {
        self.shapes.lock().replace(now)
    }

    /// Forgets these figures: nobody can say any more whether they are right.
    pub(crate) fn not_walked(&self) {
        if crate::base::mutation::is_active("outbox-figures-kept") {
            return;
        }
        for figure in [
            &self.depth,
            &self.oldest_ms,
            &self.dead,
            &self.oldest_transaction_ms,
        ] {
            figure.store(UNKNOWN, Ordering::Relaxed);
        }
        self.prepared.store(0, Ordering::Relaxed);
    }

    /// Records how many rows are set aside, and how many of them have been dropped.
    pub(crate) fn set_aside(&self, rows: u64, dropped: u64) {
        self.set_aside.store(rows, Ordering::Relaxed);
        self.dropped.store(dropped, Ordering::Relaxed);
    }

    /// Which connection of the relay this is, for [`done`](Self::done).
    pub(crate) fn connection(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// The store has what these rows of this process say: the relay is to delete them, if it still
    /// has the connection that it had when they were written. Another one may lead to a server that
    /// has lost them, and that gives their numbers to others.
    pub(crate) fn done(&self, rows: Vec<i64>, connection: u64) {
        let mut done = self.done.lock();
        // Under the lock: a new connection is counted first, and the list is cleared then.
        let is_another = connection != self.connection()
            && !crate::base::mutation::is_active("outbox-done-at-another-server");
        if rows.is_empty() || is_another || done.len() + rows.len() > MOST_DONE {
            return;
        }
        done.extend(rows);
        drop(done);
        self.wake.notify_one();
    }

    pub(crate) fn take_done(&self) -> Vec<i64> {
        std::mem::take(&mut self.done.lock())
    }

    /// Returns some time after there are rows to delete.
    ///
    /// # Cancel safety
    /// If dropped, it may not return for rows that exist: call [`take_done`](Self::take_done) then.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
        crate::base::time::sleep(COLLECTED).await;
    }

    pub(crate) fn stats(&self, serving: Option<bool>) -> OutboxStats {
        let known =
            |value: &AtomicU64| Some(value.load(Ordering::Relaxed)).filter(|n| *n != UNKNOWN);
        OutboxStats {
            table: self.table.clone(),
            connected: self.connected.load(Ordering::Relaxed),
            shared: self.is_shared,
            serving,
            delivered: self.delivered.load(Ordering::Relaxed),
            lag_ms: known(&self.lag_ms),
            depth: known(&self.depth),
            oldest_ms: known(&self.oldest_ms),
            dead: known(&self.dead),
            oldest_transaction_ms: known(&self.oldest_transaction_ms),
            prepared: self.prepared.load(Ordering::Relaxed),
            not_followed: self.not_followed.lock().clone(),
            unread_ms: u64::try_from(self.read.lock().elapsed().as_millis()).unwrap_or(u64::MAX),
            slow: self.slow.load(Ordering::Relaxed),
            set_aside: self.set_aside.load(Ordering::Relaxed),
            set_aside_dropped: self.dropped.load(Ordering::Relaxed),
            failovers_unknown: self.failovers_unknown.load(Ordering::Relaxed),
            connections: self.connections.load(Ordering::Relaxed),
            cold_starts: self.cold_starts.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Another server may have lost the rows, and gives their numbers to others.
    #[test]
    fn rows_of_another_connection_are_not_deleted() {
        let state = OutboxState::new("outbox".into(), true);
        state.connected();
        let before = state.connection();
        state.done(vec![1], before);
        assert_eq!(state.take_done(), [1]);
        state.done(vec![2], before);
        state.disconnected();
        state.connected();
        assert_eq!(state.take_done(), [0; 0]);
        // Its writer hears of the acknowledgement later than the relay of the new connection.
        state.done(vec![3], before);
        assert_eq!(state.take_done(), [0; 0]);
        state.done(vec![4], state.connection());
        assert_eq!(state.take_done(), [4]);
    }
}
