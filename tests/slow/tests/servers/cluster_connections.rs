//! Connections: one from each process to each primary, and none to any other node.

use std::time::Duration;

use cache_tests::{RedisCluster, eventually};

use crate::cluster::settings;
use crate::shop::Shop;

const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Returns when all is as it should be; until then the processes read and write.
async fn settled(cluster: &RedisCluster, processes: &[&Shop]) {
    eventually(TEST_TIMEOUT, async || {
        for (id, process) in (0..).zip(processes) {
            process.user(id).await;
            process.rename(id).await;
        }
        let primaries: Vec<_> = cluster.shards().iter().map(|(it, _)| *it).collect();
        (0..cluster.len()).all(|node| {
            let wanted = match primaries.contains(&node) {
                true => processes.len(),
                false => 0,
            };
            cluster.node(node).connections() == wanted
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn none_is_left_behind_by_failovers_and_moves() {
    let mut cluster = RedisCluster::start(3, 1);
    let shop = Shop::over(settings(&cluster).local_mb(16)).await;
    let other = shop.node(settings(&cluster)).await;
    let processes = [&shop, &other];
    settled(&cluster, &processes).await;

    // By hand, there and back.
    for _ in 0..2 {
        for (_, replicas) in cluster.shards() {
            cluster.wait_for_replica(replicas[0]);
            cluster.fail_over(replicas[0], &[]);
        }
        cluster.wait_until_whole();
        settled(&cluster, &processes).await;
    }

    // One is killed, another is silent for so long that its replica takes over.
    for is_killed in [true, false] {
        let (primary, replicas) = cluster.shards().swap_remove(0);
        cluster.wait_for_replica(replicas[0]);
        match is_killed {
            true => cluster.node_mut(primary).stop(),
            false => cluster.node_mut(primary).pause(),
        }
        cluster.wait_for_primary(replicas[0]);
        match is_killed {
            true => cluster.node_mut(primary).restart(),
            false => cluster.node_mut(primary).resume(),
        }
        cluster.wait_until_whole();
        settled(&cluster, &processes).await;
    }

    // A node that had no slots gets one, and has none again.
    let joined = cluster.join();
    let slot = cluster.slot("users:1");
    let home = cluster.owner(slot);
    for to in [joined, home] {
        cluster.move_slot(slot, to);
        settled(&cluster, &processes).await;
    }
    other.cache.shutdown().await;
    settled(&cluster, &[&shop]).await;
}
