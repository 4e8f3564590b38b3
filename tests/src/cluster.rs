//! A private cluster.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use crate::proxy::{Mode, Proxy};
use crate::redis::{RedisOptions, RedisServer};
use crate::wait::{free_port, poll};

pub(crate) const START: Duration = Duration::from_secs(60);
const SLOTS: u16 = 16_384;

/// A real cluster on free loopback ports: primaries with equal shares of the slots, and replicas of
/// them.
///
/// Nodes are numbered: the primaries first, then the replicas, the first of which belong to the
/// first primary.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
    primaries: usize,
    options: RedisOptions,
    /// Proxies for the traffic between the nodes, one in front of each, if one of them is to be
    /// isolated.
    buses: Vec<Proxy>,
}

impl RedisCluster {
    /// A cluster of so many primaries, each with so many replicas.
    ///
    /// # Panics
    /// When a server does not start, or the cluster does not form.
    pub fn start(primaries: usize, replicas: usize) -> Self {
        Self::start_with(primaries, replicas, RedisOptions::default())
    }

    /// The same with more configuration of each node.
    ///
    /// # Panics
    /// When a server does not start, or the cluster does not form.
    pub fn start_with(primaries: usize, replicas: usize, options: RedisOptions) -> Self {
        let nodes = (0..primaries * (1 + replicas)).map(|_| start_node(&options, free_port()));
        let cluster = Self {
            nodes: nodes.collect(),
            primaries,
            options,
            buses: Vec::new(),
        };
        cluster.form(replicas);
        cluster
    }

    /// A cluster whose nodes can be [isolated](Self::isolate).
    ///
    /// # Panics
    /// When a server does not start, or the cluster does not form.
    pub fn of_islands(primaries: usize, replicas: usize) -> Self {
        let options = RedisOptions::default();
        let (mut nodes, mut buses) = (Vec::new(), Vec::new());
        for number in 0..primaries * (1 + replicas) {
            let port = free_port();
            let bus = Proxy::start(port);
            // Each has an address of its own to speak from, by which the others' proxies know it.
            let options = options
                .clone()
                .config("protected-mode no")
                .config("cluster-announce-ip 127.0.0.1")
                .config(&format!("cluster-announce-bus-port {}", bus.port()))
                .config(&format!("bind-source-addr {}", island(number)));
            nodes.push(start_node(&options, port));
            buses.push(bus);
        }
        let cluster = Self {
            nodes,
            primaries,
            options,
            buses,
        };
        cluster.form(replicas);
        cluster
    }

    /// Cuts a node off from all others, as where the network between them is broken. Clients reach
    /// it as before.
    pub fn isolate(&self, node: usize) {
        for (number, bus) in self.buses.iter().enumerate() {
            match number == node {
                true => bus.set(Mode::Cut),
                false => bus.refuse(Some(island(node))),
            }
        }
        let replication = ["-psync", "-sync", "-replconf"];
        self.nodes[node].cli(&[&["ACL", "SETUSER", "default"], &replication[..]].concat());
        self.nodes[node].cli(&["CLIENT", "KILL", "TYPE", "replica"]);
    }

    /// Ends its isolation.
    pub fn rejoin(&self, node: usize) {
        self.nodes[node].cli(&["ACL", "SETUSER", "default", "+@all"]);
        for bus in &self.buses {
            bus.set(Mode::Pass);
            bus.refuse(None);
        }
    }

