//! Slots of a private cluster that go from one primary to another.

use std::time::{Duration, Instant};

use crate::cluster::{RedisCluster, Refused, START};
use crate::wait::poll;

/// For how long a node that can't pass its keys on at the moment is asked again.
const AGAIN: Duration = Duration::from_secs(5);
const AGAIN_PAUSE: Duration = Duration::from_millis(50);

impl RedisCluster {
    /// Moves a slot with its keys to another primary, as `redis-cli --cluster reshard` does.
    ///
    /// # Panics
    /// When a node refuses.
    pub fn move_slot(&self, slot: u16, to: usize) {
        accepted(self.try_to_move_slot(slot, to, || ()));
    }

    /// The same where nodes may be replaced by themselves meanwhile; `pause` comes after the first
    /// step, and after the second. A move that is broken off has to be
    /// [settled](Self::settle).
    ///
    /// # Errors
    /// When a node refuses, as one that is no primary any more does.
    pub fn try_to_move_slot(
        &self,
        slot: u16,
        to: usize,
        mut pause: impl FnMut(),
    ) -> Result<(), Refused> {
        let nobody = || Refused::new(format!("nobody owns slot {slot}"));
        let from = poll(START, || self.claimant(slot)).ok_or_else(nobody)?;
        if from == to {
            return Ok(());
        }
        self.try_to_begin(slot, from, to)?;
        pause();
        self.try_to_move_keys(slot, from, to)?;
        pause();
        self.try_to_end(slot, from, to)
    }

    /// The first step of a move: both nodes know of it, and no key has moved.
    ///
    /// # Panics
    /// When a node refuses.
    pub fn begin_to_move(&self, slot: u16, to: usize) {
        accepted(self.try_to_begin(slot, self.owner(slot), to));
    }

    fn try_to_begin(&self, slot: u16, from: usize, to: usize) -> Result<(), Refused> {
        let ids = [from, to].map(|node| self.id(node));
        self.set_slot(to, slot, &["IMPORTING", &ids[0]])?;
        self.set_slot(from, slot, &["MIGRATING", &ids[1]])
    }

    fn set_slot(&self, node: usize, slot: u16, how: &[&str]) -> Result<(), Refused> {
        let text = slot.to_string();
        let command = [&["CLUSTER", "SETSLOT", &text], how].concat();
        match self.node(node).cli(&command) {
            answer if answer == "OK" => Ok(()),
            answer => Err(Refused::new(answer)),
        }
    }

    /// The second: all keys move.
    ///
    /// # Panics
    /// When a node refuses.
    pub fn move_keys(&self, slot: u16, from: usize, to: usize) {
        accepted(self.try_to_move_keys(slot, from, to));
    }

    fn try_to_move_keys(&self, slot: u16, from: usize, to: usize) -> Result<(), Refused> {
        let text = slot.to_string();
        let port = self.node(to).port().to_string();
        let end = Instant::now() + AGAIN;
        loop {
            let keys = self
                .node(from)
                .cli(&["CLUSTER", "GETKEYSINSLOT", &text, "100"]);
            let keys: Vec<&str> = keys.lines().filter(|key| !key.is_empty()).collect();
            if keys.is_empty() {
                return Ok(());
            }
            let migrate = [
                "MIGRATE",
                "127.0.0.1",
                &port,
                "",
                "0",
                "5000",
                "REPLACE",
                "KEYS",
            ];
            let moved = self.node(from).cli(&[&migrate[..], &keys].concat());
            if ["OK", "NOKEY"].contains(&moved.as_str()) {
                continue;
            }
            // While primaries are replaced, the cluster is down for a moment.
            if !moved.contains("CLUSTERDOWN") || Instant::now() >= end {
                return Err(Refused::new(moved));
            }
            std::thread::sleep(AGAIN_PAUSE);
        }
    }

    /// The last: the slot belongs to the other node.
    ///
    /// # Panics
    /// When a node refuses.
    pub fn end_move(&self, slot: u16, from: usize, to: usize) {
        accepted(self.try_to_end(slot, from, to));
    }

    fn try_to_end(&self, slot: u16, from: usize, to: usize) -> Result<(), Refused> {
        let id = self.id(to);
        self.set_slot(to, slot, &["NODE", &id])?;
        match self.set_slot(from, slot, &["NODE", &id]) {
            // A node that has learnt that its last slot has left it is a replica by then.
            Err(refused) if refused.to_string().contains("only with masters") => Ok(()),
            done => done,
        }
    }

    /// Ends a move that was broken off, or that a failover came in between; returns when all nodes
    /// agree on one owner of the slot. Keys that have gone to a node that does not become the owner
    /// stay there, where nobody reads them.
    ///
    /// It comes before the cluster [is whole](Self::wait_until_whole), which is down without it.
    ///
    /// # Panics
    /// When they don't agree.
    pub fn settle(&self, slot: u16) {
        let end = Instant::now() + START;
        while Instant::now() < end {
            self.end_moves();
            if poll(AGAIN, || self.is_settled(slot).then_some(())).is_some() {
                return;
            }
            let claims = (0..self.len()).filter(|node| self.has_claim(*node, slot));
            let owner = match claims.collect::<Vec<_>>()[..] {
                // The former owner gave the slot away, and the new one was replaced before it told
                // anybody.
                [] => self.shards()[0].0,
                [owner] => owner,
                // One of them does not know yet that it was replaced.
                _ => continue,
            };
            let another = self.shards().into_iter().find(|(it, _)| *it != owner);
            let others = another.map(|(other, _)| self.id(other)).unwrap_or_default();
            // With a higher epoch, which all nodes accept. A node that is replaced meanwhile
            // refuses.
            let _ = self.set_slot(owner, slot, &["IMPORTING", &others]);
            let _ = self.set_slot(owner, slot, &["NODE", &self.id(owner)]);
        }
        panic!(
            "slot {slot} has no owner that all agree on: {}",
            self.node(0).cli(&["CLUSTER", "NODES"])
        );
    }

