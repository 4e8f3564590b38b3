//! How a function uses local entries.

use std::time::Duration;

use crate::base::policy::MAX_TTL;

/// How a function uses local entries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LocalOptions {
    /// Whether every call asks the store.
    pub(crate) strict: bool,
    /// Whether its values are stored as local entries.
    pub(crate) kept: bool,
    /// The longest time that a local entry is served.
    pub(crate) ttl: Duration,
    /// Whether values are kept only in this process.
    pub(crate) in_process: bool,
}

impl Default for LocalOptions {
    fn default() -> Self {
        Self {
            strict: false,
            kept: true,
            ttl: MAX_TTL,
            in_process: false,
        }
    }
}
