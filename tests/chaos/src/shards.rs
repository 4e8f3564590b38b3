//! Faults of a cluster, and of servers that Sentinels watch.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::Duration;

use cache_tests::{Links, Mode, RedisCluster, Refused, Sentinels};
use fastrand::Rng;

use crate::clock::now;
use crate::faults::{AT_CLUSTER, AT_SENTINELS, FaultInjector, row_key};
use crate::history::{FaultKind, Time};
use crate::shop::KINDS;

/// Within this time a replica takes over; one that was not in step with its primary may never do.
const ELECTION: Duration = Duration::from_secs(15);
/// So often servers that are not as before are waited for once more.
const WHOLE_AGAIN: usize = 3;

/// The primaries of a cluster.
fn primaries(cluster: &RedisCluster) -> BTreeSet<usize> {
    let shards = cluster.shards().into_iter();
    shards.map(|(primary, _)| primary).collect()
}

/// Whether the cluster refused to do something; says so.
fn given_up(what: &str, done: Result<(), Refused>) -> bool {
    if let Err(refused) = &done {
        eprintln!("chaos: {what} was given up: {refused}");
    }
    done.is_err()
}

impl FaultInjector {
    /// Breaks a cluster, one thing at a time: each shard has one replica only. On a busy machine,
    /// primaries are also replaced by themselves: then what was begun is given up.
    pub(crate) fn at_cluster(&self, cluster: &mut RedisCluster, links: &[Links], mut rng: Rng) {
        use FaultKind::{
            Failover, Flush, Partition, PrimaryKill, PrimaryStop, ScriptFlush, SlotMove, SlotReturn,
        };
        let (mut primaries, mut known_at) = (primaries(cluster), now());
        while self.goes_on() {
            self.wait(300..2_000, &mut rng);
            let Some(kind) = self.choose(AT_CLUSTER, &mut rng) else {
                return;
            };
            if !self.goes_on() {
                return;
            }
            let shards = cluster.shards();
            if self.was_replaced(&mut primaries, cluster, known_at) {
                cluster.end_moves();
                cluster.wait_until_whole();
                continue;
            }
            let Some((primary, replicas)) = rng.choice(shards) else {
                return;
            };
            let replica = replicas.first().copied().unwrap_or(primary);
            let from = now();
            let mut is_planned = false;
            match kind {
                PrimaryKill => {
                    cluster.node_mut(primary).stop();
                    cluster.becomes_primary(replica, ELECTION);
                    self.wait(0..1_000, &mut rng);
                    cluster.node_mut(primary).restart();
                    is_planned = true;
                }
                PrimaryStop => {
                    cluster.node_mut(primary).pause();
                    self.wait(50..4_000, &mut rng);
                    cluster.node_mut(primary).resume();
                    is_planned = true;
                }
                Failover => {
                    given_up("a failover", cluster.try_to_fail_over(replica, &[]));
                    is_planned = true;
                }
                SlotMove => self.move_slots(cluster, &mut rng),
                SlotReturn => {
                    self.return_slot(cluster, &mut rng);
                    is_planned = true;
                }
                Partition => {
                    self.part(cluster, (primary, replica), links, &mut rng);
                    is_planned = true;
                }
                Flush => drop(cluster.node(primary).cli(&["FLUSHALL"])),
                ScriptFlush => drop(cluster.node(primary).cli(&["SCRIPT", "FLUSH"])),
                _ => drop(
                    cluster
                        .node(primary)
                        .cli(&["CLIENT", "KILL", "TYPE", "normal"]),
                ),
            }
            if is_planned {
                // A primary may be replaced in the middle of a move, though nobody has broken it.
                cluster.end_moves();
                cluster.wait_until_whole();
                primaries = self::primaries(cluster);
            }
            // These two have noted what they did.
            if !matches!(kind, SlotReturn | SlotMove) {
                self.note(kind, from, None);
            }
            self.was_replaced(&mut primaries, cluster, from);
            known_at = now();
        }
    }

    /// Whether primaries have been replaced that nobody has broken; it is noted like any failover.
    fn was_replaced(
        &self,
        known: &mut BTreeSet<usize>,
        cluster: &RedisCluster,
        since: Time,
    ) -> bool {
        let now = primaries(cluster);
        let was_replaced = *known != now;
        if was_replaced {
            self.note(FaultKind::Failover, since, None);
            *known = now;
        }
        was_replaced
    }

