//! The cache as a program holds it: starting, stopping, and the manual operations.

use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::advisor::{self, Checkup};
use crate::background::Background;
use crate::config::CacheConfig;
use crate::delivery::{Acknowledgement, Order, PATIENCE};
use crate::engine::{Engine, Handle, Lent, Shares};
use crate::error::{Error, ErrorKind};
use crate::flight::Landed;
use crate::key::{IntoKey, KeyPart, is_resource};
use crate::local::Local;
use crate::policy::IntoTtl;
use crate::read::{Call, Hit, Permit, Read, Reader, Turn, value_of};
use crate::returns::{Cacheable, Fallible, Owned};
use crate::scope;
use crate::stats::{Figures, Stats};
use crate::store::{Filled, Invalidation, LeaseReply, Matching, MemoryStore, Seen, Store};
use crate::transaction::{self, Doubt, Ending, Handover};
use crate::write::{Planned, WritePlan};

static PROCESS: OnceLock<Cache> = OnceLock::new();

/// Makes a cache and installs it as the process-wide one, which annotated functions use unless they name
/// another. It returns when the first attempt to reach Redis has ended, and does not fail when Redis is away.
///
/// Only the first call installs; a later one warns and returns the cache that is there.
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

/// The process-wide cache; a disabled one before [`init`].
#[must_use]
pub fn cache() -> Cache {
    #[cfg(any(test, feature = "testing"))]
    if let Some(cache) = crate::testing::in_scope() {
        return cache;
    }
    PROCESS.get().cloned().unwrap_or_else(Cache::disabled)
}