    fn form(&self, replicas: usize) {
        let share = usize::from(SLOTS).div_ceil(self.primaries);
        for (number, node) in self.nodes.iter().enumerate() {
            node.cli(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
            if number < self.primaries {
                let (first, end) = (share * number, (share * (number + 1)).min(SLOTS.into()));
                let range = [first, end - 1].map(|slot| slot.to_string());
                let added = node.cli(&["CLUSTER", "ADDSLOTSRANGE", &range[0], &range[1]]);
                assert_eq!(added, "OK");
            }
            let first = &self.nodes[0];
            let bus = match self.buses.first() {
                Some(bus) => bus.port().to_string(),
                None => bus_of(first),
            };
            node.cli(&[
                "CLUSTER",
                "MEET",
                "127.0.0.1",
                &first.port().to_string(),
                &bus,
            ]);
        }
        self.wait("all nodes are known to each", |node| {
            node.cli(&["CLUSTER", "NODES"])
                .lines()
                .filter(|line| !line.contains("handshake"))
                .count()
                == self.nodes.len()
        });
        for (number, node) in self.nodes.iter().enumerate().skip(self.primaries) {
            let primary = (number - self.primaries) / replicas;
            let id = self.id(primary);
            assert_eq!(node.cli(&["CLUSTER", "REPLICATE", &id]), "OK");
        }
        self.wait("the cluster is up", |node| {
            let replication = node.cli(&["INFO", "replication"]);
            let is_linked = replication.contains("role:master")
                || replication.contains("master_link_status:up");
            is_linked && node.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
        });
        let replicas = self.nodes.len() - self.primaries;
        self.wait("the replicas are known to each", |node| {
            let nodes = node.cli(&["CLUSTER", "NODES"]);
            nodes.lines().filter(|line| line.contains("slave")).count() == replicas
        });
    }

    /// One node more, a primary without slots; returns its number.
    ///
    /// # Panics
    /// When the server does not start, or the others don't learn of it.
    pub fn join(&mut self) -> usize {
        let node = start_node(&self.options, free_port());
        let bus = bus_of(&node);
        let port = node.port().to_string();
        self.nodes[0].cli(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
        self.nodes.push(node);
        self.wait("all nodes are known to each", |node| {
            let nodes = node.cli(&["CLUSTER", "NODES"]);
            let known = nodes.lines().filter(|line| !line.contains("handshake"));
            known.count() == self.nodes.len()
                && node.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
        });
        self.nodes.len() - 1
    }

    fn wait(&self, what: &str, holds: impl Fn(&RedisServer) -> bool) {
        let end = Instant::now() + START;
        for node in &self.nodes {
            let rest = end.saturating_duration_since(Instant::now());
            let held = poll(rest, || holds(node).then_some(()));
            assert!(
                held.is_some(),
                "{what}: not within {START:?}: {}",
                node.cli(&["CLUSTER", "NODES"])
            );
        }
    }

    /// A node.
    pub fn node(&self, number: usize) -> &RedisServer {
        &self.nodes[number]
    }

    /// A node, to stop or to pause.
    pub fn node_mut(&mut self, number: usize) -> &mut RedisServer {
        &mut self.nodes[number]
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Always false.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// `host:port,..` of all nodes.
    pub fn seeds(&self) -> String {
        let seeds = self
            .nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.service_port()));
        seeds.collect::<Vec<_>>().join(",")
    }

    /// A node's id.
    pub fn id(&self, number: usize) -> String {
        self.nodes[number].cli(&["CLUSTER", "MYID"])
    }

    /// The slot of a key.
    ///
    /// # Panics
    /// When the first node does not answer.
    pub fn slot(&self, key: &str) -> u16 {
        let slot = self.nodes[0].cli(&["CLUSTER", "KEYSLOT", key]);
        slot.parse().expect("a slot")
    }

    /// The shards, each a primary and its replicas, in the view of a primary.
    ///
    /// # Panics
    /// When no node answers as a primary.
    pub fn shards(&self) -> Vec<(usize, Vec<usize>)> {
        let views = self
            .nodes
            .iter()
            .map(|node| node.cli(&["CLUSTER", "NODES"]));
        let view = views.into_iter().find(|it| it.contains("myself,master"));
        let view = view.expect("a primary answers");
        let mut nodes = Vec::new();
        for line in view.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [id, address, flags, primary, ..] = words[..] else {
                continue;
            };
            let port = address.split(['@', ',']).next().unwrap_or_default();
            let port = port.rsplit(':').next().and_then(|port| port.parse().ok());
            let number = self.nodes.iter().position(|node| Some(node.port()) == port);
            let Some(number) = number else { continue };
            nodes.push((
                id,
                number,
                flags.contains("master"),
                primary,
                words.len() > 8,
            ));
        }
        let primaries = nodes
            .iter()
            .filter(|(_, _, is_primary, _, has_slots)| *is_primary && *has_slots);
        let shard = |(id, number, ..): &(&str, usize, bool, &str, bool)| {
            let replicas = nodes
                .iter()
                .filter(|(_, _, is_primary, of, _)| !is_primary && of == id);
            (*number, replicas.map(|(_, number, ..)| *number).collect())
        };
        primaries.map(shard).collect()
    }

