//! A hit is what the function returned, or the value is not kept: in each codec and on each tier.

#![allow(
    unused_variables,
    reason = "the cache of a function stands in its attribute, and not in its body"
)]

mod clones;
mod coarse;
mod codecs;
mod hidden;
mod later;
mod libraries;
mod losses;
mod shapes;
mod usual;

use cache_runtime::testing::TestCache;
use cache_runtime::{Cache, CacheConfig, Outcome, Status, observe};
use cache_tests::RedisServer;

/// The tiers on which a value must be the same.
struct Tiers {
    tests: TestCache,
    decoded: TestCache,
    memory: Cache,
    redis: Cache,
    /// Redis, with local entries in front of it.
    both: Cache,
    _server: RedisServer,
}

impl Tiers {
    async fn new() -> Self {
        Self::with(|config| config).await
    }

    /// As in production: of a function's values, only some are decoded again.
    async fn verifying_a_few() -> Self {
        Self::with(|config| config.verify_all(false)).await
    }

    async fn with(config: impl Fn(CacheConfig) -> CacheConfig) -> Self {
        let server = RedisServer::start();
        let vars = [
            ("REDIS_ENABLED", "1".to_owned()),
            ("REDIS_URL", server.url()),
            // What is not stored here is not stored because of its codec.
            ("CACHE_TIMEOUT_MS", "10000".to_owned()),
        ];
        let vars = vars.map(|(name, value)| (name.to_owned(), value));
        let redis = CacheConfig::from_vars(vars.clone()).expect("a configuration");
        // Of another namespace, so that each tier has its own entries.
        let both = CacheConfig::from_vars(vars).expect("a configuration");
        let both = both.namespace("both").local_mb(4);
        Self {
            tests: TestCache::with(config(CacheConfig::default())),
            decoded: TestCache::decoded(config(CacheConfig::default())),
            memory: Cache::new(config(CacheConfig::default().local_mb(4))).await,
            redis: Cache::new(config(redis)).await,
            both: Cache::new(config(both)).await,
            _server: server,
        }
    }

    /// Those that keep bytes, of which a value of another type could be made.
    fn encoded(&self) -> [(&'static str, Cache); 2] {
        [
            ("test cache", (*self.tests).clone()),
            ("redis", self.redis.clone()),
        ]
    }

    fn all(&self) -> [(&'static str, Cache); 5] {
        [
            ("test cache", (*self.tests).clone()),
            ("decoded test cache", (*self.decoded).clone()),
            ("memory", self.memory.clone()),
            ("redis", self.redis.clone()),
            ("both tiers", self.both.clone()),
        ]
    }
}

const STORED: Status = Status::Miss {
    stored: true,
    joined: false,
};
const NOT_STORED: Status = Status::Miss {
    stored: false,
    joined: false,
};

async fn status<T>(call: impl Future<Output = T>) -> (Status, T) {
    let (value, outcomes) = observe(call).await;
    let statuses: Vec<_> = outcomes.into_iter().map(|it: Outcome| it.status).collect();
    assert_eq!(statuses.len(), 1, "{statuses:?}");
    (statuses[0], value)
}

fn is_hit(status: Status) -> bool {
    matches!(status, Status::Hit { .. })
}

/// Calls three times on each tier: the value is the same, and a hit only where that is expected.
/// With both tiers, the second hit may be a local one.
macro_rules! check {
    ($tiers:expr, $($function:ident is $kept:ident,)*) => {$(
        for (tier, cache) in $tiers.all() {
            let what = concat!(stringify!($function), " on ");
            let (first, one) = crate::status($function(&cache)).await;
            let expected = if check!(@$kept) { crate::STORED } else { crate::NOT_STORED };
            assert_eq!(first, expected, "{what}{tier}");
            for _ in 0..2 {
                let (again, other) = crate::status($function(&cache)).await;
                assert_eq!(format!("{one:?}"), format!("{other:?}"), "{what}{tier}");
                assert_eq!(crate::is_hit(again), check!(@$kept), "{what}{tier}");
            }
        }
    )*};
    (@kept) => { true };
    (@lost) => { false };
}
pub(crate) use check;
