//! Settings around the calls of one request.

use std::future::Future;

use super::handle::Cache;
use crate::call::{ambient, memo};
use crate::key::KeyPart;

impl Cache {
    /// Runs `future` with `value` set under this name, for cached functions whose keys contain it:
    /// those with `include_context("tenant")`, and all functions of a resource that is declared to
    /// need it, with [`CacheConfig::resource`](crate::CacheConfig::resource). It is usually called
    /// once per request, in a middleware. It applies to every cache. Scopes nest, and the innermost
    /// value of a name wins; what counts is where the future runs, not where it was made. Spawned
    /// tasks do not inherit it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use cache_runtime::{Cache, CacheConfig, cached};
    ///
    /// struct Orders { cache: Cache }
    ///
    /// impl Orders {
    ///     #[cached(resource = "orders", cache = self.cache)]
    ///     async fn get(&self, id: i64) -> String {
    ///         format!("order {id} of the tenant's own database")
    ///     }
    /// }
    ///
    /// let config = CacheConfig::default().local_mb(4).resource("orders").context("tenant");
    /// let orders = Orders { cache: Cache::new(config).await };
    /// orders.cache.with_key("tenant", 7, orders.get(1)).await; // kept under `orders:@7@1`
    /// orders.get(1).await; // nobody has set the tenant: the function runs, and is reported
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// As cancel safe as `future` is.
    pub fn with_key<N: Into<String>, K: KeyPart, F: Future>(
        &self,
        name: N,
        value: K,
        future: F,
    ) -> impl Future<Output = F::Output> + use<N, K, F> {
        ambient::with(name.into(), &value, &self.hash_key(), future)
    }

    /// Runs `future` as one request: if a cached function is called again in it with the same
    /// arguments, it gets the result of the first call without a lookup, even if the store is away
    /// and the first call ran the function. After a write in the request (an `#[invalidates]`
    /// function, or a manual invalidation), nothing from before is remembered; after one that may
    /// still take place, since it was dropped or its error may hide a commit, nothing at all.
    /// Writes of others are not seen until the request has ended.
    ///
    /// It applies to the functions of every cache that is on. Calls in spawned tasks are not part
    /// of it. The frameworks' layers make each HTTP request such a request, for functions marked
    /// `memo`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use cache_runtime::{Cache, CacheConfig, cached};
    ///
    /// struct Users { cache: Cache }
    ///
    /// impl Users {
    ///     #[cached(resource = "users", cache = self.cache)]
    ///     async fn get(&self, id: i64) -> Option<String> { None }
    /// }
    ///
    /// let cache = Cache::new(CacheConfig::default().local_mb(4)).await;
    /// let users = Users { cache: cache.clone() };
    /// cache.request(async {
    ///     users.get(1).await;
    ///     users.get(1).await; // asks nobody
    /// }).await;
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// As cancel safe as `future` is.
    pub fn request<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        memo::request(true, future)
    }
}
