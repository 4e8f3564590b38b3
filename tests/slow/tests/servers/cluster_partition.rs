//! A process that a broken network leaves alone with a primary, which is replaced on the other
//! side.

use std::time::Duration;

use cache_runtime::{Acknowledgement, CacheConfig, RedisConfig};
use cache_tests::{Links, Mode, RedisCluster, eventually};

use crate::cluster::settings;
use crate::shop::{Shop, is_hit};

const TEST_TIMEOUT: Duration = Duration::from_secs(30);

/// All keys are in one slot, so that one node suffices to serve everything.
fn pinned(cluster: &RedisCluster) -> CacheConfig {
    settings(cluster)
        .namespace("{shop}")
        .command_budget(Duration::from_millis(500))
}

struct Parted {
    cluster: RedisCluster,
    /// Those of the process that is cut off.
    links: Links,
    alone: Shop,
    other: Shop,
    primary: usize,
}

/// Two processes over a cluster, before anything happens.
async fn whole(local: u32) -> Parted {
    whole_as(local, &[]).await
}

/// The same, where the process that is to be cut off has a user of its own. The replica of the keys'
/// primary gives the user these rights, and all others every right. Without rights it is the user
/// of everybody.
async fn whole_as(local: u32, rights_at_replica: &[&str]) -> Parted {
    let cluster = RedisCluster::of_islands(3, 1);
    let primary = cluster.owner(cluster.slot("{shop}"));
    let ports: Vec<_> = (0..cluster.len())
        .map(|it| cluster.node(it).port())
        .collect();
    let links = Links::to(ports.iter().copied());
    let seeds = ports.iter().map(|port| ("127.0.0.1", *port));
    let mut redis = RedisConfig::cluster(seeds).nat_map(links.nat_map());
    if !rights_at_replica.is_empty() {
        for node in 0..cluster.len() {
            let is_replica = node == primary + 3;
            let rights = if is_replica {
                rights_at_replica
            } else {
                &["~*"]
            };
            let user = [
                "ACL",
                "SETUSER",
                "app",
                "on",
                ">word",
                "resetkeys",
                "&*",
                "+@all",
            ];
            assert_eq!(cluster.node(node).cli(&[&user, rights].concat()), "OK");
        }
        redis.username = Some("app".into());
        redis.password = Some("word".into());
    }
    let alone = Shop::over(pinned(&cluster).redis(redis).local_mb(local)).await;
    let other = alone.node(pinned(&cluster)).await;
    for shop in [&alone, &other] {
        eventually(TEST_TIMEOUT, async || is_hit(shop, 1).await).await;
    }
    Parted {
        cluster,
        links,
        alone,
        other,
        primary,
    }
}

impl Parted {
    /// The process that has the links reaches this primary and nothing else, and so does nobody
    /// else.
    fn part(&self) {
        let port = self.cluster.node(self.primary).port();
        for (server, link) in self.links.iter() {
            if server != port {
                link.set(Mode::Cut);
            }
        }
        self.cluster.isolate(self.primary);
    }

    fn heal(&self) {
        self.cluster.rejoin(self.primary);
        for (_, link) in self.links.iter() {
            link.set(Mode::Pass);
        }
    }

    /// Cuts the process off with a primary that acknowledges an invalidation and is replaced then.
    /// The other process has an entry of before the commit that was invalidated on the wrong side.
    /// Returns the row as it was committed.
    async fn invalidate_at_a_replaced_primary(&self) -> u64 {
        self.part();
        let acknowledged = self.alone.cache.invalidate("users", &1_i64).await;
        assert_eq!(acknowledged, Acknowledgement::Delivered);
        self.wait_for_replacement();
        eventually(TEST_TIMEOUT, async || is_hit(&self.other, 1).await).await;
        let row = self.alone.commit();
        assert!(self.other.user(1).await < row);
        row
    }

    /// Returns when the replica has replaced the primary.
    fn wait_for_replacement(&self) {
        self.cluster.wait_for_primary(self.primary + 3);
    }
}

/// The primary that the process is left with never gives up, and answers from before the failover.
/// What the process knows of the slots' owners is too old by then: it serves nothing, and
/// acknowledges nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stale_for_who_is_cut_off_with_a_replaced_primary() {
    for local in [0, 16] {
        let parted = whole(local).await;
        let before = parted.alone.user(1).await;
        let former = parted.cluster.node(parted.primary);
        let patient = former.cli(&["CONFIG", "SET", "cluster-node-timeout", "600000"]);
        assert_eq!(patient, "OK");
        parted.part();
        parted.wait_for_replacement();
        // Otherwise it might be the former primary that acknowledges, and removes what it has.
        let new = parted.cluster.node(parted.primary + 3).port();
        eventually(TEST_TIMEOUT, async || {
            let nodes = parted.other.cache.get_stats().await.nodes;
            nodes.iter().any(|node| node.port == new && node.connected)
        })
        .await;
        let row = parted.other.commit();
        assert!(row > before);
        eventually(TEST_TIMEOUT, async || {
            parted.other.cache.invalidate("users", &1_i64).await == Acknowledgement::Delivered
        })
        .await;
        assert_eq!(parted.alone.user(1).await, row);
        let asked = former.calls("mget");
        assert!(!is_hit(&parted.alone, 1).await);
        assert_eq!(former.calls("mget"), asked, "its answer can't be used");
        let keys = former.cli(&["EXISTS", "{shop}:users:1"]);
        assert_eq!(keys, "1", "the former primary does not answer any more");
        let acknowledged = parted.alone.cache.invalidate("users", &2_i64).await;
        assert_eq!(acknowledged, Acknowledgement::Pending);
        former.cli(&["CONFIG", "SET", "cluster-node-timeout", "1000"]);
        parted.heal();
        eventually(TEST_TIMEOUT, async || {
            assert_eq!(parted.alone.user(1).await, row);
            is_hit(&parted.alone, 1).await
        })
        .await;
    }
}

