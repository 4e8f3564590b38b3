//! What only happens with a server: it goes away, comes back, forgets, and is used by others.

use std::time::Duration;

use cache_runtime::{Acknowledgement, BypassReason, Cache, Circuit, RedisConfig, Status, observe};
use cache_tests::{Mode, Proxy, RedisServer, eventually};

use crate::shop::{Gate, Shop};
use crate::{bounded, over, patient};

const TEST_TIMEOUT: Duration = Duration::from_secs(20);

async fn status<T>(call: impl Future<Output = T>) -> Status {
    observe(call).await.1[0].status
}

fn is_hit(status: Status) -> bool {
    matches!(status, Status::Hit { .. })
}

#[tokio::test]
async fn a_server_restarted_from_an_older_snapshot_is_cold() {
    let mut server = RedisServer::start();
    let shop = Shop::new(&Cache::new(over(&server)).await);
    assert_eq!(shop.name(1).await, "user 1");
    server.cli(&["SAVE"]);
    shop.rename(1, "new").await.expect("written");
    server.restart();
    assert!(
        server.cli(&["GET", "users:1"]).contains("user 1"),
        "the old entry has come back"
    );
    eventually(TEST_TIMEOUT, async || {
        assert_eq!(shop.name(1).await, "new");
        is_hit(status(shop.get(1)).await)
    })
    .await;
    let cold = Shop::new(&Cache::new(over(&server)).await).node(&shop.cache);
    let reader = shop.node(&cold.cache);
    assert_eq!(reader.name(1).await, "new");
}

#[tokio::test]
async fn while_redis_is_away_this_process_reads_nothing_stale() {
    let mut server = RedisServer::start();
    let cache = Cache::new(over(&server)).await;
    let shop = Shop::new(&cache);
    assert_eq!(shop.name(1).await, "user 1");
    server.cli(&["SAVE"]);
    server.stop();
    assert_eq!(
        shop.rename(1, "new")
            .await
            .expect("the write succeeds")
            .name,
        "new"
    );
    assert_eq!(shop.name(1).await, "new");
    assert_eq!(
        cache.invalidate_all("users").await,
        Acknowledgement::Pending
    );
    assert!(cache.get_stats().await.counters.pending > 0);
    server.restart();
    eventually(TEST_TIMEOUT, async || {
        assert_eq!(shop.name(1).await, "new");
        is_hit(status(shop.get(1)).await)
    })
    .await;
    assert_eq!(cache.get_stats().await.counters.pending, 0);
}

#[tokio::test]
async fn a_pending_invalidation_reaches_a_server_that_kept_its_data() {
    // The identity of the server is left out here, so only the delivery protects the reader.
    let mut server = RedisServer::start();
    let cache = Cache::new(over(&server).trust_restart(true)).await;
    let shop = Shop::new(&cache);
    assert_eq!(shop.name(1).await, "user 1");
    server.pause();
    let impatient = Cache::new(
        over(&server)
            .trust_restart(true)
            .command_budget(Duration::from_millis(20)),
    )
    .await;
    let writer = shop.node(&impatient);
    writer.rename(1, "new").await.expect("the write succeeds");
    server.resume();
    eventually(TEST_TIMEOUT, async || shop.name(1).await == "new").await;
    server.cli(&["SAVE"]);
    server.restart();
    eventually(TEST_TIMEOUT, async || is_hit(status(shop.get(1)).await)).await;
    assert_eq!(shop.name(1).await, "new");
}

#[tokio::test]
async fn generations_that_were_flushed_make_misses() {
    let server = RedisServer::start();
    let shop = Shop::new(&Cache::new(over(&server)).await);
    shop.name(1).await;
    server.shell("--scan --pattern '@gen:*' | xargs redis-cli DEL");
    server.cli(&["DEL", "@gen:users"]);
    assert_eq!(
        status(shop.get(1)).await,
        Status::Miss {
            stored: true,
            joined: false
        }
    );
    server.cli(&["FLUSHALL"]);
    assert_eq!(
        status(shop.get(1)).await,
        Status::Miss {
            stored: true,
            joined: false
        }
    );
    assert!(is_hit(status(shop.get(1)).await));
}

