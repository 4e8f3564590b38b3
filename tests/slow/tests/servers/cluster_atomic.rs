//! Slots that move in one step (`CLUSTER MIGRATESLOTS` of Valkey 9): no key is ever on its way, and
//! who has the slot changes for all of them at once.

use std::time::Duration;

use cache_tests::{RedisCluster, RedisOptions, eventually};

use crate::cluster::settings;
use crate::shop::{Shop, is_hit, is_used, nothing_stale_while, nothing_staler_than};

const TEST_TIMEOUT: Duration = Duration::from_secs(30);
const BOUND: Duration = Duration::from_millis(500);
const KEYS: [&str; 4] = ["users:0", "users:1", "users:2", "@gen:{users}"];

/// Each of the slots in use goes to the next node, some of them to the one after it.
fn moves(cluster: &RedisCluster, pause: Duration) {
    for round in 0..4 {
        for key in KEYS {
            let slot = cluster.slot(key);
            cluster.move_at_once((slot, slot), (cluster.owner(slot) + 1 + round % 2) % 3);
        }
        std::thread::sleep(pause);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "Valkey 9 only: scripts/engines valkey"]
async fn nothing_stale_while_slots_move_at_once_and_return() {
    let cluster = RedisCluster::start(3, 0);
    let config = settings(&cluster);
    let (hits, reads, cluster) = nothing_stale_while(
        move || config.clone(),
        move || {
            moves(&cluster, Duration::ZERO);
            cluster
        },
    )
    .await;
    assert!(hits > 0, "{hits} of {reads}");
    is_used(&Shop::over(settings(&cluster)).await).await;
}

/// The former owner tells of the keys that have left it late, or not at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "Valkey 9 only: scripts/engines valkey"]
async fn no_local_entry_is_older_than_the_bound_while_slots_move_at_once() {
    let cluster = RedisCluster::start(3, 0);
    let config = settings(&cluster).local_mb(16).local_max_staleness(BOUND);
    let (hits, reads, cluster) = nothing_staler_than(
        BOUND,
        move || config.clone(),
        move || {
            moves(&cluster, BOUND);
            cluster
        },
    )
    .await;
    assert!(hits > 0, "{hits} of {reads}");
    is_used(&Shop::over(settings(&cluster)).await).await;
}

/// All slots of a node go, and with them what tells of them; then they come back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "Valkey 9 only: scripts/engines valkey"]
async fn no_local_entry_outlives_the_move_of_all_slots_of_a_node() {
    // Otherwise a node without slots becomes a replica, which takes none.
    let options = RedisOptions::default().config("cluster-allow-replica-migration no");
    let cluster = RedisCluster::start_with(3, 0, options);
    let config = settings(&cluster).local_mb(16).local_max_staleness(BOUND);
    let (hits, reads, cluster) = nothing_staler_than(
        BOUND,
        move || config.clone(),
        move || {
            let home = cluster.owner(cluster.slot("users:1"));
            let slots = cluster.first_range(home);
            for to in [(home + 1) % 3, home, (home + 2) % 3, home] {
                cluster.move_at_once(slots, to);
                std::thread::sleep(BOUND);
            }
            cluster
        },
    )
    .await;
    assert!(hits > 0, "{hits} of {reads}");
    is_used(&Shop::over(settings(&cluster)).await).await;
}

/// An entry whose slot has left and returned is not that of before, though nobody has touched it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "Valkey 9 only: scripts/engines valkey"]
async fn invalidations_while_a_slot_was_away_stay() {
    let cluster = RedisCluster::start(3, 0);
    let shop = Shop::over(settings(&cluster)).await;
    // It connects only when the slot is away.
    let before = shop.user(1).await;
    assert!(is_hit(&shop, 1).await);
    let slot = cluster.slot("users:1");
    let home = cluster.owner(slot);
    cluster.move_at_once((slot, slot), (home + 1) % 3);
    let writer = shop.node(settings(&cluster)).await;
    let row = writer.rename(1).await;
    assert!(row > before);
    assert_eq!(shop.user(1).await, row);
    cluster.move_at_once((slot, slot), home);
    assert_eq!(shop.user(1).await, row);
    eventually(TEST_TIMEOUT, async || {
        assert_eq!(shop.user(1).await, row);
        is_hit(&shop, 1).await
    })
    .await;
}
