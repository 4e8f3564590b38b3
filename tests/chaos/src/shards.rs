//! Faults of a cluster, and of servers that Sentinels watch.

use cache_tests::{RedisCluster, Sentinels};
use fastrand::Rng;

use crate::clock::now;
use crate::faults::{Havoc, row_key};
use crate::history::FaultKind;
use crate::shop::KINDS;

impl Havoc {
    /// Breaks a cluster, one thing at a time: each shard has one replica only.
    pub(crate) fn at_cluster(&self, cluster: &mut RedisCluster, mut rng: Rng) {
        use FaultKind::{
            ClientKill, Failover, Flush, PrimaryKill, PrimaryStop, ScriptFlush, SlotMove,
        };
        let among = [
            PrimaryKill,
            PrimaryStop,
            Failover,
            SlotMove,
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
            cluster.begin_to_move(slot, to);
            self.wait(0..400, rng);
            cluster.move_keys(slot, from, to);
            self.wait(0..100, rng);
            cluster.end_move(slot, from, to);
            if rng.u32(..3) == 0 {
                cluster.move_slot(slot, from);
            }
        }
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
