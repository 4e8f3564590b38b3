//! A server that answers reads and takes no invalidations is not served from.

use std::time::{Duration, Instant};

use cache_runtime::store::{RedisStore, Store};
use cache_runtime::{
    Acknowledgement, BypassReason, Cache, Circuit, RedisConfig, Status, invalidates, observe,
};
use cache_tests::{Mode, Proxy, RedisServer, eventually};
use futures_util::future::{Either, join, select};

use crate::shop::{DbError, Gate, Shop};
use crate::{bounded, over, over_as, patient};

const TEST_TIMEOUT: Duration = Duration::from_secs(20);
/// After a demotion.
const GIVEN_UP_WITHIN: Duration = Duration::from_millis(1500);

async fn is_hit(shop: &Shop) -> bool {
    matches!(observe(shop.get(1)).await.1[0].status, Status::Hit { .. })
}

async fn is_bypassed(shop: &Shop) -> bool {
    let status = observe(shop.get(1)).await.1[0].status;
    status == Status::Bypass(BypassReason::Unavailable)
}

async fn circuit(shop: &Shop) -> Option<Circuit> {
    shop.cache.get_stats().await.circuit
}

/// Two processes, one of which only reads; with and without local entries.
async fn nodes(server: &RedisServer) -> (Shop, Shop) {
    // Answers may be late where tests run; how late is not what is tested.
    let config = || over(server).command_budget(Duration::from_secs(1));
    let shop = Shop::new(&Cache::new(config()).await);
    let reader = shop.node(&Cache::new(config().local_mb(16)).await);
    for node in [&shop, &reader] {
        eventually(TEST_TIMEOUT, async || is_hit(node).await).await;
    }
    (shop, reader)
}

/// What has to hold while writes are refused, and after that.
async fn ends_serving(server: &RedisServer, refuse: &[&[&str]], take_again: &[&[&str]]) {
    let (shop, reader) = nodes(server).await;
    let began = Instant::now();
    for command in refuse {
        server.cli(command);
    }
    // Asked by writing, right before the body: nothing has to be noticed first.
    let refused = shop.rename_required(1, "required").await;
    assert!(matches!(refused, Err(DbError::Cache(_))), "{refused:?}");
    assert_eq!(shop.name(1).await, "user 1", "its body has not run");
    // One that only hits finds out by itself.
    eventually(TEST_TIMEOUT, async || is_bypassed(&reader).await).await;
    shop.rename(1, "new").await.expect("the write succeeds");
    for node in [&shop, &reader] {
        assert_eq!(node.name(1).await, "new");
        assert!(!node.cache.is_available().await);
        eventually(TEST_TIMEOUT, async || {
            circuit(node).await == Some(Circuit::ReadsOnly)
        })
        .await;
    }
    assert_eq!(
        shop.cache.invalidate_all("users").await,
        Acknowledgement::Pending
    );
    let stats = shop.cache.get_stats().await;
    assert!(stats.counters.pending > 0);
    let reason = stats.reason.expect("it is not served from");
    assert!(reason.contains("refuses writes"), "{reason}");
    let age = stats.oldest_pending_ms.expect("one waits");
    assert!(Duration::from_millis(age) <= began.elapsed(), "{age}");
    for command in take_again {
        server.cli(command);
    }
    for node in [&shop, &reader] {
        eventually(TEST_TIMEOUT, async || {
            assert_eq!(node.name(1).await, "new");
            is_hit(node).await
        })
        .await;
        assert_eq!(circuit(node).await, Some(Circuit::Closed));
    }
    let stats = shop.cache.get_stats().await;
    assert_eq!(stats.counters.pending, 0);
    assert_eq!((stats.reason, stats.oldest_pending_ms), (None, None));
}

