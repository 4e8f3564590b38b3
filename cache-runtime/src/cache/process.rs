//! The process-wide cache.

use std::sync::OnceLock;

use super::handle::Cache;
use crate::config::CacheConfig;
use crate::engine::{EngineRef, Handle};

static PROCESS: OnceLock<Cache> = OnceLock::new();

/// Creates a cache and installs it as the process-wide one. Annotated functions use it unless they
/// name another. Returns when the first attempt to connect to Redis has ended, and does not fail if
/// Redis is away.
///
/// Only the first call installs a cache. A later one logs a warning and returns the installed
/// cache.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use cache_runtime::CacheConfig;
///
/// cache_runtime::init(CacheConfig::from_env()?).await;
/// # Ok::<(), cache_runtime::ConfigError>(())
/// # }).unwrap();
/// ```
pub async fn init(config: CacheConfig) -> Cache {
    if PROCESS.get().is_none() {
        let cache = Cache::new(config).await;
        match PROCESS.set(cache.clone()) {
            Ok(()) => return cache,
            Err(_) => cache.shutdown().await,
        }
    }
    tracing::warn!("the process-wide cache is installed already; this configuration is not used");
    cache()
}

/// Returns the process-wide cache, or a disabled one before [`init`].
#[must_use]
pub fn cache() -> Cache {
    #[cfg(any(test, feature = "testing"))]
    if let Some(cache) = super::test_scope::current() {
        return cache;
    }
    PROCESS.get().cloned().unwrap_or_else(Cache::disabled)
}

/// The process-wide cache, not yet looked up.
pub(crate) struct Process {
    /// The cache that a test has put in its place.
    #[cfg(any(test, feature = "testing"))]
    scoped: Option<Cache>,
}

#[inline]
pub(crate) fn process() -> Process {
    Process {
        #[cfg(any(test, feature = "testing"))]
        scoped: super::test_scope::current(),
    }
}

impl Process {
    /// The engine, if the cache is on.
    #[inline]
    pub(crate) fn engine(&self) -> Option<EngineRef<'_>> {
        #[cfg(any(test, feature = "testing"))]
        if let Some(cache) = &self.scoped {
            return cache.engine();
        }
        let engine = PROCESS.get()?.0.engine.as_ref()?;
        (!engine.is_closed()).then_some(EngineRef::Process(engine))
    }

    pub(crate) fn handle(&self) -> Option<Handle> {
        self.engine().map(EngineRef::handle)
    }
}
