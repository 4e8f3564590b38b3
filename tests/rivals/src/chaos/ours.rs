//! This project.

use cache_chaos::{Failure, Page, RivalCache, Row, commit, config, load_page, load_row};
use cache_runtime::{BypassReason, Cache, Status, cached, invalidates, observe};

/// The annotated functions.
pub(super) struct Service {
    cache: Cache,
}

impl Service {
    #[cached(resource = "rows", id = (kind, id), cache = self.cache)]
    async fn row(&self, kind: u8, id: i64) -> Result<Row, Failure> {
        Ok(load_row(kind, id).await?)
    }

    #[cached(resource = "pages", id = (kind, skip), tags("pages:{kind}"), cache = self.cache)]
    async fn page(&self, kind: u8, skip: i64) -> Result<Page, Failure> {
        Ok(load_page(kind, skip).await?)
    }

    #[invalidates("rows", id = (kind, id), tags("pages:{kind}"), cache = self.cache)]
    async fn write(&self, kind: u8, id: i64) -> Result<(), Failure> {
        Ok(commit(kind, id).await?)
    }
}

/// A set of tiers.
macro_rules! ours {
    ($(#[$doc:meta])* $type:ident $name:literal redis $redis:literal local $local:literal) => {
        $(#[$doc])*
        pub(super) struct $type(Service);

        impl RivalCache for $type {
            const NAME: &'static str = $name;
            const SHARED: bool = $redis;
            const HAS_LOCAL_ENTRIES: bool = $redis && $local > 0;

            async fn start(redis: u16) -> Result<Self, Failure> {
                let config = config(Some(redis).filter(|_| $redis)).local_mb($local);
                let cache = Cache::new(config).await;
                Ok(Self(Service { cache }))
            }

            async fn row(&self, kind: u8, id: i64) -> Result<Row, Failure> {
                self.0.row(kind, id).await
            }

            async fn page(&self, kind: u8, skip: i64) -> Result<Page, Failure> {
                self.0.page(kind, skip).await
            }

            async fn write(&self, kind: u8, id: i64) -> Result<(), Failure> {
                self.0.write(kind, id).await
            }

            async fn is_pending(&self, kind: u8, id: i64) -> bool {
                let (_, outcomes) = observe(self.0.row(kind, id)).await;
                let pending = Status::Bypass(BypassReason::Pending);
                outcomes.iter().any(|outcome| outcome.status == pending)
            }

            async fn waiting(&self) -> u64 {
                self.0.cache.get_stats().await.counters.pending
            }

            async fn end(&self) {
                self.0.cache.shutdown().await;
            }
        }
    };
}

ours!(OverRedis "this project, Redis" redis true local 0);
ours!(OverBoth "this project, both tiers" redis true local 16);
ours!(InMemory "this project, in memory" redis false local 16);
