//! Tests of programs: with Tokio's time paused, and with a runtime for each test.

use std::time::Duration;

use cache_runtime::{Acknowledgement, Cache, Status, observe};
use cache_tests::RedisServer;
use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::time::{Instant, timeout};

use crate::over;
use crate::runtimes::connect;
use crate::shop::Shop;

async fn is_hit<T>(call: impl Future<Output = T>) -> bool {
    matches!(observe(call).await.1[0].status, Status::Hit { .. })
}

#[tokio::test(start_paused = true)]
async fn paused_time_costs_no_hit_and_no_acknowledgement() {
    for local in [0, 16] {
        let server = RedisServer::start();
        let cache = Cache::new(over(&server).local_mb(local)).await;
        let shop = Shop::new(&cache);
        let began = Instant::now();
        for round in 0..10 {
            shop.name(1).await;
            for _ in 0..20 {
                assert!(is_hit(shop.get(1)).await);
            }
            let together = join_all((0..50).map(|_| is_hit(shop.get(1)))).await;
            assert!(together.iter().all(|hit| *hit));
            let name = format!("name {round}");
            shop.rename_required_crash_safe(1, &name)
                .await
                .expect("written");
            assert_eq!(shop.name(1).await, name);
            // It asks whether the server takes writes, and announces nothing.
            shop.rename_required(1, "other").await.expect("written");
            assert_eq!(shop.name(1).await, "other");
            assert_eq!(
                cache.invalidate("users", &1).await,
                Acknowledgement::Delivered
            );
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        let stats = cache.get_stats().await;
        assert_eq!((stats.connected, stats.counters.pending), (true, 0));
        cache.shutdown().await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}

/// The cache's own thread, whose time goes on, watches what is read together. It must not compare
/// its time with that of the test, which has stood still since the test began.
#[tokio::test(start_paused = true)]
async fn reads_together_may_take_their_time_while_that_of_the_test_stands_still() {
    const HOUR: Duration = Duration::from_secs(3_600);
    const BUDGET: Duration = Duration::from_secs(1);
    let server = RedisServer::start();
    let cache = Cache::new(over(&server).command_budget(BUDGET)).await;
    let shop = Shop::new(&cache);
    shop.name(1).await;
    // The test's time is now behind by more than a read may take.
    std::thread::sleep(BUDGET);
    let began = Instant::now();
    let answer = server.cli(&["CLIENT", "PAUSE", "400"]);
    assert_eq!(answer.trim(), "OK");
    let mut reads: Vec<_> = (0..150).map(|_| Box::pin(is_hit(shop.get(1)))).collect();
    for read in &mut reads {
        assert!(read.now_or_never().is_none());
    }
    // Those that were sent alone hold the test's time themselves: 64 at most, if the server is slow
    // to answer. Without them its own timer must not run out, either.
    reads.drain(..64);
    let together = timeout(HOUR, join_all(reads)).await;
    let together = together.expect("no time passes");
    assert!(together.iter().all(|hit| *hit), "{together:?}");
    assert_eq!(began.elapsed(), Duration::ZERO);
    cache.shutdown().await;
}

/// The runtime itself sends what is read together, over a connection of its own.
#[tokio::test(start_paused = true)]
async fn reads_over_an_own_connection_may_take_their_time_while_that_of_the_test_stands_still() {
    const HOUR: Duration = Duration::from_secs(3_600);
    let server = RedisServer::start();
    let cache = Cache::new(over(&server).command_budget(Duration::from_secs(1))).await;
    let shop = Shop::new(&cache);
    shop.name(1).await;
    connect(&shop, &server, 1).await;
    let began = Instant::now();
    for together in [1, 20] {
        let answer = server.cli(&["CLIENT", "PAUSE", "200"]);
        assert_eq!(answer.trim(), "OK");
        let reads = join_all((0..together).map(|_| is_hit(shop.get(1))));
        let hits = timeout(HOUR, reads).await.expect("no time passes");
        assert!(hits.iter().all(|hit| *hit), "{hits:?}");
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    cache.shutdown().await;
}

/// As `#[tokio::test]` makes them, with one cache for all of them.
#[test]
fn a_runtime_that_ends_costs_the_next_one_nothing() {
    let runtime = |is_paused| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(is_paused)
            .build()
            .expect("built")
    };
    let server = RedisServer::start();
    let shop = runtime(false).block_on(async {
        let shop = Shop::new(&Cache::new(over(&server)).await);
        shop.name(1).await;
        shop
    });
    for is_paused in [false, true, false, true] {
        runtime(is_paused).block_on(async {
            for _ in 0..5 {
                assert!(is_hit(shop.get(1)).await);
            }
            shop.rename(1, "new").await.expect("written");
            shop.name(1).await;
        });
    }
}
