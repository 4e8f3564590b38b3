//! Faults of a cluster, and of servers that Sentinels watch.

use std::sync::PoisonError;

use cache_tests::{Links, Mode, RedisCluster, Sentinels};
use fastrand::Rng;

use crate::clock::now;
use crate::faults::{FaultInjector, row_key};
use crate::history::FaultKind;
use crate::shop::KINDS;

impl FaultInjector {
    /// Breaks a cluster, one thing at a time: each shard has one replica only.
    pub(crate) fn at_cluster(&self, cluster: &mut RedisCluster, links: &[Links], mut rng: Rng) {
        use FaultKind::{
            ClientKill, Failover, Flush, Partition, PrimaryKill, PrimaryStop, ScriptFlush,
            SlotMove, SlotReturn,
        };
        let among = [
            PrimaryKill,
            PrimaryStop,
            Failover,
            SlotMove,
            SlotReturn,
            Partition,
            Flush,
            ScriptFlush,
            ClientKill,
        ];
        while self.goes_on() {
            self.wait(300..2_000, &mut rng);
            let Some(kind) = self.choose(&among, &mut rng) else {
                return;
            };
            if !self.goes_on() {
                return;
            }
            let shards = cluster.shards();
            let Some((primary, replicas)) = rng.choice(shards) else {
                return;
            };
            let replica = replicas.first().copied().unwrap_or(primary);
            let from = now();
            match kind {
                PrimaryKill => {
                    cluster.node_mut(primary).stop();
                    cluster.wait_for_primary(replica);
                    self.wait(0..1_000, &mut rng);
                    cluster.node_mut(primary).restart();
                    cluster.wait_until_whole();
                }
                PrimaryStop => {
                    cluster.node_mut(primary).pause();
                    self.wait(50..4_000, &mut rng);
                    cluster.node_mut(primary).resume();
                    cluster.wait_until_whole();
                }
                Failover => {
                    cluster.fail_over(replica, &[]);
                    cluster.wait_until_whole();
                }
                SlotMove => self.move_slots(cluster, &mut rng),
                SlotReturn => {
                    self.return_slot(cluster, &mut rng);
                    continue;
                }
                Partition => {
                    self.part(cluster, (primary, replica), links, &mut rng);
                    continue;
                }
                Flush => drop(cluster.node(primary).cli(&["FLUSHALL"])),
                ScriptFlush => drop(cluster.node(primary).cli(&["SCRIPT", "FLUSH"])),
                _ => drop(
                    cluster
                        .node(primary)
                        .cli(&["CLIENT", "KILL", "TYPE", "normal"]),
                ),
            }
            self.note(kind, from, None);
        }
    }

    /// Slots that are in use go to another primary, some of them slowly, and some of them back at once.
    fn move_slots(&self, cluster: &RedisCluster, rng: &mut Rng) {
        let at_once = cluster.moves_at_once();
        for _ in 0..rng.u32(1..6) {
            let key = match rng.bool() {
                true => row_key(rng),
                false => format!("@gen:{{{}}}", KINDS[rng.usize(..KINDS.len())]),
            };
            let slot = cluster.slot(&key);
            let from = cluster.owner(slot);
            let mut others = cluster.shards();
            others.retain(|(primary, _)| *primary != from);
            let Some((to, _)) = rng.choice(others) else {
                return;
            };
            if at_once && rng.bool() {
                cluster.move_at_once((slot, slot), to);
            } else {
                cluster.begin_to_move(slot, to);
                self.wait(0..400, rng);
                cluster.move_keys(slot, from, to);
                self.wait(0..100, rng);
                cluster.end_move(slot, from, to);
            }
            if rng.u32(..3) == 0 {
                cluster.move_slot(slot, from);
            }
        }
    }

