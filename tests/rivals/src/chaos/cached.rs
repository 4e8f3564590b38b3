//! `cached` 4: `#[concurrent_cached]` over its Redis store, with the connection manager that its
//! documentation has for connections that are to be made again.

use std::sync::OnceLock;

use ::cached::macros::concurrent_cached;
use ::cached::{AsyncRedisCache, ConcurrentCachedAsync};
use cache_chaos::{Failure, Page, RivalCache, Row, TTL, commit, load_page, load_row, pages_with};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{failure, url};

static URL: OnceLock<String> = OnceLock::new();

async fn store<V: Serialize + DeserializeOwned + Send>(prefix: &str) -> AsyncRedisCache<String, V> {
    AsyncRedisCache::builder(prefix)
        .ttl(TTL)
        .connection_string(URL.get().expect("it has been started"))
        .connection_manager(true)
        .build()
        .await
        .expect("Redis answers")
}

fn name(kind: u8, number: i64) -> String {
    format!("{kind}:{number}")
}

#[concurrent_cached(
    ty = "AsyncRedisCache<String, Row>",
    create = r#"{ store("rows").await }"#,
    map_error = r#"|error| Failure(error.to_string())"#,
    convert = r#"{ name(kind, id) }"#,
    key = "String"
)]
async fn cached_row(kind: u8, id: i64) -> Result<Row, Failure> {
    Ok(load_row(kind, id).await?)
}

#[concurrent_cached(
    ty = "AsyncRedisCache<String, Page>",
    create = r#"{ store("pages").await }"#,
    map_error = r#"|error| Failure(error.to_string())"#,
    convert = r#"{ name(kind, skip) }"#,
    key = "String"
)]
async fn cached_page(kind: u8, skip: i64) -> Result<Page, Failure> {
    Ok(load_page(kind, skip).await?)
}

pub(super) struct Cached;

impl RivalCache for Cached {
    const NAME: &'static str = "cached";
    const SHARED: bool = true;
    const HAS_LOCAL_ENTRIES: bool = false;

    async fn start(redis: u16) -> Result<Self, Failure> {
        URL.get_or_init(|| url(redis));
        Ok(Self)
    }

    async fn row(&self, kind: u8, id: i64) -> Result<Row, Failure> {
        cached_row(kind, id).await
    }

    async fn page(&self, kind: u8, skip: i64) -> Result<Page, Failure> {
        cached_page(kind, skip).await
    }

    async fn write(&self, kind: u8, id: i64) -> Result<(), Failure> {
        commit(kind, id).await?;
        let rows = CACHED_ROW.get_or_init(|| store("rows")).await;
        let row = rows.async_cache_delete(&name(kind, id)).await;
        row.map_err(failure)?;
        let pages = CACHED_PAGE.get_or_init(|| store("pages")).await;
        for skip in pages_with(id) {
            let page = pages.async_cache_delete(&name(kind, skip)).await;
            page.map_err(failure)?;
        }
        Ok(())
    }
}
