//! A hit that is being audited.

use crate::auditor::Draw;
use crate::coalesce::single_flight::LoadResult;

/// A hit that is being audited, with the cache's answer.
#[derive(Debug, Clone)]
pub(super) struct Audited {
    pub(super) cached: LoadResult,
    pub(super) draw: Draw,
}

impl Audited {
    /// The cache's answer.
    pub(super) fn cached(&self) -> LoadResult {
        self.cached.clone()
    }
}
