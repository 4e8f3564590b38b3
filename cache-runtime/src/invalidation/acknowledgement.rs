//! How far an invalidation has come.

/// How far an invalidation has come when its caller goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub enum Acknowledgement {
    /// The store has it: no later read is served older data.
    Delivered,
    /// The store can't be reached. The invalidation is kept and retried, and until it is delivered this
    /// process reads past the cache; other processes may be served older data.
    Pending,
    /// A transaction is open around the call: the invalidation takes place when
    /// [`after_commit`](crate::Cache::after_commit) ends.
    Deferred,
    /// The cache is off or has been shut down, and nothing was invalidated. This process is not served from a
    /// cache then; other processes that share the store may be served older data, until its time to live ends.
    Disabled,
    /// The cache was shut down before the store had it. As with [`Disabled`](Self::Disabled), other processes
    /// may be served older data; the log names it.
    Lost,
}
