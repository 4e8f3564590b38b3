//! HydraCache: in the process. It comes with no store or transport that two processes could share.

use std::time::Duration;

use hydracache::{CacheOptions, HydraCache};

use super::{Failure, Rival};
use crate::data::{self, User};

/// The local cache.
pub struct Hydra(HydraCache);

fn options(tag: &str) -> CacheOptions {
    CacheOptions::new().ttl(Duration::from_secs(3600)).tag(tag)
}

impl Rival for Hydra {
    const NAME: &'static str = "HydraCache";
    const SHARED: bool = false;

    async fn start(_: u16) -> Self {
        Self(HydraCache::local().max_capacity(1_000_000).build())
    }

    async fn user(&self, id: i64) -> Result<User, Failure> {
        let load = move || async move { Ok::<_, Failure>(data::load(id).await) };
        let key = format!("users:{id}");
        let value = self.0.get_or_load(&key, options("users"), load);
        value.await.map_err(Failure::new)
    }

    async fn page(&self, number: i64) -> Result<Vec<User>, Failure> {
        let load = move || async move { Ok::<_, Failure>(data::page(number)) };
        let key = format!("pages:{number}");
        let value = self.0.get_or_load(&key, options("pages"), load);
        value.await.map_err(Failure::new)
    }

    async fn text(&self, size: i64) -> Result<String, Failure> {
        let load = move || async move { Ok::<_, Failure>(data::text(size)) };
        let key = format!("texts:{size}");
        let value = self.0.get_or_load(&key, options("texts"), load);
        value.await.map_err(Failure::new)
    }

    async fn write(&self, id: i64) -> Result<u64, Failure> {
        let version = data::source().commit(id).await;
        let removed = self.0.invalidate_key(&format!("users:{id}")).await;
        removed.map_err(Failure::new)?;
        Ok(version)
    }
}