#[tokio::test]
async fn a_value_that_is_no_generation_is_replaced() {
    let server = RedisServer::start();
    let shop = Shop::new(&Cache::new(over(&server)).await);
    let nonce = "0123456789abcdef0123456789abcdef";
    for junk in ["", "hello", &nonce.to_uppercase(), &format!("{nonce}x")] {
        shop.name(1).await;
        server.cli(&["SET", "@gen:users", junk]);
        let miss = Status::Miss {
            stored: true,
            joined: false,
        };
        assert_eq!(status(shop.get(1)).await, miss, "{junk:?}");
        assert!(is_hit(status(shop.get(1)).await), "{junk:?}");
    }
}

#[tokio::test]
async fn foreign_values_are_left_alone() {
    let server = RedisServer::start();
    let cache = Cache::new(over(&server)).await;
    let shop = Shop::new(&cache);
    server.cli(&["SET", "users:1", "theirs"]);
    server.cli(&["HSET", "users:2", "field", "theirs"]);
    server.cli(&["SET", "users:3", ""]);
    for id in 1..=3 {
        assert_eq!(
            status(shop.get(id)).await,
            Status::Bypass(BypassReason::Foreign),
            "users:{id}"
        );
        shop.rename(id, "new").await.expect("written");
        assert!(cache.set(&format!("users:{id}"), &1, 60).await.is_err());
        assert!(!cache.delete(&format!("users:{id}")).await.expect("reached"));
    }
    cache.clear_all().await.expect("reached");
    assert_eq!(server.cli(&["GET", "users:1"]), "theirs");
    assert_eq!(server.cli(&["HGET", "users:2", "field"]), "theirs");
    assert_eq!(server.cli(&["EXISTS", "users:3"]), "1");
}

#[tokio::test]
async fn a_damaged_payload_is_a_miss_and_replaced() {
    let server = RedisServer::start();
    let shop = Shop::new(&Cache::new(over(&server)).await);
    shop.name(1).await;
    let length: usize = server
        .cli(&["STRLEN", "users:1"])
        .parse()
        .expect("a number");
    server.cli(&["SETRANGE", "users:1", &(length - 1).to_string(), "?"]);
    assert_eq!(
        status(shop.get(1)).await,
        Status::Miss {
            stored: true,
            joined: false
        }
    );
    assert!(is_hit(status(shop.get(1)).await));
}

#[tokio::test]
async fn a_process_that_dies_while_it_loads_is_succeeded() {
    use cache_runtime::EntryKind;
    use cache_runtime::store::{
        Dependency, EntryRef, Expected, Fingerprint, LeaseReply, LeaseRequest, Nonce, RedisStore,
        Store,
    };

    let server = RedisServer::start();
    let shop = Shop::new(&Cache::new(over(&server)).await);
    // The lease of a process that will neither fill nor give it back.
    let redis = RedisConfig::at("127.0.0.1", server.port());
    let store = RedisStore::connect(&redis, &patient(), &tokio::runtime::Handle::current()).await;
    let deps = [Dependency::new("@gen:users".into())].into();
    let entry_ref = EntryRef {
        key: "users:1".into(),
        kind: EntryKind::Entity,
        deps,
    };
    let request = LeaseRequest {
        expected: Expected::Nothing,
        token: Nonce::fresh(),
        stamp: store.lookup(&entry_ref).await.expect("reached").stamp,
        fingerprint: Fingerprint::of::<crate::shop::User>(0),
        length: Duration::from_millis(200),
    };
    assert_eq!(
        store.lease(&entry_ref, &request).await.expect("reached"),
        LeaseReply::Granted
    );
    assert_eq!(
        status(shop.get(1)).await,
        Status::Miss {
            stored: true,
            joined: false
        }
    );
}

#[tokio::test]
async fn dead_entries_leave_soon() {
    let server = RedisServer::start();
    let shop = Shop::new(&Cache::new(over(&server)).await);
    let listed = || {
        let mut keys: Vec<_> = server
            .cli(&["KEYS", "users:*"])
            .lines()
            .map(str::to_owned)
            .collect();
        keys.sort();
        keys
    };
    shop.name(1).await;
    shop.name(2).await;
    shop.list(0, 1).await.expect("read");
    assert_eq!(listed().len(), 3);
    shop.rename(1, "new").await.expect("written");
    eventually(TEST_TIMEOUT, async || listed() == ["users:2"]).await;
    shop.rename_in_bulk(1, "newer").await.expect("written");
    eventually(TEST_TIMEOUT, async || listed().is_empty()).await;
}

