//! The process-wide cache.

use std::sync::OnceLock;

use super::handle::Cache;
use super::scoped::in_scope;
use crate::config::CacheConfig;
use crate::engine::{EngineRef, Handle};

static PROCESS: OnceLock<Cache> = OnceLock::new();

/// Creates a cache and installs it as the process-wide one, which annotated functions use unless
/// they name another. It returns when the first attempt to reach Redis has ended, and does not fail
/// if Redis is away.
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
///
/// # Cancel safety
/// If dropped, nothing is installed, and the cache's thread ends.
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

/// The process-wide cache; a disabled one before [`init`].
#[must_use]
pub fn cache() -> Cache {
    if let Some(cache) = in_scope() {
        return cache;
    }
    PROCESS.get().cloned().unwrap_or_else(Cache::disabled)
}

/// Identifies the process-wide cache.
pub(crate) struct Process {
    /// The cache that replaces it around the current task.
    scoped: Option<Cache>,
}

#[inline]
pub(crate) fn process() -> Process {
    Process { scoped: in_scope() }
}

impl Process {
    /// Its engine, if it is on.
    #[inline]
    pub(crate) fn engine(&self) -> Option<EngineRef<'_>> {
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