#[tokio::test]
async fn a_server_that_refuses_writes_is_not_served_from() {
    bounded(async {
        let server = RedisServer::start();
        ends_serving(
            &server,
            &[&["CONFIG", "SET", "min-replicas-to-write", "1"]],
            &[&["CONFIG", "SET", "min-replicas-to-write", "0"]],
        )
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_server_whose_disk_is_full_is_not_served_from() {
    bounded(async {
        let server = RedisServer::options()
            .config("dbfilename taken.rdb")
            .start();
        // A snapshot can't be written where a folder of its name is.
        let folder = server.cli(&["CONFIG", "GET", "dir"]);
        let folder = std::path::Path::new(folder.lines().last().expect("a folder"));
        std::fs::create_dir(folder.join("taken.rdb")).expect("created");
        let (shop, _) = nodes(&server).await;
        server.cli(&["CONFIG", "SET", "save", "1 1"]);
        server.cli(&["BGSAVE"]);
        eventually(TEST_TIMEOUT, async || {
            server
                .cli(&["INFO", "persistence"])
                .contains("rdb_last_bgsave_status:err")
        })
        .await;
        eventually(TEST_TIMEOUT, async || is_bypassed(&shop).await).await;
        let refused = shop.rename_required(1, "required").await;
        assert!(matches!(refused, Err(DbError::Cache(_))), "{refused:?}");
        eventually(TEST_TIMEOUT, async || {
            circuit(&shop).await == Some(Circuit::ReadsOnly)
        })
        .await;
        // One that starts then is told, too.
        let late = shop.node(&Cache::new(over(&server)).await);
        assert!(is_bypassed(&late).await);
        let refused = late.rename_required(1, "required").await;
        assert!(matches!(refused, Err(DbError::Cache(_))), "{refused:?}");
        server.cli(&["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"]);
        eventually(TEST_TIMEOUT, async || is_hit(&shop).await).await;
    })
    .await;
}

#[tokio::test]
async fn a_server_whose_writes_are_paused_is_not_served_from() {
    bounded(async {
        let server = RedisServer::start();
        ends_serving(
            &server,
            &[&["CLIENT", "PAUSE", "60000", "WRITE"]],
            &[&["CLIENT", "UNPAUSE"]],
        )
        .await;
    })
    .await;
}

/// A server that answers nothing is not said to answer reads.
#[tokio::test]
async fn a_hung_server_is_unavailable_and_not_reads_only() {
    bounded(async {
        let server = RedisServer::start();
        let proxy = Proxy::start(server.port());
        let redis = RedisConfig::at("127.0.0.1", proxy.port());
        let here = tokio::runtime::Handle::current();
        let store = RedisStore::connect(&redis, &patient(), &here).await;
        assert_eq!(store.circuit(), Circuit::Closed);
        proxy.set(Mode::Hold);
        eventually(TEST_TIMEOUT, async || {
            assert_ne!(store.circuit(), Circuit::ReadsOnly);
            store.circuit() != Circuit::Closed
        })
        .await;
        proxy.set(Mode::Pass);
        eventually(TEST_TIMEOUT, async || store.circuit() == Circuit::Closed).await;
        server.cli(&["CLIENT", "PAUSE", "60000", "WRITE"]);
        eventually(TEST_TIMEOUT, async || store.circuit() == Circuit::ReadsOnly).await;
        server.cli(&["CLIENT", "UNPAUSE"]);
    })
    .await;
}

#[tokio::test]
async fn a_user_without_scripts_is_not_served() {
    let server = RedisServer::start();
    let config = over_as(&server, "~* +@all -evalsha -eval");
    let shop = Shop::new(&Cache::new(config).await);
    assert!(is_bypassed(&shop).await);
    assert_eq!(circuit(&shop).await, Some(Circuit::ReadsOnly));
    server.cli(&["ACL", "SETUSER", "app", "+evalsha", "+eval"]);
    eventually(TEST_TIMEOUT, async || is_hit(&shop).await).await;
}

#[invalidates("orders", id = id, required, cache = cache)]
async fn order_required(id: i64, cache: &Cache) -> Result<(), DbError> {
    let _ = id;
    Ok(())
}

/// Rights to the lists of orders, and neither to the rows nor to everything at once.
const WITHOUT_ORDERS: &str = "~@gen:probe* ~@gen:users* ~@gen:orders~* ~users:* &* +@all";

/// A process whose user may not write the keys of orders, which it knows by now.
async fn without_orders(server: &RedisServer, shop: &Shop, rights: &str) -> Shop {
    let config = over_as(server, rights).command_budget(Duration::from_secs(1));
    let limited = shop.node(&Cache::new(config).await);
    eventually(TEST_TIMEOUT, async || is_hit(&limited).await).await;
    let told = limited.cache.invalidate("orders", &1_i64).await;
    assert_eq!(told, Acknowledgement::Pending);
    let written = order_required(1, &limited.cache).await;
    written.expect_err("it is known before anybody is told");
    limited
}

/// The list of keys lacks those of one resource: its invalidations wait, and hold up no others.
/// Nor may it replace the generation of that resource as a whole.
#[tokio::test]
async fn keys_that_a_user_may_not_write_hold_up_no_others() {
    bounded(async {
        let server = RedisServer::start();
        let (shop, reader) = nodes(&server).await;
        let limited = without_orders(&server, &shop, WITHOUT_ORDERS).await;
        // Other writes are not concerned.
        order_required(2, &limited.cache).await.expect("written");
        limited
            .rename_required(1, "required")
            .await
            .expect("written");
        for round in 0..5 {
            let name = format!("name {round}");
            for node in [&shop, &reader] {
                eventually(TEST_TIMEOUT, async || is_hit(node).await).await;
            }
            shop.commit(1, &name);
            let told = limited.cache.invalidate("users", &1_i64).await;
            assert_eq!(told, Acknowledgement::Delivered);
            assert_eq!(shop.name(1).await, name);
            // It has local entries, and may be behind by the way of a push message.
            eventually(TEST_TIMEOUT, async || reader.name(1).await == name).await;
        }
        let stats = limited.cache.get_stats().await;
        assert!(stats.counters.pending > 0, "the other one is not given up");
        server.cli(&["ACL", "SETUSER", "app", "~*orders*"]);
        eventually(TEST_TIMEOUT, async || {
            limited.cache.get_stats().await.counters.pending == 0
        })
        .await;
    })
    .await;
}

/// The rows may be read and not written, and the generations may be both. So the whole resource
/// ends, and no process serves the row that could not be deleted.
#[tokio::test]
async fn a_row_that_a_user_may_not_write_ends_with_its_resource() {
    bounded(async {
        let server = RedisServer::start();
        let (shop, reader) = nodes(&server).await;
        for rights in [
            "%R~users:* ~@* &* +@all",
            "~users:* %R~@gen:users~* ~@gen:users ~@gen:probe* &* +@all",
        ] {
            let config = over_as(&server, rights).command_budget(Duration::from_secs(1));
            let limited = shop.node(&Cache::new(config).await);
            eventually(TEST_TIMEOUT, async || limited.cache.is_available().await).await;
            for node in [&shop, &reader] {
                eventually(TEST_TIMEOUT, async || is_hit(node).await).await;
            }
            let name = format!("as {rights}");
            shop.commit(1, &name);
            let told = limited.cache.invalidate("users", &1_i64).await;
            assert_eq!(told, Acknowledgement::Delivered, "{rights}");
            assert_eq!(shop.name(1).await, name);
            assert_eq!(limited.name(1).await, name);
            // It has local entries, and may be behind by the way of a push message.
            eventually(TEST_TIMEOUT, async || reader.name(1).await == name).await;
            assert_eq!(limited.cache.get_stats().await.counters.pending, 0);
        }
    })
    .await;
}

/// Also while it is being written, and when the writer's caller has gone.
#[tokio::test]
async fn a_write_is_announced_on_the_resource_of_a_row_that_is_refused() {
    bounded(async {
        for rights in [
            "%R~users:* ~@* &* +@all",
            "~users:* %R~@gen:users~* ~@gen:users ~@gen:probe* &* +@all",
        ] {
            // Without what is left in doubt below.
            let server = RedisServer::start();
            let (shop, _) = nodes(&server).await;
            let config = over_as(&server, rights);
            let limited = shop.node(&Cache::new(config).await);
            let gate = Gate::new();
            let gated = limited.with_write_gate(&gate);
            let name = format!("as {rights}");
            let during = async || {
                gate.arrival().await;
                let row = observe(shop.get(1)).await.1[0].status;
                let list = observe(shop.list(0, 10)).await.1[0].status;
                [row, list]
            };
            let write = gated.rename_crash_safe(1, &name);
            let read = async {
                let statuses = during().await;
                gate.open();
                statuses
            };
            let (written, statuses) = join(write, read).await;
            written.expect("it is announced");
            assert_eq!(
                statuses,
                [Status::Bypass(BypassReason::WriteInProgress); 2],
                "{rights}"
            );
            assert_eq!(shop.name(1).await, name);
            eventually(TEST_TIMEOUT, async || is_hit(&shop).await).await;
            assert_eq!(shop.name(1).await, name);

            // Of a write whose caller has gone, the queue announces it.
            let write = Box::pin(gated.rename(1, "in doubt"));
            match select(write, Box::pin(gate.arrival())).await {
                Either::Left(_) => panic!("it waits at the gate"),
                Either::Right(((), write)) => drop(write),
            }
            eventually(TEST_TIMEOUT, async || {
                limited.cache.get_stats().await.counters.pending == 0
            })
            .await;
            assert_eq!(shop.name(1).await, "in doubt");
        }
    })
    .await;
}

/// The same if there is nothing else that it could take.
#[tokio::test]
async fn a_required_write_is_refused_though_nothing_else_is_sent() {
    bounded(async {
        let server = RedisServer::start();
        let (shop, _) = nodes(&server).await;
        let rights = "~@gen:probe* ~@gen:users* ~users:* &* +@all";
        let limited = without_orders(&server, &shop, rights).await;
        server.cli(&["ACL", "SETUSER", "app", "~*"]);
        eventually(TEST_TIMEOUT, async || {
            order_required(1, &limited.cache).await.is_ok()
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_user_without_a_password_logs_in_as_that_user() {
    let server = RedisServer::start();
    server.cli(&["ACL", "SETUSER", "app", "on", "nopass", "~*", "&*", "+@all"]);
    let named = |user: &str| {
        let mut redis = RedisConfig::at("127.0.0.1", server.port());
        redis.username = Some(user.into());
        over(&server).redis(redis)
    };
    let shop = Shop::new(&Cache::new(named("app")).await);
    eventually(TEST_TIMEOUT, async || is_hit(&shop).await).await;
    let clients = server.cli(&["CLIENT", "LIST"]);
    assert!(clients.contains(" user=app "), "{clients}");

    // Not as the default user, who may do everything.
    let shop = Shop::new(&Cache::new(named("nobody")).await);
    assert!(is_bypassed(&shop).await);
}

/// It would take writes, and nobody would hear of them: only its role tells.
#[tokio::test]
async fn a_demoted_primary_that_takes_writes_is_given_up_by_one_that_only_reads() {
    bounded(async {
        let server = RedisServer::start();
        let primary = RedisServer::start();
        let (shop, reader) = nodes(&server).await;
        server.cli(&["CONFIG", "SET", "replica-read-only", "no"]);
        server.cli(&["CONFIG", "SET", "replica-serve-stale-data", "yes"]);
        // Where the machine is slow, once in time has to do.
        for round in 1.. {
            server.cli(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]);
            let demoted = Instant::now();
            for node in [&shop, &reader] {
                eventually(TEST_TIMEOUT, async || is_bypassed(node).await).await;
            }
            let took = demoted.elapsed();
            server.cli(&["REPLICAOF", "NO", "ONE"]);
            for node in [&shop, &reader] {
                eventually(TEST_TIMEOUT, async || is_hit(node).await).await;
            }
            if took < GIVEN_UP_WITHIN {
                break;
            }
            assert!(round < 5, "given up after {took:?} at best");
        }
    })
    .await;
}

/// Its first replica gives a server another history, and with it another identity. Those that
/// were connected before have to share entries with those that connect after it.
#[tokio::test]
async fn processes_share_entries_after_the_first_replica_has_connected() {
    bounded(async {
        let server = RedisServer::start();
        server.cli(&["CONFIG", "SET", "repl-diskless-sync-delay", "0"]);
        let (shop, reader) = nodes(&server).await;
        let replica = RedisServer::start();
        follow(&replica, &server).await;
        let late = shop.node(&Cache::new(over(&server)).await);
        eventually(TEST_TIMEOUT, async || {
            let mut are_hits = true;
            for node in [&late, &shop, &reader, &late] {
                are_hits &= is_hit(node).await;
            }
            are_hits
        })
        .await;
    })
    .await;
}

/// It gets the data of before from a server that was its replica then, and is the primary again
/// before anybody asks for its role.
#[tokio::test]
async fn a_primary_that_was_a_replica_for_a_moment_is_not_served_from() {
    bounded(async {
        let server = RedisServer::start();
        let other = RedisServer::start();
        for each in [&server, &other] {
            each.cli(&["CONFIG", "SET", "repl-diskless-sync-delay", "0"]);
        }
        follow(&other, &server).await;
        let (shop, reader) = nodes(&server).await;
        // What is read now is in both.
        eventually(TEST_TIMEOUT, async || {
            other.cli(&["EXISTS", "users:1"]).contains('1')
        })
        .await;
        other.cli(&["REPLICAOF", "NO", "ONE"]);
        shop.rename(1, "new").await.expect("written");
        follow(&server, &other).await;
        server.cli(&["REPLICAOF", "NO", "ONE"]);
        // The old entry is there again, and so are the generations of that time.
        for node in [&shop, &reader] {
            eventually(TEST_TIMEOUT, async || {
                is_hit(node).await && node.name(1).await == "new"
            })
            .await;
        }
    })
    .await;
}

async fn follow(replica: &RedisServer, primary: &RedisServer) {
    replica.cli(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]);
    eventually(TEST_TIMEOUT, async || {
        let info = replica.cli(&["INFO", "replication"]);
        info.contains("master_link_status:up")
    })
    .await;
}

/// Nothing but reads is refused, which a write does not show.
#[tokio::test]
async fn a_user_who_may_not_read_any_more_is_told() {
    bounded(async {
        let server = RedisServer::start();
        let config = over_as(&server, "~* &* +@all").command_budget(Duration::from_secs(1));
        let shop = Shop::new(&Cache::new(config).await);
        eventually(TEST_TIMEOUT, async || is_hit(&shop).await).await;
        server.cli(&["ACL", "SETUSER", "app", "-mget"]);
        eventually(TEST_TIMEOUT, async || {
            shop.name(1).await;
            circuit(&shop).await == Some(Circuit::Open)
        })
        .await;
        assert!(!shop.cache.is_available().await);
        eventually(TEST_TIMEOUT, async || {
            let reason = shop.cache.get_stats().await.reason;
            reason.is_some_and(|reason| reason.contains("'mget'"))
        })
        .await;
        server.cli(&["ACL", "SETUSER", "app", "+mget"]);
        eventually(TEST_TIMEOUT, async || is_hit(&shop).await).await;
    })
    .await;
}

async fn bypassed(shop: &Shop, id: i64) -> Option<BypassReason> {
    match observe(shop.get(id)).await.1[0].status {
        Status::Bypass(reason) => Some(reason),
        _ => None,
    }
}

/// It takes invalidations and nothing else, so it is used, and says why it stores nothing.
#[tokio::test]
async fn a_full_server_serves_what_it_has_and_says_that_it_is_full() {
    bounded(async {
        let server = RedisServer::start();
        let (shop, reader) = nodes(&server).await;
        server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
        for node in [&shop, &reader] {
            assert_eq!(bypassed(node, 2).await, Some(BypassReason::Full));
            assert!(is_hit(node).await);
            let stats = node.cache.get_stats().await;
            assert_eq!(stats.circuit, Some(Circuit::Closed));
            let reason = stats.reason.expect("it stores nothing new");
            assert!(reason.contains("full"), "{reason}");
        }
        let written = shop.rename_required(1, "new").await;
        written.expect("invalidations need no memory");
        assert_eq!(shop.name(1).await, "new");
        eventually(TEST_TIMEOUT, async || reader.name(1).await == "new").await;

        server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
        for node in [&shop, &reader] {
            eventually(TEST_TIMEOUT, async || is_hit(node).await).await;
            // Found out without reads that are refused.
            eventually(TEST_TIMEOUT, async || {
                node.cache.get_stats().await.reason.is_none()
            })
            .await;
        }
    })
    .await;
}
