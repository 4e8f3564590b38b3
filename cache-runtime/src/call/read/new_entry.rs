//! A value as it is about to be stored.

use std::time::Duration;

use crate::protocol::codec_id::CodecId;
use crate::protocol::entry::Content;
use crate::store::Payload;

/// A value ready to be stored.
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
    /// Whether it would be served at all.
    pub(super) fn lasts(&self) -> bool {
        self.fresh_for >= Duration::from_millis(1)
    }
}