    /// Slots that are in use go to another primary, some of them slowly, and some of them back at
    /// once.
    fn move_slots(&self, cluster: &RedisCluster, rng: &mut Rng) {
        let at_once = cluster.moves_at_once();
        for _ in 0..rng.u32(1..6) {
            let key = match rng.bool() {
                true => row_key(rng),
                false => format!("@gen:{{{}}}", KINDS[rng.usize(..KINDS.len())]),
            };
            let (slot, began) = (cluster.slot(&key), now());
            let (from, before) = (cluster.owner(slot), primaries(cluster));
            let mut others = cluster.shards();
            others.retain(|(primary, _)| *primary != from);
            let Some((to, _)) = rng.choice(others) else {
                return;
            };
            let moved = match at_once && rng.bool() {
                true => cluster.try_to_move_at_once((slot, slot), to),
                false => cluster.try_to_move_slot(slot, to, || self.wait(0..400, rng)),
            };
            let returns = rng.u32(..3) == 0;
            let moved = moved.and_then(|()| match returns {
                true => cluster.try_to_move_slot(slot, from, || ()),
                false => Ok(()),
            });
            let is_given_up = given_up("a move of a slot", moved);
            if is_given_up {
                cluster.settle(slot);
                cluster.wait_until_whole();
            }
            // What was invalidated at the other node may be lost with it, and what was announced
            // there is lost with the move.
            let is_lossy = is_given_up || (returns && primaries(cluster) != before);
            let kind = match is_lossy {
                true => FaultKind::SlotReturn,
                false => FaultKind::SlotMove,
            };
            self.note(kind, began, None);
            if is_given_up {
                return;
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
        let moved = cluster.try_to_move_slot(slot, away, || ());
        let moved = moved.and_then(|()| cluster.try_to_hear(replica, slot, away));
        if given_up("a move of a slot", moved) {
            cluster.settle(slot);
            cluster.wait_until_whole();
            self.note(FaultKind::SlotReturn, from, None);
            return;
        }
        cluster.node_mut(replica).pause();
        cluster
            .node(away)
            .cli(&["CLIENT", "KILL", "TYPE", "replica"]);
        self.wait(0..150, rng);
        cluster.node_mut(away).stop();
        cluster.node_mut(replica).resume();
        let returned = cluster.try_to_fail_over(replica, &["TAKEOVER"]);
        let returned = returned.and_then(|()| cluster.try_to_move_slot(slot, home, || ()));
        self.note(FaultKind::SlotReturn, from, None);
        cluster.node_mut(away).restart();
        if given_up("the return of a slot", returned) {
            cluster.settle(slot);
            cluster.wait_until_whole();
            // It is back later than it should have been, or stays where it is.
            self.note(FaultKind::SlotReturn, from, None);
        }
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
        cluster.becomes_primary(replica, ELECTION);
        self.wait(0..1_500, rng);
        cluster.rejoin(primary);
        for link in &across {
            link.set(Mode::Pass);
        }
        self.note(FaultKind::CutOff, from, Some(slot));
    }

    /// Breaks a primary, its replica, and the Sentinels that watch them.
    pub(crate) fn at_sentinels(&self, sentinels: &mut Sentinels, mut rng: Rng) {
        use FaultKind::{Failover, Flush, PrimaryKill, PrimaryStop, ScriptFlush, SentinelStop};
        let (mut known, mut known_at) = (sentinels.primary(), now());
        while self.goes_on() {
            self.wait(300..2_000, &mut rng);
            let Some(kind) = self.choose(AT_SENTINELS, &mut rng) else {
                return;
            };
            if !self.goes_on() {
                return;
            }
            let (primary, from) = (sentinels.primary(), now());
            if std::mem::replace(&mut known, primary) != primary {
                // On a busy machine primaries are replaced that nobody has broken.
                self.note(Failover, known_at, None);
            }
            let port = sentinels.server(primary).port();
            let tell = |words: &[&str]| drop(sentinels.server(primary).cli(words));
            let mut is_planned = true;
            match kind {
                PrimaryKill => {
                    sentinels.server_mut(primary).stop();
                    given_up("a failover", sentinels.try_for_another(port));
                    self.wait(0..1_000, &mut rng);
                    sentinels.server_mut(primary).restart();
                }
                PrimaryStop => {
                    sentinels.server_mut(primary).pause();
                    self.wait(50..4_000, &mut rng);
                    sentinels.server_mut(primary).resume();
                }
                Failover => {
                    // One in tilt says `OK`, and does it half a minute later.
                    let able: Vec<_> = (0..3).filter(|it| !sentinels.is_in_tilt(*it)).collect();
                    let Some(number) = rng.choice(able) else {
                        continue;
                    };
                    let failover = ["SENTINEL", "FAILOVER", Sentinels::NAME];
                    // Refused soon after another one.
                    if sentinels.sentinel(number).cli(&failover) == "OK" {
                        given_up("a failover", sentinels.try_for_another(port));
                    }
                }
                SentinelStop => {
                    let number = rng.usize(..3);
                    // Of three in tilt none would do anything for half a minute.
                    let mut others = (0..3).filter(|it| *it != number);
                    let longest = match others.any(|it| sentinels.is_in_tilt(it)) {
                        true => 1_500,
                        false => 4_000,
                    };
                    sentinels.sentinel_mut(number).pause();
                    self.wait(50..longest, &mut rng);
                    sentinels.sentinel_mut(number).resume();
                    is_planned = false;
                }
                _ => {
                    is_planned = false;
                    match kind {
                        Flush => tell(&["FLUSHALL"]),
                        ScriptFlush => tell(&["SCRIPT", "FLUSH"]),
                        _ => tell(&["CLIENT", "KILL", "TYPE", "normal"]),
                    }
                }
            }
            if is_planned {
                await_whole(sentinels);
                known = sentinels.primary();
            }
            self.note(kind, from, None);
            // Otherwise a primary may have been replaced meanwhile, which is noted in the next
            // round.
            known_at = if is_planned { now() } else { from };
        }
    }
}

/// Returns when the servers are as before; a failover that was given up may still come about.
fn await_whole(sentinels: &Sentinels) {
    for _ in 0..WHOLE_AGAIN {
        if !given_up("to wait for the servers", sentinels.try_until_whole()) {
            return;
        }
    }
    sentinels.wait_until_whole();
}