#[tokio::test]
async fn a_full_server_that_may_not_evict_is_invalidated_all_the_same() {
    let server = RedisServer::start();
    let cache = Cache::new(over(&server)).await;
    let shop = Shop::new(&cache);
    assert_eq!(shop.name(1).await, "user 1");
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    assert!(server.cli(&["SET", "other", "1"]).contains("OOM"));
    shop.commit(1, "past the cache");
    assert_eq!(
        cache.invalidate_all("users").await,
        Acknowledgement::Delivered
    );
    assert_eq!(shop.name(1).await, "past the cache");
}

#[tokio::test]
async fn entries_of_a_newer_program_are_invalidated_by_an_older_one() {
    let server = RedisServer::start();
    let shop = Shop::new(&Cache::new(over(&server)).await);
    server.cli(&["SET", "users:1", "CRT2 whatever comes then"]);
    assert_eq!(
        status(shop.get(1)).await,
        Status::Bypass(BypassReason::Foreign)
    );
    shop.rename(1, "new").await.expect("written");
    assert_eq!(server.cli(&["EXISTS", "users:1"]), "0");
}

#[tokio::test]
async fn namespaces_do_not_meet() {
    let server = RedisServer::start();
    let (a, b) = (
        Cache::new(over(&server).namespace("a")).await,
        Cache::new(over(&server).namespace("b")).await,
    );
    let (shop_a, shop_b) = (Shop::new(&a), Shop::new(&b));
    shop_a.commit(1, "a's");
    assert_eq!(
        (shop_a.name(1).await, shop_b.name(1).await),
        ("a's".into(), "user 1".into())
    );
    assert_eq!(a.clear_all().await.expect("reached"), 1);
    assert!(is_hit(status(shop_b.get(1)).await));
    assert!(
        server
            .cli(&["GET", "b:users:1"])
            .ends_with(r#"{"id":1,"name":"user 1"}"#)
    );
}

#[tokio::test]
async fn a_hung_server_costs_the_budget_and_then_nothing() {
    let mut server = RedisServer::start();
    let cache = Cache::new(over(&server).command_budget(Duration::from_millis(50))).await;
    let shop = Shop::new(&cache);
    shop.name(1).await;
    server.pause();
    shop.commit(1, "past the cache");
    // Each of the first calls waits for its budget; then the connection is given up.
    let mut unavailable = 0;
    while cache.is_available().await || unavailable < 10 {
        assert_eq!(shop.name(1).await, "past the cache");
        unavailable += 1;
        assert!(unavailable < 1000, "it never gave up");
    }
    server.resume();
    eventually(TEST_TIMEOUT, async || cache.is_available().await).await;
}

#[tokio::test]
async fn the_cache_outlives_the_runtime_that_made_it() {
    let server = RedisServer::start();
    let config = over(&server);
    let (shop, cache) = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("built");
        let made = runtime.block_on(async {
            let cache = Cache::new(config).await;
            let shop = Shop::new(&cache);
            shop.name(1).await;
            (shop, cache)
        });
        runtime.shutdown_timeout(Duration::from_secs(1));
        made
    })
    .await
    .expect("made");
    eventually(TEST_TIMEOUT, async || is_hit(status(shop.get(1)).await)).await;
    shop.rename(1, "new").await.expect("written");
    assert_eq!(shop.name(1).await, "new");
    cache.shutdown().await;
    assert_eq!(
        status(shop.get(1)).await,
        Status::Bypass(BypassReason::Disabled)
    );
    assert_eq!(cache.get::<crate::shop::User>("users:1").await, None);
    // Nobody delivers any more, and nobody waits for it.
    shop.rename(1, "newer").await.expect("written");
    assert_eq!(shop.name(1).await, "newer");
}

/// A failover that is planned (`FAILOVER`, `REPLICAOF`) closes no connection.
#[tokio::test]
async fn a_primary_that_is_demoted_is_given_up() {
    for trust_restart in [false, true] {
        let server = RedisServer::start();
        let cache = Cache::new(over(&server).trust_restart(trust_restart)).await;
        let shop = Shop::new(&cache);
        assert_eq!(shop.name(1).await, "user 1");
        // Of a primary that is not there, so it keeps its data and answers reads.
        server.cli(&["REPLICAOF", "127.0.0.1", "1"]);
        shop.rename(1, "new").await.expect("the write succeeds");
        // At the first refusal, and not when it is asked the next time how it is.
        assert_ne!(cache.get_stats().await.circuit, Some(Circuit::Closed));
        assert_eq!(shop.name(1).await, "new");
        eventually(TEST_TIMEOUT, async || !cache.is_available().await).await;
        server.cli(&["REPLICAOF", "NO", "ONE"]);
        eventually(TEST_TIMEOUT, async || {
            assert_eq!(shop.name(1).await, "new");
            is_hit(status(shop.get(1)).await)
        })
        .await;
        assert_eq!(cache.get_stats().await.counters.pending, 0);
    }
}

