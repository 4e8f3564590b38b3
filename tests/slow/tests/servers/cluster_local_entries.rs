//! Local entries beside a cluster: every node reports changes of its own keys.

use std::time::Duration;

use cache_runtime::{CacheConfig, LocalStats, Status, observe};
use cache_tests::{RedisCluster, eventually};

use crate::cluster::settings;
use crate::shop::{Shop, nothing_staler_than};

const TEST_TIMEOUT: Duration = Duration::from_secs(30);
const BOUND: Duration = Duration::from_millis(500);
/// Rows of all nodes.
const ROWS: i64 = 12;

fn both_tiers(cluster: &RedisCluster) -> CacheConfig {
    settings(cluster).local_mb(16).local_max_staleness(BOUND)
}

async fn is_local(shop: &Shop, id: i64) -> bool {
    let outcomes = observe(shop.user(id)).await.1;
    matches!(outcomes[0].status, Status::Hit { .. }) && outcomes[0].store == "local"
}

/// Reads until a local entry of each row answers.
async fn warm(shop: &Shop) {
    for id in 0..ROWS {
        eventually(TEST_TIMEOUT, async || is_local(shop, id).await).await;
    }
}

async fn figures(shop: &Shop) -> LocalStats {
    let stats = shop.cache.get_stats().await;
    stats.local.expect("both tiers are on")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_entries_end_with_writes_here_and_elsewhere() {
    let cluster = RedisCluster::start(3, 0);
    let shop = Shop::over(both_tiers(&cluster)).await;
    let other = shop.node(settings(&cluster)).await;
    warm(&shop).await;
    for id in 0..ROWS {
        // This process's own take effect before they return.
        let row = shop.rename(id).await;
        assert_eq!(shop.user(id).await, row);
    }
    let row = shop.replace().await;
    for id in 0..ROWS {
        assert_eq!(shop.user(id).await, row);
    }
    warm(&shop).await;
    for id in 0..ROWS {
        let row = other.rename(id).await;
        eventually(TEST_TIMEOUT, async || shop.user(id).await == row).await;
    }
    warm(&shop).await;
    // Of the generation another node tells than of most entries.
    let row = other.replace().await;
    for id in 0..ROWS {
        eventually(TEST_TIMEOUT, async || shop.user(id).await == row).await;
    }
    warm(&shop).await;
    shop.cache.clear_all().await.expect("the cluster answers");
    for id in 0..ROWS {
        assert!(!is_local(&shop, id).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_keys_in_one_slot_need_one_node_to_be_heard() {
    let cluster = RedisCluster::start(3, 0);
    let config = both_tiers(&cluster).namespace("{shop}");
    let shop = Shop::over(config.clone()).await;
    let other = shop.node(config).await;
    warm(&shop).await;
    for id in 0..ROWS {
        let row = other.rename(id).await;
        eventually(TEST_TIMEOUT, async || shop.user(id).await == row).await;
    }
    warm(&shop).await;
    let row = other.replace().await;
    for id in 0..ROWS {
        eventually(TEST_TIMEOUT, async || shop.user(id).await == row).await;
    }
}

/// Nothing is pushed for a slot without keys, and so the heartbeat has to tell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_leaves_ends_all_local_entries() {
    let cluster = RedisCluster::start(3, 0);
    let shop = Shop::over(both_tiers(&cluster)).await;
    warm(&shop).await;
    let before = figures(&shop).await.epochs;
    let slot = cluster.slot("nobody's");
    cluster.move_slot(slot, (cluster.owner(slot) + 1) % 3);
    eventually(TEST_TIMEOUT, async || figures(&shop).await.epochs > before).await;
    warm(&shop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_is_given_up_and_the_others_go_on_without_it() {
    let mut cluster = RedisCluster::start_with(
        3,
        0,
        cache_tests::RedisOptions::default().config("cluster-require-full-coverage no"),
    );
    let config = both_tiers(&cluster).command_budget(Duration::from_millis(200));
    let shop = Shop::over(config).await;
    warm(&shop).await;
    let generations = cluster.owner(cluster.slot("@gen:{users}"));
    let away = (generations + 1) % 3;
    let here = (0..ROWS).find(|id| cluster.is_owner(generations, &format!("users:{id}")));
    let here = here.expect("a row of that node");
    let before = figures(&shop).await.epochs;
    cluster.node_mut(away).pause();
    // It is given up, and what came from it is dropped.
    eventually(TEST_TIMEOUT, async || figures(&shop).await.epochs > before).await;
    eventually(TEST_TIMEOUT, async || is_local(&shop, here).await).await;
    cluster.node_mut(away).resume();
    warm(&shop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_to_a_node_drops_everything() {
    let cluster = RedisCluster::start(3, 0);
    let shop = Shop::over(both_tiers(&cluster)).await;
    warm(&shop).await;
    let before = figures(&shop).await.epochs;
    cluster.node(1).cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    eventually(TEST_TIMEOUT, async || figures(&shop).await.epochs > before).await;
    warm(&shop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_local_entry_is_older_than_the_bound_while_slots_move_and_return() {
    let cluster = RedisCluster::start(3, 0);
    let config = both_tiers(&cluster);
    let (hits, reads, cluster) = nothing_staler_than(
        BOUND,
        move || config.clone(),
        move || {
            for round in 0..4 {
                for key in ["users:0", "users:1", "users:2", "@gen:{users}"] {
                    let slot = cluster.slot(key);
                    cluster.move_slot(slot, (cluster.owner(slot) + 1 + round % 2) % 3);
                }
                std::thread::sleep(BOUND);
            }
            cluster
        },
    )
    .await;
    assert!(hits > 0, "{hits} of {reads}");
    let shop = Shop::over(both_tiers(&cluster)).await;
    warm(&shop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_local_entry_is_older_than_the_bound_while_primaries_fail_over() {
    let cluster = RedisCluster::start(3, 1);
    let config = both_tiers(&cluster);
    let (hits, reads, cluster) = nothing_staler_than(
        BOUND,
        move || config.clone(),
        move || {
            for key in ["users:1", "@gen:{users}", "users:1", "@gen:{users}"] {
                let owner = cluster.owner(cluster.slot(key));
                let replica = (owner + 3) % 6;
                cluster.wait_for_replica(replica);
                cluster.fail_over(replica, &[]);
                std::thread::sleep(BOUND);
            }
            cluster
        },
    )
    .await;
    assert!(hits > 0, "{hits} of {reads}");
    let shop = Shop::over(both_tiers(&cluster)).await;
    warm(&shop).await;
}