    /// A slot in use leaves its primary. The other one is lost with what is invalidated there, and
    /// its replica gives the slot back.
    fn return_slot(&self, cluster: &mut RedisCluster, rng: &mut Rng) {
        let slot = cluster.slot(&row_key(rng));
        let home = cluster.owner(slot);
        let mut others = cluster.shards();
        others.retain(|(primary, replicas)| *primary != home && !replicas.is_empty());
        let Some((away, replicas)) = rng.choice(others) else {
            return;
        };
        let replica = replicas[0];
        let from = now();
        cluster.move_slot(slot, away);
        cluster.wait_until_heard(replica, slot, away);
        cluster.node_mut(replica).pause();
        cluster
            .node(away)
            .cli(&["CLIENT", "KILL", "TYPE", "replica"]);
        self.wait(0..150, rng);
        cluster.node_mut(away).stop();
        cluster.node_mut(replica).resume();
        cluster.fail_over(replica, &["TAKEOVER"]);
        cluster.move_slot(slot, home);
        self.note(FaultKind::SlotReturn, from, None);
        cluster.node_mut(away).restart();
        cluster.wait_until_whole();
    }

    /// The network breaks: a primary and one process are on one side, all others on the other,
    /// where a replica takes over.
    fn part(
        &self,
        cluster: &RedisCluster,
        (primary, replica): (usize, usize),
        links: &[Links],
        rng: &mut Rng,
    ) {
        let _alone = self.links.write().unwrap_or_else(PoisonError::into_inner);
        let slot = rng.usize(..links.len());
        let port = cluster.node(primary).port();
        let across = links.iter().enumerate().flat_map(|(number, links)| {
            let is_across = move |server: u16| (number == slot) != (server == port);
            links.iter().filter(move |(server, _)| is_across(*server))
        });
        let across: Vec<_> = across.map(|(_, link)| link).collect();
        let from = now();
        for link in &across {
            link.set(Mode::Cut);
        }
        cluster.isolate(primary);
        cluster.wait_for_primary(replica);
        self.wait(0..1_500, rng);
        cluster.rejoin(primary);
        for link in &across {
            link.set(Mode::Pass);
        }
        self.note(FaultKind::CutOff, from, Some(slot));
        cluster.wait_until_whole();
        self.note(FaultKind::Partition, from, None);
    }

    /// Breaks a primary, its replica, and the Sentinels that watch them.
    pub(crate) fn at_sentinels(&self, sentinels: &mut Sentinels, mut rng: Rng) {
        use FaultKind::{
            ClientKill, Failover, Flush, PrimaryKill, PrimaryStop, ScriptFlush, SentinelStop,
        };
        let among = [
            PrimaryKill,
            PrimaryStop,
            Failover,
            SentinelStop,
            Flush,
            ScriptFlush,
            ClientKill,
        ];
        while self.goes_on() {
            self.wait(300..2_000, &mut rng);
            let Some(kind) = self.choose(&among, &mut rng) else {
                return;
            };
            if !self.goes_on() {
                return;
            }
            let (primary, from) = (sentinels.primary(), now());
            let port = sentinels.server(primary).port();
            let tell = |words: &[&str]| drop(sentinels.server(primary).cli(words));
            match kind {
                PrimaryKill => {
                    sentinels.server_mut(primary).stop();
                    sentinels.wait_for_another(port);
                    self.wait(0..1_000, &mut rng);
                    sentinels.server_mut(primary).restart();
                    sentinels.wait_until_whole();
                }
                PrimaryStop => {
                    sentinels.server_mut(primary).pause();
                    self.wait(50..4_000, &mut rng);
                    sentinels.server_mut(primary).resume();
                    sentinels.wait_until_whole();
                }
                Failover => {
                    let failover = ["SENTINEL", "FAILOVER", Sentinels::NAME];
                    // Refused soon after another one.
                    if sentinels.sentinel(rng.usize(..3)).cli(&failover) == "OK" {
                        sentinels.wait_for_another(port);
                    }
                    sentinels.wait_until_whole();
                }
                SentinelStop => {
                    let number = rng.usize(..3);
                    sentinels.sentinel_mut(number).pause();
                    self.wait(50..4_000, &mut rng);
                    sentinels.sentinel_mut(number).resume();
                }
                Flush => tell(&["FLUSHALL"]),
                ScriptFlush => tell(&["SCRIPT", "FLUSH"]),
                _ => tell(&["CLIENT", "KILL", "TYPE", "normal"]),
            }
            self.note(kind, from, None);
        }
    }
}
