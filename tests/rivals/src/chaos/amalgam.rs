//! `amalgam-cache`: memory in front of Redis, with backplane and distributed locker, as its README
//! wants several nodes; with and without its `strict()` profile. Pages go by tag.

use std::sync::Arc;

use ::amalgam::provider::{
    JsonSerializer, RedisBackplane, RedisDistributedCache, RedisDistributedLocker,
};
use ::amalgam::{Cache, EntryOptions};
use cache_chaos::{Failure, Page, RivalCache, Row, TTL, commit, load_page, load_row};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{failure, url};

pub(super) struct Amalgam<const STRICT: bool> {
    rows: Cache<Row>,
    pages: Cache<Page>,
}

async fn node<V>(port: u16, name: &str, strict: bool) -> Result<Cache<V>, Failure>
where
    V: Clone + Send + Sync + Serialize + DeserializeOwned + 'static,
{
    let values = RedisDistributedCache::connect(url(port)).await;
    let backplane = RedisBackplane::connect(url(port)).await;
    let locker = RedisDistributedLocker::connect(url(port)).await;
    let builder = Cache::builder()
        .name(name)
        .key_prefix(format!("amalgam:{name}:"))
        .distributed(Arc::new(values.map_err(failure)?))
        .serializer(Arc::new(JsonSerializer))
        .backplane(Arc::new(backplane.map_err(failure)?))
        .distributed_locker(Arc::new(locker.map_err(failure)?))
        .default_options(EntryOptions::new(TTL))
        .instance_id(format!("node-{}", std::process::id()));
    let builder = if strict { builder.strict() } else { builder };
    builder.try_build_ready().await.map_err(failure)
}

impl<const STRICT: bool> RivalCache for Amalgam<STRICT> {
    const NAME: &'static str = if STRICT {
        "amalgam-cache, strict"
    } else {
        "amalgam-cache"
    };
    const SHARED: bool = true;
    const HAS_LOCAL_ENTRIES: bool = true;

    async fn start(redis: u16) -> Result<Self, Failure> {
        Ok(Self {
            rows: node(redis, "rows", STRICT).await?,
            pages: node(redis, "pages", STRICT).await?,
        })
    }

    async fn row(&self, kind: u8, id: i64) -> Result<Row, Failure> {
        let load = move |_| async move { Ok::<_, Failure>(load_row(kind, id).await?) };
        let key = format!("{kind}:{id}");
        self.rows.get_or_set(key, load).await.map_err(failure)
    }

    async fn page(&self, kind: u8, skip: i64) -> Result<Page, Failure> {
        let load = move |_| async move { Ok::<_, Failure>(load_page(kind, skip).await?) };
        let key = format!("{kind}:{skip}");
        let page = self.pages.get_or_set(key, load);
        page.tags([format!("kind:{kind}")]).await.map_err(failure)
    }

    async fn write(&self, kind: u8, id: i64) -> Result<(), Failure> {
        commit(kind, id).await?;
        let row = self.rows.remove(format!("{kind}:{id}")).await;
        let pages = self.pages.remove_by_tag(format!("kind:{kind}")).await;
        row.and(pages).map_err(failure)
    }
}