    /// Returns when all nodes report that the cluster is up and agree on the primaries, and all
    /// replicas replicate.
    ///
    /// # Panics
    /// When they don't.
    pub fn wait_until_whole(&self) {
        self.wait("the cluster is whole", |node| {
            let replication = node.cli(&["INFO", "replication"]);
            let is_linked = replication.contains("role:master")
                || replication.contains("master_link_status:up");
            let nodes = node.cli(&["CLUSTER", "NODES"]);
            is_linked
                && !nodes.contains("fail")
                && node.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
        });
        self.wait_until_agreed();
    }

    /// Returns when all nodes agree on the primaries and their replicas: the new primary
    /// knows of a failover before the others do.
    fn wait_until_agreed(&self) {
        let views = || {
            let views = self
                .nodes
                .iter()
                .map(|node| roles(&node.cli(&["CLUSTER", "NODES"])));
            views.collect::<Vec<_>>()
        };
        let agree = || views().windows(2).all(|two| two[0] == two[1]).then_some(());
        assert!(
            poll(START, agree).is_some(),
            "the nodes don't agree: {:#?}",
            views()
        );
    }

    /// The number of the node that owns a slot, in its own view.
    ///
    /// # Panics
    /// When none does.
    pub fn owner(&self, slot: u16) -> usize {
        let owner = poll(START, || self.claimant(slot));
        owner.unwrap_or_else(|| panic!("nobody owns slot {slot}"))
    }

    /// The first node that owns a slot in its own view.
    pub(crate) fn claimant(&self, slot: u16) -> Option<usize> {
        (0..self.len()).find(|node| self.has_claim(*node, slot))
    }

    /// Whether a node owns a slot in its own view.
    pub(crate) fn has_claim(&self, node: usize, slot: u16) -> bool {
        let nodes = self.nodes[node].cli(&["CLUSTER", "NODES"]);
        let own = nodes.lines().find(|line| line.contains("myself,master"));
        own.is_some_and(|own| has_slot(own, slot))
    }

    /// The id of the node that owns a slot, in the view of this one.
    pub(crate) fn owner_in_view(&self, node: usize, slot: u16) -> Option<String> {
        let nodes = self.nodes[node].cli(&["CLUSTER", "NODES"]);
        let line = nodes.lines().find(|line| has_slot(line, slot))?;
        Some(line.split(' ').next()?.to_owned())
    }

    /// Returns when a node has learnt that the slot belongs to that other one.
    ///
    /// # Panics
    /// When it does not learn of it.
    pub fn wait_until_heard(&self, node: usize, slot: u16, owner: usize) {
        self.try_to_hear(node, slot, owner)
            .unwrap_or_else(|refused| panic!("{refused}"));
    }

    /// The same where the owner may change meanwhile.
    ///
    /// # Errors
    /// When it does not learn of it.
    pub fn try_to_hear(&self, node: usize, slot: u16, owner: usize) -> Result<(), Refused> {
        let id = self.id(owner);
        let has_heard = || (self.owner_in_view(node, slot)? == id).then_some(());
        let view = || Refused::new(self.nodes[node].cli(&["CLUSTER", "NODES"]));
        poll(START, has_heard).ok_or_else(view)
    }

    /// Whether this node owns the slot of a key, in its own view.
    pub fn is_owner(&self, node: usize, key: &str) -> bool {
        self.owner(self.slot(key)) == node
    }

