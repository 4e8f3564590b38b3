//! A cache for the tests of programs that use this library.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::faults::{Fault, Faulty, Switch};
use crate::cache::Cache;
use crate::config::CacheConfig;
use crate::store::MemoryStore;

const BYTES: u64 = 64 << 20;

/// A cache in memory, with a clock that the test moves and faults that the test causes. Use it like
/// a [`Cache`]. `clone()` gives another handle to the same cache. Each new one starts empty.
///
/// Values are kept as in Redis: encoded. Each value is decoded again when it is stored, and
/// compared with the original. A value of which its codec would lose a part (infinity in JSON,
/// `Some(None)`, a field under `#[serde(skip)]`) is not stored, and the log names the field.
/// [`decoded`](Self::decoded) makes a cache that keeps the values themselves, as the local tier
/// does.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use std::time::Duration;
/// use cache_runtime::testing::{Fault, TestCache};
/// use cache_runtime::{Cache, cached};
///
/// struct Users { cache: Cache }
///
/// impl Users {
///     #[cached(resource = "users", ttl = 60, cache = self.cache)]
///     async fn get(&self, id: i64) -> Option<String> {
///         Some(format!("user {id}"))
///     }
/// }
///
/// let cache = TestCache::new();
/// let users = Users { cache: cache.clone() };
/// users.get(1).await;
/// users.get(1).await;
/// assert_eq!(cache.get_stats().await.counters.hits, 1);
///
/// cache.advance(Duration::from_secs(61)); // its time is over
/// users.get(1).await;
/// assert_eq!(cache.get_stats().await.counters.misses, 2);
///
/// cache.fail(Fault::Away); // and nobody notices
/// assert_eq!(users.get(1).await.as_deref(), Some("user 1"));
/// # }
/// ```
pub struct TestCache {
    cache: Cache,
    ahead: Arc<AtomicU64>,
    faults: Arc<Switch>,
}

impl TestCache {
    /// An empty cache with the default configuration.
    #[must_use]
    pub fn new() -> Self {
        Self::with(CacheConfig::default())
    }

    /// An empty cache with this configuration, except for its tiers.
    ///
    /// # Panics
    /// Outside a Tokio runtime, if the system can't start a thread.
    #[must_use]
    pub fn with(config: CacheConfig) -> Self {
        Self::over(config, MemoryStore::new(BYTES).encoded())
    }

    /// Like [`with`](Self::with), but values are kept as they are, not encoded: a hit of an
    /// `Arc<T>` is the very same `Arc`. A value that would not survive its codec is not stored here
    /// either.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use std::sync::Arc;
    /// use cache_runtime::{CacheConfig, cached, testing::TestCache};
    ///
    /// #[cached(resource = "users")]
    /// async fn user(id: i64) -> Arc<str> {
    ///     format!("user {id}").into()
    /// }
    ///
    /// let cache = TestCache::decoded(CacheConfig::default());
    /// let (one, other) = cache.scope(async { (user(1).await, user(1).await) }).await;
    /// assert_eq!(one, other);
    /// # }
    /// ```
    ///
    /// # Panics
    /// Like [`with`](Self::with).
    #[must_use]
    pub fn decoded(config: CacheConfig) -> Self {
        Self::over(config, MemoryStore::new(BYTES))
    }

    fn over(config: CacheConfig, store: MemoryStore) -> Self {
        let ahead = Arc::<AtomicU64>::default();
        let faults = Arc::new(Switch::new(config.command_budget));
        let store = store.ahead_by(Arc::clone(&ahead));
        let store = Faulty::new(store, Arc::clone(&faults));
        let cache = Cache::for_tests(config.local_mb(64), Arc::new(store));
        Self {
            cache,
            ahead,
            faults,
        }
    }

    /// Moves the store's clock, by which entries, leases and announcements expire. Waits (for an
    /// answer, or for another caller's load) go by Tokio's clock, which `tokio::time::pause` and
    /// `advance` move.
    pub fn advance(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.ahead.fetch_add(millis, Ordering::Relaxed);
    }

    /// Runs `future` with this cache in place of the process-wide one, for functions that use that
    /// one. It does not apply to tasks that `future` spawns, nor to calls that a body under `swr`
    /// or `timeout` makes after its caller has returned.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use cache_runtime::{cached, testing::TestCache};
    ///
    /// #[cached(resource = "users")]
    /// async fn user(id: i64) -> Option<String> {
    ///     Some(format!("user {id}"))
    /// }
    ///
    /// let cache = TestCache::new();
    /// cache.scope(async { user(1).await; user(1).await }).await;
    /// assert_eq!(cache.get_stats().await.counters.hits, 1);
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// As cancel safe as `future` is.
    pub fn scope<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        self.cache.scope(future)
    }

    /// Makes the store fail in this way from now on.
    pub fn fail(&self, fault: Fault) {
        self.faults.set(Some(fault));
    }

    /// Makes the store work from now on. Pending invalidations are delivered soon.
    pub fn recover(&self) {
        self.faults.set(None);
    }
}

impl Default for TestCache {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for TestCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestCache")
            .field("fault", &self.faults.get())
            .finish_non_exhaustive()
    }
}

impl Deref for TestCache {
    type Target = Cache;

    fn deref(&self) -> &Cache {
        &self.cache
    }
}

impl AsRef<Cache> for TestCache {
    fn as_ref(&self) -> &Cache {
        &self.cache
    }
}
