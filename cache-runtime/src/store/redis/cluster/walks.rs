//! Walks over the keys of all primaries, and their `INFO`.

use std::sync::Arc;

use super::super::limits::{REMOVE_STEP, TRACKED_REMOVE_STEP};
use super::super::link::Link;
use super::super::scripts;
use super::super::scripts::Lua;
use super::super::slots::slot_of;
use super::super::tracking::Tracker;
use super::super::walk::{Walk, db_size, facts_of, scan};
use super::changes::OnItsWay;
use super::node::Node;
use super::routing::Step;
use super::state::Cluster;
use crate::base::clock;
use crate::base::error::Error;
use crate::store::{Matching, NodeFacts, ServerFacts};

/// How often a walk starts again because slots have moved meanwhile.
const ATTEMPTS: usize = 3;

/// Primaries, each with its connection.
type Links = Vec<(Arc<Node>, Arc<Link>)>;

impl Cluster {
    /// All primaries, each with its connection.
    fn links(&self) -> Result<Links, Error> {
        let map = self.map.load();
        if map.nodes().is_empty() {
            return Err(self.unknown());
        }
        let links = map
            .nodes()
            .iter()
            .map(|node| Ok((Arc::clone(node), node.links.current()?)));
        links.collect()
    }

    pub(in crate::store::redis) async fn remove_matching(
        &self,
        matching: &Matching,
    ) -> Result<u64, Error> {
        if let Some(limit) = matching.unless_larger_than {
            let mut keys = 0;
            for (_, link) in self.links()? {
                keys += db_size(&link, self.budget).await?;
            }
            if keys > limit {
                return Ok(0);
            }
        }
        let mut removed = 0;
        // Again if slots have moved meanwhile, since keys may have been missed. What is missed in
        // the last attempt is dead at its new node, whose identity is another one.
        for _ in 0..ATTEMPTS {
            let before = self.map.load_full();
            for (_, link) in self.links()? {
                removed += self.remove_on(&link, matching).await?;
            }
            if Arc::ptr_eq(&before, &self.map.load_full()) {
                break;
            }
        }
        Ok(removed)
    }

    async fn remove_on(&self, link: &Link, matching: &Matching) -> Result<u64, Error> {
        let which = match matching.derived_only {
            true => "derived",
            false => "all",
        };
        let before = matching.stored_before;
        // The clocks of the nodes are treated as one. If they differ, a live entry may be removed,
        // or a dead one stay until its TTL ends.
        let before = before.map_or(String::new(), |at| at.0.to_string());
        let args = [Vec::from(which), before.into_bytes()];
        let mut removed = 0;
        let mut walk = Walk::new(matching.pattern.clone(), matching.is_leisurely);
        while let Some(keys) = scan(link, self.budget, &mut walk).await? {
            let began = clock::now();
            let step = match link.tracker().is_some_and(Tracker::is_on) {
                true => TRACKED_REMOVE_STEP,
                false => REMOVE_STEP,
            };
            for keys in keys.chunks(step) {
                let steps = steps_over(&scripts::REMOVE, keys, &args);
                let done = self.run(&steps, OnItsWay::Follow).await;
                // A sweep removes only entries that are dead by their generations.
                if matching.stored_before.is_none()
                    || crate::base::mutation::is_active("sweep-ends-copies")
                {
                    self.changed(&steps);
                }
                for done in done {
                    let (done, _) = done?;
                    removed += redis::from_redis_value::<u64>(done).unwrap_or(0);
                }
            }
            if matching.is_leisurely {
                tokio::time::sleep(began.elapsed()).await;
            }
        }
        Ok(removed)
    }

    /// The sums, and the facts of each node.
    pub(in crate::store::redis) async fn facts(&self) -> Result<ServerFacts, Error> {
        let map = self.map.load_full();
        if map.nodes().is_empty() {
            return Err(self.unknown());
        }
        let mut sum = ServerFacts::default();
        for node in map.nodes() {
            let facts = match node.links.current() {
                Ok(link) => facts_of(&link, self.budget).await.ok(),
                Err(_) => None,
            };
            let connected = facts.is_some();
            let facts = facts.unwrap_or_default();
            let plus = |sum: Option<u64>, it: Option<u64>| match (sum, it) {
                (None, it) => it,
                (sum, it) => Some(sum.unwrap_or(0) + it.unwrap_or(0)),
            };
            sum.total_keys = plus(sum.total_keys, facts.total_keys);
            sum.connected_clients = plus(sum.connected_clients, facts.connected_clients);
            // The time for which all of them have been up.
            sum.uptime_seconds = [sum.uptime_seconds, facts.uptime_seconds]
                .into_iter()
                .flatten()
                .min();
            sum.nodes.push(NodeFacts {
                host: node.host.clone(),
                port: node.port,
                connected,
                total_keys: facts.total_keys,
                used_memory: facts.used_memory,
                connected_clients: facts.connected_clients,
            });
        }
        match sum.nodes.iter().any(|node| node.connected) {
            true => {
                let memory = sum
                    .nodes
                    .iter()
                    .filter_map(|node| node.used_memory.as_deref());
                let memory: Vec<_> = memory.collect();
                sum.used_memory = (!memory.is_empty()).then(|| memory.join(" + "));
                Ok(sum)
            }
            false => Err(self.unknown()),
        }
    }

    /// What any of the primaries lacks.
    pub(in crate::store::redis) fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        let map = self.map.load();
        for link in map.nodes().iter().filter_map(|it| it.links.current().ok()) {
            for lack in &link.capabilities.missing {
                if !missing.contains(lack) {
                    missing.push(lack.clone());
                }
            }
        }
        missing
    }

    /// The connection to any primary, for facts that are the same on all of them.
    pub(in crate::store::redis) fn any_link(&self) -> Result<Arc<Link>, Error> {
        let map = self.map.load();
        let mut links = map.nodes().iter().map(|node| node.links.current());
        match links.clone().find_map(Result::ok) {
            Some(link) => Ok(link),
            None => links.next().unwrap_or_else(|| Err(self.unknown())),
        }
    }
}

/// A script over each of these keys.
fn steps_over<'k>(script: &'static Lua, keys: &'k [String], args: &[Vec<u8>]) -> Vec<Step<'k>> {
    let steps = keys.iter().map(|key| Step {
        slot: slot_of(key),
        script,
        keys: vec![key],
        args: args.to_vec(),
    });
    steps.collect()
}
