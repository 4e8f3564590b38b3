//! Manual invalidations, transactions and strict reads.

use std::borrow::Cow;

use super::Cache;
use crate::base::clock;
use crate::base::error::{Error, ErrorKind, shortened};
use crate::base::span::in_span;
use crate::call::transaction::{self, DeferredWrite, InDoubt, TransactionOutcome};
use crate::call::write::{PlannedWrite, WritePlan};
use crate::call::{ambient, memo, observe, scope};
use crate::engine::Handle;
use crate::invalidation::{ACK_TIMEOUT, Acknowledgement, InvalidationRequest};
use crate::key::{KeyPart, is_resource};
use crate::store::{Invalidation, ScanFilter};

impl Cache {
    /// Invalidates one row, and everything derived from its resource. An invalid resource name
    /// invalidates nothing and is logged.
    ///
    /// # Cancel safety
    /// If dropped while it runs, the invalidation takes place all the same.
    pub async fn invalidate(&self, resource: &str, id: &impl KeyPart) -> Acknowledgement {
        self.invalidate_resource(resource, |plan| plan.id(id)).await
    }

    /// Invalidates a row whose id was typed by a person: as it is in the program, a number or a
    /// text, or as it appears in keys, such as `7,1`, `a%40b` and `@7@1`.
    #[cfg(feature = "admin")]
    pub(crate) async fn invalidate_typed(&self, resource: &str, id: &str) -> Acknowledgement {
        let number = id.parse::<i64>();
        self.invalidate_resource(resource, |plan| {
            let plan = plan.rendered_id(id);
            match &number {
                Ok(number) => plan.id(number),
                Err(_) => plan.id(id),
            }
        })
        .await
    }

