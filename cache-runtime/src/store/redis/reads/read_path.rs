//! Chooses how a read is sent: over a connection that only reads, or over the main one, alone or in
//! a batch.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::super::connection::Connection;
use super::batcher::{Batcher, LookResult};
use super::read_driver;
use crate::base::clock;
use crate::base::sync::atomic::Ordering;
use crate::store::EntryRef;

/// How a read is sent.
pub(crate) enum ReadPath {
    /// Alone.
    Direct(DirectRead),
    /// In a batch, in whose queue it is already.
    Batched(BatchedRead),
}

/// A read that is in the queue of a batch.
pub(crate) struct BatchedRead {
    /// Comes within the budget, or its sender is dropped.
    pub(crate) answer: oneshot::Receiver<LookResult>,
    pub(crate) since: Instant,
    /// `since` by Tokio's clock, where another runtime may send the batch: then the time of the
    /// runtime that reads may be paused. A runtime that pauses its time, while one with several
    /// threads drives the main connection, and there is no other, is left out: all readers there
    /// would have to read both clocks.
    pub(crate) tokio_now: Option<clock::Instant>,
}

/// A read that was sent alone. It counts as in flight while this is held.
pub(crate) struct DirectRead {
    connection: Arc<Connection>,
}

impl DirectRead {
    pub(crate) fn on(connection: &Arc<Connection>) -> Self {
        connection.batcher().alone.fetch_add(1, Ordering::Relaxed);
        Self {
            connection: Arc::clone(connection),
        }
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }
}

impl Drop for DirectRead {
    fn drop(&mut self) {
        let batcher = self.connection.batcher();
        batcher.alone.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Chooses how a read is sent, and queues it if it is batched.
pub(crate) fn read_path(connection: &Arc<Connection>, entry_ref: &EntryRef) -> ReadPath {
    // Its length has to be asked for first.
    if connection.set_aside().concerns(entry_ref) {
        return ReadPath::Direct(DirectRead::on(connection));
    }
    let is_apart = connection.is_driven_apart();
    let batched = connection.read_sockets.using(
        // If the cache's own thread drives the main connection, the task that sends is of the
        // caller's runtime, and holds its time.
        |batcher| join(batcher, entry_ref, !is_apart),
        |runtime, server, failures| read_driver::connect(connection, runtime, server, failures),
    );
    let batched = batched.or_else(|| {
        let batcher = connection.batcher();
        let is_batched = !batcher.is_quiet();
        is_batched
            .then(|| join(batcher, entry_ref, is_apart))
            .flatten()
    });
    match batched {
        Some(read) => ReadPath::Batched(read),
        None => ReadPath::Direct(DirectRead::on(connection)),
    }
}

/// Queues a read; `None` if the batcher's connection was closed. If another runtime may send it, the
/// caller's time is read as well.
fn join(batcher: &Batcher, entry_ref: &EntryRef, is_apart: bool) -> Option<BatchedRead> {
    let since = clock::system();
    let is_apart = is_apart && !crate::base::mutation::is_active("batched-reads-hold-no-time");
    let tokio_now = is_apart.then(clock::now);
    let answer = batcher.join(entry_ref, since)?;
    Some(BatchedRead {
        answer,
        since,
        tokio_now,
    })
}