/// What it takes from nobody, it has not refused. So it is tried again at once over the next
/// connection, as after an outage, and not ever less often.
#[tokio::test]
async fn a_server_that_serves_nobody_at_the_moment_is_away() {
    use cache_runtime::ErrorKind;
    use cache_runtime::store::{Dependency, Invalidation, RedisStore, Store};

    for word in ["LOADING", "READONLY"] {
        let server = RedisServer::options()
            .config("enable-debug-command yes")
            .config("loading-process-events-interval-bytes 1024")
            .start();
        let redis = RedisConfig::at("127.0.0.1", server.port());
        let here = tokio::runtime::Handle::current();
        let store = RedisStore::connect(&redis, &patient(), &here).await;
        if word == "LOADING" {
            let fill =
                "for n = 1, 3000 do redis.call('SET', 'other:' .. n, string.rep('x', 100)) end";
            server.cli(&["EVAL", fill, "0"]);
            server.cli(&["CONFIG", "SET", "key-load-delay", "1000"]);
            server.shell("redis-cli DEBUG RELOAD >/dev/null 2>&1 &");
        } else {
            server.cli(&["REPLICAOF", "127.0.0.1", "1"]);
        }
        eventually(TEST_TIMEOUT, async || {
            server.cli(&["SET", "another", "1"]).contains(word)
        })
        .await;
        // Something that is written whatever is there.
        let users = Invalidation {
            rotates: vec![Dependency::new("@gen:users".into())],
            ..Invalidation::default()
        };
        let undone = store.invalidate_partly(&users).await.undone;
        let (_, error) = undone.expect("it takes no writes");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{word}: {error}");
    }
}

/// What the server refuses for good, while it serves everything else, is the longest that anything
/// is pending.
#[tokio::test]
async fn rows_whose_invalidation_is_refused_bypass_the_cache() {
    let server = RedisServer::start();
    let cache = Cache::new(over(&server)).await;
    let shop = Shop::new(&cache);
    eventually(TEST_TIMEOUT, async || is_hit(status(shop.get(1)).await)).await;
    let only_read = [
        "resetkeys",
        "%R~@gen:users*",
        "%RW~users:*",
        "%RW~@gen:probe*",
    ];
    server.cli(&[&["ACL", "SETUSER", "default"], &only_read[..]].concat());
    shop.rename(1, "new").await.expect("the write succeeds");
    for _ in 0..10 {
        let (name, outcomes) = observe(shop.get(1)).await;
        assert_eq!(name.expect("read").expect("there").name, "new");
        let pending = Status::Bypass(BypassReason::Pending);
        assert_eq!(outcomes[0].status, pending);
    }
    server.cli(&["ACL", "SETUSER", "default", "~*"]);
    eventually(TEST_TIMEOUT, async || is_hit(status(shop.get(1)).await)).await;
    assert_eq!(shop.name(1).await, "new");
}

#[tokio::test]
async fn a_replica_is_refused() {
    let server = RedisServer::start();
    server.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    for trust_restart in [false, true] {
        let cache = Cache::new(over(&server).trust_restart(trust_restart)).await;
        assert!(!cache.is_available().await);
    }
}

/// An application that blocks its only worker on the cache.
#[tokio::test]
async fn a_runtime_that_polls_nothing_holds_nobody_up() {
    let server = RedisServer::start();
    let config = over(&server);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("built");
    let (made, cache) = tokio::sync::oneshot::channel();
    runtime.spawn(async move {
        let cache = block_on(Cache::new(config));
        made.send(cache).expect("somebody waits");
    });
    let made = tokio::time::timeout(TEST_TIMEOUT, cache).await;
    // Also if its worker is blocked for good.
    runtime.shutdown_background();
    let cache = made.expect("in time").expect("made");
    eventually(TEST_TIMEOUT, async || cache.is_available().await).await;
}