    /// Invalidates everything of a resource. An invalid resource name invalidates nothing and is
    /// logged.
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
                resource = %shortened(resource),
                "this is not a resource name, so nothing is invalidated; use only `[a-z0-9_-]`"
            );
            return Acknowledgement::Delivered;
        }
        let whole = WritePlan::new(&cache, None).known(cache.unregistered_resource(resource));
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

    /// Runs a block that contains a transaction of the caller. The invalidations made inside take
    /// place when the block ends. Cached functions inside bypass the cache, since the data that
    /// they read may never be committed.
    ///
    /// The block begins the transaction, calls the functions that take part in it, and commits. An
    /// error of the block may hide a commit, so the invalidations then take place at once, and once
    /// more at the end of the in-doubt window. Blocks nest: the invalidations of an inner block
    /// take place when the outermost one ends. Calls in tasks that the block spawns are not part of
    /// it.
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
    /// # Errors
    /// The error of the block. The cache adds none.
    ///
    /// # Cancel safety
    /// If dropped while the block runs, it is not known whether the transaction was committed. The
    /// entries that it concerns are not cached until the end of the in-doubt window, and are
    /// invalidated once more then.
    pub async fn after_commit<T, E>(
        &self,
        block: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        // Boxed, because each layer around it would hold a copy of a future that tends to be large.
        let block = Box::pin(block);
        self.transaction(async {
            let output = block.await;
            let ending = match &output {
                Ok(_) => TransactionOutcome::Committed,
                Err(_) => TransactionOutcome::Unknown,
            };
            (output, ending)
        })
        .await
        .0
    }

    /// Declares, inside a block of [`after_commit`](Self::after_commit), that its transaction was
    /// rolled back. The functions marked `after_commit` that ran in it so far are then not
    /// invalidated. Any other write may have committed by itself, and is invalidated when the block
    /// ends. Outside of a block this does nothing.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// # use cache_runtime::{Cache, CacheConfig};
    /// # struct Transaction;
    /// # impl Transaction {
    /// #     async fn run(&mut self) -> Result<(), String> { Err("no stock".into()) }
    /// #     async fn commit(self) -> Result<(), String> { Ok(()) }
    /// #     async fn rollback(self) -> Result<(), String> { Ok(()) }
    /// # }
    /// # let cache = Cache::new(CacheConfig::default().local_mb(4)).await;
    /// let bought = cache.after_commit(async {
    ///     let mut tx = Transaction; // of any database library
    ///     match tx.run().await {
    ///         Ok(()) => tx.commit().await,
    ///         Err(error) => {
    ///             if tx.rollback().await.is_ok() {
    ///                 cache.rolled_back();
    ///             }
    ///             Err(error)
    ///         }
    ///     }
    /// }).await;
    /// # assert!(bought.is_err());
    /// # }
    /// ```
    pub fn rolled_back(&self) {
        if let Some(cache) = self.handle() {
            transaction::rolled_back(&cache);
        }
    }

    /// Runs `future` so that every cached function in it asks Redis and none is answered from the
    /// local tier. It is `#[cached(.., strict)]` by the caller's choice. It holds for the functions
    /// of all caches, not only of this one, and not for calls in tasks that `future` spawns.
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

    /// Also returns whether the store has acknowledged all invalidations of the block.
    pub(crate) async fn transaction<T>(
        &self,
        block: impl Future<Output = (T, TransactionOutcome)>,
    ) -> (T, bool) {
        match self.handle() {
            Some(cache) => transaction::run(cache, block).await,
            None => (block.await.0, false),
        }
    }

    /// Removes the entries whose keys match a pattern such as `users:list:*`, and stops loads of
    /// them in flight from storing. Returns how many entries there were. Foreign values stay.
    ///
    /// It acts at once, even inside [`after_commit`](Self::after_commit): an entry that is loaded
    /// again before the commit stays. It scans the whole store, so its cost grows with the number
    /// of all keys. To invalidate a resource, use [`invalidate_all`](Self::invalidate_all), whose
    /// cost does not depend on the number of entries.
    ///
    /// If the keys of the resource contain a value that is set around the calls, such as a tenant,
    /// a pattern without it (`orders:list:*`) matches the entries of the tenant that is set around
    /// this call, and those of all tenants if none is set.
    ///
    /// A store that can't list its keys (Memcached) invalidates the whole resource that the pattern
    /// begins with, or everything, and the result is 0.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidKey`] for an empty pattern. [`ErrorKind::Unavailable`] or
    /// [`ErrorKind::Store`] if the store failed on the way; some entries may be left then.
    ///
    /// # Cancel safety
    /// If dropped, some entries may be left.
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
        let _writing = memo::begin_write();
        cache.registry.others.invalidations.add_one();
        if !cache.store.lists_keys() {
            return invalidate_around(&cache, pattern).await;
        }
        let pattern = within_context(&cache, pattern);
        let filter = ScanFilter::all(&cache.space.namespace, &pattern);
        let walk = || cache.store.remove_matching(&filter);
        let began = clock::now();
        let done = Invalidation {
            deletes: vec![format!("{}{pattern}", cache.space.namespace)],
            ..Invalidation::default()
        };
        let span = cache.invalidations.direct_span(&done);
        let removed = in_span(span, cache.invalidations.persist(walk)).await;
        if removed.is_ok() {
            let resource = pattern.split(':').next().unwrap_or_default();
            cache
                .invalidations
                .done_directly(resource, &done, began.elapsed());
        }
        observe::record_invalidation(match &removed {
            Ok(_) => Acknowledgement::Delivered,
            // Nobody tries again.
            Err(_) => Acknowledgement::Lost,
        });
        removed
    }

    /// Invalidates everything in the namespace and removes its entries. Returns how many there
    /// were. Keys of other programs stay, as does every value that does not carry this framework's
    /// mark.
    ///
    /// No older data is served once the invalidation has been acknowledged; that costs one step for
    /// each 1,000 keys in the store. Then a background scan removes the entries in steps.
    /// Concurrent callers share one scan, and the call returns when it is done. Entries that are
    /// stored meanwhile may be removed and counted too.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] or [`ErrorKind::Store`] if the store failed. The invalidation is
    /// kept and retried, and until it is done this process reads nothing from the cache.
    ///
    /// # Cancel safety
    /// If dropped while it runs, everything is invalidated all the same. Some entries may stay
    /// until their TTL ends, but they are never served.
    pub async fn clear_all(&self) -> Result<u64, Error> {
        let Some(cache) = self.handle() else {
            return Ok(0);
        };
        let _writing = memo::begin_write();
        cache.registry.others.invalidations.add_one();
        // Repeated when an open transaction ends: until then other callers may load the old rows
        // again.
        transaction::defer_everything(&cache);
        // A shutdown waits for the invalidation and the scan.
        let _running = cache.invalidations.begin();
        if crate::base::mutation::is_active("clearing-lost-with-its-caller") {
            let namespace = &cache.space.namespace;
            cache.store.invalidate_namespace(namespace).await?;
        }
        // Joined first, since the scan starts with the acknowledgement, if a caller waits for it.
        let walk = cache.invalidations.join_walk();
        // In the queue before anything is awaited, so that it takes place without its caller.
        let pending_ack = cache.invalidations.enqueue_namespace();
        // Invalidated first, because removing the entries takes time in proportion to the keys in
        // the store.
        let acknowledged = pending_ack.acknowledged(ACK_TIMEOUT).await;
        observe::record_invalidation(acknowledged);
        match acknowledged {
            Acknowledgement::Delivered => cache.invalidations.walked(walk).await,
            Acknowledgement::Lost => Err(Error::unavailable(
                "the cache was shut down before the store had the invalidation",
            )),
            _ => Err(Error::unavailable(
                "the store could not be reached; everything will be invalidated when it can",
            )),
        }
    }
}

