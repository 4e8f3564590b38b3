//! A value that is about to be stored.

use std::time::Duration;

use crate::protocol::codec_id::CodecId;
use crate::protocol::entry::Content;
use crate::store::Payload;

/// A value that is about to be stored.
#[derive(Debug)]
pub(crate) struct NewEntry {
    pub(super) content: Content,
    pub(super) payload: Payload,
    pub(super) codec: CodecId,
    pub(super) size: usize,
    pub(super) fresh_for: Duration,
    pub(super) stale_for: Duration,
}

impl NewEntry {
    /// Returns true if it would be served at all.
    pub(super) fn lasts(&self) -> bool {
        self.fresh_for >= Duration::from_millis(1)
    }
}
