//! What a function has to do with local entries.

use std::time::Duration;

use crate::base::policy::MAX_TTL;

/// What a function has to do with copies in the process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Copies {
    /// Whether the store is asked whatever there is here.
    pub(crate) strict: bool,
    /// Whether what it loads is kept here.
    pub(crate) kept: bool,
    /// For how long, at most.
    pub(crate) ttl: Duration,
}

impl Default for Copies {
    fn default() -> Self {
        Self {
            strict: false,
            kept: true,
            ttl: MAX_TTL,
        }
    }
}
