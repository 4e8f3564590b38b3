//! `hitbox`: `#[cached]` of hitbox-fn over its Redis backend (bincode, its recommendation), with
//! its protection against stampedes.

use std::time::Duration;

use hitbox::concurrency::BroadcastConcurrencyManager;
use hitbox::policy::{ConcurrencyLimit, PolicyConfig};
use hitbox::{DisabledOffload, Extractor};
use hitbox_backend::Backend;
use hitbox_fn::{Arg, Args, Cache, FnExtractor, cached};
use hitbox_redis::{ConnectionMode, RedisBackend};

use super::{Failure, Rival};
use crate::data::{self, User};

#[cached(prefix = "users")]
async fn hitbox_user(id: i64) -> Result<User, Failure> {
    Ok(data::load(id).await)
}

#[cached(prefix = "pages")]
async fn hitbox_page(number: i64) -> Result<Vec<User>, Failure> {
    Ok(data::page(number))
}

#[cached(prefix = "texts")]
async fn hitbox_text(size: i64) -> Result<String, Failure> {
    Ok(data::text(size))
}

type Kept<T> =
    Cache<RedisBackend, BroadcastConcurrencyManager<Result<T, Failure>>, DisabledOffload>;

/// One cache per type of value, because its flights have that type.
pub struct Hitbox {
    users: Kept<User>,
    pages: Kept<Vec<User>>,
    texts: Kept<String>,
}

macro_rules! kept {
    ($port:expr) => {{
        let mode = ConnectionMode::single(format!("redis://127.0.0.1:{}/", $port));
        let backend = RedisBackend::builder().connection(mode).build();
        let policy = PolicyConfig::builder()
            .ttl(Duration::from_secs(3600))
            .concurrency(ConcurrencyLimit::new(1).expect("1 is in bounds"));
        Cache::builder()
            .backend(backend.expect("a backend"))
            .policy(policy.build())
            .concurrency_manager(BroadcastConcurrencyManager::new())
            .build()
    }};
}

impl Rival for Hitbox {
    const NAME: &'static str = "hitbox";
    const SHARED: bool = true;

    async fn start(port: u16) -> Self {
        Self {
            users: kept!(port),
            pages: kept!(port),
            texts: kept!(port),
        }
    }

    async fn user(&self, id: i64) -> Result<User, Failure> {
        hitbox_user(id).cache(&self.users).await
    }

    async fn page(&self, number: i64) -> Result<Vec<User>, Failure> {
        hitbox_page(number).cache(&self.pages).await
    }

    async fn text(&self, size: i64) -> Result<String, Failure> {
        hitbox_text(size).cache(&self.texts).await
    }

    async fn write(&self, id: i64) -> Result<u64, Failure> {
        let version = data::source().commit(id).await;
        // There is no invalidation by function, so the key is made as the macro makes it.
        let extractor = FnExtractor::<Args<(Arg<i64>,)>>::new("users");
        let parts = extractor.get(Args((Arg::new("id", id),))).await;
        let (_, key) = parts.into_cache_key();
        let backend = self.users.backend();
        backend.remove(&key).await.map_err(Failure::new)?;
        Ok(version)
    }
}
