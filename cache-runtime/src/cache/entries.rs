//! Manual operations on single entries.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::Cache;
use crate::base::clock;
use crate::base::error::{Error, ErrorKind};
use crate::base::mutation;
use crate::base::policy::IntoTtl;
use crate::base::span::in_span;
use crate::call::log;
use crate::call::observe::{BypassReason, Status};
use crate::call::read::{Action, Call, Hit, LookupLoop, NewEntry, Permit, Read};
use crate::call::returns::{Fallible, Owned};
use crate::call::{memo, observe, transaction};
use crate::coalesce::single_flight::LoadResult;
use crate::invalidation::{ACK_TIMEOUT, Acknowledgement, InvalidationRequest};
use crate::key::{EntryKind, IntoKey};
use crate::protocol::cacheable::Cacheable;
use crate::protocol::codec::AsEncoded;
use crate::protocol::packable::Packed;
use crate::store::{Expected, Filled, Invalidation, LeaseReply};

/// How a manual read is logged that has found nothing.
const NOT_THERE: Status = Status::Miss {
    stored: false,
    joined: false,
};
const JOINED: Status = Status::Miss {
    stored: false,
    joined: true,
};

/// The result of [`Cache::lookup`].
#[derive(Debug)]
pub enum Lookup<T> {
    /// A value that may be used now.
    Hit(T),
    /// No value. The lease lets this caller fill the entry safely.
    Miss(Lease<T>),
}

/// The right to fill a missing entry; see [`Cache::lookup`]. It is given back when dropped.
///
/// It is not renewed: a value that takes longer to load than the lease lasts (3 s unless
/// configured) is not stored. [`Cache::get_or_load`] renews its lease.
#[derive(Debug)]
pub struct Lease<T> {
    call: Option<Box<(Call, Option<Permit>)>>,
    value: PhantomData<fn(T)>,
}

impl<T: Cacheable> Lease<T> {
    /// Stores the value that was loaded since the miss, unless the entry was invalidated meanwhile.
    /// Returns whether it was stored.
    ///
    /// # Cancel safety
    /// If dropped, the value may or may not be stored. If not, the lease is given back.
    pub async fn fill(self, value: &T) -> bool {
        let Some((call, Some(permit))) = self.call.map(|call| *call) else {
            return false;
        };
        let ttl = call
            .ttl
            .of_value(call.resource.operator_ttl, call.cache.config.default_ttl);
        let new_entry = packed(&call, value, ttl);
        let filled = match new_entry {
            Ok(new_entry) => filled(permit.fill(&call, new_entry).await),
            Err(error) => Err(error),
        };
        log_stored("fill", &call, &filled);
        filled.is_ok()
    }
}

/// The entry for a value.
fn packed<T: Cacheable>(call: &Call, value: &T, ttl: Duration) -> Result<NewEntry, Error> {
    if value.is_error() && !mutation::is_active("errors-stored-by-hand") {
        let text = "an `Err` is not stored, as in annotated functions";
        return Err(Error::new(ErrorKind::Unstorable, text));
    }
    let share = || Some(Arc::new(value.clone()));
    call.pack_value(&Packed::<T, AsEncoded>::new(value, &share), ttl)
}

/// Why a manual read must not be answered from the cache.
fn barred(call: &Call) -> Option<BypassReason> {
    barred_from_filling(call).or_else(|| call.barred_from_asking())
}

/// Why a manual operation must neither read nor fill the entry now.
fn barred_from_filling(call: &Call) -> Option<BypassReason> {
    if let Some(reason) = call.barred_by_body() {
        return Some(reason);
    }
    if call.is_switched_off() {
        return Some(BypassReason::SwitchedOff);
    }
    transaction::is_open(&call.cache).then_some(BypassReason::Transaction)
}

/// The result of a fill for whoever has asked for it by hand.
fn filled(filled: Option<Filled>) -> Result<(), Error> {
    match filled {
        Some(Filled::Stored) => Ok(()),
        Some(Filled::Refused) => Err(Error::new(
            ErrorKind::Superseded,
            "the entry was invalidated meanwhile",
        )),
        None => Err(Error::unavailable("the store did not take the value")),
    }
}

