//! Chooses how a read is sent: alone, or in a batch.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::super::connection::Connection;
use super::batcher::{Batcher, LookResult};
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
    /// `since` by Tokio's clock, if the cache's own thread sends the batches: then the time of the
    /// runtimes that read may be paused. A runtime that pauses its time, while another one with
    /// several threads drives the connection, is left out: all readers there would have to read
    /// both clocks.
    pub(crate) tokio_now: Option<clock::Instant>,
}

/// A read that was sent alone. It counts as in flight while this is held.
pub(crate) struct DirectRead {
    connection: Arc<Connection>,
    /// That of the caller's runtime, if it has one.
    own: Option<Arc<Batcher>>,
}

impl DirectRead {
    pub(crate) fn on(connection: &Arc<Connection>) -> Self {
        Self::counted(connection, connection.runtimes.batcher())
    }

    fn counted(connection: &Arc<Connection>, own: Option<Arc<Batcher>>) -> Self {
        let read = Self {
            connection: Arc::clone(connection),
            own,
        };
        read.batcher().alone.fetch_add(1, Ordering::Relaxed);
        read
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    fn batcher(&self) -> &Batcher {
        let shared = || self.connection.batcher();
        self.own.as_deref().unwrap_or_else(shared)
    }
}

impl Drop for DirectRead {
    fn drop(&mut self) {
        self.batcher().alone.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Chooses how a read is sent, and queues it if it is batched.
pub(crate) fn read_path(connection: &Arc<Connection>, entry_ref: &EntryRef) -> ReadPath {
    let own = connection.runtimes.batcher();
    let batcher = own.as_deref().unwrap_or_else(|| connection.batcher());
    if batcher.is_quiet() || connection.set_aside().concerns(entry_ref) {
        return ReadPath::Direct(DirectRead::counted(connection, own));
    }
    let since = clock::system();
    let is_apart = connection.is_driven_apart()
        && !crate::base::mutation::is_active("batched-reads-hold-no-time");
    let tokio_now = is_apart.then(clock::now);
    match batcher.join(entry_ref, since) {
        Some(answer) => ReadPath::Batched(BatchedRead {
            answer,
            since,
            tokio_now,
        }),
        None => ReadPath::Direct(DirectRead::counted(connection, own)),
    }
}
