//! Whether a store is asked.

use serde::Serialize;

/// Whether a store is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Circuit {
    /// It answers, and is asked.
    Closed,
    /// It did not answer; nobody asks until the pause is over.
    Open,
    /// It is being tried. Calls still go without it.
    HalfOpen,
    /// It answers reads and refuses writes, invalidations among them, so that what it has may be stale. Nobody asks until
    /// it takes writes again.
    ReadsOnly,
}

impl Circuit {
    /// The state's name as it stands in logs and statistics.
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
