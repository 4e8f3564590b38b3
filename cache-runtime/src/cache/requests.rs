//! What a program says around the calls of one request.

use std::future::Future;

use super::handle::Cache;
use crate::call::{ambient, memo};
use crate::key::KeyPart;

impl Cache {
    /// Runs `future` with `value` set by this name, for cached functions that have it in their keys: those that say
    /// `include_context("tenant")`, and all of a resource that is declared so, with
    /// [`CacheConfig::resource`](crate::CacheConfig::resource). It is usually called once per request, in a middleware. It
    /// holds for every cache. Scopes nest, and the innermost of a name counts; tasks that it spawns do not have it.
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
    pub fn with_key<F: Future>(
        &self,
        name: impl Into<String>,
        value: impl KeyPart,
        future: F,
    ) -> impl Future<Output = F::Output> {
        ambient::with(name.into(), &value, &self.hash_key(), future)
    }

    /// Runs `future` as one request: a cached function that is called in it again with the same arguments is answered with
    /// what the first call got, without asking anybody, also where the store is away and the first call ran the function. After
    /// a write in it (an `#[invalidates]` function, or an invalidation by hand), nothing from before is remembered. Writes of
    /// others are not seen until the request has ended.
    ///
    /// It holds for the functions of every cache that is on. Calls in tasks that it spawns are not part of it. The layers of
    /// the frameworks make a request of each HTTP request, for functions that say `memo`.
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
    pub fn request<F: Future>(&self, future: F) -> impl Future<Output = F::Output> {
        memo::request(true, future)
    }
}
