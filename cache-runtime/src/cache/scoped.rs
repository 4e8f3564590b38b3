//! A cache that replaces the process-wide one inside one future.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Cache;
use crate::base::task_locals;

tokio::task_local! {
    static IN_SCOPE: Cache;
}

/// Whether there has ever been a scope. In most programs there is none, and a call need not check.
static IN_USE: AtomicBool = AtomicBool::new(false);

/// The cache in whose [scope](Cache::scope) the current task is.
#[inline]
pub(crate) fn in_scope() -> Option<Cache> {
    match IN_USE.load(Ordering::Relaxed) {
        true => IN_SCOPE.try_with(Cache::clone).ok(),
        false => None,
    }
}

impl Cache {
    /// Runs `future` with this cache in place of the process-wide one, for annotated functions that
    /// use the process-wide cache, and for [`cache()`](crate::cache()). So tests that each have a
    /// database can each have a cache, also around the requests of an application that they serve.
    ///
    /// Spawned tasks are not affected, nor are calls of a body under `swr` or `timeout` that goes
    /// on after its caller has the answer. Scopes nest; the innermost one wins.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use cache_runtime::{Cache, CacheConfig, cached};
    ///
    /// #[cached(resource = "users")]
    /// async fn user(id: i64) -> Option<String> {
    ///     Some(format!("user {id}"))
    /// }
    ///
    /// let cache = Cache::new(CacheConfig::default().local_mb(4)).await;
    /// cache.scope(async { user(1).await; user(1).await }).await;
    /// assert_eq!(cache.get_stats().await.counters.hits, 1);
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// As cancel safe as `future` is.
    pub fn scope<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        IN_USE.store(true, Ordering::Relaxed);
        IN_SCOPE.scope(self.clone(), future)
    }

    /// Whether [`scope_now`](Self::scope_now) works. It panics while the thread ends and its values
    /// are gone.
    pub(crate) fn can_scope(&self) -> bool {
        task_locals::can_be_set(&IN_SCOPE, self.clone())
    }

    /// The same for code that is not awaited.
    pub(crate) fn scope_now<T>(&self, call: impl FnOnce() -> T) -> T {
        IN_USE.store(true, Ordering::Relaxed);
        IN_SCOPE.sync_scope(self.clone(), call)
    }
}
