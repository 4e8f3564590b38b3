//! A process that can't reach one of the nodes, which all others reach.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cache_runtime::{Acknowledgement, BypassReason, CacheConfig, RedisConfig, Status, observe};
use cache_tests::{Links, Mode, RedisCluster, eventually};

use crate::cluster::{clients, settings};
use crate::shop::{Shop, is_hit, is_used, nothing_stale_while};

const TEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Nothing arrives, in one way or another.
const CUTS: [Mode; 5] = [
    Mode::Cut,
    Mode::Hold,
    Mode::HalfClose,
    Mode::SwallowRequests,
    Mode::SwallowAnswers,
];

fn links_to(cluster: &RedisCluster) -> Links {
    Links::to((0..cluster.len()).map(|node| cluster.node(node).port()))
}

/// Settings of the process that has these links.
fn over(cluster: &RedisCluster, links: &Links) -> CacheConfig {
    let seeds = (0..cluster.len()).map(|node| ("127.0.0.1", cluster.node(node).port()));
    settings(cluster).redis(RedisConfig::cluster(seeds).nat_map(links.nat_map()))
}

/// All addresses are replaced: those of seeds, of the nodes that the seeds name, and of one that
/// joins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_used_at_the_addresses_that_replace_theirs() {
    let mut cluster = RedisCluster::start(2, 1);
    let joined = cluster.join();
    let links = links_to(&cluster);
    let shop = Shop::over(over(&cluster, &links)).await;
    is_used(&shop).await;
    let replica = cluster.shards()[0].1[0];
    cluster.fail_over(replica, &[]);
    let slot = cluster.slot("users:1");
    let from = cluster.owner(slot);
    cluster.begin_to_move(slot, joined);
    cluster.move_keys(slot, from, joined);
    // It is sent after the key, to a node that has no slots yet.
    let acknowledged = shop.cache.invalidate("users", &1_i64).await;
    assert_eq!(acknowledged, Acknowledgement::Delivered);
    cluster.end_move(slot, from, joined);
    eventually(TEST_TIMEOUT, async || is_hit(&shop, 1).await).await;
    // The addresses in the figures are the cluster's own.
    let stats = shop.cache.get_stats().await;
    let ports: Vec<_> = stats.nodes.iter().map(|node| node.port).collect();
    assert!(ports.contains(&cluster.node(joined).port()), "{ports:?}");
    // There is no other way to any of them.
    for (_, link) in links.iter() {
        link.set(Mode::Cut);
    }
    eventually(TEST_TIMEOUT, async || {
        let stats = shop.cache.get_stats().await;
        stats.nodes.iter().all(|node| !node.connected)
    })
    .await;
    for (_, link) in links.iter() {
        link.set(Mode::Pass);
    }
    eventually(TEST_TIMEOUT, async || is_hit(&shop, 1).await).await;
}

/// Two processes, the first of which can be cut off from one node: one without generations of
/// users.
struct Separable {
    cluster: RedisCluster,
    links: Links,
    shop: Shop,
    other: Shop,
    generations: usize,
    away: usize,
}

impl Separable {
    async fn start() -> Self {
        let cluster = RedisCluster::start(3, 0);
        let links = links_to(&cluster);
        let config = over(&cluster, &links).command_budget(Duration::from_millis(500));
        let shop = Shop::over(config).await;
        let other = shop.node(settings(&cluster)).await;
        is_used(&shop).await;
        let generations = cluster.owner(cluster.slot("@gen:{users}"));
        let away = (generations + 1) % 3;
        Self {
            cluster,
            links,
            shop,
            other,
            generations,
            away,
        }
    }

    /// An id whose row is on this node.
    fn id_on(&self, node: usize) -> i64 {
        let mut ids = 0..100;
        let on = ids.find(|id| self.cluster.is_owner(node, &format!("users:{id}")));
        on.expect("an id of each node")
    }

    /// Cuts the node off, and waits until the process has noticed. Until then its commands wait for
    /// an answer.
    async fn cut(&self, cut: Mode) {
        let port = self.cluster.node(self.away).port();
        self.links.link(port).set(cut);
        eventually(TEST_TIMEOUT, async || {
            let reason = self.shop.cache.get_stats().await.reason;
            reason.is_some_and(|reason| reason.contains(&port.to_string()))
        })
        .await;
    }

