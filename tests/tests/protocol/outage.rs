//! Redis is configured and away: loads are coalesced within the process all the same, and the end
//! leaves nothing behind.

use std::sync::Arc;
use std::time::Duration;

use cache_runtime::{BypassReason, Cache, Circuit, RedisConfig, Status, observe};
use cache_tests::{Mode, Proxy, RedisServer, eventually, free_port};

use crate::shop::{DbError, Fault, Gate, Shop};
use crate::{bounded, over, patient};

const TEST_TIMEOUT: Duration = Duration::from_secs(20);

async fn without_redis() -> Cache {
    Cache::new(patient().redis(RedisConfig::at("127.0.0.1", free_port()))).await
}

/// Lets others get to where they wait.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_reader_joins_only_a_load_that_begins_after_its_own_read() {
    bounded(async {
        let shop = Shop::new(&without_redis().await);
        let gate = Gate::new();
        let held = Arc::new(shop.with_read_gate(&gate));
        let read = || {
            let shop = Arc::clone(&held);
            cache_tests::spawn(async move { observe(shop.get(1)).await })
        };
        let first = read();
        gate.arrival().await;
        shop.commit(1, "new");
        let others: Vec<_> = (0..20).map(|_| read()).collect();
        settle().await;
        assert_eq!(shop.loads(), 1);

        gate.open();
        let (old, outcomes) = first.await.expect("answered");
        assert_eq!(old.expect("read").expect("there").name, "user 1");
        assert_eq!(
            outcomes[0].status,
            Status::Bypass(BypassReason::Unavailable)
        );
        gate.arrival().await;
        // This one comes while the second load runs, and is for the third.
        shop.commit(1, "newer");
        let late = read();
        settle().await;
        gate.open();
        for other in others {
            let (new, _) = other.await.expect("answered");
            assert_eq!(new.expect("read").expect("there").name, "new");
        }
        assert_eq!(shop.loads(), 3);
        gate.open();
        let (newer, _) = late.await.expect("answered");
        assert_eq!(newer.expect("read").expect("there").name, "newer");
    })
    .await;
}

#[tokio::test]
async fn one_who_hangs_up_or_fails_holds_nobody_up() {
    bounded(async {
        let shop = Shop::new(&without_redis().await);
        let gate = Gate::new();
        let held = shop.with_read_gate(&gate);
        let first = cache_tests::spawn(async move { held.get(1).await });
        gate.arrival().await;
        let waiter = shop.clone();
        let waiter = cache_tests::spawn(async move { waiter.name(1).await });
        settle().await;
        first.abort();
        assert_eq!(waiter.await.expect("answered"), "user 1");

        let failing = shop
            .with_read_gate(&gate)
            .with_fault(Fault::LostBeforeCommit);
        let failing = cache_tests::spawn(async move { failing.get(1).await });
        gate.arrival().await;
        let waiter = shop.clone();
        let waiter = cache_tests::spawn(async move { waiter.name(1).await });
        settle().await;
        gate.open();
        assert_eq!(
            failing.await.expect("it returns"),
            Err(DbError::ConnectionLost)
        );
        assert_eq!(waiter.await.expect("answered"), "user 1");
    })
    .await;
}

#[tokio::test]
async fn the_circuit_opens_and_closes() {
    bounded(async {
        let mut server = RedisServer::start();
        let cache = Cache::new(over(&server).command_budget(Duration::from_millis(50))).await;
        let circuit = async || cache.get_stats().await.circuit;
        assert_eq!(circuit().await, Some(Circuit::Closed));
        server.pause();
        let shop = Shop::new(&cache);
        // Nobody else is asked to find it out.
        eventually(TEST_TIMEOUT, async || {
            assert_eq!(shop.name(1).await, "user 1");
            circuit().await != Some(Circuit::Closed)
        })
        .await;
        server.resume();
        eventually(TEST_TIMEOUT, async || {
            circuit().await == Some(Circuit::Closed)
        })
        .await;
        eventually(TEST_TIMEOUT, async || {
            let (_, outcomes) = observe(shop.get(1)).await;
            matches!(outcomes[0].status, Status::Hit { .. })
        })
        .await;
    })
    .await;
}

