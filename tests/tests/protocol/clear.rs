//! What it costs to clear a cache that shares its server with many keys of other programs.

use cache_runtime::Cache;
use cache_tests::RedisServer;
use futures_util::future::join_all;

use crate::shop::Shop;
use crate::{bounded, over};

const FOREIGN: u64 = 50_000;
const AT_ONCE: usize = 20;
/// The step of a walk that somebody waits for. The sweep in the background takes smaller ones, and
/// is not counted.
const STEP: &str = "1000";

/// Keys of others, and a log of all commands.
fn crowded() -> RedisServer {
    let server = RedisServer::start();
    let fill = format!("for i = 1, {FOREIGN} do redis.call('SET', 'other:' .. i, i) end");
    server.cli(&["EVAL", &fill, "0"]);
    server.cli(&["CONFIG", "SET", "slowlog-max-len", "1000000"]);
    server.cli(&["CONFIG", "SET", "slowlog-log-slower-than", "0"]);
    server
}

/// How many steps of walks there were since the last time.
fn steps(server: &RedisServer) -> usize {
    let log = server.cli(&["SLOWLOG", "GET", "-1"]);
    server.cli(&["SLOWLOG", "RESET"]);
    let words: Vec<_> = log.split_whitespace().collect();
    words
        .windows(2)
        .filter(|pair| pair[0].ends_with("COUNT") && pair[1] == STEP)
        .count()
}

#[tokio::test]
async fn those_who_clear_at_the_same_time_share_their_walks() {
    bounded(async {
        let server = crowded();
        let cache = Cache::new(over(&server).namespace("ours")).await;
        let shop = Shop::new(&cache);
        shop.name(1).await;
        shop.list(0, 1).await.expect("read");
        steps(&server);
        assert_eq!(cache.clear_all().await.expect("reached"), 2);
        let alone = steps(&server);
        assert!(alone >= 2 * FOREIGN as usize / 1_000, "{alone} steps");

        for id in 1..=3 {
            shop.name(id).await;
            shop.commit(id, "new");
        }
        steps(&server);
        let cleared = join_all((0..AT_ONCE).map(|_| cache.clear_all())).await;
        let together = steps(&server);
        let counts: Vec<_> = cleared
            .into_iter()
            .map(|removed| removed.expect("reached"))
            .collect();
        assert!(
            together <= 2 * alone + alone / 2,
            "{together} steps for {AT_ONCE}, {alone} for one"
        );
        assert_eq!(counts.iter().max(), Some(&3), "{counts:?}");
        for id in 1..=3 {
            assert_eq!(shop.name(id).await, "new");
        }
        let foreign = server.cli(&["EVAL", "return #redis.call('KEYS', 'other:*')", "0"]);
        assert!(foreign.contains(&FOREIGN.to_string()), "{foreign}");
    })
    .await;
}

/// Nothing is served from before, and the next walk is begun by whoever comes next.
#[tokio::test]
async fn a_caller_that_hangs_up_stops_nobody_elses_walk() {
    bounded(async {
        let server = crowded();
        let cache = Cache::new(over(&server).namespace("ours")).await;
        let shop = Shop::new(&cache);
        shop.name(1).await;
        shop.commit(1, "new");
        let first = cache_tests::spawn({
            let cache = cache.clone();
            async move { cache.clear_all().await }
        });
        let others: Vec<_> = (0..4)
            .map(|_| {
                let cache = cache.clone();
                cache_tests::spawn(async move { cache.clear_all().await })
            })
            .collect();
        tokio::task::yield_now().await;
        first.abort();
        for other in others {
            other.await.expect("no panic").expect("reached");
        }
        assert_eq!(shop.name(1).await, "new");
        cache.clear_all().await.expect("reached");
        assert!(!server.cli(&["KEYS", "ours*users:1"]).contains("users:1"));
    })
    .await;
}