/// Its invalidations are acknowledged by a primary that is being replaced, and lost with it.
/// However long it is cut off, it repeats them when it learns who the primary is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledgements_of_a_replaced_primary_are_repeated() {
    /// Longer than an invalidation counts as recent.
    const LONG: Duration = Duration::from_secs(6);
    let parted = whole(0).await;
    let row = parted.invalidate_at_a_replaced_primary().await;
    tokio::time::sleep(LONG).await;
    assert!(parted.other.user(1).await < row, "nobody has told it");
    parted.heal();
    eventually(TEST_TIMEOUT, async || parted.other.user(1).await == row).await;
    eventually(TEST_TIMEOUT, async || is_hit(&parted.alone, 1).await).await;
    assert_eq!(parted.alone.user(1).await, row);
}

/// The primary that takes over can't be reached for longer than an invalidation counts as recent,
/// and by this process only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalidations_wait_until_the_new_primary_can_be_reached() {
    const LONG: Duration = Duration::from_secs(7);
    let parted = whole(0).await;
    let new = parted.cluster.node(parted.primary + 3).port();
    parted.links.link(new).set(Mode::Cut);
    parted.cluster.isolate(parted.primary);
    let acknowledged = parted.alone.cache.invalidate("users", &1_i64).await;
    assert_eq!(acknowledged, Acknowledgement::Delivered);
    parted.wait_for_replacement();
    eventually(TEST_TIMEOUT, async || {
        let stats = parted.alone.cache.get_stats().await;
        stats.nodes.iter().any(|node| node.port == new)
    })
    .await;
    eventually(TEST_TIMEOUT, async || is_hit(&parted.other, 1).await).await;
    let row = parted.alone.commit();
    tokio::time::sleep(LONG).await;
    assert!(parted.other.user(1).await < row, "nobody has told it");
    parted.links.link(new).set(Mode::Pass);
    eventually(TEST_TIMEOUT, async || parted.other.user(1).await == row).await;
}

/// The primary that takes over is reached, and refuses the repetition for longer than an
/// invalidation counts as recent. No later change of the cluster begins another repetition.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repetitions_are_not_given_up() {
    const LONG: Duration = Duration::from_secs(7);
    let parted = whole_as(0, &["%R~*", "~{shop}:@*probe*"]).await;
    let new = parted.cluster.node(parted.primary + 3);
    parted.cluster.isolate(parted.primary);
    let acknowledged = parted.alone.cache.invalidate("users", &1_i64).await;
    assert_eq!(acknowledged, Acknowledgement::Delivered);
    parted.wait_for_replacement();
    eventually(TEST_TIMEOUT, async || {
        let nodes = parted.alone.cache.get_stats().await.nodes;
        nodes.iter().any(|it| it.port == new.port() && it.connected)
    })
    .await;
    eventually(TEST_TIMEOUT, async || is_hit(&parted.other, 1).await).await;
    let row = parted.alone.commit();
    tokio::time::sleep(LONG).await;
    assert!(parted.other.user(1).await < row, "it was not refused");
    assert_eq!(new.cli(&["ACL", "SETUSER", "app", "~*"]), "OK");
    eventually(TEST_TIMEOUT, async || parted.other.user(1).await == row).await;
}

/// At the primary that takes over the user may not write rows. So their whole resource ends there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_new_owner_refuses_ends_with_its_resource() {
    let parted = whole_as(0, &["%R~*", "~{shop}:@*"]).await;
    let row = parted.invalidate_at_a_replaced_primary().await;
    parted.heal();
    eventually(TEST_TIMEOUT, async || parted.other.user(1).await == row).await;
}

/// Nor may it write the generation of the resource. What it may write is replaced, and once more
/// when the row has ended: others may have made something of the old row meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_made_of_a_row_that_a_new_owner_refuses_ends_with_it() {
    let derived = "{shop}:@gen:users~derived";
    let parted = whole_as(0, &["%R~*", "~{shop}:@*probe*", &format!("~{derived}")]).await;
    parted.other.list(1).await;
    let new = parted.cluster.node(parted.primary + 3);
    let generation = || new.cli(&["GET", derived]);
    parted.cluster.isolate(parted.primary);
    let acknowledged = parted.alone.cache.invalidate("users", &1_i64).await;
    assert_eq!(acknowledged, Acknowledgement::Delivered);
    parted.wait_for_replacement();
    let some_attempts = async || {
        let refused = new.refused("evalsha");
        eventually(TEST_TIMEOUT, async || new.refused("evalsha") > refused + 9).await;
    };
    // Each change of the cluster begins a repetition. After the last one, attempts that take nothing
    // replace nothing.
    eventually(TEST_TIMEOUT, async || {
        let before = generation();
        some_attempts().await;
        generation() == before
    })
    .await;
    let once = generation();
    eventually(TEST_TIMEOUT, async || is_hit(&parted.other, 1).await).await;
    let row = parted.alone.commit();
    assert!(parted.other.user(1).await < row, "it is not refused");
    assert_eq!(new.cli(&["ACL", "SETUSER", "app", "~*"]), "OK");
    eventually(TEST_TIMEOUT, async || parted.other.user(1).await == row).await;
    eventually(TEST_TIMEOUT, async || generation() != once).await;
}
