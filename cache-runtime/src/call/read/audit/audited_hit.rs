//! A hit that is being audited.

use crate::auditor::Draw;
use crate::call::scope::{self, Mode};
use crate::call::{enclosing, transaction};
use crate::coalesce::single_flight::LoadResult;
use crate::engine::Engine;

/// A hit that is being audited, with the cache's answer.
#[derive(Debug, Clone)]
pub(crate) struct Audited {
    pub(crate) cached: LoadResult,
    pub(crate) draw: Draw,
}

impl Audited {
    /// The cache's answer.
    pub(crate) fn cached(&self) -> LoadResult {
        self.cached.clone()
    }
}

/// Draws whether a hit is audited. Not inside a transaction, whose rows nobody else sees. Inside
/// another body the time would be that body's.
#[cold]
pub(crate) fn draw(cache: &Engine, part: u32, key: &str) -> Option<Draw> {
    let is_alone = !transaction::is_open(cache) && !enclosing::is_inside();
    if !is_alone || scope::mode() != Mode::Usual {
        return None;
    }
    let draw = cache.auditor.draw(part, key)?;
    cache.telemetry.note_invalidations();
    Some(draw)
}
