//! The handle of a cache: starting, stopping, statistics.

use std::fmt;
use std::sync::Arc;

use super::unserved::unserved;
use crate::base::background::Background;
use crate::config::CacheConfig;
use crate::diagnostics::{self, DoctorReport};
use crate::engine::{Engine, EngineRef, Handle, StripedEngine};
use crate::local::Local;
use crate::stats::{StatCounters, Stats};
use crate::store::{MemoryStore, Store};

/// A handle to a cache. It is cheap to clone, and all clones share one cache.
///
/// Its methods do what the attributes can't express. With the cache off they do nothing. With the
/// store away, reads find nothing.
#[derive(Clone)]
pub struct Cache(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) config: CacheConfig,
    pub(super) engine: Option<StripedEngine>,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("config", &self.0.config)
            .field("store", &self.0.engine.as_ref().map(|engine| &engine.store))
            .finish()
    }
}

impl AsRef<Self> for Cache {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl Cache {
    /// Creates a cache apart from the process-wide one, for [`cache = expr`](crate::cached) and
    /// tests. Returns when the first attempt to connect to Redis has ended, and does not fail if
    /// Redis is away.
    ///
    /// # Cancel safety
    /// If dropped, there is no cache: its thread ends, and so does an attempt to connect.
    pub async fn new(config: CacheConfig) -> Self {
        config.report_problems();
        if !config.is_enabled() {
            tracing::info!(
                "no cache: none of REDIS_ENABLED, MEMCACHED_URL and CACHE_LOCAL_MB turns a tier on"
            );
            return Self(Arc::new(Inner {
                config,
                engine: None,
            }));
        }
        let background = match Background::start() {
            Ok(background) => background,
            Err(error) => {
                tracing::error!(
                    %error,
                    "the cache is off, because the system could not start its thread"
                );
                return Self(Arc::new(Inner {
                    config,
                    engine: None,
                }));
            }
        };
        let (store, local) = store(&config, &background).await;
        let engine = Engine::new(config, store, background).with_local(local);
        #[cfg(feature = "outbox-postgres")]
        let engine = engine.with_outbox();
        let cache = Self::around(engine);
        #[cfg(feature = "outbox-postgres")]
        if let Some(striped) = &cache.0.engine {
            crate::outbox::start_relay(striped, striped.downgrade());
        }
        cache
    }

    /// Creates a cache on top of your own store.
    ///
    /// # Errors
    /// If the system can't start a thread.
    pub fn with_store(config: CacheConfig, store: Arc<dyn Store>) -> std::io::Result<Self> {
        Ok(Self::over(config, store, Background::start()?))
    }

    /// Runs on the caller's runtime, whose time the test may have paused, or on a thread of its own
    /// if there is no runtime.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn for_tests(config: CacheConfig, store: Arc<dyn Store>) -> Self {
        let background = match tokio::runtime::Handle::try_current() {
            Ok(_) => Background::here(),
            Err(_) => Background::start().expect("a thread for the cache"),
        };
        Self::around(Engine::new(config, store, background))
    }

    fn over(config: CacheConfig, store: Arc<dyn Store>, background: Background) -> Self {
        Self::around(Engine::new(config, store, background))
    }

    fn around(engine: Engine) -> Self {
        engine.monitor();
        diagnostics::advise_once(&engine);
        let config = engine.config.clone();
        let engine = StripedEngine::new(engine);
        #[cfg(feature = "metrics")]
        crate::metrics::start(engine.engine());
        Self(Arc::new(Inner {
            config,
            engine: Some(engine),
        }))
    }

    pub(super) fn disabled() -> Self {
        Self(Arc::new(Inner {
            config: CacheConfig::default(),
            engine: None,
        }))
    }