/// The pattern with the values that the resource's keys contain, such as the tenant: those that are
/// set around the call, or any. `orders:list:*` becomes `orders:@7@list:*`.
fn within_context<'p>(cache: &Handle, pattern: &'p str) -> Cow<'p, str> {
    let Some((name, rest)) = pattern
        .split_once(':')
        .filter(|(name, _)| is_resource(name))
    else {
        return Cow::Borrowed(pattern);
    };
    let resource = cache.unregistered_resource(name);
    // It may name the values itself.
    if resource.contexts.is_empty() || rest.starts_with(['@', '?', '[', '\\']) {
        return Cow::Borrowed(pattern);
    }
    let front = ambient::front(&resource.contexts);
    let front = front.unwrap_or_else(|_| "@*@".to_owned());
    Cow::Owned(format!("{name}:{front}{rest}"))
}

/// Invalidates at least what a pattern matches, where no entries can be found by it.
async fn invalidate_around(cache: &Handle, pattern: &str) -> Result<u64, Error> {
    // Up to the first character with a meaning, a pattern is the text itself.
    let literal = pattern.split(['*', '?', '[', '\\']).next();
    let resource = literal.and_then(|literal| literal.split_once(':'));
    let acknowledged = match resource.filter(|(resource, _)| is_resource(resource)) {
        Some((resource, _)) => {
            let whole = WritePlan::new(cache, None).known(cache.unregistered_resource(resource));
            let pending_ack = cache.invalidations.enqueue(whole.finish().into_request());
            pending_ack.acknowledged(ACK_TIMEOUT).await
        }
        None => {
            let pending_ack = cache.invalidations.enqueue_namespace();
            pending_ack.acknowledged(ACK_TIMEOUT).await
        }
    };
    observe::record_invalidation(acknowledged);
    match acknowledged {
        Acknowledgement::Delivered => Ok(0),
        _ => Err(Error::unavailable(
            "the store could not be reached; what the pattern matches will be invalidated when it can",
        )),
    }
}

/// Enqueues a manual invalidation, or hands it to the transaction that is open around the call.
async fn acknowledged(cache: &Handle, planned: PlannedWrite) -> Acknowledgement {
    let _writing = memo::begin_write();
    let deferred = DeferredWrite {
        write: Some(planned),
        in_doubt: InDoubt::None,
        announced: None,
    };
    let Some(deferred) = transaction::defer(cache, deferred) else {
        return Acknowledgement::Deferred;
    };
    let request = deferred
        .write
        .map_or_else(InvalidationRequest::default, PlannedWrite::into_request);
    let pending_ack = cache.invalidations.send(request);
    let acknowledged = pending_ack.acknowledged(ACK_TIMEOUT).await;
    observe::record_invalidation(acknowledged);
    acknowledged
}
