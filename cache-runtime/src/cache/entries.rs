//! Single entries, by hand.

use std::marker::PhantomData;
use std::sync::Arc;

use super::Cache;
use crate::base::error::{Error, ErrorKind};
use crate::base::policy::IntoTtl;
use crate::call::read::{Action, Call, Hit, Permit, Read, Reader, value_of};
use crate::call::returns::{Fallible, Owned};
use crate::call::{enclosing, transaction};
use crate::coalesce::single_flight::LoadResult;
use crate::invalidation::{ACK_TIMEOUT, Order};
use crate::key::IntoKey;
use crate::protocol::cacheable::Cacheable;
use crate::protocol::codec::AsEncoded;
use crate::store::{Filled, Invalidation, LeaseReply, Seen};

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
    value: PhantomData<fn(T)>,
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
        match call.pack_value::<T, AsEncoded>(value, || Some(Arc::new(value.clone())), ttl) {
            Ok(package) => permit.fill(&call, package).await == Some(Filled::Stored),
            Err(_) => false,
        }
    }
}

impl Cache {
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
            || call.is_behind().is_some()
            || call.cache.delivery.is_pending(&call.probe)
            || transaction::is_open(&call.cache)
            || enclosing::bars(&call.cache, &call.probe).is_some()
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
        let package =
            call.pack_value::<T, AsEncoded>(value, || Some(Arc::new(value.clone())), ttl)?;
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

    /// Removes one entry, with a load of it that is in flight; says whether there was one, as far as the connection was
    /// not lost meanwhile. A foreign value stays.
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
        let store = &call.cache.store;
        let removed = call
            .cache
            .delivery
            .persist(|| store.invalidate(&invalidation));
        match removed.await {
            Ok(done) => {
                owed.settle();
                Ok(done.removed > 0)
            }
            Err(error) => {
                let _ = owed.acknowledged(ACK_TIMEOUT).await;
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
                value: PhantomData,
            }))
        };
        let key = key.into_key()?;
        let Some(handle) = self.handle() else {
            return miss(None);
        };
        let call = Call::manual(handle, &key, None);
        let is_barred = enclosing::bars(&call.cache, &call.probe).is_some();
        if is_barred || transaction::is_open(&call.cache) {
            return miss(None);
        }
        let mut reader = Reader::new(&call, call.fingerprint::<T>());
        let permit = loop {
            match reader.next_action().await {
                Action::Hit(hit) => match value_of::<T>(hit.codec, &hit.payload) {
                    Some(value) => {
                        reader.found(&hit, || Some(LoadResult::Value(Arc::clone(&value) as _)));
                        return Ok(Lookup::Hit(Arc::unwrap_or_clone(value)));
                    }
                    None => reader.reject(hit.header),
                },
                Action::Stale(hit, _) => match value_of::<T>(hit.codec, &hit.payload) {
                    Some(value) => return Ok(Lookup::Hit(Arc::unwrap_or_clone(value))),
                    None => reader.reject(hit.header),
                },
                Action::Joined(LoadResult::Value(value)) => match value.downcast::<T>() {
                    Ok(value) => return Ok(Lookup::Hit(Arc::unwrap_or_clone(value))),
                    Err(_) => break None,
                },
                Action::Joined(_) | Action::Bypass(_) => break None,
                Action::Lead(permit) => break Some(permit),
                Action::Revalidate(both) => break Some(both.1),
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
}