    /// The slots of a primary in its own view, the first of its ranges.
    ///
    /// # Panics
    /// When it has none.
    pub fn first_range(&self, node: usize) -> (u16, u16) {
        let nodes = self.nodes[node].cli(&["CLUSTER", "NODES"]);
        let own = nodes.lines().find(|line| line.contains("myself,master"));
        let range = own.and_then(|own| own.split(' ').nth(8));
        let range = range.unwrap_or_else(|| panic!("node {node} has no slots: {nodes}"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let slot = |text: &str| text.parse().expect("a slot");
        (slot(first), slot(last))
    }

    /// Makes a replica the primary. Returns when it is, and, unless it was a takeover, when all
    /// nodes have learnt of it. A takeover is for when some nodes don't answer.
    ///
    /// # Panics
    /// When it does not become one.
    pub fn fail_over(&self, replica: usize, how: &[&str]) {
        self.try_to_fail_over(replica, how)
            .unwrap_or_else(|refused| panic!("{refused}"));
    }

    /// The same where nodes may be replaced by themselves meanwhile.
    ///
    /// # Errors
    /// When it does not become one.
    pub fn try_to_fail_over(&self, replica: usize, how: &[&str]) -> Result<(), Refused> {
        let command = [&["CLUSTER", "FAILOVER"], how].concat();
        let node = &self.nodes[replica];
        let end = Instant::now() + START;
        while Instant::now() < end {
            // Where the others don't vote in time it is given up, and has to be asked for again.
            let answer = node.cli(&command);
            if !self.is_primary(replica) && answer != "OK" {
                return Err(Refused::new(answer));
            }
            if self.becomes_primary(replica, Duration::from_secs(6)) {
                if how.is_empty() {
                    self.wait_until_agreed();
                }
                return Ok(());
            }
        }
        Err(Refused::new(node.cli(&["CLUSTER", "NODES"])))
    }

    /// Returns when this node is a replica and replicates its primary.
    ///
    /// # Panics
    /// When it does not become one.
    pub fn wait_for_replica(&self, node: usize) {
        let node = &self.nodes[node];
        let is_linked = || {
            let info = node.cli(&["INFO", "replication"]);
            info.contains("master_link_status:up").then_some(())
        };
        assert!(
            poll(START, is_linked).is_some(),
            "{}",
            node.cli(&["INFO", "replication"])
        );
    }

    /// Returns when this node is a primary.
    ///
    /// # Panics
    /// When it does not become one.
    pub fn wait_for_primary(&self, node: usize) {
        assert!(
            self.becomes_primary(node, START),
            "{}",
            self.nodes[node].cli(&["CLUSTER", "NODES"])
        );
    }

    /// Whether this node is a primary within this time.
    pub fn becomes_primary(&self, node: usize, limit: Duration) -> bool {
        poll(limit, || self.is_primary(node).then_some(())).is_some()
    }

    pub(crate) fn is_primary(&self, node: usize) -> bool {
        let nodes = self.nodes[node].cli(&["CLUSTER", "NODES"]);
        nodes.contains("myself,master")
    }
}

/// The errors of servers that refused a command.
#[derive(Debug, Clone)]
pub struct Refused(String);

impl Refused {
    pub(crate) fn new(words: impl Into<String>) -> Self {
        Self(words.into())
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// The address that a node which can be isolated speaks from.
fn island(node: usize) -> IpAddr {
    let number = u8::try_from(node).expect("few nodes");
    Ipv4Addr::new(127, 0, 1, number + 1).into()
}

fn bus_of(node: &RedisServer) -> String {
    let info = node.cli(&["CONFIG", "GET", "cluster-port"]);
    info.lines().last().unwrap_or_default().to_owned()
}

/// Of each node in a view: its id, whether it is a primary, and whose replica it is.
fn roles(view: &str) -> Vec<(String, bool, String)> {
    let mut roles: Vec<_> = view
        .lines()
        .filter_map(|line| {
            let [id, _, flags, primary, ..] = line.split(' ').collect::<Vec<_>>()[..] else {
                return None;
            };
            Some((id.to_owned(), flags.contains("master"), primary.to_owned()))
        })
        .collect();
    roles.sort();
    roles
}

/// Whether a line of `CLUSTER NODES` has this slot.
fn has_slot(line: &str, slot: u16) -> bool {
    line.split(' ').skip(8).any(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<u16>(), last.parse::<u16>());
        matches!((first, last), (Ok(first), Ok(last)) if (first..=last).contains(&slot))
    })
}

fn start_node(options: &RedisOptions, bus: u16) -> RedisServer {
    options
        .clone()
        .config("cluster-enabled yes")
        .config(&format!("cluster-port {bus}"))
        .config("cluster-node-timeout 1000")
        .config("cluster-migration-barrier 10")
        .config("repl-diskless-sync-delay 0")
        .start()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_forms_moves_slots_and_fails_over() {
        let cluster = RedisCluster::start(2, 1);
        let slot = cluster.slot("users:1");
        let owner = cluster.owner(slot);
        assert_eq!(cluster.node(owner).cli(&["SET", "users:1", "1"]), "OK");
        cluster.move_slot(slot, 1 - owner);
        assert_eq!(cluster.owner(slot), 1 - owner);
        assert_eq!(cluster.node(1 - owner).cli(&["GET", "users:1"]), "1");
        cluster.fail_over(2, &[]);
        assert_eq!(cluster.seeds().split(',').count(), 4);
    }
}
