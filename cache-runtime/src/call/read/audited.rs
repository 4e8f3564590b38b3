//! A hit that is being checked.

use crate::auditor::Draw;
use crate::coalesce::single_flight::LoadResult;

/// A hit that is being checked: what the cache would have answered.
#[derive(Debug, Clone)]
pub(super) struct Audited {
    pub(super) cached: LoadResult,
    pub(super) draw: Draw,
}

impl Audited {
    /// What the cache would have answered.
    pub(super) fn cached(&self) -> LoadResult {
        self.cached.clone()
    }
}
