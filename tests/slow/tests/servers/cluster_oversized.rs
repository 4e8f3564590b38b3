//! Values of other programs in a cluster that are so large that nobody else gets an answer while
//! one is transferred.

use std::time::Duration;

use cache_runtime::{BypassReason, Status, observe};
use cache_tests::{RedisCluster, eventually};
use futures_util::future::join_all;

use crate::cluster::settings;
use crate::shop::{Shop, is_hit};

/// Long enough for a hit on a machine that runs all tests at once, and not always for such a
/// transfer.
const BUDGET: Duration = Duration::from_secs(1);
const TEST_TIMEOUT: Duration = Duration::from_secs(30);
const BYTES: &str = "300000000";
const ROWS: std::ops::RangeInclusive<i64> = 2..=41;

async fn status(shop: &Shop, id: i64) -> Status {
    observe(shop.user(id)).await.1[0].status
}

async fn all_hit(shop: &Shop) -> bool {
    let reads = ROWS.map(|id| async move { is_hit(shop, id).await });
    join_all(reads).await.into_iter().all(|hit| hit)
}

/// How many bytes the nodes have sent so far.
fn sent(cluster: &RedisCluster) -> u64 {
    let sent = (0..cluster.len()).map(|node| {
        let info = cluster.node(node).cli(&["INFO", "stats"]);
        let mut lines = info.lines();
        let sent = lines.find_map(|line| line.strip_prefix("total_net_output_bytes:"));
        let sent = sent.and_then(|bytes| bytes.trim().parse::<u64>().ok());
        sent.expect("a number")
    });
    sent.sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_huge_value_of_others_is_not_transferred_in_a_cluster() {
    let cluster = RedisCluster::start(2, 0);
    let shop = Shop::over(settings(&cluster).command_budget(BUDGET)).await;
    eventually(TEST_TIMEOUT, async || all_hit(&shop).await).await;

    let owner = cluster.node(cluster.owner(cluster.slot("users:1")));
    owner.cli(&["SETRANGE", "users:1", BYTES, "x"]);
    // The first read finds it out, and is no longer in the way then.
    shop.user(1).await;
    let foreign = Status::Bypass(BypassReason::Foreign);
    eventually(TEST_TIMEOUT, async || {
        status(&shop, 1).await == foreign && all_hit(&shop).await
    })
    .await;

    let before = sent(&cluster);
    for _ in 0..40 {
        let (huge, others) = tokio::join!(status(&shop, 1), all_hit(&shop));
        assert_eq!(huge, foreign);
        assert!(others, "every row is a hit");
    }
    let transferred = sent(&cluster) - before;
    // The end of an earlier transfer may be among it.
    assert!(transferred < 100_000_000, "{transferred} bytes");
    let length = owner.cli(&["STRLEN", "users:1"]);
    assert_eq!(length, "300000001", "it is left alone");

    // Gone, it is a key like any other.
    owner.cli(&["DEL", "users:1"]);
    eventually(TEST_TIMEOUT, async || is_hit(&shop, 1).await).await;
}

/// Nothing depends on what is no generation: it is replaced without being read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_huge_value_in_place_of_a_generation_is_replaced_in_a_cluster() {
    let cluster = RedisCluster::start(2, 0);
    let shop = Shop::over(settings(&cluster).command_budget(BUDGET)).await;
    eventually(TEST_TIMEOUT, async || is_hit(&shop, 1).await).await;
    let owner = cluster.node(cluster.owner(cluster.slot("@gen:{users}")));
    owner.cli(&["SETRANGE", "@gen:{users}", BYTES, "x"]);
    eventually(TEST_TIMEOUT, async || is_hit(&shop, 1).await).await;
    assert_eq!(owner.cli(&["STRLEN", "@gen:{users}"]), "32");
}
