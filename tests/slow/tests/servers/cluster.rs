//! A cluster: the promises hold over several nodes, while slots move and nodes fail.

use std::time::{Duration, Instant};

use cache_runtime::store::{RedisStore, Store};
use cache_runtime::testing::check_store;
use cache_runtime::{
    Acknowledgement, Cache, CacheConfig, RedisConfig, Status, cached, invalidates, observe,
};
use cache_tests::{RedisCluster, RedisOptions, RedisServer, eventually, test_timeout};
use tokio::runtime::Handle;

use crate::shop::{Shop, is_hit, is_used, nothing_stale_while};

pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) fn settings(cluster: &RedisCluster) -> CacheConfig {
    let seeds = (0..cluster.len()).map(|node| ("127.0.0.1", cluster.node(node).port()));
    CacheConfig::default()
        .redis(RedisConfig::cluster(seeds))
        .command_budget(Duration::from_secs(5))
        .advice(false)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_keeps_the_contract_and_the_promises() {
    let cluster = RedisCluster::start(3, 0);
    let config = settings(&cluster);
    let RedisConfig { cluster: seeds, .. } =
        RedisConfig::cluster([("127.0.0.1", cluster.node(0).port())]);
    assert_eq!(seeds.len(), 1);
    let redis = RedisConfig::cluster(seeds);
    let store = RedisStore::connect(&redis, &config, &Handle::current()).await;
    check_store(&store).await;
    let word = store.watch_key("users:1").await.expect("the node answers");
    assert!(word.is_some(), "the node tells of changes");
    for node in 0..cluster.len() {
        cluster.node(node).cli(&["SCRIPT", "FLUSH"]);
    }
    check_store(&store).await;

    let shop = Shop::over(config.clone()).await;
    is_used(&shop).await;
    // A node is found to be of a cluster, and the others by it.
    let found = RedisConfig::at("127.0.0.1", cluster.node(2).port());
    is_used(&Shop::over(config.clone().redis(found)).await).await;
    // All keys in one slot.
    let pinned = Shop::over(config.namespace("{shop}")).await;
    is_used(&pinned).await;
    for id in 0..30 {
        pinned.user(id).await;
    }
    let owner = cluster.owner(cluster.slot("{shop}"));
    for node in 0..cluster.len() {
        let keys = cluster.node(node).cli(&["--scan", "--pattern", "{shop}:*"]);
        assert_eq!(keys.is_empty(), node != owner, "{keys}");
    }

    let stats = shop.cache.get_stats().await;
    assert!(stats.connected && stats.nodes.len() == 3, "{stats:?}");
    let sum: u64 = stats.nodes.iter().filter_map(|node| node.total_keys).sum();
    assert_eq!(stats.total_keys, Some(sum));
    assert!(shop.cache.is_available().await);
    let report = shop.cache.doctor().await.to_string();
    assert!(!report.contains("can't be used"), "{report}");
}

#[tokio::test]
async fn a_server_that_is_no_cluster_is_said_to_be_none() {
    let server = RedisServer::start();
    let redis = RedisConfig::cluster([("127.0.0.1", server.port())]);
    let shop = Shop::over(CacheConfig::default().redis(redis)).await;
    shop.user(1).await;
    assert!(!is_hit(&shop, 1).await);
    let reason = shop.cache.get_stats().await.reason.expect("it is not used");
    assert!(reason.contains("not in cluster mode"), "{reason}");
}

#[cached(resource = "rows", ttl = 300, cache = cache, skip(cache))]
async fn row(id: i64, cache: &Cache) -> String {
    format!("row {id}")
}

/// The connections of others than `redis-cli`.
pub(crate) fn clients(server: &RedisServer) -> Vec<String> {
    let list = server.cli(&["CLIENT", "LIST"]);
    let others = list
        .lines()
        .filter(|line| !line.contains("cmd=client|list"));
    others
        .filter_map(|line| Some(line.split(' ').next()?.to_owned()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renamed_entries_cost_no_connection() {
    const ROWS: i64 = 300;
    let cluster = RedisCluster::start(3, 0);
    for local_mb in [0, 16] {
        // All keys in one slot, since entries can be copied only within it.
        let namespace = format!("{{rows{local_mb}}}");
        let config = settings(&cluster).namespace(&namespace).local_mb(local_mb);
        let cache = Cache::new(config).await;
        let node = cluster.node(cluster.owner(cluster.slot(&namespace)));
        for id in 1..=ROWS {
            row(id, &cache).await;
        }
        let copy = "for id = 1, tonumber(ARGV[2]) do redis.call('COPY', ARGV[1] .. id, ARGV[1] .. id + ARGV[2]) end";
        let prefix = format!("{namespace}:rows:");
        node.cli(&["EVAL", copy, "1", &prefix, &prefix, &ROWS.to_string()]);
        let copied = node.cli(&["GET", &format!("{prefix}301")]);
        assert!(copied.contains("\"row 1\""), "{copied}");

        let before = clients(node);
        let ids: Vec<i64> = (ROWS + 1..=2 * ROWS).collect();
        let (in_turn, at_once) = ids.split_at(50);
        for id in in_turn {
            assert_eq!(row(*id, &cache).await, format!("row {id}"));
        }
        let reads: Vec<_> = at_once
            .iter()
            .map(|id| {
                let (id, cache) = (*id, cache.clone());
                tokio::spawn(async move { (id, observe(row(id, &cache)).await) })
            })
            .collect();
        for read in reads {
            let (id, (text, outcomes)) = read.await.expect("answered");
            assert_eq!(text, format!("row {id}"));
            let status = outcomes[0].status;
            assert!(!matches!(status, Status::Bypass(_)), "{id}: {status:?}");
        }
        let after = clients(node);
        assert!(
            before.iter().all(|it| after.contains(it)),
            "{before:?} {after:?}"
        );
        assert!(node.calls("echo") > 0);
    }
}

#[tokio::test]
async fn a_password_and_a_user_with_few_permissions_are_enough() {
    let options = RedisOptions::default()
        .password("admin-word")
        .config("masterauth admin-word")
        .config(
            "user app on >app-word ~shop:* resetchannels -@all +hello +info +time +ping +mget +get +getrange \
             +exists +pttl +set +setrange +pexpire +del +unlink +scan +dbsize +evalsha +script|load +asking \
             +client|tracking +client|caching +cluster|nodes",
        );
    let cluster = RedisCluster::start_with(3, 0, options);
    let config = settings(&cluster).namespace("shop");
    let seeds = [("127.0.0.1", cluster.node(1).port())];
    let login = RedisConfig::cluster(seeds).login(Some("app"), "app-word");
    is_used(&Shop::over(config.redis(login)).await).await;
}

#[invalidates("orders", id = id, cache = cache)]
#[invalidates("users", id = id, cache = cache)]
async fn both_written(id: i64, cache: &Cache) {
    let _ = id;
}

/// All keys are in one slot, and are removed with one command.
#[tokio::test]
async fn keys_that_a_user_may_not_write_hold_up_no_others_of_their_slot() {
    let generations = "~{shop}:@gen:*probe* ~{shop}:@gen:*users*";
    let rights = format!("user app on >app-word {generations} ~{{shop}}:users:* &* +@all");
    let cluster = RedisCluster::start_with(3, 0, RedisOptions::default().config(&rights));
    let config = settings(&cluster).namespace("{shop}");
    let shop = Shop::over(config.clone()).await;
    let seeds = [("127.0.0.1", cluster.node(1).port())];
    let login = RedisConfig::cluster(seeds).login(Some("app"), "app-word");
    let limited = Cache::new(config.redis(login)).await;
    eventually(TEST_TIMEOUT, async || limited.is_available().await).await;
    let is_hit = async || matches!(observe(shop.user(1)).await.1[0].status, Status::Hit { .. });
    eventually(TEST_TIMEOUT, is_hit).await;
    both_written(1, &limited).await;
    eventually(TEST_TIMEOUT, async || !is_hit().await).await;
    let pending = limited.get_stats().await.counters.pending;
    assert!(pending > 0, "the other one is not given up");
}

/// The rows may be read and not written, and the generations may be both, on whatever node they
/// are.
#[tokio::test]
async fn rows_that_a_user_may_not_write_end_with_their_resource() {
    let rights = "user app on >app-word ~@* %R~users:* &* +@all";
    let cluster = RedisCluster::start_with(3, 0, RedisOptions::default().config(rights));
    let shop = Shop::over(settings(&cluster)).await;
    let seeds = [("127.0.0.1", cluster.node(1).port())];
    let login = RedisConfig::cluster(seeds).login(Some("app"), "app-word");
    let limited = Cache::new(settings(&cluster).redis(login)).await;
    eventually(TEST_TIMEOUT, async || limited.is_available().await).await;
    let is_hit = async |id| matches!(observe(shop.user(id)).await.1[0].status, Status::Hit { .. });
    for id in 1..=4 {
        eventually(TEST_TIMEOUT, async || is_hit(id).await).await;
        let told = limited.invalidate("users", &id).await;
        assert_eq!(told, Acknowledgement::Delivered);
        assert!(!is_hit(id).await, "{id}");
    }
    assert_eq!(limited.get_stats().await.counters.pending, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stale_while_slots_move_and_return() {
    let cluster = RedisCluster::start(3, 0);
    let config = settings(&cluster);
    let (hits, reads, cluster) = nothing_stale_while(
        move || config.clone(),
        move || {
            for round in 0..4 {
                for key in ["users:0", "users:1", "users:2", "@gen:{users}"] {
                    let slot = cluster.slot(key);
                    cluster.move_slot(slot, (cluster.owner(slot) + 1 + round % 2) % 3);
                }
            }
            cluster
        },
    )
    .await;
    assert!(hits > 0, "{hits} of {reads}");
    is_used(&Shop::over(settings(&cluster)).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stale_while_primaries_fail_over_by_hand() {
    let cluster = RedisCluster::start(3, 1);
    let config = settings(&cluster);
    let (hits, reads, _cluster) = nothing_stale_while(
        move || config.clone(),
        move || {
            for key in ["users:1", "@gen:{users}", "users:1", "@gen:{users}"] {
                let owner = cluster.owner(cluster.slot(key));
                let replica = (owner + 3) % 6;
                cluster.wait_for_replica(replica);
                cluster.fail_over(replica, &[]);
            }
            cluster
        },
    )
    .await;
    assert!(hits > 0, "{hits} of {reads}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_on_its_way_bypasses_and_its_invalidations_follow() {
    let cluster = RedisCluster::start(2, 0);
    let shop = Shop::over(settings(&cluster)).await;
    shop.user(1).await;
    assert!(is_hit(&shop, 1).await);
    let slot = cluster.slot("users:1");
    let (from, to) = (cluster.owner(slot), 1 - cluster.owner(slot));
    cluster.begin_to_move(slot, to);
    // The key is at its old node, and served from there.
    assert!(is_hit(&shop, 1).await);
    cluster.move_keys(slot, from, to);
    // It is at the new one, which does not own the slot yet.
    assert!(!is_hit(&shop, 1).await);
    assert!(!is_hit(&shop, 1).await);
    assert_eq!(
        cluster
            .node(to)
            .shell("(echo ASKING; echo EXISTS users:1) | redis-cli")
            .lines()
            .last(),
        Some("1")
    );
    let acknowledged = shop.cache.invalidate("users", &1_i64).await;
    assert_eq!(acknowledged, Acknowledgement::Delivered);
    assert_eq!(
        cluster
            .node(to)
            .shell("(echo ASKING; echo EXISTS users:1) | redis-cli")
            .lines()
            .last(),
        Some("0")
    );
    cluster.end_move(slot, from, to);
    eventually(TEST_TIMEOUT, async || is_hit(&shop, 1).await).await;
}

/// One of the cases that are listed as weaker. If this fails since nothing stale comes back, it has
/// to leave the list.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_are_brought_back_by_hand_are_as_old_as_they_were() {
    let cluster = RedisCluster::start(3, 0);
    let shop = Shop::over(settings(&cluster)).await;
    let slot = cluster.slot("users:1");
    let from = cluster.owner(slot);
    let to = (from + 1) % 3;
    eventually(TEST_TIMEOUT, async || is_hit(&shop, 1).await).await;
    let old = shop.user(1).await;
    cluster.begin_to_move(slot, to);
    cluster.move_keys(slot, from, to);
    // The move is broken off, and the key stays where it is.
    let stable = ["CLUSTER", "SETSLOT", &slot.to_string(), "STABLE"];
    assert_eq!(cluster.node(from).cli(&stable), "OK");
    let new = shop.commit();
    let acknowledged = shop.cache.invalidate("users", &1_i64).await;
    assert_eq!(acknowledged, Acknowledgement::Delivered);
    // As `redis-cli --cluster fix` does.
    cluster.move_keys(slot, to, from);
    assert_eq!(shop.user(1).await, old);
    shop.cache.clear_all().await.expect("the cluster answers");
    assert_eq!(shop.user(1).await, new);
}

/// The generations of a write by id are some that exist and one that does not: they lie on two
/// nodes then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_delivered_while_the_slot_of_its_generations_is_on_its_way() {
    let cluster = RedisCluster::start(2, 0);
    let shop = Shop::over(settings(&cluster).command_budget(Duration::from_secs(1))).await;
    let other = shop.node(settings(&cluster)).await;
    let is_listed = async || {
        let outcomes = observe(other.list(1)).await.1;
        matches!(outcomes[0].status, Status::Hit { .. })
    };
    eventually(TEST_TIMEOUT, is_listed).await;
    let slot = cluster.slot("@gen:{users}");
    let (from, to) = (cluster.owner(slot), 1 - cluster.owner(slot));
    cluster.begin_to_move(slot, to);
    assert!(is_listed().await);
    let acknowledged = shop.cache.invalidate("users", &77_i64).await;
    assert_eq!(acknowledged, Acknowledgement::Delivered);
    assert!(!is_listed().await, "a list of before the write");
    shop.rename_announced(78).await;
    assert_eq!(shop.cache.get_stats().await.counters.pending, 0);
    cluster.move_keys(slot, from, to);
    cluster.end_move(slot, from, to);
    eventually(TEST_TIMEOUT, is_listed).await;
    // Nobody depends on these rows, so they have no generations.
    shop.rename(79).await;
    for node in 0..2 {
        let rows = ["--scan", "--pattern", "@gen:{users}~row*7[79]"];
        assert_eq!(cluster.node(node).cli(&rows), "");
    }
}

/// A cluster grows by a node without slots, to which slots are moved.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalidations_follow_a_slot_to_a_node_that_had_none() {
    let mut cluster = RedisCluster::start(2, 0);
    let shop = Shop::over(settings(&cluster)).await;
    shop.user(1).await;
    assert!(is_hit(&shop, 1).await);
    let to = cluster.join();
    let slot = cluster.slot("users:1");
    let from = cluster.owner(slot);
    cluster.begin_to_move(slot, to);
    cluster.move_keys(slot, from, to);
    let acknowledged = shop.cache.invalidate("users", &1_i64).await;
    assert_eq!(acknowledged, Acknowledgement::Delivered);
    assert_eq!(
        cluster
            .node(to)
            .shell("(echo ASKING; echo EXISTS users:1) | redis-cli")
            .lines()
            .last(),
        Some("0")
    );
    cluster.end_move(slot, from, to);
    eventually(TEST_TIMEOUT, async || is_hit(&shop, 1).await).await;
}

/// The entry's node fails over to a replica that has not heard of the invalidation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lossy_failover_of_the_entrys_node_is_cold() {
    lossy_failover(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lossy_failover_of_the_generations_node_is_cold() {
    lossy_failover(false).await;
}

/// A slot leaves its node, what is invalidated meanwhile is lost in a failover, and the slot
/// returns with the entry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_returns_after_a_lossy_failover_is_cold() {
    let mut cluster = RedisCluster::start(3, 1);
    let generations = cluster.owner(cluster.slot("@gen:{users}"));
    let (home, away) = ((generations + 1) % 3, (generations + 2) % 3);
    let id = (0..100).find(|id| cluster.is_owner(home, &format!("users:{id}")));
    let id = id.expect("a row of that node");
    let slot = cluster.slot(&format!("users:{id}"));
    let shop = Shop::over(settings(&cluster)).await;
    // It is gone by the time of the failover, and does nothing again.
    let writer = shop.node(settings(&cluster)).await;
    let before = shop.user(id).await;
    assert!(is_hit(&shop, id).await);
    cluster.move_slot(slot, away);
    let replica = 3 + away;
    cut_off(&mut cluster, away, replica).await;
    let row = writer.rename(id).await;
    assert!(row > before);
    writer.cache.shutdown().await;
    cluster.node_mut(away).stop();
    cluster.node_mut(replica).resume();
    cluster.wait_for_primary(replica);
    cluster.move_slot(slot, home);
    let entry = cluster.node(home).cli(&["EXISTS", &format!("users:{id}")]);
    assert_eq!(entry, "1", "it has come back");
    becomes_a_hit(&shop, id, row).await;
}

/// A node loses its only slot, which returns with an entry of before. The node is told of it last,
/// when all others name it already.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_from_before_a_node_lost_all_slots_are_cold_when_one_returns() {
    let options = RedisOptions::default().config("cluster-allow-replica-migration no");
    let mut cluster = RedisCluster::start_with(2, 0, options);
    let last = cluster.join();
    let slot = cluster.slot("users:1");
    let home = cluster.owner(slot);
    let shop = Shop::over(settings(&cluster)).await;
    for _ in 0..3 {
        cluster.move_slot(slot, last);
        eventually(TEST_TIMEOUT, async || is_hit(&shop, 1).await).await;
        let kept = std::env::temp_dir().join(format!("entry-{}", cluster.node(last).port()));
        let kept = kept.display();
        let keep = format!("redis-cli --raw DUMP users:1 | head -c -1 > {kept}");
        cluster.node(last).shell(&keep);
        cluster.move_slot(slot, home);
        eventually(TEST_TIMEOUT, async || is_hit(&shop, 1).await).await;
        // It is gone by the time at which the slot returns, and does nothing again.
        let writer = shop.node(settings(&cluster)).await;
        let row = writer.rename(1).await;
        writer.cache.shutdown().await;
        cluster.begin_to_move(slot, last);
        // What health checks have written in it.
        cluster.move_keys(slot, home, last);
        let restore = format!("redis-cli -x RESTORE-ASKING users:1 0 < {kept}; rm {kept}");
        assert_eq!(cluster.node(last).shell(&restore), "OK");
        let (text, id) = (slot.to_string(), cluster.id(last));
        let told = ["CLUSTER", "SETSLOT", &text, "NODE", &id];
        for others in 0..2 {
            assert_eq!(cluster.node(others).cli(&told), "OK");
        }
        // It is asked for while its owner has not taken it.
        assert_eq!(shop.user(1).await, row);
        let read = becomes_a_hit(&shop, 1, row);
        let taken = async {
            let node = cluster.node(last);
            tokio::task::block_in_place(|| assert_eq!(node.cli(&told), "OK"));
        };
        tokio::join!(taken, read);
    }
}

/// It is found by another node, and has had its slots for long. Nothing of a write reaches it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_starts_is_not_served_by_a_primary_that_refuses_writes() {
    let cluster = RedisCluster::start(3, 0);
    let config = settings(&cluster).command_budget(Duration::from_millis(500));
    let shop = Shop::over(config.clone()).await;
    let refusing = cluster.owner(cluster.slot("@gen:{users}"));
    let on_it = (0..100).find(|id| cluster.is_owner(refusing, &format!("users:{id}")));
    let id = on_it.expect("an id of each node");
    shop.user(id).await;
    assert!(is_hit(&shop, id).await);
    let replicas = |count: &str| {
        let set = ["CONFIG", "SET", "min-replicas-to-write", count];
        assert_eq!(cluster.node(refusing).cli(&set), "OK");
    };
    replicas("5");
    eventually(TEST_TIMEOUT, async || !is_hit(&shop, id).await).await;
    let row = shop.commit();
    let told = shop.cache.invalidate("users", &id).await;
    assert_eq!(told, Acknowledgement::Pending);
    let other = cluster.node((refusing + 1) % 3).port();
    let seeded = config.redis(RedisConfig::cluster([("127.0.0.1", other)]));
    for _ in 0..3 {
        let late = shop.node(seeded.clone()).await;
        assert_eq!(late.user(id).await, row);
        assert!(!is_hit(&late, id).await);
        let refused = late.rename_required(id).await;
        assert!(refused.is_err(), "{refused:?}");
        late.cache.shutdown().await;
    }
    let late = shop.node(seeded).await;
    replicas("0");
    eventually(TEST_TIMEOUT, async || is_hit(&late, id).await).await;
    assert_eq!(late.user(id).await, row);
}

/// All that a node has done has reached its replica; what it does from here on does not.
async fn cut_off(cluster: &mut RedisCluster, primary: usize, replica: usize) {
    let offset = |cluster: &RedisCluster, node: usize| {
        let info = cluster.node(node).cli(&["INFO", "replication"]);
        let mut lines = info.lines();
        let offset = lines.find_map(|line| line.strip_prefix("master_repl_offset:"));
        offset.unwrap_or_default().to_owned()
    };
    eventually(TEST_TIMEOUT, async || {
        offset(cluster, primary) == offset(cluster, replica)
    })
    .await;
    cluster.node_mut(replica).pause();
    let cut = cluster
        .node(primary)
        .cli(&["CLIENT", "KILL", "TYPE", "replica"]);
    assert_eq!(cut, "1");
}

/// Reads until it is served; each time it is this row.
async fn becomes_a_hit(shop: &Shop, id: i64, row: u64) {
    let ends = Instant::now() + TEST_TIMEOUT;
    loop {
        assert_eq!(shop.user(id).await, row);
        if is_hit(shop, id).await {
            break;
        }
        assert!(Instant::now() < ends, "no hits");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Stops a primary until its replica has replaced it. Returns a moment at which this process did
/// not know of that.
async fn replace_stopped(
    cluster: &mut RedisCluster,
    shop: &Shop,
    id: i64,
    old: usize,
    new: usize,
) -> Instant {
    shop.user(id).await;
    cluster.wait_for_replica(new);
    cluster.node_mut(old).pause();
    cluster.wait_for_primary(new);
    let port = cluster.node(new).port();
    let mut unknown = Instant::now();
    eventually(TEST_TIMEOUT, async || {
        let asked = Instant::now();
        let stats = shop.cache.get_stats().await;
        let is_known = stats.nodes.iter().any(|it| it.port == port && it.connected);
        if !is_known {
            unknown = asked;
        }
        is_known
    })
    .await;
    unknown
}

/// The former owner is stopped, and would answer from its memory if it resumed: so it has to be
/// heard first, or three seconds have to pass.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_acknowledged_while_a_former_owner_may_answer() {
    // Less than what a fence lasts; where the machine was slower the round says nothing.
    const IN_TIME: Duration = Duration::from_secs(1);
    let mut cluster = RedisCluster::start(3, 1);
    let shop = Shop::over(settings(&cluster).command_budget(Duration::from_millis(500))).await;
    let first = cluster.owner(cluster.slot("users:1"));
    let (mut old, mut new) = (first, 3 + first);
    for _ in 0..10 {
        let unknown = replace_stopped(&mut cluster, &shop, 1, old, new).await;
        let cache = shop.cache.clone();
        let acknowledged = tokio::spawn(async move {
            let acknowledged = cache.invalidate("users", &1_i64).await;
            (acknowledged, Instant::now())
        });
        // It takes place at once; what waits is that it is said.
        let key = ["EXISTS", "users:1"];
        eventually(TEST_TIMEOUT, async || cluster.node(new).cli(&key) == "0").await;
        tokio::time::sleep(IN_TIME / 4).await;
        let resumed = Instant::now();
        cluster.node_mut(old).resume();
        let (acknowledged, at) = acknowledged.await.expect("no panic");
        if resumed < unknown + IN_TIME {
            assert!(
                acknowledged == Acknowledgement::Pending || at > resumed,
                "acknowledged {:?} before the former owner was heard",
                resumed - at
            );
            return;
        }
        std::mem::swap(&mut old, &mut new);
        cluster.wait_for_replica(new);
    }
    panic!("this machine is too slow for the test");
}

/// While a former owner may still answer, what lies there is repeated; what has arrived elsewhere
/// is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delivered_invalidations_are_not_repeated() {
    let mut cluster = RedisCluster::start(3, 1);
    let shop = Shop::over(settings(&cluster)).await;
    let first = cluster.owner(cluster.slot("users:1"));
    let other =
        (2..100_i64).find(|id| cluster.owner(cluster.slot(&format!("users:{id}"))) != first);
    let other = other.expect("a row elsewhere");
    let home = cluster.owner(cluster.slot(&format!("users:{other}")));
    for id in [1, other] {
        let acknowledged = shop.cache.invalidate("users", &id).await;
        assert_eq!(acknowledged, Acknowledgement::Delivered);
    }
    replace_stopped(&mut cluster, &shop, 1, first, 3 + first).await;
    let scripts = || cluster.node(home).calls("evalsha");
    let before = scripts();
    // Until the fence is over, three seconds.
    eventually(TEST_TIMEOUT, async || is_hit(&shop, 1).await).await;
    // One repetition, a probe a second, and what stores the row; there were thirty.
    let calls = scripts() - before;
    assert!(calls < 15, "{calls} scripts");
    cluster.node_mut(first).resume();
}

/// The new owner does not get what others invalidate at the former one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_read_from_a_new_owner_while_the_former_one_may_answer() {
    // Less than what a fence lasts; where the machine was slower the round says nothing.
    const IN_TIME: Duration = Duration::from_secs(2);
    let mut cluster = RedisCluster::start(3, 1);
    let shop = Shop::over(settings(&cluster).command_budget(Duration::from_millis(500))).await;
    let first = cluster.owner(cluster.slot("users:1"));
    let (mut old, mut new) = (first, 3 + first);
    for _ in 0..10 {
        let unknown = replace_stopped(&mut cluster, &shop, 1, old, new).await;
        shop.user(1).await;
        let was_hit = is_hit(&shop, 1).await;
        let is_in_time = unknown.elapsed() < IN_TIME;
        cluster.node_mut(old).resume();
        eventually(TEST_TIMEOUT, async || is_hit(&shop, 1).await).await;
        if is_in_time {
            assert!(!was_hit, "the new owner was read");
            return;
        }
        std::mem::swap(&mut old, &mut new);
        cluster.wait_for_replica(new);
    }
    panic!("this machine is too slow for the test");
}

/// The same, seen from what lies elsewhere: it does not wait for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_former_owner_holds_up_only_its_own_slots() {
    const IN_TIME: Duration = Duration::from_secs(1);
    let mut cluster = RedisCluster::start(3, 1);
    let shop = Shop::over(settings(&cluster).command_budget(Duration::from_millis(500))).await;
    let generations = cluster.owner(cluster.slot("@gen:{users}"));
    let first = (generations + 1) % 3;
    let id_on = |node: usize| {
        let on =
            (0..100_i64).find(|id| cluster.owner(cluster.slot(&format!("users:{id}"))) == node);
        on.expect("an id of each node")
    };
    let (here, there) = (id_on(generations), id_on(first));
    let (mut old, mut new) = (first, 3 + first);
    let end = Instant::now() + test_timeout(2 * TEST_TIMEOUT);
    while Instant::now() < end {
        let unknown = replace_stopped(&mut cluster, &shop, there, old, new).await;
        let cache = shop.cache.clone();
        let held_up = tokio::spawn(async move { cache.invalidate("users", &there).await });
        let key = ["EXISTS", &format!("users:{there}")];
        eventually(TEST_TIMEOUT, async || cluster.node(new).cli(&key) == "0").await;
        let acknowledged = shop.cache.invalidate("users", &here).await;
        let at = Instant::now();
        let held_up = held_up.await.expect("no panic");
        cluster.node_mut(old).resume();
        if at < unknown + IN_TIME && held_up == Acknowledgement::Pending {
            assert_eq!(acknowledged, Acknowledgement::Delivered);
            return;
        }
        std::mem::swap(&mut old, &mut new);
        cluster.wait_for_replica(new);
    }
    panic!("this machine is too slow for the test");
}

async fn lossy_failover(of_entry: bool) {
    let mut cluster = RedisCluster::start(3, 1);
    // On two nodes: else the one identity would do for the other.
    let generations = cluster.owner(cluster.slot("@gen:{users}"));
    let node_of = |id: i64| cluster.owner(cluster.slot(&format!("users:{id}")));
    let id = (0..100).find(|id| node_of(*id) != generations);
    let id = id.expect("a row elsewhere");
    let primary = match of_entry {
        true => node_of(id),
        false => generations,
    };
    let shop = Shop::over(settings(&cluster)).await;
    // It is gone by the time of the failover, and does nothing again.
    let writer = shop.node(settings(&cluster)).await;
    let before = shop.user(id).await;
    assert!(is_hit(&shop, id).await);
    let replica = 3 + primary;
    // The primary takes the invalidation, and is lost with it.
    cut_off(&mut cluster, primary, replica).await;
    let row = match of_entry {
        true => writer.rename(id).await,
        false => writer.replace().await,
    };
    assert!(row > before);
    writer.cache.shutdown().await;
    cluster.node_mut(primary).stop();
    cluster.node_mut(replica).resume();
    cluster.wait_for_primary(replica);
    becomes_a_hit(&shop, id, row).await;
}

/// An entry and its generations are asked for at the same time, each at its node, by one command.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hit_costs_one_round_trip() {
    const HITS: u64 = 100;
    let mut cluster = RedisCluster::start(2, 0);
    let shop = Shop::over(settings(&cluster)).await;
    let generations = cluster.owner(cluster.slot("@gen:{users}"));
    let entries = 1 - generations;
    let id = (0..100).find(|id| cluster.is_owner(entries, &format!("users:{id}")));
    let id = id.expect("a row of that node");
    eventually(TEST_TIMEOUT, async || is_hit(&shop, id).await).await;
    let read = |cluster: &RedisCluster| [0, 1].map(|node| cluster.node(node).calls("mget"));
    let before = read(&cluster);
    for _ in 0..HITS {
        assert!(is_hit(&shop, id).await);
    }
    assert_eq!(read(&cluster), before.map(|calls| calls + HITS));
    for silent in [generations, entries] {
        eventually(TEST_TIMEOUT, async || is_hit(&shop, id).await).await;
        let answering = 1 - silent;
        let before = read(&cluster)[answering];
        cluster.node_mut(silent).pause();
        let reader = shop.clone();
        let reader = tokio::spawn(async move { reader.user(id).await });
        eventually(TEST_TIMEOUT, async || {
            cluster.node(answering).calls("mget") > before
        })
        .await;
        cluster.node_mut(silent).resume();
        assert_eq!(reader.await.expect("no panic"), 1);
    }
}

/// One shard is gone, for good: what lies on the others goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_shard_holds_up_only_its_own() {
    let mut cluster = RedisCluster::start_with(
        3,
        0,
        RedisOptions::default().config("cluster-require-full-coverage no"),
    );
    let config = settings(&cluster).command_budget(Duration::from_millis(500));
    let shop = Shop::over(config.clone()).await;
    is_used(&shop).await;
    let generations = cluster.owner(cluster.slot("@gen:{users}"));
    let away = (generations + 1) % 3;
    let id_on = |node: usize| {
        let on = (0..100).find(|id| cluster.owner(cluster.slot(&format!("users:{id}"))) == node);
        on.expect("an id of each node")
    };
    let (here, there) = (id_on(generations), id_on(away));
    cluster.node_mut(away).stop();
    eventually(TEST_TIMEOUT, async || {
        let stats = shop.cache.get_stats().await;
        stats
            .reason
            .is_some_and(|reason| reason.contains(&cluster.node(away).port().to_string()))
    })
    .await;
    shop.user(here).await;
    assert!(is_hit(&shop, here).await);
    assert!(!is_hit(&shop, there).await && !is_hit(&shop, there).await);
    // What lies there is pending, and nothing else.
    assert_eq!(
        shop.cache.invalidate("users", &there).await,
        Acknowledgement::Pending
    );
    assert_eq!(
        shop.cache.invalidate("users", &here).await,
        Acknowledgement::Delivered
    );
    let row = shop.rename(here).await;
    assert_eq!(shop.user(here).await, row);
    assert!(is_hit(&shop, here).await);
    assert_eq!(shop.cache.get_stats().await.counters.pending, 1);
    // Neither does it hold up that everything is invalidated.
    let nonce = || cluster.node(generations).cli(&["GET", "@gen:{users}"]);
    let before = nonce();
    let row = shop.commit();
    assert!(shop.cache.clear_all().await.is_err(), "one shard has not");
    let after = nonce();
    assert_ne!(before, after);
    assert_eq!(shop.user(here).await, row);
    assert!(is_hit(&shop, here).await);
    // What is left is tried again with each of these, and only there.
    for _ in 0..3 {
        let row = shop.rename(here).await;
        assert_eq!(shop.user(here).await, row);
        let acknowledged = shop.cache.invalidate("users", &here).await;
        assert_eq!(acknowledged, Acknowledgement::Delivered);
    }
    assert_eq!(nonce(), after, "invalidated again");
    assert_eq!(shop.cache.get_stats().await.counters.pending, 1);
    cluster.node_mut(away).restart();
    eventually(TEST_TIMEOUT, async || {
        shop.cache.get_stats().await.counters.pending == 0
    })
    .await;
    eventually(TEST_TIMEOUT, async || is_hit(&shop, there).await).await;
}

