//! The keys of one read, taken before the read is sent.

use std::sync::Arc;

use super::cells;
use super::tick::Tick;

/// The keys of one read, taken before the read is sent.
#[derive(Debug)]
pub(crate) struct ReadToken {
    /// The entry's flag, then those of its generations.
    pub(super) cells: Box<[Arc<cells::Cell>]>,
    pub(super) key: Box<str>,
    pub(super) epoch: u64,
    pub(super) at: Tick,
}

impl ReadToken {
    /// Returns once the entry's key has changed.
    pub(crate) async fn word(&self) {
        match self.cells.first() {
            Some(entry) => entry.ended().await,
            None => std::future::pending().await,
        }
    }
}
