//! Invalidations that will never be delivered.

use std::fmt;

/// The most names in one log message about lost invalidations.
const NAMES_SHOWN: usize = 10;

/// Invalidations that will never be delivered, for the log. It names the dependencies, and the keys
/// if there are no dependencies.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::invalidation) struct LostInvalidations {
    pub(super) names: Vec<String>,
    /// How many invalidations were lost.
    pub(in crate::invalidation) count: usize,
}

impl LostInvalidations {
    /// Returns true if it contains names that were not logged before.
    pub(in crate::invalidation) fn is_news(&self) -> bool {
        !self.names.is_empty()
    }
}

impl fmt::Display for LostInvalidations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.names[..self.names.len().min(NAMES_SHOWN)];
        write!(f, "{}", shown.join(", "))?;
        match self.names.len() - shown.len() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