/// The shard was silent and has lost nothing, so what was left has to reach it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_invalidated_at_a_shard_that_was_silent_once_it_answers() {
    let mut cluster = RedisCluster::start_with(
        3,
        0,
        RedisOptions::default().config("cluster-require-full-coverage no"),
    );
    let config = settings(&cluster).command_budget(Duration::from_millis(500));
    let shop = Shop::over(config.clone()).await;
    // Everything of an order is at one node, and that of users is not.
    let away = cluster.owner(cluster.slot("@gen:{orders}"));
    assert!(!cluster.is_owner(away, "@gen:{users}"));
    let id = (0..100).find(|id| cluster.is_owner(away, &format!("orders:{id}")));
    let id = id.expect("an order of that node");
    let is_served = async |shop: &Shop| {
        let outcomes = observe(shop.order(id)).await.1;
        matches!(outcomes[0].status, Status::Hit { .. })
    };
    eventually(TEST_TIMEOUT, async || is_served(&shop).await).await;
    cluster.node_mut(away).pause();
    let row = shop.commit();
    assert!(shop.cache.clear_all().await.is_err(), "one shard has not");
    assert_eq!(shop.order(id).await, row);
    assert!(!is_served(&shop).await, "it waits");
    cluster.node_mut(away).resume();
    eventually(TEST_TIMEOUT, async || {
        assert_eq!(shop.order(id).await, row);
        shop.cache.get_stats().await.counters.pending == 0 && is_served(&shop).await
    })
    .await;
}

