//! The number of a request, by which its caller is told.

/// Identifies the request that a caller waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::invalidation) struct RequestNumber {
    pub(super) number: u64,
    pub(super) announces: bool,
}

impl RequestNumber {
    /// The number of a request that was never enqueued.
    pub(in crate::invalidation) const NEVER: Self = Self {
        number: u64::MAX,
        announces: false,
    };
}
