//! A connection that is lost while the server is well: what waits for an answer is sent again over
//! the next one.

use std::time::Duration;

use cache_runtime::{Acknowledgement, Cache, RedisConfig};
use cache_tests::{Mode, Proxy, RedisServer, eventually};

use crate::shop::Shop;
use crate::{over, patient};

const TEST_TIMEOUT: Duration = Duration::from_secs(20);
/// A machine that has a lot to do may take longer to connect than a write waits for it.
const ROUNDS: usize = 10;

/// A cache whose connections can be cut, and one on the same server whose connections can't.
struct Nodes {
    server: RedisServer,
    proxy: Proxy,
    cache: Cache,
    shop: Shop,
    other: Shop,
}

impl Nodes {
    async fn new() -> Self {
        let server = RedisServer::start();
        let proxy = Proxy::start(server.port());
        let config = patient().redis(RedisConfig::at("127.0.0.1", proxy.port()));
        let cache = Cache::new(config).await;
        let shop = Shop::new(&cache);
        let other = shop.node(&Cache::new(over(&server)).await);
        Self {
            server,
            proxy,
            cache,
            shop,
            other,
        }
    }

    fn sent(&self) -> u64 {
        let commands = ["evalsha", "dbsize", "scan"];
        commands.map(|name| self.server.calls(name)).iter().sum()
    }

    /// Loses the connection while the answer to one of the call's commands is on its way.
    async fn cut_during<T: Send + 'static>(
        &self,
        call: impl Future<Output = T> + Send + 'static,
    ) -> T {
        eventually(TEST_TIMEOUT, async || self.cache.is_available().await).await;
        let before = self.sent();
        self.proxy.set(Mode::HoldAnswers);
        let call = cache_tests::spawn(call);
        eventually(TEST_TIMEOUT, async || self.sent() > before).await;
        self.proxy.cut_then(Mode::Pass);
        call.await.expect("it does not panic")
    }
}

#[tokio::test]
async fn an_invalidation_whose_answer_is_lost_is_acknowledged_over_the_next_connection() {
    let nodes = Nodes::new().await;
    let mut acknowledged = [0; 3];
    for round in 0..ROUNDS {
        for (which, acknowledged) in acknowledged.iter_mut().enumerate() {
            let name = format!("name {round} {which}");
            nodes.other.name(1).await;
            nodes.shop.commit(1, &name);
            let cache = nodes.cache.clone();
            let told = nodes.cut_during(async move {
                match which {
                    0 => cache.invalidate("users", &1).await,
                    1 => cache.invalidate_all("users").await,
                    _ => match cache.delete("users:1").await {
                        Ok(_) => Acknowledgement::Delivered,
                        Err(_) => Acknowledgement::Pending,
                    },
                }
            });
            if told.await == Acknowledgement::Delivered {
                assert_eq!(nodes.other.name(1).await, name);
                *acknowledged += 1;
            }
        }
    }
    assert!(!acknowledged.contains(&0), "{acknowledged:?} of {ROUNDS}");
}

#[tokio::test]
async fn a_walk_over_the_keys_begins_again_over_the_next_connection() {
    let nodes = Nodes::new().await;
    let mut done = [0; 2];
    for _ in 0..ROUNDS {
        let cache = nodes.cache.clone();
        let cleared = nodes.cut_during(async move { cache.clear_all().await });
        done[0] += usize::from(cleared.await.is_ok());
        let cache = nodes.cache.clone();
        let pattern = async move { cache.invalidate_pattern("users:list:*").await };
        done[1] += usize::from(nodes.cut_during(pattern).await.is_ok());
    }
    assert!(!done.contains(&0), "{done:?} of {ROUNDS}");
}

#[tokio::test]
async fn a_write_that_requires_the_cache_is_not_refused_for_a_lost_connection() {
    let nodes = Nodes::new().await;
    let mut written = [0; 2];
    for round in 0..ROUNDS {
        let name = format!("name {round}");
        for (crash_safe, written) in [false, true].into_iter().zip(&mut written) {
            let (shop, name) = (nodes.shop.clone(), name.clone());
            let outcome = nodes.cut_during(async move {
                match crash_safe {
                    true => shop.rename_required_crash_safe(1, &name).await,
                    false => shop.rename_required(1, &name).await,
                }
            });
            *written += usize::from(outcome.await.is_ok());
        }
    }
    assert!(!written.contains(&0), "{written:?} of {ROUNDS}");
}

/// Twice, where the first may have stood on something else than the second.
#[tokio::test]
async fn an_announcement_that_was_sent_twice_is_withdrawn() {
    let nodes = Nodes::new().await;
    for round in 0..ROUNDS {
        let (shop, name) = (nodes.shop.clone(), format!("name {round}"));
        let sent = name.clone();
        let written = nodes.cut_during(async move { shop.rename_crash_safe(1, &sent).await });
        written.await.expect("written");
        eventually(TEST_TIMEOUT, async || {
            let stats = nodes.cache.get_stats().await;
            stats.counters.pending == 0
        })
        .await;
        let values = ["users:1", "@gen:users", "@gen:users~derived"];
        let values = values.map(|key| nodes.server.cli(&["GET", key]));
        assert!(!values.concat().contains('@'), "{values:?}");
        assert_eq!(nodes.other.name(1).await, name);
    }
}

#[tokio::test]
async fn while_something_waits_the_server_is_tried_often() {
    let nodes = Nodes::new().await;
    nodes.proxy.set(Mode::Cut);
    let told = nodes.cache.invalidate_all("users").await;
    assert_eq!(told, Acknowledgement::Pending);
    let before = nodes.proxy.accepted();
    // At the usual pace it would be five times in fifteen seconds.
    let limit = Duration::from_secs(10);
    eventually(limit, async || nodes.proxy.accepted() >= before + 20).await;
    nodes.proxy.set(Mode::Pass);
    eventually(TEST_TIMEOUT, async || {
        nodes.cache.get_stats().await.counters.pending == 0
    })
    .await;
}

#[tokio::test]
async fn scripts_that_were_flushed_delay_no_acknowledgement() {
    let nodes = Nodes::new().await;
    for round in 0..3 {
        let name = format!("name {round}");
        nodes.other.name(1).await;
        nodes.shop.commit(1, &name);
        nodes.server.cli(&["SCRIPT", "FLUSH"]);
        let told = nodes.cache.invalidate("users", &1).await;
        assert_eq!(told, Acknowledgement::Delivered);
        assert_eq!(nodes.other.name(1).await, name);
    }
}
