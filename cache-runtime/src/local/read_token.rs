//! The keys of one read, taken before the read is sent.

use std::sync::Arc;

use super::coarse_clock::CoarseInstant;
use super::flags;

/// The keys of one read, taken before the read is sent.
#[derive(Debug)]
pub(crate) struct ReadToken {
    /// The entry's flag, then those of its generations.
    pub(super) flags: Box<[Arc<flags::InvalidationFlag>]>,
    pub(super) key: Box<str>,
    pub(super) epoch: u64,
    pub(super) at: CoarseInstant,
}

impl ReadToken {
    /// Returns once the entry's key has changed.
    pub(crate) async fn changed(&self) {
        match self.flags.first() {
            Some(entry) => entry.invalidated().await,
            None => std::future::pending().await,
        }
    }
}
