//! Callers that Tokio does not run, or whose runtime has no timer.

use std::time::Duration;

use cache_runtime::{Cache, RedisConfig, cached};
use cache_tests::RedisServer;
use tokio::runtime::Builder;

use crate::redis::block_on;
use crate::shop::{DbError, Shop, User};
use crate::{over, patient};

/// Where Tokio is not the executor, or has no timer, as in a callback of another library. A program
/// whose cache is off works there.
#[test]
fn callers_without_a_timer_are_served() {
    let server = RedisServer::start();
    let away = patient().redis(RedisConfig::at("127.0.0.1", 1));
    let made = Builder::new_current_thread().enable_all().build();
    let made = made.expect("a runtime");
    for config in [
        patient().local_mb(16),
        over(&server),
        over(&server).local_mb(16),
        away,
    ] {
        let shop = Shop::new(&made.block_on(Cache::new(config)));
        std::thread::scope(|scope| {
            scope.spawn(|| block_on(all_calls(&shop)));
        });
        let without_timer = Builder::new_current_thread().build();
        without_timer.expect("built").block_on(all_calls(&shop));
    }
}

async fn all_calls(shop: &Shop) {
    let cache = &shop.cache;
    for name in ["one", "two"] {
        shop.rename(1, name).await.expect("written");
        assert_eq!(shop.name(1).await, name);
        assert_eq!(shop.list(0, 1).await.expect("read")[0].name, name);
        let many = shop.get_many(&[1, 2, 3]).await.expect("read");
        assert_eq!(many[&1].name, name);
        let loaded = cache.get_or_load("users:1", None, async || shop.get(1).await);
        let loaded = loaded.await.expect("read").expect("there");
        assert_eq!(loaded.name, name);
        // Which of these is done depends on the store.
        let _ = shop.rename_required(2, name).await;
        let _ = shop.rename_crash_safe(2, name).await;
        let written = cache.after_commit(async { shop.rename_in_transaction(2).await });
        written.await.expect("written");
        let _ = cache.set("users:3", &shop.commit(3, name), None).await;
        let _ = cache.lookup::<User>("users:3").await;
        let _ = cache.invalidate("users", &3_i64).await;
        let _ = cache.clear_all().await;
        let _ = cache.get_stats().await;
        let _ = cache.doctor().await;
        let waiters = (0..3).map(|_| shop.list(0, 2));
        for list in futures_util::future::join_all(waiters).await {
            assert_eq!(list.expect("read").len(), 2);
        }
    }
    let sources = Sources {
        cache: cache.clone(),
    };
    for _ in 0..3 {
        assert_eq!(sources.slow(1).await, Ok(1));
        assert_eq!(sources.one_at_a_time(1).await, Ok(1));
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[derive(Clone)]
struct Sources {
    cache: Cache,
}

impl Sources {
    #[cached(resource = "slow", ttl = "1ms", swr = 300, timeout = "1ms", cache = self.cache)]
    async fn slow(&self, id: i64) -> Result<i64, DbError> {
        Ok(id)
    }

    #[cached(resource = "bounded", ttl = "1ms", max_loads = 1, cache = self.cache)]
    async fn one_at_a_time(&self, id: i64) -> Result<i64, DbError> {
        Ok(id)
    }
}
