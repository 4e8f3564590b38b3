//! The state of a store's circuit breaker.

use serde::Serialize;

/// The state of a store's circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Circuit {
    /// Requests are sent; the store answers.
    Closed,
    /// The store did not answer. No request is sent until the pause is over.
    Open,
    /// A trial is under way. Calls still bypass the store.
    HalfOpen,
    /// The store answers reads and refuses writes, invalidations among them, so its entries may be
    /// stale. No request is sent until it accepts writes again.
    ReadsOnly,
}

impl Circuit {
    /// The state's name in logs and statistics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
            Self::ReadsOnly => "reads-only",
        }
    }
}
