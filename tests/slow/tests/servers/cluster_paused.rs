//! Tests of programs over a cluster, with Tokio's time paused.

use std::time::Duration;

use cache_runtime::Acknowledgement;
use cache_tests::{RedisCluster, eventually};
use futures_util::future::join_all;
use tokio::time::Instant;

use crate::cluster::{PATIENCE, settings};
use crate::shop::{Shop, is_hit, is_used};

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
            let together = join_all((0..200).map(|n| is_hit(&shop, n % 30))).await;
            assert!(together.iter().all(|hit| *hit), "{together:?}");
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
            cluster.move_slot(slot, (cluster.owner(slot) + 1) % 3);
            let acknowledged = shop.cache.invalidate("users", &1_i64).await;
            assert_eq!(acknowledged, Acknowledgement::Delivered);
            eventually(PATIENCE, async || is_hit(&shop, 1).await).await;
        }
        shop.cache.shutdown().await;
    }
}