/// Blocks the thread until the future is done, as executors other than tokio do.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        std::thread::park();
    }
}

#[tokio::test]
async fn a_generation_that_is_none_is_replaced() {
    let server = RedisServer::start();
    let shop = Shop::new(&Cache::new(over(&server)).await);
    let nonce = "0123456789abcdef".repeat(2);
    for rest in [
        "",
        "x",
        " x",
        " ab@",
        " ab@1 x",
        " ab@123456789012345678901",
        "\n",
    ] {
        // Without the nonce as well.
        for value in [format!("{nonce}{rest}"), format!("x{rest}")] {
            server.cli(&["SET", "@gen:users", &value]);
            shop.name(1).await;
            assert!(is_hit(status(shop.get(1)).await), "{value:?}");
        }
    }
}

/// Makes a call by hand after a commit, hangs up while its first command is on its way, and loses
/// that command with its connection: the commit is read all the same.
async fn hangs_up<T: Send + 'static, F>(call: impl FnOnce(Cache) -> F)
where
    F: Future<Output = T> + Send + 'static,
{
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port());
    let config = patient().redis(RedisConfig::at("127.0.0.1", proxy.port()));
    let cache = Cache::new(config).await;
    let shop = Shop::new(&Cache::new(over(&server)).await);
    assert_eq!(shop.name(1).await, "user 1");
    shop.commit(1, "new");

    proxy.set(Mode::Hold);
    let call = cache_tests::spawn(call(cache));
    eventually(TEST_TIMEOUT, async || proxy.held() > 0).await;
    call.abort();
    assert!(call.await.is_err_and(|error| error.is_cancelled()));
    proxy.cut_then(Mode::Pass);
    eventually(TEST_TIMEOUT, async || shop.name(1).await == "new").await;
}

#[tokio::test]
async fn a_removal_by_hand_whose_caller_hangs_up_takes_place() {
    hangs_up(|cache| async move { cache.delete("users:1").await }).await;
}

/// In its walk over the keys.
#[tokio::test]
async fn everything_is_invalidated_although_its_caller_hangs_up() {
    hangs_up(|cache| async move { cache.clear_all().await }).await;
}

#[tokio::test]
async fn one_key_that_may_not_be_listened_to_is_no_reason_to_listen_to_none() {
    bounded(async {
        let server = RedisServer::start();
        let config = over(&server).wait_limit(TEST_TIMEOUT * 2);
        let shop = Shop::new(&Cache::new(config.clone()).await);
        let here = shop.node(&Cache::new(config).await);
        let gate = Gate::new();
        let held = shop.with_read_gate(&gate);
        let load = cache_tests::spawn(async move { held.name(1).await });
        gate.arrival().await;
        server.cli(&["ACL", "SETUSER", "default", "-exists"]);
        let reader = cache_tests::spawn(async move { here.name(1).await });
        let is_refused = || {
            let stats = server.cli(&["INFO", "commandstats"]);
            let mut lines = stats.lines();
            lines.any(|line| {
                line.starts_with("cmdstat_exists:") && !line.contains("rejected_calls=0")
            })
        };
        eventually(TEST_TIMEOUT, async || is_refused()).await;
        let asked = server.calls("client|caching");
        eventually(TEST_TIMEOUT, async || {
            server.calls("client|caching") > asked
        })
        .await;
        server.cli(&["ACL", "SETUSER", "default", "+exists"]);
        gate.open();
        assert_eq!(reader.await.expect("answered"), "user 1");
        load.await.expect("answered");
    })
    .await;
}

#[tokio::test]
async fn a_server_with_too_many_clients_says_so() {
    bounded(async {
        let server = RedisServer::options().config("maxclients 4").start();
        let shop = Shop::new(&Cache::new(over(&server)).await);
        let clients = (0..4).map(|_| std::net::TcpStream::connect(("127.0.0.1", server.port())));
        let clients: Vec<_> = clients.collect();
        let late = Cache::new(over(&server)).await;
        let reason = late.get_stats().await.reason.expect("it is turned away");
        assert!(reason.contains("max number of clients"), "{reason}");
        assert_eq!(shop.name(1).await, "user 1");
        assert!(is_hit(status(shop.get(1)).await), "the others go on");
        drop(clients);
        eventually(TEST_TIMEOUT, async || late.is_available().await).await;
    })
    .await;
}