    /// Ends the waiting of nodes for the rest of a move. A node that imports a slot does not learn
    /// that the slot's owner was replaced, and would stay down.
    pub fn end_moves(&self) {
        for node in 0..self.len() {
            let nodes = self.node(node).cli(&["CLUSTER", "NODES"]);
            let own = nodes.lines().find(|line| line.contains("myself"));
            // `[93-<-ID]` or `[93->-ID]`
            let begun = own.into_iter().flat_map(|own| own.split('[').skip(1));
            for slot in begun.filter_map(|begun| begun.split('-').next()?.parse().ok()) {
                // A replica refuses: it has no part in a move.
                let _ = self.set_slot(node, slot, &["STABLE"]);
            }
        }
    }

    /// Whether all nodes name the same owner of a slot, and it says so itself.
    fn is_settled(&self, slot: u16) -> bool {
        let Some(owner) = self.claimant(slot) else {
            return false;
        };
        let id = self.id(owner);
        (0..self.len()).all(|node| self.owner_in_view(node, slot).as_ref() == Some(&id))
    }

    /// Whether slots can be [moved at once](Self::move_at_once).
    pub fn moves_at_once(&self) -> bool {
        self.node(0)
            .cli(&["CLUSTER", "HELP"])
            .contains("MIGRATESLOTS")
    }

    /// Moves a range of slots to another primary in one step, as Valkey 9 does; returns when both
    /// nodes say so.
    ///
    /// # Panics
    /// When a node refuses, or the slots don't arrive.
    pub fn move_at_once(&self, slots: (u16, u16), to: usize) {
        accepted(self.try_to_move_at_once(slots, to));
    }

    /// The same where nodes may be replaced by themselves meanwhile.
    ///
    /// # Errors
    /// When a node refuses, or the slots don't arrive.
    pub fn try_to_move_at_once(&self, slots: (u16, u16), to: usize) -> Result<(), Refused> {
        let from = self.owner(slots.0);
        if from == to {
            return Ok(());
        }
        let (first, last) = (slots.0.to_string(), slots.1.to_string());
        let id = self.id(to);
        let command = [
            "CLUSTER",
            "MIGRATESLOTS",
            "SLOTSRANGE",
            &first,
            &last,
            "NODE",
            &id,
        ];
        let jobs = || Refused::new(self.node(from).cli(&["CLUSTER", "GETSLOTMIGRATIONS"]));
        // Refused as long as an earlier move is not over.
        let begun = || (self.node(from).cli(&command) == "OK").then_some(());
        poll(START, begun).ok_or_else(jobs)?;
        let has_arrived = || (self.owner(slots.0) == to && self.owner(slots.1) == to).then_some(());
        poll(START, has_arrived).ok_or_else(jobs)
    }
}

fn accepted(done: Result<(), Refused>) {
    done.unwrap_or_else(|refused| panic!("{refused}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_that_is_broken_off_leaves_one_owner() {
        let cluster = RedisCluster::start(3, 1);
        let slot = cluster.slot("users:1");
        let from = cluster.owner(slot);
        let to = (from + 1) % 3;
        // The node that the slot was to go to is replaced when the keys have moved.
        cluster.node(from).cli(&["SET", "users:1", "1"]);
        cluster.begin_to_move(slot, to);
        cluster.move_keys(slot, from, to);
        cluster.fail_over(to + 3, &[]);
        cluster.wait_until_whole();
        let refused = cluster.try_to_end(slot, from, to);
        assert!(refused.is_err(), "{refused:?}");
        cluster.settle(slot);
        assert_eq!(cluster.owner(slot), from);
        assert_eq!(cluster.node(from).cli(&["SET", "users:1", "2"]), "OK");
        // The node that it is to come from is replaced, which the other one does not learn of.
        cluster.begin_to_move(slot, to + 3);
        cluster.fail_over(from + 3, &[]);
        let up = || {
            cluster
                .node(to + 3)
                .cli(&["CLUSTER", "INFO"])
                .contains("cluster_state:ok")
        };
        assert!(
            poll(AGAIN, || (!up()).then_some(())).is_some(),
            "it has heard of it"
        );
        cluster.settle(slot);
        cluster.wait_until_whole();
        assert_eq!(cluster.owner(slot), from + 3);
        let from = from + 3;
        // And it can be moved again.
        cluster.move_slot(slot, to + 3);
        assert_eq!(cluster.node(to + 3).cli(&["GET", "users:1"]), "2");
        // Its owner gives it away to a node that does not know of it.
        assert_eq!(cluster.node(to + 3).cli(&["DEL", "users:1"]), "1");
        let given = cluster.set_slot(to + 3, slot, &["NODE", &cluster.id(from)]);
        assert!(given.is_ok(), "{given:?}");
        assert_eq!(cluster.claimant(slot), None);
        cluster.settle(slot);
        assert!(cluster.is_settled(slot));
    }
}
