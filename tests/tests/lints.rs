//! The attributes under every lint that is on for careful users. What is checked here is that this
//! compiles without a warning, also under clippy, which `scripts/test` runs on all targets.

#![forbid(unsafe_code)]
#![deny(warnings, clippy::all, clippy::pedantic, clippy::nursery)]
#![deny(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::expect_used,
    clippy::let_underscore_must_use,
    clippy::let_underscore_untyped,
    clippy::panic,
    clippy::unreachable,
    clippy::unwrap_used
)]
#![deny(
    elided_lifetimes_in_paths,
    let_underscore_drop,
    missing_debug_implementations,
    missing_docs,
    single_use_lifetimes,
    unreachable_code,
    unreachable_pub,
    unused_lifetimes,
    unused_mut,
    unused_qualifications,
    unused_results
)]

use std::collections::HashMap;

use cache_runtime::{Cache, CacheConfig, cached, invalidates};
use serde::{Deserialize, Serialize};

/// Row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct User {
    /// Id.
    id: i64,
}

/// Error.
#[derive(Debug)]
enum DbError {
    /// Conflict.
    Conflict,
}

/// Service.
#[derive(Debug)]
struct Users {
    cache: Cache,
    tenant: i64,
}

async fn load(id: i64) -> Result<Option<User>, DbError> {
    std::future::ready(Ok(Some(User { id }))).await
}

impl Users {
    /// Get.
    ///
    /// # Errors
    /// Fails.
    #[cached(resource = "users", ttl = 300, cache = self.cache)]
    async fn get(&self, id: i64) -> Result<Option<User>, DbError> {
        load(id).await
    }

    /// List.
    ///
    /// # Errors
    /// Fails.
    #[cached(resource = "users", cache = self.cache, include(self.tenant), tags("team:{self.tenant}", "all"), depends("teams"), when = skip > 0, unless = Vec::is_empty, none_ttl = 5, version = 2, codec = "msgpack")]
    async fn list(&self, skip: u32, name: &str) -> Result<Vec<User>, DbError> {
        let found = load(skip.into()).await?;
        if name.is_empty() {
            return Ok(Vec::new());
        }
        Ok(found.into_iter().collect())
    }

    /// Many.
    #[cached(resource = "users", batch = ids, cache = self.cache)]
    async fn many(&self, ids: &[i64]) -> HashMap<i64, User> {
        std::future::ready(()).await;
        ids.iter().map(|&id| (id, User { id })).collect()
    }

    /// Generic.
    #[cached(resource = "users", op = "generic", cache = self.cache, id = (self.tenant, of))]
    async fn generic<T: Serialize + Sync>(&self, of: &[T]) -> usize {
        std::future::ready(of.len()).await
    }

    /// Named.
    #[cached(resource = "users", op = "named", cache = self.cache, shared)]
    fn named(&self, id: i64) -> impl Future<Output = i64> + Send {
        std::future::ready(id)
    }

    /// Create.
    ///
    /// # Errors
    /// Fails.
    #[invalidates("users", id = (name, result.id), "teams", rejected = |e| matches!(e, DbError::Conflict), cache = self.cache)]
    async fn create(&self, name: String) -> Result<User, DbError> {
        load(name.len().try_into().map_err(|_| DbError::Conflict)?)
            .await?
            .ok_or(DbError::Conflict)
    }

    /// Delete.
    #[invalidates("users", id = id, tags("all"), cache = self.cache)]
    async fn delete(&mut self, id: i64) {
        self.tenant += std::future::ready(id).await;
    }
}

/// Free.
#[cached(resource = "free")]
async fn free(id: i64) -> Option<String> {
    let found = load(id).await.ok().flatten();
    found.map(|user| user.id.to_string())
}

/// Boxed.
#[async_trait::async_trait]
trait Service {
    /// One.
    async fn one(&self, id: i64) -> Option<i64>;
    /// Change.
    async fn change(&mut self, id: i64) -> i64;
}

#[async_trait::async_trait]
impl Service for Users {
    #[cached(resource = "boxed", cache = self.cache)]
    async fn one(&self, id: i64) -> Option<i64> {
        std::future::ready(Some(id)).await
    }

    #[invalidates("boxed", id = id, cache = self.cache)]
    async fn change(&mut self, id: i64) -> i64 {
        self.tenant += 1;
        std::future::ready(id).await
    }
}

#[tokio::test]
async fn functions_under_strict_lints_are_cached_like_any() -> Result<(), DbError> {
    let cache = Cache::new(CacheConfig::default().local_mb(4)).await;
    let mut users = Users {
        cache: cache.clone(),
        tenant: 1,
    };
    for _ in 0..2 {
        assert_eq!(users.get(1).await?, Some(User { id: 1 }));
        assert_eq!(users.list(1, "a").await?, [User { id: 1 }]);
        assert_eq!(users.many(&[1, 2]).await.len(), 2);
        assert_eq!(users.generic(&[1, 2]).await, 2);
        assert_eq!(users.named(1).await, 1);
        assert_eq!(users.one(1).await, Some(1));
    }
    assert_eq!(cache.get_stats().await.counters.hits, 8);

    let _user = users.create("x".to_owned()).await?;
    users.delete(1).await;
    assert_eq!(users.change(1).await, 1);
    assert_eq!(free(1).await.as_deref(), Some("1"));
    Ok(())
}
