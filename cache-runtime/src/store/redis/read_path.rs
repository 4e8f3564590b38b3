//! Chooses how a read is sent: alone, or in a batch.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::batcher::LookResult;
use super::connection::Connection;
use crate::base::clock::{self, Instant};
use crate::base::sync::atomic::Ordering;
use crate::store::Probe;

/// How a read is sent.
pub(super) enum ReadPath {
    /// Alone.
    Direct(DirectRead),
    /// In a batch, in whose queue it is already. It is answered within the budget, or its sender is
    /// dropped.
    Batched(oneshot::Receiver<LookResult>, Instant),
}

/// A read that was sent alone. It counts as in flight while this is held.
pub(super) struct DirectRead(Arc<Connection>);

impl DirectRead {
    pub(super) fn on(connection: &Arc<Connection>) -> Self {
        connection.batcher().alone.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(connection))
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.0
    }
}

impl Drop for DirectRead {
    fn drop(&mut self) {
        self.0.batcher().alone.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Chooses how a read is sent, and queues it if it is batched.
pub(super) fn read_path(connection: &Arc<Connection>, probe: &Probe) -> ReadPath {
    let batcher = connection.batcher();
    if batcher.is_quiet() || connection.set_aside().concerns(probe) {
        return ReadPath::Direct(DirectRead::on(connection));
    }
    let since = clock::now();
    match batcher.join(probe, since) {
        Some(answer) => ReadPath::Batched(answer, since),
        None => ReadPath::Direct(DirectRead::on(connection)),
    }
}
