//! A name of Redis that leads to several servers, or to another one than before.

use std::net::SocketAddr;
use std::time::Duration;

use cache_runtime::testing::internals::resolve;
use cache_runtime::{Cache, CacheConfig, Circuit, DiagnosticKind, RedisConfig, Status, observe};
use cache_tests::{RedisCluster, RedisServer, eventually, free_port};

use crate::shop::Shop;
use crate::{bounded, patient};

const TEST_TIMEOUT: Duration = Duration::from_secs(20);

fn named(name: &str) -> CacheConfig {
    // Each server has a port of its own here, and the addresses say which.
    patient().redis(RedisConfig::at(name, 6379))
}

fn address(server: &RedisServer) -> SocketAddr {
    ([127, 0, 0, 1], server.port()).into()
}

/// The one that is tried first comes first.
fn two_servers() -> (RedisServer, RedisServer) {
    let (a, b) = (RedisServer::start(), RedisServer::start());
    match a.port() < b.port() {
        true => (a, b),
        false => (b, a),
    }
}

async fn is_hit(shop: &Shop) -> bool {
    matches!(observe(shop.get(1)).await.1[0].status, Status::Hit { .. })
}

fn has_entry(server: &RedisServer) -> bool {
    server.cli(&["EXISTS", "users:1"]) == "1"
}

#[tokio::test]
async fn a_connection_moves_with_its_name() {
    bounded(async {
        let (old, new) = two_servers();
        resolve("moves.test", vec![address(&old)]);
        let shop = Shop::new(&Cache::new(named("moves.test")).await);
        eventually(TEST_TIMEOUT, async || is_hit(&shop).await).await;
        assert!(has_entry(&old) && !has_entry(&new));

        // One more address is no reason, and neither is a name that leads nowhere.
        let connections = old.calls("mget");
        resolve("moves.test", vec![address(&new), address(&old)]);
        resolve("moves.test", vec![]);
        assert!(is_hit(&shop).await);
        assert!(!has_entry(&new) && old.calls("mget") > connections);

        shop.commit(1, "moved");
        resolve("moves.test", vec![address(&new)]);
        eventually(TEST_TIMEOUT, async || {
            is_hit(&shop).await && has_entry(&new)
        })
        .await;
        assert_eq!(
            shop.name(1).await,
            "moved",
            "nothing comes from the old one"
        );
    })
    .await;
}

#[tokio::test]
async fn all_processes_use_the_first_primary_that_answers() {
    bounded(async {
        let (first, second) = two_servers();
        let everywhere = |order: [&RedisServer; 2]| order.map(address).to_vec();
        resolve("a.first.test", everywhere([&first, &second]));
        resolve("b.first.test", everywhere([&second, &first]));
        for name in ["a.first.test", "b.first.test"] {
            let shop = Shop::new(&Cache::new(named(name)).await);
            eventually(TEST_TIMEOUT, async || is_hit(&shop).await).await;
            assert!(!has_entry(&second), "{name}");
        }

        let port = second.port().to_string();
        first.cli(&["REPLICAOF", "127.0.0.1", &port]);
        resolve("replica.test", everywhere([&first, &second]));
        let shop = Shop::new(&Cache::new(named("replica.test")).await);
        eventually(TEST_TIMEOUT, async || is_hit(&shop).await).await;
        assert!(has_entry(&second));

        let nobody = ([127, 0, 0, 1], free_port()).into();
        resolve("away.test", vec![nobody, address(&second)]);
        let cache = Cache::new(named("away.test")).await;
        assert!(cache.is_available().await, "{:?}", cache.get_stats().await);
    })
    .await;
}

#[tokio::test]
async fn the_doctor_names_all_servers_behind_a_name() {
    bounded(async {
        let (first, second) = two_servers();
        let silent: SocketAddr = ([127, 0, 0, 1], free_port()).into();
        let all = vec![address(&first), address(&second), silent];
        resolve("several.test", all);
        let cache = Cache::new(named("several.test")).await;
        let report = cache.doctor().await;
        let of_servers =
            |advice: &&cache_runtime::Diagnostic| advice.kind == DiagnosticKind::SeveralServers;
        let found: Vec<_> = report.advice.iter().filter(of_servers).collect();
        assert_eq!(found.len(), 1, "{report}");
        for named in [
            "several.test",
            &first.port().to_string(),
            &second.port().to_string(),
        ] {
            assert!(found[0].text.contains(named), "{report}");
        }
        let not_checked = report.not_checked.join("\n");
        assert!(not_checked.contains(&silent.to_string()), "{report}");

        // Two addresses of one server, as of `localhost`, are one server.
        let itself = SocketAddr::from(([127, 0, 0, 2], first.port()));
        resolve("one.test", vec![address(&first), itself]);
        let report = Cache::new(named("one.test")).await.doctor().await;
        assert_eq!(report.advice.iter().find(of_servers), None, "{report}");
    })
    .await;
}

/// An operator has to look there, and not at the Sentinel.
#[tokio::test]
async fn the_address_that_sentinels_name_is_told() {
    bounded(async {
        let away = free_port();
        let sentinel = RedisServer::options()
            .config(&format!("sentinel monitor mymaster 127.0.0.1 {away} 1"))
            .sentinel()
            .start();
        let redis = RedisConfig::sentinels([("127.0.0.1", sentinel.port())], "mymaster");
        let cache = Cache::new(patient().redis(redis)).await;
        let named = format!("127.0.0.1:{away}, which the Sentinels name");
        let reason = cache.get_stats().await.reason.expect("it is away");
        assert!(reason.contains(&named), "{reason}");
        let advice = cache.doctor().await.to_string();
        assert!(advice.contains(&named), "{advice}");
        assert!(advice.contains("the primary `mymaster`"), "{advice}");
        let of_sentinel = format!("Redis at 127.0.0.1:{}", sentinel.port());
        assert!(!advice.contains(&of_sentinel), "{advice}");

        sentinel.cli(&["SENTINEL", "REMOVE", "mymaster"]);
        eventually(TEST_TIMEOUT, async || {
            let reason = cache.get_stats().await.reason.expect("it is away");
            reason.contains("0 of 1 Sentinels name a primary")
                && reason.contains("no primary of the name `mymaster`")
        })
        .await;
    })
    .await;
}

/// Each process might use another one of them.
#[tokio::test]
async fn nodes_of_two_clusters_are_not_one_cluster() {
    bounded(async {
        let clusters = [RedisCluster::start(1, 0), RedisCluster::start(1, 0)];
        let ports = [0, 1].map(|number| clusters[number].node(0).port());
        let over = |ports: &[u16]| {
            let seeds = ports.iter().map(|port| ("127.0.0.1", *port));
            patient().redis(RedisConfig::cluster(seeds))
        };
        let cache = Cache::new(over(&ports)).await;
        let stats = cache.get_stats().await;
        assert_ne!(stats.circuit, Some(Circuit::Closed));
        let reason = stats.reason.expect("it is not used");
        assert!(reason.contains("different clusters"), "{reason}");
        for port in ports {
            assert!(reason.contains(&port.to_string()), "{reason}");
        }
        // A node that knows only itself and has no slots does not count.
        let lone = RedisServer::options().config("cluster-enabled yes").start();
        let shop = Shop::new(&Cache::new(over(&[lone.port(), ports[0]])).await);
        eventually(TEST_TIMEOUT, async || is_hit(&shop).await).await;
    })
    .await;
}
