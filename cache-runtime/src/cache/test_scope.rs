//! Lets a test replace the process-wide cache for the calls of one future.

use super::Cache;

tokio::task_local! {
    static IN_SCOPE: Cache;
}

/// Runs the future with this cache in place of the process-wide one.
pub(crate) fn with_cache<F: Future>(
    cache: Cache,
    future: F,
) -> impl Future<Output = F::Output> + use<F> {
    IN_SCOPE.scope(cache, future)
}

/// The cache that replaces the process-wide one in the current task.
pub(crate) fn current() -> Option<Cache> {
    IN_SCOPE.try_with(Cache::clone).ok()
}