    /// Lets the process reach the node again, and waits until nothing is pending.
    async fn join(&self) {
        let port = self.cluster.node(self.away).port();
        self.links.link(port).cut_then(Mode::Pass);
        eventually(TEST_TIMEOUT, async || {
            self.shop.cache.get_stats().await.counters.pending == 0
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_keys_of_a_node_that_is_cut_off_are_pending() {
    let separable = Separable::start().await;
    let Separable { shop, other, .. } = &separable;
    let here = separable.id_on(separable.generations);
    let there = separable.id_on(separable.away);
    for cut in CUTS {
        eventually(TEST_TIMEOUT, async || is_hit(other, there).await).await;
        separable.cut(cut).await;
        let row = shop.rename(there).await;
        assert_eq!(shop.user(there).await, row, "{cut:?}");
        assert!(!is_hit(shop, there).await, "{cut:?}");
        assert_eq!(shop.cache.get_stats().await.counters.pending, 1);
        // Nobody else is held up, nor anything elsewhere.
        assert!(is_hit(other, there).await, "{cut:?}");
        let acknowledged = shop.cache.invalidate("users", &here).await;
        assert_eq!(acknowledged, Acknowledgement::Delivered, "{cut:?}");
        assert_eq!(shop.user(here).await, row);
        assert!(is_hit(shop, here).await, "{cut:?}");
        separable.join().await;
        assert_eq!(other.user(there).await, row, "{cut:?}");
        eventually(TEST_TIMEOUT, async || is_hit(shop, there).await).await;
    }
}

/// The row's part of an invalidation waits, its list's part is done. Whoever loads meanwhile has to
/// make nothing of the old row that stays when the row's part is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_value_is_made_of_a_row_whose_invalidation_waits() {
    let separable = Separable::start().await;
    let Separable { shop, other, .. } = &separable;
    let id = separable.id_on(separable.away);
    eventually(TEST_TIMEOUT, async || is_hit(other, id).await).await;
    separable.cut(Mode::Cut).await;
    let before = other.user(id).await;
    let row = shop.rename(id).await;
    assert_eq!(shop.cache.get_stats().await.counters.pending, 1);
    // The other process has not been told yet, and its row is the old one.
    assert_eq!(other.user(id).await, before);
    let (_, outcomes) = observe(other.card(id)).await;
    assert_eq!(outcomes[0].status, Status::Bypass(BypassReason::InsideLoad));
    let _ = (other.cards(id).await, other.by_hand(id).await);
    separable.join().await;
    for node in [other, shop] {
        assert_eq!(node.user(id).await, row);
        assert_eq!(node.card(id).await, row);
        assert_eq!(node.cards(id).await, row);
        assert_eq!(node.by_hand(id).await, row);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stale_while_one_process_loses_one_node_after_the_other() {
    let cluster = RedisCluster::start(3, 0);
    let links = links_to(&cluster);
    let plain = settings(&cluster).command_budget(Duration::from_millis(200));
    let linked = over(&cluster, &links).command_budget(Duration::from_millis(200));
    // Two processes, the first of which has the links.
    let is_first = Arc::new(AtomicBool::new(true));
    let (hits, reads, _) = nothing_stale_while(
        move || match is_first.swap(false, Ordering::SeqCst) {
            true => linked.clone(),
            false => plain.clone(),
        },
        move || {
            for cut in CUTS {
                for (_, link) in links.iter() {
                    link.set(cut);
                    std::thread::sleep(Duration::from_millis(300));
                    link.cut_then(Mode::Pass);
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
            (cluster, links)
        },
    )
    .await;
    assert!(hits > 0, "{hits} of {reads}");
}

/// With one of three primaries, a slot's owner is not confirmed. With a former owner that is
/// silent, its new one is not read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_are_counted_that_are_not_served_while_the_owner_is_uncertain() {
    let mut cluster = RedisCluster::start(3, 1);
    let links = links_to(&cluster);
    // No read waits for as long as the former owner is waited for.
    let config = over(&cluster, &links).command_budget(Duration::from_millis(200));
    let shop = Shop::over(config).await;
    is_used(&shop).await;
    let unserved = async || shop.cache.get_stats().await.unserved;
    let functions = || shop.cache.functions();
    assert_eq!(unserved().await, None);
    let home = cluster.owner(cluster.slot("users:1"));
    for (port, link) in links.iter() {
        if port != cluster.node(home).port() {
            link.set(Mode::Cut);
        }
    }
    let is_for = async |reason| {
        let (_, outcomes) = observe(shop.user(1)).await;
        outcomes[0].status == Status::Bypass(reason)
    };
    eventually(TEST_TIMEOUT, async || {
        is_for(BypassReason::Unconfirmed).await
    })
    .await;
    let counted = unserved().await.expect("there are some");
    assert!(counted.unconfirmed > 0, "{counted:?}");
    for (_, link) in links.iter() {
        link.set(Mode::Pass);
    }
    eventually(TEST_TIMEOUT, async || is_hit(&shop, 1).await).await;

    let shards = cluster.shards();
    let shard = shards.iter().find(|(primary, _)| *primary == home);
    let replica = shard.expect("it has a shard").1[0];
    cluster.node_mut(home).pause();
    cluster.fail_over(replica, &["TAKEOVER"]);
    eventually(TEST_TIMEOUT, async || is_for(BypassReason::Fenced).await).await;
    cluster.node_mut(home).resume();
    eventually(TEST_TIMEOUT, async || is_hit(&shop, 1).await).await;
    let stats = shop.cache.get_stats().await;
    let counted = stats.unserved.expect("there are some");
    assert!(counted.fenced > 0, "{counted:?}");
    let all: u64 = functions().iter().map(|function| function.bypasses).sum();
    assert!(counted.fenced + counted.unconfirmed <= all);
    let text = serde_json::to_string(&stats).expect("plain data");
    let shown = format!(
        r#""unserved":{{"fenced":{},"unconfirmed":{}}},"nodes":["#,
        counted.fenced, counted.unconfirmed
    );
    assert!(text.contains(&shown), "{text}");
}

/// As long as it takes until a question that is asked once in 750 ms had no answer in 500 ms.
const LATE: Duration = Duration::from_millis(1_300);

/// Before the next question, with something to spare.
const MOVED: Duration = Duration::from_millis(600);

/// The connections to all nodes, when there is one to each.
async fn connections(cluster: &RedisCluster, shop: &Shop) -> Vec<Vec<String>> {
    let nodes = || (0..cluster.len()).map(|node| cluster.node(node));
    eventually(TEST_TIMEOUT, async || {
        is_hit(shop, 1).await && nodes().all(|node| node.connections() == 1)
    })
    .await;
    nodes().map(clients).collect()
}

/// As for a process that has not run for a moment: nobody has answered it in time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_late_once_end_no_connection() {
    let cluster = RedisCluster::start(3, 0);
    let links = links_to(&cluster);
    let shop = Shop::over(over(&cluster, &links)).await;
    // On a busy machine the next ones may be late as well.
    eventually(TEST_TIMEOUT, async || {
        let before = connections(&cluster, &shop).await;
        for (_, link) in links.iter() {
            link.set(Mode::Hold);
        }
        tokio::time::sleep(LATE).await;
        for (_, link) in links.iter() {
            link.set(Mode::Pass);
        }
        connections(&cluster, &shop).await == before
    })
    .await;
}

/// Its slots are the same as before, and it has another epoch: what it lost while the slot was
/// elsewhere must not be served. The process has heard of the epoch from others, and its late
/// answer does not count, until the next one is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_answer_is_late_when_a_slot_returns_has_its_new_epoch() {
    let cluster = RedisCluster::start(3, 0);
    let links = links_to(&cluster);
    let shop = Shop::over(over(&cluster, &links)).await;
    let slot = cluster.slot("users:1");
    let home = cluster.owner(slot);
    let link = links.link(cluster.node(home).port());
    let questions = || cluster.node(home).calls("cluster|nodes");
    let mut tried = 0;
    for _ in 0..20 {
        connections(&cluster, &shop).await;
        let before = questions();
        eventually(TEST_TIMEOUT, async || questions() > before).await;
        // The next question comes 750 ms later and is late after 500 ms more; that after it comes
        // at 1500.
        let asked = Instant::now();
        link.set(Mode::Hold);
        cluster.move_slot(slot, (home + 1) % 3);
        cluster.move_slot(slot, home);
        // On a busy machine the others may have been asked before.
        let is_in_time = asked.elapsed() < MOVED;
        tokio::time::sleep((asked + LATE).saturating_duration_since(Instant::now())).await;
        link.set(Mode::Pass);
        if !is_in_time {
            continue;
        }
        assert!(
            !is_hit(&shop, 1).await,
            "an entry from before the slot was away"
        );
        tried += 1;
        if tried == 5 {
            break;
        }
    }
    // Then it is run once more, with nothing beside it.
    assert!(tried > 0, "each move took too long on this machine");
}