/// Calls with the engine of the process-wide cache, if it is on.
#[inline]
pub(crate) fn with_process<T>(call: impl FnOnce(Option<Lent<'_>>) -> T) -> T {
    #[cfg(any(test, feature = "testing"))]
    if let Some(cache) = crate::testing::in_scope() {
        return call(cache.engine());
    }
    let engine = PROCESS.get().and_then(|cache| cache.0.engine.as_ref());
    call(
        engine
            .filter(|engine| !engine.is_closed())
            .map(Lent::Process),
    )
}

pub(crate) fn process_handle() -> Option<Handle> {
    with_process(|engine| engine.map(Lent::handle))
}

/// A handle on a cache; cheap to clone, and all clones are the same cache.
///
/// The operations here are for what annotations can't say. Where the cache is off they do nothing, and where
/// the store is away reads find nothing.
#[derive(Clone)]
pub struct Cache(Arc<Inner>);

struct Inner {
    config: CacheConfig,
    engine: Option<Shares>,
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

/// What [`Cache::lookup`] found.
#[derive(Debug)]
pub enum Lookup<T> {
    /// A value, safe to use now.
    Hit(T),
    /// Nothing; the lease lets this caller fill it safely.
    Miss(Lease<T>),
}

/// The right to fill an entry that was missed; see [`Cache::lookup`]. Dropped, it is given back.
///
/// It is not renewed: a load that takes longer than the lease (3 s unless configured) is not stored.
/// [`Cache::get_or_load`] renews.
#[derive(Debug)]
pub struct Lease<T> {
    call: Option<Box<(Call, Option<Permit>)>>,
    value: std::marker::PhantomData<fn(T)>,
}

impl<T: Cacheable> Lease<T> {
    /// Stores what was loaded since the miss, unless the entry was invalidated meanwhile; says whether it did.
    ///
    /// # Cancel safety
    /// Dropped, the value may be stored or not; if not, the lease is given back.
    pub async fn fill(self, value: &T) -> bool {
        let Some((call, Some(permit))) = self.call.map(|call| *call) else {
            return false;
        };
        let ttl = call
            .ttl
            .of_value(call.resource.operator_ttl, call.cache.config.default_ttl);
        match call.pack_value(value, || Some(Arc::new(value.clone())), ttl) {
            Ok(package) => permit.fill(&call, package).await == Some(Filled::Stored),
            Err(_) => false,
        }
    }
}

impl Cache {
    /// Makes a cache of one's own, for [`cache = expr`](crate::cached) and tests. It returns when the first
    /// attempt to reach Redis has ended, and does not fail when Redis is away.
    pub async fn new(config: CacheConfig) -> Self {
        if !config.is_enabled() {
            tracing::info!("no cache: neither REDIS_ENABLED nor CACHE_LOCAL_MB turns a tier on");
            return Self(Arc::new(Inner {
                config,
                engine: None,
            }));
        }
        let background = match Background::start() {
            Ok(background) => background,
            Err(error) => {
                tracing::error!(
                    "the cache's own thread could not be started, so the cache is off: {error}"
                );
                return Self(Arc::new(Inner {
                    config,
                    engine: None,
                }));
            }
        };
        let (store, local) = store(&config, &background).await;
        Self::around(Engine::new(config, store, background).with_local(local))
    }

    /// Makes a cache over a store of one's own.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn with_store(config: CacheConfig, store: Arc<dyn Store>) -> std::io::Result<Self> {
        Ok(Self::over(config, store, Background::start()?))
    }

    /// On the caller's runtime, whose time the test may have paused; if there is none, on a thread of its own.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn for_tests(config: CacheConfig, store: Arc<dyn Store>) -> Self {
        let background = match tokio::runtime::Handle::try_current() {
            Ok(_) => Background::here(),
            Err(_) => Background::start().expect("a thread for the cache"),
        };
        Self::over(config, store, background)
    }

    fn over(config: CacheConfig, store: Arc<dyn Store>, background: Background) -> Self {
        Self::around(Engine::new(config, store, background))
    }

    fn around(engine: Engine) -> Self {
        advisor::advise_once(&engine);
        Self(Arc::new(Inner {
            config: engine.config.clone(),
            engine: Some(Shares::new(engine)),
        }))
    }

    fn disabled() -> Self {
        Self(Arc::new(Inner {
            config: CacheConfig::default(),
            engine: None,
        }))
    }

    #[inline]
    pub(crate) fn engine(&self) -> Option<Lent<'_>> {
        let engine = self.0.engine.as_ref()?;
        (!engine.is_closed()).then_some(Lent::Own(engine))
    }

    pub(crate) fn handle(&self) -> Option<Handle> {
        self.engine().map(Lent::handle)
    }

    /// Whether any tier is configured.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.0.engine.is_some()
    }

    /// Whether the store answers, asked within the command budget.
    pub async fn is_available(&self) -> bool {
        match self.handle() {
            Some(cache) => cache.store.ping().await.is_ok(),
            None => false,
        }
    }

    /// The value under a key, if there is one that may be served. Nothing is loaded and nobody waited for.
    ///
    /// To store what was missed here with [`set`](Self::set) is not safe, because somebody may invalidate in
    /// between; [`lookup`](Self::lookup) and [`get_or_load`](Self::get_or_load) are.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn get<T: Cacheable>(&self, key: impl IntoKey) -> Option<T> {
        let call = Call::manual(self.handle()?, &key.into_key().ok()?, None);
        let value = self.look::<T>(&call).await;
        let counters = &call.resource.counters;
        match value {
            Some(_) => counters.hits.add_one(),
            None => counters.misses.add_one(),
        }
        value.map(Arc::unwrap_or_clone)
    }

    async fn look<T: Cacheable>(&self, call: &Call) -> Option<Arc<T>> {
        if call.problem.is_some()
            || call.cache.delivery.is_pending(&call.probe)
            || transaction::is_open(&call.cache)
        {
            return None;
        }
        let hit = Hit::of(call.look().await.ok()?, call.fingerprint::<T>())?;
        value_of::<T>(hit.codec, &hit.payload)
    }

    /// Stores a value that the caller vouches for: it is newer than anything that was loaded before.
    ///
    /// It takes the entry's place first and stores then. An invalidation of this row that comes before it has the place
    /// counts as older than the value, though this may have begun; one that comes later wins.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidKey`], [`ErrorKind::Unstorable`], [`ErrorKind::Foreign`],
    /// [`ErrorKind::Superseded`] if the entry was invalidated after its place was taken, or if a write that concerns it is
    /// under way or a transaction open, [`ErrorKind::Unavailable`].
    /// Nothing is stored then. With the cache off, nothing is stored and that is no error.
    ///
    /// # Cancel safety
    /// Dropped, the value may be stored or not, whole in any case; what was there before may be gone.
    pub async fn set<T: Cacheable>(
        &self,
        key: impl IntoKey,
        value: &T,
        ttl: impl IntoTtl,
    ) -> Result<(), Error> {
        let key = key.into_key()?;
        let Some(handle) = self.handle() else {
            return Ok(());
        };
        let call = Call::manual(handle, &key, ttl.into_ttl());
        let ttl = call
            .ttl
            .of_value(call.resource.operator_ttl, call.cache.config.default_ttl);
        if let Some(problem) = call.problem {
            let text = format!(
                "`{}` is not a key of this resource ({})",
                call.probe.key,
                problem.as_str()
            );
            return Err(Error::new(ErrorKind::InvalidKey, text));
        }
        if ttl.as_millis() == 0 {
            return Err(Error::new(
                ErrorKind::Unstorable,
                "a time to live of 0 keeps nothing; use a millisecond or more",
            ));
        }
        if transaction::is_open(&call.cache) {
            return Err(Error::new(
                ErrorKind::Superseded,
                "a transaction is open around the call, and what it wrote may never be committed",
            ));
        }
        let package = call.pack_value(value, || Some(Arc::new(value.clone())), ttl)?;
        if call.cache.delivery.is_pending(&call.probe) {
            return Err(Error::unavailable(
                "an invalidation of this entry is still waiting for the store",
            ));
        }
        let look = call.look().await?;
        if look.intended.is_some() {
            return Err(Error::new(
                ErrorKind::Superseded,
                "a write that concerns this entry is under way",
            ));
        }
        let permit = Permit::new(&call, look.stamp, call.fingerprint::<T>());
        match permit.take(&call, Seen::Anything).await? {
            LeaseReply::Granted => match permit.fill(&call, package).await {
                Some(Filled::Stored) => Ok(()),
                Some(Filled::Refused) => Err(Error::new(
                    ErrorKind::Superseded,
                    "the entry was invalidated meanwhile",
                )),
                None => Err(Error::unavailable("the store did not take the value")),
            },
            LeaseReply::Foreign => {
                permit.forget();
                Err(Error::new(
                    ErrorKind::Foreign,
                    format!("`{}` holds a value of another program", call.probe.key),
                ))
            }
            LeaseReply::Taken(_) | LeaseReply::Intended => {
                permit.forget();
                Err(Error::new(
                    ErrorKind::Superseded,
                    "a write that concerns this entry is under way",
                ))
            }
        }
    }

    /// Removes one entry, with a load of it that is in flight; says whether there was one. A foreign value
    /// stays.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidKey`]; [`ErrorKind::Unavailable`] or [`ErrorKind::Store`] if the store failed: then
    /// the removal is kept and retried, and this process does not read the entry until it is done.
    ///
    /// # Cancel safety
    /// Dropped once it runs, the entry is removed all the same, as soon as the store can be reached.
    pub async fn delete(&self, key: impl IntoKey) -> Result<bool, Error> {
        let key = key.into_key()?;
        let Some(handle) = self.handle() else {
            return Ok(false);
        };
        let call = Call::manual(handle, &key, None);
        call.resource.counters.invalidations.add_one();
        let invalidation = Invalidation {
            kills: vec![call.probe.key.clone()],
            ..Invalidation::default()
        };
        let order = Order {
            kills: invalidation.kills.clone(),
            ..Order::default()
        };
        // Inside of a block somebody may load the old rows again before the commit: once more then.
        transaction::hand_over_order(&call.cache, &order);
        let owed = call.cache.delivery.owe(order);
        match call.cache.store.invalidate(&invalidation).await {
            Ok(done) => {
                owed.settle();
                Ok(done.removed > 0)
            }
            Err(error) => {
                let _ = owed.hand_in().acknowledged(PATIENCE).await;
                Err(error)
            }
        }
    }

    /// A hit, or a miss that carries a lease to fill it with: the safe way to load by hand. If somebody else is
    /// loading the entry, this waits for the value, up to the wait limit.
    ///
    /// If what is loaded calls other cached functions, and copies are kept in the process, load inside
    /// [`strict`](Self::strict), as [`get_or_load`](Self::get_or_load) does: a copy may be behind, and what is made of it
    /// would be served to all.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use cache_runtime::{Cache, CacheConfig, Key, Lookup};
    ///
    /// let cache = Cache::new(CacheConfig::default().local_mb(1)).await;
    /// let key = Key::named("report", &("2024-06",))?;
    /// let report: String = match cache.lookup(&key).await? {
    ///     Lookup::Hit(report) => report,
    ///     Lookup::Miss(lease) => {
    ///         let report = String::from("computed");
    ///         lease.fill(&report).await;
    ///         report
    ///     }
    /// };
    /// assert_eq!(cache.get(&key).await, Some(report));
    /// # Ok::<(), cache_runtime::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::InvalidKey`]. A fault of the store is a miss whose lease fills nothing.
    ///
    /// # Cancel safety
    /// Dropping the future gives a lease it holds back, and leaves those who wait for it to others.
    pub async fn lookup<T: Cacheable>(&self, key: impl IntoKey) -> Result<Lookup<T>, Error> {
        let miss = |call| {
            Ok(Lookup::Miss(Lease {
                call,
                value: std::marker::PhantomData,
            }))
        };
        let key = key.into_key()?;
        let Some(handle) = self.handle() else {
            return miss(None);
        };
        let call = Call::manual(handle, &key, None);
        if transaction::is_open(&call.cache) {
            return miss(None);
        }
        let mut reader = Reader::new(&call, call.fingerprint::<T>());
        let permit = loop {
            match reader.turn().await {
                Turn::Hit(hit) => match value_of::<T>(hit.codec, &hit.payload) {
                    Some(value) => {
                        reader.found(&hit, || Some(Landed::Value(Arc::clone(&value) as _)));
                        return Ok(Lookup::Hit(Arc::unwrap_or_clone(value)));
                    }
                    None => reader.reject(hit.header),
                },
                Turn::Stale(hit, _) => match value_of::<T>(hit.codec, &hit.payload) {
                    Some(value) => return Ok(Lookup::Hit(Arc::unwrap_or_clone(value))),
                    None => reader.reject(hit.header),
                },
                Turn::Joined(Landed::Value(value)) => match value.downcast::<T>() {
                    Ok(value) => return Ok(Lookup::Hit(Arc::unwrap_or_clone(value))),
                    Err(_) => break None,
                },
                Turn::Joined(_) | Turn::Bypass(_) => break None,
                Turn::Lead(permit) => break Some(permit),
                Turn::Revalidate(both) => break Some(both.1),
            }
        };
        miss(Some(Box::new((call, permit))))
    }

    /// The value under a key, or what `load` returns, stored: what an annotated function does, by hand.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use cache_runtime::{Cache, CacheConfig, Key};
    ///
    /// let cache = Cache::new(CacheConfig::default().local_mb(1)).await;
    /// let key = Key::entity("rates", "eur")?;
    /// let rate: f64 = cache.get_or_load(&key, 60, async || Ok::<_, cache_runtime::Error>(1.08)).await?;
    /// assert_eq!(cache.get(&key).await, Some(rate));
    /// # Ok::<(), cache_runtime::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// What `load` returned. A key that is none, and any fault of the cache, only mean that `load` runs.
    ///
    /// # Cancel safety
    /// Dropping the future gives a lease it holds back; nothing half-done is ever served.
    pub async fn get_or_load<T: Cacheable, E>(
        &self,
        key: impl IntoKey,
        ttl: impl IntoTtl,
        load: impl AsyncFnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let ttl = ttl.into_ttl();
        match (self.handle(), key.into_key()) {
            (Some(handle), Ok(key)) => {
                let read: Read<Result<T, E>, Fallible<Owned>> =
                    Call::manual(handle, &key, ttl).into_read();
                read.run(async move |_| load().await).await
            }
            (_, Err(error)) => {
                tracing::error!("a value is loaded without the cache: {error}");
                load().await
            }
            (None, _) => load().await,
        }
    }

    /// Invalidates one row and everything derived from its resource. A name that is no resource invalidates
    /// nothing.
    ///
    /// # Cancel safety
    /// Dropped once it runs, the invalidation takes place all the same.
    pub async fn invalidate(&self, resource: &str, id: &impl KeyPart) -> Acknowledgement {
        self.invalidate_resource(resource, |plan| plan.id(id)).await
    }

    /// Invalidates everything of a resource. A name that is no resource invalidates nothing.
    ///
    /// # Cancel safety
    /// As [`invalidate`](Self::invalidate).
    pub async fn invalidate_all(&self, resource: &str) -> Acknowledgement {
        self.invalidate_resource(resource, |plan| plan).await
    }

    async fn invalidate_resource(
        &self,
        resource: &str,
        narrow: impl for<'a> FnOnce(WritePlan<'a>) -> WritePlan<'a>,
    ) -> Acknowledgement {
        let Some(cache) = self.handle() else {
            return Acknowledgement::Disabled;
        };
        if !is_resource(resource) {
            tracing::warn!(
                "`{resource}` is not a resource name, so there is nothing to invalidate"
            );
            return Acknowledgement::Delivered;
        }
        let whole = WritePlan::new(&cache, None).known(cache.visitor(resource));
        acknowledged(&cache, narrow(whole).finish()).await
    }

    /// Invalidates every entry that carries a tag.
    ///
    /// # Cancel safety
    /// As [`invalidate`](Self::invalidate).
    pub async fn invalidate_tag(&self, tag: &str) -> Acknowledgement {
        let Some(cache) = self.handle() else {
            return Acknowledgement::Disabled;
        };
        acknowledged(&cache, WritePlan::new(&cache, None).tag(tag).finish()).await
    }

    /// Runs a block in which a transaction of the caller is open: what is invalidated inside takes place when the block
    /// ends, and cached functions in it go past the cache, since what they read may never be committed.
    ///
    /// The block begins the transaction, calls what takes part in it, and commits. If it returns an error, that may hide
    /// a commit, so the invalidations take place at once and once more at the uncertainty deadline. Blocks nest: what is
    /// collected in an inner one takes place when the outermost ends. Calls in tasks that the block spawns are not part
    /// of it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), cache_runtime::Error> {
    /// use cache_runtime::{Cache, CacheConfig, invalidates};
    ///
    /// # struct Transaction;
    /// # impl Transaction { async fn commit(self) -> Result<(), cache_runtime::Error> { Ok(()) } }
    /// struct Shop { cache: Cache }
    ///
    /// impl Shop {
    ///     #[invalidates("products", id = id, after_commit, cache = self.cache)]
    ///     async fn take(&self, tx: &mut Transaction, id: i64) -> Result<(), cache_runtime::Error> {
    /// #       let _ = (tx, id);
    ///         Ok(()) // UPDATE products ..
    ///     }
    ///
    ///     async fn buy(&self, id: i64) -> Result<(), cache_runtime::Error> {
    ///         self.cache.after_commit(async {
    ///             let mut tx = Transaction; // pool.begin().await?
    ///             self.take(&mut tx, id).await?;
    ///             tx.commit().await
    ///         }).await // here `products:1` is invalidated
    ///     }
    /// }
    /// # let shop = Shop { cache: Cache::new(CacheConfig::default().local_mb(4)).await };
    /// # shop.buy(1).await
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// Dropped while the block runs, nobody knows whether it has committed: what it wrote is not cached until the
    /// uncertainty deadline, and invalidated once more then.
    pub async fn after_commit<T, E>(
        &self,
        block: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        // On the heap: each layer around it would hold its own copy of a future that tends to be large.
        let block = Box::pin(block);
        self.transaction(async {
            let output = block.await;
            let ending = match &output {
                Ok(_) => Ending::Committed,
                Err(_) => Ending::Unknown,
            };
            (output, ending)
        })
        .await
    }

    /// Runs `future` with every cached function in it asking Redis, and none answered by a copy in the process: as under
    /// `#[cached(.., strict)]`, but the caller's choice. That holds for the functions of every cache, not of this one alone.
    /// Calls in tasks that it spawns are not concerned.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// # use cache_runtime::{Cache, CacheConfig};
    /// # let cache = Cache::new(CacheConfig::default()).await;
    /// # let balance = async { 7 };
    /// let now = cache.strict(balance).await;
    /// # assert_eq!(now, 7);
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// As cancel safe as `future` is.
    pub fn strict<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        scope::strict(future)
    }

    pub(crate) async fn transaction<T>(&self, block: impl Future<Output = (T, Ending)>) -> T {
        match self.handle() {
            Some(cache) => transaction::run(cache, block).await,
            None => block.await.0,
        }
    }

    /// Removes the entries whose keys match a pattern such as `users:list:*`, with loads of them that are in
    /// flight; returns how many entries there were. Foreign values stay.
    ///
    /// It acts on what is there, also inside of [`after_commit`](Self::after_commit): what is loaded again before the commit
    /// stays. The store is walked step by step: its cost grows with the number of all keys. To invalidate a resource
    /// use [`invalidate_all`](Self::invalidate_all), which costs the same whatever there is.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidKey`] for an empty pattern; [`ErrorKind::Unavailable`] or [`ErrorKind::Store`] if the
    /// store failed midway, in which case some entries may be left.
    ///
    /// # Cancel safety
    /// Dropped, some entries may be left.
    pub async fn invalidate_pattern(&self, pattern: &str) -> Result<u64, Error> {
        if pattern.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidKey,
                "an empty pattern matches nothing; use for example `users:list:*`",
            ));
        }
        let Some(cache) = self.handle() else {
            return Ok(0);
        };
        cache.registry.others.invalidations.add_one();
        let matching = Matching::all(&cache.space.namespace, pattern);
        cache.store.remove_matching(&matching).await
    }

    /// Invalidates everything in the namespace and removes its entries; returns how many there were. Keys of
    /// other programs stay, and so does what does not carry this framework's mark.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] or [`ErrorKind::Store`] if the store failed: then the invalidation is kept and
    /// retried, and this process reads nothing from the cache until it is done.
    ///
    /// # Cancel safety
    /// Dropped once it runs, everything is invalidated all the same; some entries may stay until their time is over, and
    /// nobody is served them.
    pub async fn clear_all(&self) -> Result<u64, Error> {
        let Some(cache) = self.handle() else {
            return Ok(0);
        };
        cache.registry.others.invalidations.add_one();
        // Once more when a transaction that is open has ended: somebody may load the old rows until then.
        transaction::hand_over_everything(&cache);
        let owed = cache.delivery.owe(None);
        // Removed first, because that can be counted. What is stored meanwhile is dead a moment later.
        let everything = Matching::all(&cache.space.namespace, "*");
        let removed = cache.store.remove_matching(&everything).await;
        match owed.hand_in().acknowledged(PATIENCE).await {
            Acknowledgement::Delivered => removed,
            Acknowledgement::Lost => Err(Error::unavailable(
                "the cache was shut down before the store had the invalidation",
            )),
            _ => Err(Error::unavailable(
                "the store could not be reached; everything will be invalidated when it can",
            )),
        }
    }

    /// The cache's state and figures, with what the server says of itself.
    pub async fn get_stats(&self) -> Stats {
        let Inner { config, engine } = &*self.0;
        let facts = match self.handle() {
            Some(cache) => cache.store.facts().await.ok(),
            None => None,
        };
        let connected = facts.is_some();
        let facts = facts.unwrap_or_default();
        let redis = config.redis.as_ref();
        let resources: std::collections::BTreeMap<_, _> = engine
            .iter()
            .flat_map(|engine| engine.registry.snapshot())
            .collect();
        let others = engine
            .as_ref()
            .map(|engine| engine.registry.others.snapshot());
        let pending = engine
            .as_ref()
            .map_or(0, |engine| engine.delivery.pending());
        let counters = Figures::new(resources.values().copied().chain(others).sum(), pending);
        let local = engine
            .as_ref()
            .and_then(|engine| engine.local.as_ref())
            .map(|local| crate::local::LocalFigures {
                hits: counters.local_hits,
                ..local.figures()
            });
        Stats {
            enabled: engine.is_some(),
            connected,
            host: redis.map(|redis| redis.host.clone()),
            port: redis.map(|redis| redis.port),
            db: redis.map(|redis| redis.db),
            total_keys: facts.total_keys,
            used_memory: facts.used_memory,
            uptime_seconds: facts.uptime_seconds,
            connected_clients: facts.connected_clients,
            default_ttl: config.default_ttl.as_secs(),
            counters,
            resources,
            circuit: engine.as_ref().map(|engine| engine.store.circuit()),
            tasks: engine
                .as_ref()
                .map_or(0, |engine| engine.background.tasks()),
            local,
        }
    }

    /// Looks for what operators forget: a Redis without a password or a memory limit, commands that its user may not
    /// send, a namespace that another program uses, values kept for a day that nothing invalidates. It changes nothing,
    /// and takes a bounded time whatever Redis holds.
    ///
    /// A cache makes this by itself once it is connected, and logs the advice; see
    /// [`CacheConfig::advice`](crate::CacheConfig::advice).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use cache_runtime::{Cache, CacheConfig};
    ///
    /// let cache = Cache::new(CacheConfig::default().local_mb(16)).await;
    /// let checkup = cache.checkup().await;
    /// assert!(checkup.advice.is_empty(), "{checkup}");
    /// # }
    /// ```
    pub async fn checkup(&self) -> Checkup {
        match self.handle() {
            Some(cache) => advisor::checkup(&cache.config, &*cache.store).await,
            None => Checkup::of_nothing(),
        }
    }

    /// Delivers what is still waiting, and what the writes that are running hand in, within two seconds; then
    /// ends the cache's connections and tasks. What could not be delivered is named in the log. Every call
    /// returns when that is done.
    ///
    /// From the beginning of it, annotated functions simply run: a write that starts now invalidates nothing.
    /// So this belongs after a program has ended taking requests, and outside of annotated functions.
    ///
    /// # Cancel safety
    /// Dropped, it goes on all the same.
    pub async fn shutdown(&self) {
        if let Some(engine) = &self.0.engine {
            engine.close().await;
        }
    }
}

/// Hands an invalidation made by hand in, or leaves it with the transaction that is open around the call.
async fn acknowledged(cache: &Handle, planned: Planned) -> Acknowledgement {
    let handover = Handover {
        write: Some(planned),
        doubt: Doubt::None,
        announced: None,
    };
    match transaction::hand_over(cache, handover) {
        None => Acknowledgement::Deferred,
        Some(handover) => {
            let order = handover
                .write
                .map_or_else(Order::default, Planned::into_order);
            cache.delivery.enqueue(order).acknowledged(PATIENCE).await
        }
    }
}

/// The store, and the copies in this process of what lies in it.
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
    let _ = background;
    tracing::info!(
        "✓ In-process cache enabled, {} MB",
        config.local_bytes >> 20
    );
    (Arc::new(MemoryStore::new(config.local_bytes)), None)
}