    #[inline]
    pub(crate) fn engine(&self) -> Option<EngineRef<'_>> {
        let engine = self.0.engine.as_ref()?;
        (!engine.is_closed()).then_some(EngineRef::Own(engine))
    }

    pub(crate) fn handle(&self) -> Option<Handle> {
        self.engine().map(EngineRef::handle)
    }

    /// The secret of the hashes in keys.
    pub(crate) fn hash_key(&self) -> [u8; 16] {
        self.0.config.key_space().hash_key
    }

    /// Returns true if any tier is configured.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.0.engine.is_some()
    }

    /// Returns true if the store takes writes within the command budget.
    ///
    /// # Cancel safety
    /// Safe: dropping the future changes nothing.
    pub async fn is_available(&self) -> bool {
        match self.handle() {
            Some(cache) => cache.store.ping().await.is_ok(),
            None => false,
        }
    }

    /// Returns the state and the statistics of the cache, with the server's information about
    /// itself.
    ///
    /// # Cancel safety
    /// Safe: dropping the future changes nothing.
    pub async fn get_stats(&self) -> Stats {
        let Inner { config, engine } = &*self.0;
        let server_info = match self.handle() {
            Some(cache) => cache.store.server_info().await.ok(),
            None => None,
        };
        let connected = server_info.is_some();
        let server_info = server_info.unwrap_or_default();
        let redis = config.redis.as_ref();
        let memcached = config.memcached.as_ref();
        let resources: std::collections::BTreeMap<_, _> = engine
            .iter()
            .flat_map(|engine| engine.registry.snapshot())
            .collect();
        let others = engine
            .as_ref()
            .map(|engine| engine.registry.others.snapshot());
        let pending = engine
            .as_ref()
            .map_or(0, |engine| engine.invalidations.pending());
        let counters = StatCounters::new(resources.values().copied().chain(others).sum(), pending);
        let local = engine
            .as_ref()
            .and_then(|engine| engine.local.as_ref())
            .map(|local| crate::local::LocalStats {
                hits: counters.local_hits,
                ..local.stats()
            });
        Stats {
            enabled: engine.is_some(),
            connected,
            host: redis
                .map(|redis| redis.host.clone())
                .or(memcached.map(|memcached| memcached.host.clone())),
            port: redis
                .map(|redis| redis.port)
                .or(memcached.map(|memcached| memcached.port)),
            db: redis.map(|redis| redis.db),
            total_keys: server_info.total_keys,
            used_memory: server_info.used_memory,
            uptime_seconds: server_info.uptime_seconds,
            connected_clients: server_info.connected_clients,
            default_ttl: config.default_ttl.as_secs(),
            counters,
            resources,
            circuit: engine.as_ref().map(|engine| engine.store.circuit()),
            reason: engine.as_ref().and_then(|engine| engine.store.reason()),
            oldest_pending_ms: engine
                .as_ref()
                .and_then(|engine| engine.invalidations.oldest_pending())
                .map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            restarts: crate::base::background::restarts(),
            tasks: engine
                .as_ref()
                .map_or(0, |engine| engine.background.tasks()),
            front_bytes: engine.as_ref().map_or(0, |engine| engine.front_bytes()),
            local,
            outbox: engine.as_ref().and_then(|engine| engine.outbox_stats()),
            unserved: engine
                .as_ref()
                .and_then(|engine| unserved(&engine.registry)),
            nodes: server_info.nodes,
        }
    }

    /// Returns the outbox that this cache follows, for writers without annotations. `None` if none
    /// is configured.
    #[cfg(feature = "outbox-postgres")]
    #[must_use]
    pub fn outbox(&self) -> Option<crate::outbox::Outbox> {
        let outbox = self.0.config.outbox.as_ref();
        outbox.map(crate::outbox::Outbox::new)
    }

    /// Checks for what operators forget: Redis without a password or a memory limit, commands that
    /// its user may not send, a namespace that another program uses, values that are kept for a day
    /// and never invalidated. It changes nothing, and its time is limited whatever Redis holds.
    ///
    /// Each cache runs this check by itself once it is connected, and logs the advice; see
    /// [`CacheConfig::advice`](crate::CacheConfig::advice).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use cache_runtime::{Cache, CacheConfig};
    ///
    /// let cache = Cache::new(CacheConfig::default().local_mb(16)).await;
    /// let report = cache.doctor().await;
    /// assert!(report.advice.is_empty(), "{report}");
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// Safe: dropping the future changes nothing.
    pub async fn doctor(&self) -> DoctorReport {
        match self.handle() {
            Some(cache) => {
                let outbox = cache.outbox_stats();
                diagnostics::doctor(&cache.config, &*cache.store, outbox.as_ref()).await
            }
            None => DoctorReport::of_nothing(),
        }
    }

    /// Delivers the waiting invalidations, and those that running writes enqueue, within two
    /// seconds. Then closes the connections and ends the tasks. The log names the invalidations
    /// that could not be delivered. Every call returns when that is done.
    ///
    /// From the start of the shutdown, annotated functions just run, and a write that starts then
    /// invalidates nothing. So call this after the program has stopped taking requests, and outside
    /// annotated functions.
    ///
    /// # Cancel safety
    /// If dropped, the shutdown goes on.
    pub async fn shutdown(&self) {
        if let Some(engine) = &self.0.engine {
            engine.close().await;
            // The counts since the last time, above all of lost invalidations.
            #[cfg(feature = "metrics")]
            crate::metrics::publish(engine);
        }
    }
}

/// Creates the store, and the local tier in front of Redis.
async fn store(
    config: &CacheConfig,
    background: &Background,
) -> (Arc<dyn Store>, Option<Arc<Local>>) {
    #[cfg(feature = "redis")]
    if let Some(redis) = &config.redis {
        let store = crate::store::RedisStore::connect(redis, config, background.handle()).await;
        let local = store.local();
        return (Arc::new(store), local);
    }
    #[cfg(feature = "memcached")]
    if let Some(memcached) = &config.memcached {
        let runtime = background.handle();
        let store = crate::store::MemcachedStore::connect(memcached, config, runtime).await;
        if config.local_bytes > 0 {
            tracing::warn!(
                variable = "CACHE_LOCAL_MB",
                "CACHE_LOCAL_MB has no effect, since Memcached does not report changes"
            );
        }
        return (Arc::new(store), None);
    }
    let _ = background;
    let megabytes = config.local_bytes >> 20;
    tracing::info!(megabytes, "✓ In-process cache enabled, {megabytes} MB");
    (Arc::new(MemoryStore::new(config.local_bytes)), None)
}