async fn the_end_leaves_nothing() {
    let server = RedisServer::start();
    let clients = || server.cli(&["CLIENT", "LIST"]).lines().count();
    let before = clients();
    let cache = Cache::new(over(&server)).await;
    let shop = Shop::new(&cache);
    let gate = Gate::new();
    let held = shop.with_read_gate(&gate);
    // After enough reads, one more connection only reads.
    eventually(TEST_TIMEOUT, async || {
        for _ in 0..300 {
            assert_eq!(shop.name(1).await, "user 1");
        }
        clients() == before + 2
    })
    .await;
    shop.rename(1, "new").await.expect("written");
    let loading = cache_tests::spawn(async move { held.get(2).await });
    gate.arrival().await;
    assert_eq!(clients(), before + 2);
    assert!(cache.get_stats().await.tasks > 0);

    cache.shutdown().await;
    gate.open();
    assert!(loading.await.expect("answered").is_ok());
    eventually(TEST_TIMEOUT, async || clients() == before).await;
    drop(shop);
    eventually(TEST_TIMEOUT, async || cache.get_stats().await.tasks == 0).await;
}

#[tokio::test]
async fn tasks_and_connections_end_with_the_cache() {
    bounded(the_end_leaves_nothing()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_end_with_it_where_the_application_drives_the_connection() {
    bounded(the_end_leaves_nothing()).await;
}

/// One who looks after a load elsewhere loses Redis, and finds a place behind somebody who loads
/// already: those who waited together with it are to be there, too.
#[tokio::test]
async fn waiters_for_a_load_elsewhere_share_one_when_redis_is_lost() {
    const FOLLOWERS: u64 = 5;

    bounded(async {
        let server = RedisServer::start();
        let proxy = Proxy::start(server.port());
        let config = patient().wait_limit(Duration::from_secs(3600));
        let cache = Cache::new(config.redis(RedisConfig::at("127.0.0.1", proxy.port()))).await;
        let shop = Shop::new(&Cache::new(over(&server)).await);
        let here = shop.node(&cache);
        let read = |shop: &Shop| {
            let shop = shop.clone();
            cache_tests::spawn(async move { shop.name(1).await })
        };

        // Somebody begins while Redis is away, and goes on for long.
        proxy.set(Mode::Cut);
        eventually(TEST_TIMEOUT, async || !cache.is_available().await).await;
        let gate = Gate::new();
        let first = read(&here.with_read_gate(&gate));
        gate.arrival().await;
        proxy.set(Mode::Pass);
        eventually(TEST_TIMEOUT, async || cache.is_available().await).await;

        // The same is loaded elsewhere, and waited for.
        let elsewhere = Gate::new();
        let load = read(&shop.with_read_gate(&elsewhere));
        elsewhere.arrival().await;
        let poller = read(&here);
        eventually(TEST_TIMEOUT, async || server.calls("client|caching") == 1).await;
        let followers: Vec<_> = (0..FOLLOWERS).map(|_| read(&here)).collect();
        // Their looks are answered before those that follow on the same connection.
        for _ in 0..3 {
            here.get(2).await.expect("read");
        }
        let bypasses = async || cache.get_stats().await.counters.bypasses;
        assert_eq!(bypasses().await, 1);
        proxy.set(Mode::Cut);
        eventually(TEST_TIMEOUT, async || bypasses().await == 2 + FOLLOWERS).await;
        settle().await;

        let loads = shop.loads();
        gate.open();
        first.await.expect("answered");
        poller.await.expect("answered");
        for follower in followers {
            assert_eq!(follower.await.expect("answered"), "user 1");
        }
        assert_eq!(shop.loads(), loads + 1, "one for all who waited");
        elsewhere.open();
        load.await.expect("answered");
    })
    .await;
}
