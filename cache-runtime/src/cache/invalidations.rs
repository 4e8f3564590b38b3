//! Invalidations by hand, and what they wait for.

use super::Cache;
use crate::base::error::{Error, ErrorKind, shortened};
use crate::call::scope;
use crate::call::transaction::{self, DeferredWrite, Ending, InDoubt};
use crate::call::write::{Planned, WritePlan};
use crate::engine::Handle;
use crate::invalidation::{ACK_TIMEOUT, Acknowledgement, Order};
use crate::key::{KeyPart, is_resource};
use crate::store::Matching;

impl Cache {
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
                "`{}` is not a resource name, so there is nothing to invalidate",
                shortened(resource)
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
        .0
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

    /// Says also whether the store has acknowledged all that was invalidated in the block.
    pub(crate) async fn transaction<T>(
        &self,
        block: impl Future<Output = (T, Ending)>,
    ) -> (T, bool) {
        match self.handle() {
            Some(cache) => transaction::run(cache, block).await,
            None => (block.await.0, false),
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
        let walk = || cache.store.remove_matching(&matching);
        cache.delivery.persist(walk).await
    }

    /// Invalidates everything in the namespace and removes its entries; returns how many there were. Keys of
    /// other programs stay, and so does what does not carry this framework's mark.
    ///
    /// Nothing from before is served once the invalidation has been acknowledged, which costs one step for each 1,000 keys
    /// that the store has. The entries are removed in the background, step by step, by one walk for all who call this at
    /// the same time; the call returns when that is done. An entry that is stored meanwhile may be removed and counted, too.
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
        transaction::defer_everything(&cache);
        // A shutdown waits for both.
        let _running = cache.delivery.begin();
        let owed = cache.delivery.owe_everything();
        let walk = cache.delivery.join_walk();
        // Invalidated first: to remove the entries takes as long as the store has keys.
        match owed.acknowledged(ACK_TIMEOUT).await {
            Acknowledgement::Delivered => cache.delivery.walked(walk).await,
            Acknowledgement::Lost => Err(Error::unavailable(
                "the cache was shut down before the store had the invalidation",
            )),
            _ => Err(Error::unavailable(
                "the store could not be reached; everything will be invalidated when it can",
            )),
        }
    }
}

/// Hands an invalidation made by hand in, or leaves it with the transaction that is open around the call.
async fn acknowledged(cache: &Handle, planned: Planned) -> Acknowledgement {
    let handover = DeferredWrite {
        write: Some(planned),
        doubt: InDoubt::None,
        announced: None,
    };
    match transaction::defer(cache, handover) {
        None => Acknowledgement::Deferred,
        Some(handover) => {
            let order = handover
                .write
                .map_or_else(Order::default, Planned::into_order);
            cache
                .delivery
                .enqueue(order)
                .acknowledged(ACK_TIMEOUT)
                .await
        }
    }
}