#[inline]
fn log_read(operation: &'static str, call: &Call, status: impl FnOnce() -> Status) {
    if log::is_on() && !mutation::is_active("manual-operations-not-logged") {
        call.log_read(operation, status());
    }
}

#[inline]
fn log_changed(
    operation: &'static str,
    call: &Call,
    outcome: impl FnOnce() -> (&'static str, Option<&'static str>),
) {
    if log::is_on() && !mutation::is_active("manual-operations-not-logged") {
        let (outcome, why) = outcome();
        call.log_change(operation, outcome, why);
    }
}

fn log_stored(operation: &'static str, call: &Call, stored: &Result<(), Error>) {
    log_changed(operation, call, || match stored {
        Ok(()) => ("stored", None),
        Err(error) => ("refused", Some(error.kind().as_str())),
    });
}

impl Cache {
    /// Returns the value under a key, if there is one that may be served. It neither loads nor
    /// waits for a load.
    ///
    /// After a miss here, [`set`](Self::set) is not safe, because an invalidation may come in
    /// between. Use [`lookup`](Self::lookup) or [`get_or_load`](Self::get_or_load) instead.
    ///
    /// # Cancel safety
    /// Safe: dropping the future changes nothing.
    pub async fn get<T: Cacheable>(&self, key: impl IntoKey) -> Option<T> {
        let call = Call::manual(self.handle()?, &key.into_key().ok()?, None);
        let looked = Self::find_entry::<T>(&call).await;
        let counters = &call.resource.counters;
        match looked {
            Ok(Some(_)) => counters.hits.add_one(),
            Ok(None) | Err(_) => counters.misses.add_one(),
        }
        log_read("get", &call, || match &looked {
            Ok(Some((_, ttl))) => Status::Hit { ttl: *ttl },
            Ok(None) => NOT_THERE,
            Err(reason) => Status::Bypass(*reason),
        });
        let (value, _) = looked.ok().flatten()?;
        Some(Arc::unwrap_or_clone(value))
    }

    /// The value that is stored, and how long it is fresh.
    async fn find_entry<T: Cacheable>(
        call: &Call,
    ) -> Result<Option<(Arc<T>, Duration)>, BypassReason> {
        let lookup = loop {
            if let Some(reason) = barred(call) {
                return Err(reason);
            }
            let knew = call.has_learnt();
            let lookup = call.lookup_in_store().await;
            let lookup = lookup.map_err(|error| BypassReason::of(&error))?;
            if call.has_learnt() == knew {
                break lookup;
            }
        };
        let found = Hit::of(*lookup, call.fingerprint::<T>()).and_then(|hit| {
            let value = hit.value::<T>()?;
            Some((value, hit.ttl))
        });
        Ok(found)
    }

