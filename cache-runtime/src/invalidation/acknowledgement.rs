//! The result of an invalidation.

/// The result of an invalidation, when its caller goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub enum Acknowledgement {
    /// The store has the invalidation. Later reads are never served older data.
    Delivered,
    /// The store can't be reached. The invalidation is kept and retried. Until it is delivered,
    /// this process bypasses the cache for what it concerns; other processes may be served older
    /// data.
    Pending,
    /// A transaction is open around the call. The invalidation takes place when
    /// [`after_commit`](crate::Cache::after_commit) ends.
    Deferred,
    /// The cache is off or has been shut down, and nothing was invalidated. This process has no
    /// cached data. Other processes that share the store may be served older data until its TTL
    /// ends.
    Disabled,
    /// The cache was shut down before the store had the invalidation. As with
    /// [`Disabled`](Self::Disabled), other processes may be served older data. The log names the
    /// lost invalidation.
    Lost,
}

impl Acknowledgement {
    /// As it is named in logs.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Pending => "pending",
            Self::Deferred => "deferred",
            Self::Disabled => "disabled",
            Self::Lost => "lost",
        }
    }
}
