//! `cached` 4: `#[concurrent_cached]` over its Redis store.

use std::sync::OnceLock;

use cached::macros::concurrent_cached;
use cached::{AsyncRedisCache, ConcurrentCachedAsync};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Failure, Rival};
use crate::data::{self, User};

static URL: OnceLock<String> = OnceLock::new();

/// What the macro's `create` makes once per function. On its default connection, as the
/// hand-written rival.
async fn store<V: Serialize + DeserializeOwned + Send>(prefix: &str) -> AsyncRedisCache<i64, V> {
    let url = URL.get().expect("the rival has been started");
    AsyncRedisCache::builder(prefix)
        .ttl_secs(3600)
        .connection_string(url)
        .build()
        .await
        .expect("Redis answers")
}

#[concurrent_cached(
    ty = "AsyncRedisCache<i64, User>",
    create = r#"{ store("users").await }"#,
    map_error = r#"|error| Failure(error.to_string())"#
)]
async fn cached_user(id: i64) -> Result<User, Failure> {
    Ok(data::load(id).await)
}

#[concurrent_cached(
    ty = "AsyncRedisCache<i64, Vec<User>>",
    create = r#"{ store("pages").await }"#,
    map_error = r#"|error| Failure(error.to_string())"#
)]
async fn cached_page(number: i64) -> Result<Vec<User>, Failure> {
    Ok(data::page(number))
}

#[concurrent_cached(
    ty = "AsyncRedisCache<i64, String>",
    create = r#"{ store("texts").await }"#,
    map_error = r#"|error| Failure(error.to_string())"#
)]
async fn cached_text(size: i64) -> Result<String, Failure> {
    Ok(data::text(size))
}

/// The functions above; their stores are statics.
#[derive(Debug)]
pub struct Cached;

impl Cached {
    /// Empties the store of [`Rival::user`], with the crate's own `SCAN` and `DEL`.
    pub async fn clear_users(&self) -> Result<(), Failure> {
        let store = CACHED_USER.get().expect("a user was read");
        store.async_cache_clear().await.map_err(Failure::new)
    }
}

impl Rival for Cached {
    const NAME: &'static str = "cached";
    const SHARED: bool = true;

    async fn start(port: u16) -> Self {
        let url = format!("redis://127.0.0.1:{port}/");
        assert_eq!(
            URL.get_or_init(|| url.clone()),
            &url,
            "one Redis per process"
        );
        Self
    }

    async fn user(&self, id: i64) -> Result<User, Failure> {
        cached_user(id).await
    }

    async fn page(&self, number: i64) -> Result<Vec<User>, Failure> {
        cached_page(number).await
    }

    async fn text(&self, size: i64) -> Result<String, Failure> {
        cached_text(size).await
    }

    async fn write(&self, id: i64) -> Result<u64, Failure> {
        let version = data::source().commit(id).await;
        if let Some(store) = CACHED_USER.get() {
            store.async_cache_delete(&id).await.map_err(Failure::new)?;
        }
        Ok(version)
    }
}