/// The primary is stopped, its replica takes over, and it resumes: it answers for a moment what it
/// knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_resumes_after_its_failover_serves_nothing_stale() {
    let mut cluster = RedisCluster::start(3, 1);
    let config = settings(&cluster).command_budget(Duration::from_millis(200));
    let (hits, reads, _cluster) = nothing_stale_while(
        move || config.clone(),
        move || {
            let primary = cluster.owner(cluster.slot("users:1"));
            for (old, new) in [(primary, 3 + primary), (3 + primary, primary)] {
                cluster.node_mut(old).pause();
                cluster.wait_for_primary(new);
                cluster.node_mut(old).resume();
                std::thread::sleep(Duration::from_millis(500));
            }
            cluster
        },
    )
    .await;
    assert!(hits > 0, "{hits} of {reads}");
}

/// Before a process asks for the owners of slots again, with something to spare.
const MOVED: Duration = Duration::from_millis(600);

/// A slot may have left a node behind the walk over its generations, and returned to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_that_return_during_a_clearing_are_walked_again() {
    const ROUNDS: u64 = 6;
    let cluster = RedisCluster::start(2, 0);
    let shop = Shop::over(settings(&cluster)).await;
    is_used(&shop).await;
    let slot = cluster.slot("users:1");
    let home = cluster.owner(slot);
    let node = cluster.node(home);
    let walks = async || {
        let before = node.calls("scan");
        let cleared = shop.cache.clear_all().await;
        cleared.is_ok().then(|| node.calls("scan") - before)
    };
    // Twice in a row: until the process knows all that has happened.
    let usual = async || {
        let mut last = None;
        for _ in 0..100 {
            let walked = walks().await;
            if walked.is_some() && walked == last {
                return walked;
            }
            last = walked;
        }
        panic!("no two walks in a row are alike");
    };
    let (mut again, mut rounds) = (0, 0);
    // On a busy machine most moves take too long.
    let end = Instant::now() + 2 * TEST_TIMEOUT;
    while rounds < ROUNDS && Instant::now() < end {
        let usual = usual().await;
        // Right after the process has asked for slots and epochs, so that it asks once more only
        // when everything is cleared.
        let before = node.calls("cluster|nodes");
        // It asks after that.
        let mut earliest = Instant::now();
        eventually(TEST_TIMEOUT, async || {
            let now = Instant::now();
            let has_asked = node.calls("cluster|nodes") > before;
            if !has_asked {
                earliest = now;
            }
            has_asked
        })
        .await;
        cluster.move_slot(slot, 1 - home);
        cluster.move_slot(slot, home);
        let is_in_time = earliest.elapsed() < MOVED;
        let walked = walks().await;
        // Otherwise it has asked meanwhile, and has known of it.
        if is_in_time {
            rounds += 1;
            again += u64::from(walked.is_some() && walked > usual);
        }
    }
    // Then it is run once more, with nothing beside it.
    assert!(rounds > 0, "each move took too long on this machine");
    assert!(again > rounds / 2, "{again} of {rounds}");
}