    /// Stores a value. The caller is responsible for the value being newer than any value loaded
    /// before.
    ///
    /// It takes the entry's lease, then stores. An invalidation of this row before the lease loses
    /// to this value, even if the value is older; a later one wins.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidKey`], [`ErrorKind::Unstorable`], [`ErrorKind::Foreign`],
    /// [`ErrorKind::Unavailable`], and [`ErrorKind::Superseded`] if the entry was invalidated after
    /// the lease was taken, if a write that concerns the entry is in progress, or if a transaction
    /// is open. In each case nothing is stored. With the cache off, nothing is stored and the
    /// result is `Ok`.
    ///
    /// # Cancel safety
    /// If dropped, the value is stored as a whole or not at all. The previous value may be gone.
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
        let _writing = memo::begin_write();
        let call = Call::manual(handle, &key, ttl.into_ttl());
        let stored = Self::store(&call, value).await;
        log_stored("set", &call, &stored);
        stored
    }

    async fn store<T: Cacheable>(call: &Call, value: &T) -> Result<(), Error> {
        let ttl = call
            .ttl
            .of_value(call.resource.operator_ttl, call.cache.config.default_ttl);
        if call.is_kept_here_only() {
            let text = format!(
                "`{}` is the key of a function that is `in_process`, whose values are never sent to the store",
                call.entry_ref().key
            );
            return Err(Error::new(ErrorKind::Unstorable, text));
        }
        if let Some(problem) = call.problem {
            let text = format!(
                "`{}` is not a key of this resource ({})",
                call.entry_ref().key,
                problem.as_str()
            );
            return Err(Error::new(ErrorKind::InvalidKey, text));
        }
        if ttl.as_millis() == 0 {
            return Err(Error::new(
                ErrorKind::Unstorable,
                "a TTL of 0 stores nothing; use a millisecond or more",
            ));
        }
        if transaction::is_open(&call.cache) {
            return Err(Error::new(
                ErrorKind::Superseded,
                "a transaction is open around the call and may be rolled back; call `set` after its commit",
            ));
        }
        let new_entry = packed(call, value, ttl)?;
        if call.cache.invalidations.is_pending(call.entry_ref()) {
            return Err(Error::unavailable(
                "an invalidation of this entry is still waiting for the store; try again later",
            ));
        }
        let lookup = call.lookup_with_learnt().await?;
        if lookup.intents_until.is_some() {
            return Err(Error::new(
                ErrorKind::Superseded,
                "a write that concerns this entry is in progress; call `set` again when it has ended",
            ));
        }
        let mut permit = Permit::new(call, lookup.stamp, call.fingerprint::<T>());
        match permit.take(call, Expected::Anything).await? {
            LeaseReply::Granted => filled(permit.fill(call, new_entry).await),
            LeaseReply::Foreign => {
                permit.forget();
                Err(Error::new(
                    ErrorKind::Foreign,
                    format!(
                        "`{}` holds a value of another program; delete it, or set another namespace",
                        call.entry_ref().key
                    ),
                ))
            }
            LeaseReply::Taken(_) | LeaseReply::WriteInProgress => {
                permit.forget();
                Err(Error::new(
                    ErrorKind::Superseded,
                    "a write that concerns this entry is in progress; call `set` again when it has ended",
                ))
            }
        }
    }

    /// Removes one entry and stops a load of it in flight from storing. Returns whether there was
    /// an entry; the answer may be wrong if the connection was lost meanwhile. A foreign value
    /// stays.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidKey`], also if the resource's keys need a context that is not set.
    /// [`ErrorKind::Unavailable`] or [`ErrorKind::Store`] if the store failed: then the removal is
    /// kept and retried, and until it is done this process does not read the entry.
    ///
    /// # Cancel safety
    /// If dropped while it runs, the entry is removed all the same, as soon as the store can be
    /// reached.
    pub async fn delete(&self, key: impl IntoKey) -> Result<bool, Error> {
        let key = key.into_key()?;
        let Some(handle) = self.handle() else {
            return Ok(false);
        };
        let _writing = memo::begin_write();
        let call = Call::manual(handle, &key, None);
        if let Some(problem @ (BypassReason::NoContext | BypassReason::InvalidKey)) = call.problem {
            let text = format!(
                "`{}` is not the whole key of an entry ({}); set with `with_key` what the resource's keys need, or name the whole key",
                call.entry_ref().key,
                problem.as_str()
            );
            return Err(Error::new(ErrorKind::InvalidKey, text));
        }
        call.resource.counters.invalidations.add_one();
        // An entry that another process keeps only for itself (`in_process`) is not in the store.
        // It depends on the generation of its row.
        let row = call.resource.row_of(&call.entry_ref().key);
        let rotates: Vec<_> = row
            .filter(|_| key.kind() == EntryKind::Entity)
            .into_iter()
            .collect();
        let invalidation = Invalidation {
            deletes: vec![call.entry_ref().key.clone()],
            rotates,
            ..Invalidation::default()
        };
        let request = InvalidationRequest {
            deletes: invalidation.deletes.clone(),
            rotates: invalidation.rotates.clone(),
            ..InvalidationRequest::default()
        };
        // In a transaction another caller may load the old row again before the commit. So the
        // entry is removed once more when the transaction ends.
        transaction::defer_request(&call.cache, &request);
        let invalidations = &call.cache.invalidations;
        let guard = invalidations.guard(request);
        let store = &call.cache.store;
        let began = clock::now();
        let span = invalidations.direct_span(&invalidation);
        let removed = invalidations.persist(|| store.invalidate(&invalidation));
        match in_span(span, removed).await {
            Ok(done) => {
                guard.disarm();
                observe::record_invalidation(Acknowledgement::Delivered);
                invalidations.done_directly(&call.resource.name, &invalidation, began.elapsed());
                let was_there = done.removed > 0;
                log_changed("delete", &call, || match was_there {
                    true => ("removed", None),
                    false => ("absent", None),
                });
                Ok(was_there)
            }
            Err(error) => {
                let acknowledged = guard.acknowledged(ACK_TIMEOUT).await;
                observe::record_invalidation(acknowledged);
                log_changed("delete", &call, || {
                    (acknowledged.as_str(), Some(error.kind().as_str()))
                });
                Err(error)
            }
        }
    }

    /// Returns a hit, or a miss with a lease to fill the entry: the safe way to load by hand. While
    /// another caller loads the entry, this waits for its value, up to the wait limit.
    ///
    /// If the load calls other cached functions and the local tier is on, run it inside
    /// [`strict`](Self::strict), as [`get_or_load`](Self::get_or_load) does. A local entry may be
    /// slightly stale, and a value computed from it would be served to everybody.
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
    /// [`ErrorKind::InvalidKey`]. A fault of the store gives a miss whose lease stores nothing.
    ///
    /// # Cancel safety
    /// If dropped, a lease that it holds is given back, and other callers take over the load.
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
        if let Some(reason) = barred_from_filling(&call) {
            log_read("lookup", &call, || Status::Bypass(reason));
            return miss(None);
        }
        let mut lookup_loop = LookupLoop::new(&call, call.fingerprint::<T>());
        let permit = loop {
            match lookup_loop.next_action().await {
                Action::Hit(hit) => match hit.value::<T>() {
                    Some(value) => {
                        lookup_loop
                            .found(&hit, || Some(LoadResult::Value(Arc::clone(&value) as _)));
                        log_read("lookup", &call, || Status::Hit { ttl: hit.ttl });
                        return Ok(Lookup::Hit(Arc::unwrap_or_clone(value)));
                    }
                    None => lookup_loop.reject(hit.header),
                },
                Action::Stale(hit, reason) => match hit.value::<T>() {
                    Some(value) => {
                        let past = hit.past;
                        log_read("lookup", &call, || Status::Stale { past, reason });
                        return Ok(Lookup::Hit(Arc::unwrap_or_clone(value)));
                    }
                    None => lookup_loop.reject(hit.header),
                },
                Action::Joined(LoadResult::Value(value)) => match value.downcast::<T>() {
                    Ok(value) => {
                        log_read("lookup", &call, || JOINED);
                        return Ok(Lookup::Hit(Arc::unwrap_or_clone(value)));
                    }
                    Err(_) => break Err(BypassReason::OtherType),
                },
                Action::Joined(_) => break Err(BypassReason::OtherType),
                Action::Bypass(reason) => break Err(reason),
                Action::Lead(permit) => break Ok(permit),
                Action::Revalidate(both) => break Ok(both.1),
            }
        };
        log_read("lookup", &call, || match &permit {
            Ok(_) => NOT_THERE,
            Err(reason) => Status::Bypass(*reason),
        });
        let permit = permit.ok();
        miss(Some(Box::new((call, permit))))
    }

    /// Returns the value under a key, or loads and stores it. It does by hand what an annotated
    /// function does.
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
    /// The error of `load`. With an invalid key, and with any fault of the cache, `load` just runs.
    ///
    /// # Cancel safety
    /// If dropped, a lease that it holds is given back. A partial value is never served.
    pub async fn get_or_load<T: Cacheable, E>(
        &self,
        key: impl IntoKey,
        ttl: impl IntoTtl,
        load: impl AsyncFnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let ttl = ttl.into_ttl();
        match (self.handle(), key.into_key()) {
            (Some(handle), Ok(key)) => {
                let mut call = Call::manual(handle, &key, ttl);
                if call.is_switched_off() {
                    call.problem = Some(BypassReason::SwitchedOff);
                }
                let read: Read<Result<T, E>, Fallible<Owned>> = call.into_read();
                read.run(async move |_| load().await).await
            }
            (_, Err(error)) => {
                tracing::error!(%error, "the key is invalid; the value is loaded without the cache");
                load().await
            }
            (None, _) => load().await,
        }
    }
}
