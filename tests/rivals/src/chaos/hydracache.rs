//! HydraCache: in the process. It comes with no store or transport that two processes could share.

use ::hydracache::{CacheOptions, HydraCache};
use cache_chaos::{Failure, Page, RivalCache, Row, TTL, commit, load_page, load_row};

use super::failure;

pub(super) struct Hydra(HydraCache);

fn options(tag: String) -> CacheOptions {
    CacheOptions::new().ttl(TTL).tag(tag)
}

impl RivalCache for Hydra {
    const NAME: &'static str = "HydraCache";
    const SHARED: bool = false;
    const HAS_LOCAL_ENTRIES: bool = false;

    async fn start(_: u16) -> Result<Self, Failure> {
        Ok(Self(HydraCache::local().max_capacity(1_000_000).build()))
    }

    async fn row(&self, kind: u8, id: i64) -> Result<Row, Failure> {
        let load = move || async move { Ok::<_, Failure>(load_row(kind, id).await?) };
        let key = format!("rows:{kind}:{id}");
        let value = self.0.get_or_load(&key, options(key.clone()), load);
        value.await.map_err(failure)
    }

    async fn page(&self, kind: u8, skip: i64) -> Result<Page, Failure> {
        let load = move || async move { Ok::<_, Failure>(load_page(kind, skip).await?) };
        let key = format!("pages:{kind}:{skip}");
        let value = self
            .0
            .get_or_load(&key, options(format!("pages:{kind}")), load);
        value.await.map_err(failure)
    }

    async fn write(&self, kind: u8, id: i64) -> Result<(), Failure> {
        commit(kind, id).await?;
        let row = self.0.invalidate_key(&format!("rows:{kind}:{id}")).await;
        let pages = self.0.invalidate_tag(&format!("pages:{kind}")).await;
        row.map_err(failure)?;
        pages.map(drop).map_err(failure)
    }
}
