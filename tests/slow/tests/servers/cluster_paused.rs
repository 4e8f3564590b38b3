//! Tests of programs over a cluster, with Tokio's time paused.

use std::time::Duration;

use cache_runtime::{Acknowledgement, Status, observe};
use cache_tests::{RedisCluster, eventually};
use futures_util::future::join_all;
use tokio::time::Instant;

use crate::cluster::{TEST_TIMEOUT, settings};
use crate::shop::{Shop, is_hit, is_used};

/// For so long an acknowledgement waits for the former owner of a slot.
const FENCE_LIMIT: Duration = Duration::from_millis(70);

/// Fails with the reasons if not all of these reads, at the same time, are hits.
async fn are_hits(shop: &Shop, ids: impl Iterator<Item = i64>) {
    let reads = ids.map(async |id| (id, observe(shop.user(id)).await.1[0].status));
    let mut others = join_all(reads).await;
    others.retain(|(_, status)| !matches!(status, Status::Hit { .. }));
    if !others.is_empty() {
        let stats = shop.cache.get_stats().await;
        panic!("no hits: {others:?}; {stats:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn paused_time_costs_no_hit_and_no_acknowledgement_over_a_cluster() {
    let cluster = RedisCluster::start(3, 0);
    let slot = cluster.slot("users:1");
    for local in [0, 16] {
        let config = settings(&cluster)
            .local_mb(local)
            .command_budget(Duration::from_secs(1));
        let shop = Shop::over(config).await;
        is_used(&shop).await;
        let began = Instant::now();
        for _ in 0..5 {
            // In all nodes, and many together.
            join_all((0..30).map(|id| shop.user(id))).await;
            are_hits(&shop, (0..200).map(|n| n % 30)).await;
            let row = shop.rename_required(1).await.expect("written");
            assert_eq!((shop.user(1).await, shop.list(1).await), (row, row));
            assert!(is_hit(&shop, 2).await);
            let row = shop.replace().await;
            let rows = join_all((0..30).map(|id| shop.user(id))).await;
            assert!(rows.iter().all(|it| *it == row), "{row}: {rows:?}");
            let acknowledged = shop.cache.invalidate_all("users").await;
            assert_eq!(acknowledged, Acknowledgement::Delivered);
            assert!(!is_hit(&shop, 3).await);
            assert_eq!(shop.cache.get_stats().await.counters.pending, 0);
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        // The process learns of a slot's new owner by a redirection.
        for _ in 0..5 {
            let owner = cluster.owner(slot);
            let before = std::time::Instant::now();
            cluster.move_slot(slot, (owner + 1) % 3);
            let acknowledged = shop.cache.invalidate("users", &1_i64).await;
            // On a busy machine the former owner learns of it late, which costs any program its
            // acknowledgement.
            let is_late = before.elapsed() >= FENCE_LIMIT;
            assert!(
                is_late || acknowledged == Acknowledgement::Delivered,
                "{acknowledged:?} after {:?}",
                before.elapsed()
            );
            eventually(TEST_TIMEOUT, async || is_hit(&shop, 1).await).await;
        }
        shop.cache.shutdown().await;
    }
}

/// The cache's own thread, whose time goes on, watches what is read together. It must not compare
/// its time with that of the test, which has stood still since the test began.
#[tokio::test(start_paused = true)]
async fn reads_together_may_take_their_time_while_that_of_the_test_stands_still() {
    let cluster = RedisCluster::start(3, 0);
    let config = settings(&cluster).command_budget(Duration::from_secs(2));
    let shop = Shop::over(config).await;
    is_used(&shop).await;
    join_all((0..30).map(|id| shop.user(id))).await;
    let began = Instant::now();
    for node in 0..cluster.len() {
        let answer = cluster.node(node).cli(&["CLIENT", "PAUSE", "400"]);
        assert_eq!(answer.trim(), "OK");
    }
    are_hits(&shop, (0..200).map(|n| n % 30)).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    shop.cache.shutdown().await;
}
