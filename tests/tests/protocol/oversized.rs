//! Values of other programs that are so large that nobody else gets an answer while one is
//! transferred.

use std::time::Duration;

use cache_runtime::{
    Acknowledgement, BypassReason, Cache, CacheConfig, RedisConfig, Status, observe,
};
use cache_tests::{RedisCluster, RedisServer, eventually};
use futures_util::future::join_all;

use crate::shop::Shop;
use crate::{bounded, over, patient};

/// Long enough for a hit on a machine that runs all tests at once, and not always for such a
/// transfer.
const BUDGET: Duration = Duration::from_secs(1);
const TEST_TIMEOUT: Duration = Duration::from_secs(20);
const BYTES: &str = "300000000";

fn config(server: &RedisServer) -> CacheConfig {
    over(server).command_budget(BUDGET)
}

fn oversize(server: &RedisServer, key: &str) {
    server.cli(&["SETRANGE", key, BYTES, "x"]);
}

async fn status(shop: &Shop, id: i64) -> Status {
    observe(shop.get(id)).await.1[0].status
}

async fn is_hit(shop: &Shop, id: i64) -> bool {
    matches!(status(shop, id).await, Status::Hit { .. })
}

/// How many bytes the server has sent so far.
fn sent(server: &RedisServer) -> u64 {
    let info = server.cli(&["INFO", "stats"]);
    let sent = info
        .lines()
        .find_map(|line| line.strip_prefix("total_net_output_bytes:"));
    sent.and_then(|bytes| bytes.trim().parse().ok())
        .expect("a number")
}

/// Rows that are stored under their own keys.
const ROWS: std::ops::RangeInclusive<i64> = 2..=41;

async fn all_hit(shop: &Shop) -> bool {
    let reads = ROWS.map(|id| async move { is_hit(shop, id).await });
    join_all(reads).await.into_iter().all(|hit| hit)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_value_of_others_keeps_nobody_from_other_rows() {
    huge_value_of_others(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_over_a_connection_that_only_reads() {
    // After so many reads there is one.
    huge_value_of_others(10).await;
}

async fn huge_value_of_others(rounds: usize) {
    bounded(async {
        let server = RedisServer::start();
        let shop = Shop::new(&Cache::new(config(&server)).await);
        eventually(TEST_TIMEOUT, async || all_hit(&shop).await).await;
        for _ in 0..rounds {
            all_hit(&shop).await;
        }

        oversize(&server, "users:1");
        // The first one finds it out, and is no longer in the way then.
        assert!(shop.get(1).await.is_ok());
        eventually(TEST_TIMEOUT, async || {
            status(&shop, 1).await == Status::Bypass(BypassReason::Foreign) && all_hit(&shop).await
        })
        .await;

        // What the first read asked for is still on its way.
        let is_idle = || {
            let clients = server.cli(&["CLIENT", "LIST"]);
            clients.lines().all(|client| client.contains(" oll=0 "))
        };
        eventually(TEST_TIMEOUT, async || is_idle()).await;

        let before = sent(&server);
        for _ in 0..40 {
            let (huge, others) = tokio::join!(status(&shop, 1), all_hit(&shop));
            assert_eq!(huge, Status::Bypass(BypassReason::Foreign));
            assert!(others, "every row is a hit");
        }
        let transferred = sent(&server) - before;
        assert!(transferred < 5_000_000, "{transferred} bytes");
        let length = server.cli(&["STRLEN", "users:1"]);
        assert_eq!(length, "300000001", "it is left alone");

        // Gone, it is a key like any other.
        server.cli(&["DEL", "users:1"]);
        eventually(TEST_TIMEOUT, async || is_hit(&shop, 1).await).await;
    })
    .await;
}

/// Nothing depends on what is no generation: it is replaced without being read.
#[tokio::test(flavor = "multi_thread")]
async fn a_huge_value_in_place_of_a_generation_is_replaced() {
    bounded(async {
        let server = RedisServer::start();
        let shop = Shop::new(&Cache::new(config(&server)).await);
        for generation in ["@gen:users", "@gen:users~derived"] {
            oversize(&server, generation);
        }
        // On a busy machine, to free so much memory takes longer than a command may; then it is
        // sent again.
        for written in [
            shop.cache.invalidate("users", &1_i64).await,
            shop.cache.invalidate_all("users").await,
        ] {
            assert_ne!(written, Acknowledgement::Lost);
        }
        for generation in ["@gen:users", "@gen:users~derived"] {
            eventually(TEST_TIMEOUT, async || {
                server.cli(&["STRLEN", generation]) == "32"
            })
            .await;
        }
        oversize(&server, "@gen:users");
        eventually(TEST_TIMEOUT, async || is_hit(&shop, 1).await).await;
        assert_eq!(server.cli(&["STRLEN", "@gen:users"]), "32");
    })
    .await;
}

/// An outage makes suspects of ordinary keys.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_without_an_answer_is_read_again_when_it_is_small() {
    bounded(async {
        let mut server = RedisServer::start();
        let shop = Shop::new(&Cache::new(config(&server)).await);
        eventually(TEST_TIMEOUT, async || all_hit(&shop).await).await;
        server.pause();
        for id in ROWS {
            assert!(!is_hit(&shop, id).await);
        }
        server.resume();
        eventually(TEST_TIMEOUT, async || all_hit(&shop).await).await;
        // Each was asked for its length once, if at all, and is no suspect any more.
        let asked = server.calls("getrange");
        assert!(all_hit(&shop).await);
        assert_eq!(server.calls("getrange"), asked);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_ends_connections_keeps_nobody_from_other_rows() {
    let server = RedisServer::start();
    ends_connections(&server, || config(&server)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_ends_connections_to_a_node_keeps_nobody_from_other_rows() {
    let cluster = RedisCluster::start(1, 0);
    let node = cluster.node(0);
    let seeds = || RedisConfig::cluster([("127.0.0.1", node.port())]);
    ends_connections(node, || patient().redis(seeds()).command_budget(BUDGET)).await;
}

/// The server ends each connection over which the value would be sent.
async fn ends_connections(server: &RedisServer, config: impl Fn() -> CacheConfig) {
    bounded(async {
        let shop = Shop::new(&Cache::new(config()).await);
        let other = shop.node(&Cache::new(config().local_mb(16)).await);
        let large = "x".repeat(900_000);
        shop.commit(1, &large);
        for node in [&shop, &other] {
            eventually(TEST_TIMEOUT, async || {
                is_hit(node, 1).await && all_hit(node).await
            })
            .await;
        }
        let limit = |limit: &str| {
            let limit = format!("normal {limit} 0 0");
            server.cli(&["CONFIG", "SET", "client-output-buffer-limit", &limit]);
        };
        limit("100000");
        for node in [&shop, &other] {
            let cache = &node.cache;
            // Local entries end with each connection.
            eventually(TEST_TIMEOUT, async || {
                assert_eq!(node.name(1).await, large);
                cache.strict(status(node, 1)).await == Status::Bypass(BypassReason::Foreign)
                    && all_hit(node).await
            })
            .await;
        }
        let connected = || {
            let info = server.cli(&["INFO", "stats"]);
            let connected = info
                .lines()
                .find_map(|line| line.strip_prefix("total_connections_received:"));
            let connected = connected.and_then(|it| it.trim().parse::<u64>().ok());
            connected.expect("a number")
        };
        // After many reads there is one more connection, which only reads.
        for _ in 0..10 {
            all_hit(&shop).await;
        }
        eventually(TEST_TIMEOUT, async || {
            let before = connected();
            all_hit(&shop).await && connected() == before + 1
        })
        .await;
        let before = connected();
        for _ in 0..40 {
            for node in [&shop, &other] {
                let (large, others) = tokio::join!(status(node, 1), all_hit(node));
                assert_eq!(large, Status::Bypass(BypassReason::Foreign));
                assert!(others, "every row is a hit");
            }
        }
        assert_eq!(connected(), before + 1, "that of redis-cli");

        // Another value under the key is stored again as soon as it is read again.
        limit("0");
        shop.rename(1, "small").await.expect("written");
        eventually(2 * TEST_TIMEOUT, async || {
            assert_eq!(shop.name(1).await, "small");
            is_hit(&shop, 1).await
        })
        .await;
    })
    .await;
}
