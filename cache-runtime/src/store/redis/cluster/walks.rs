//! Walks over the keys of all primaries, and their `INFO`.

use std::sync::Arc;

use super::super::connection::Connection;
use super::super::limits::{REMOVE_STEP, TRACKED_REMOVE_STEP};
use super::super::scripts::{self, Lua};
use super::super::slots::slot_of;
use super::super::tracking::Tracker;
use super::super::walk::{Walk, db_size, scan, server_info_of};
use super::node::Node;
use super::routing::ScriptCall;
use super::sending::OnAsk;
use super::state::Cluster;
use crate::base::clock;
use crate::base::error::Error;
use crate::store::{NodeInfo, ScanFilter, ServerInfo};

/// How often a walk starts again because slots have moved meanwhile.
const ATTEMPTS: usize = 3;

/// Primaries, each with its connection.
type NodeConnections = Vec<(Arc<Node>, Arc<Connection>)>;

impl Cluster {
    /// All primaries, each with its connection.
    fn connections(&self) -> Result<NodeConnections, Error> {
        let map = self.map.load();
        if map.nodes().is_empty() {
            return Err(self.unknown());
        }
        let connections = map
            .nodes()
            .iter()
            .map(|node| Ok((Arc::clone(node), node.connections.current()?)));
        connections.collect()
    }

    pub(in crate::store::redis) async fn remove_matching(
        &self,
        filter: &ScanFilter,
    ) -> Result<u64, Error> {
        if let Some(limit) = filter.unless_larger_than {
            let mut keys = 0;
            for (_, connection) in self.connections()? {
                keys += db_size(&connection, self.budget).await?;
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
            for (_, connection) in self.connections()? {
                removed += self.remove_on(&connection, filter).await?;
            }
            if Arc::ptr_eq(&before, &self.map.load_full()) {
                break;
            }
        }
        if filter.stored_before.is_none() {
            self.confirmed()?;
        }
        Ok(removed)
    }

    async fn remove_on(&self, connection: &Connection, filter: &ScanFilter) -> Result<u64, Error> {
        let which = match filter.derived_only {
            true => "derived",
            false => "all",
        };
        let before = filter.stored_before;
        // The clocks of the nodes are treated as one. If they differ, a live entry may be removed,
        // or a dead one stay until its TTL ends.
        let before = before.map_or(String::new(), |at| at.0.to_string());
        let args = [Vec::from(which), before.into_bytes()];
        let mut removed = 0;
        let mut walk = Walk::new(filter.pattern.clone(), filter.is_low_priority);
        while let Some(keys) = scan(connection, self.budget, &mut walk).await? {
            let began = clock::now();
            let step = match connection.tracker().is_some_and(Tracker::is_on) {
                true => TRACKED_REMOVE_STEP,
                false => REMOVE_STEP,
            };
            for keys in keys.chunks(step) {
                let steps = steps_over(&scripts::REMOVE, keys, &args);
                let done = self.run(&steps, OnAsk::Follow).await;
                // A sweep removes only entries that are dead by their generations.
                if filter.stored_before.is_none()
                    || crate::base::mutation::is_active("sweep-drops-local-entries")
                {
                    self.changed(&steps);
                }
                for done in done {
                    let (done, _) = done?;
                    removed += redis::from_redis_value::<u64>(done).unwrap_or(0);
                }
            }
            if filter.is_low_priority {
                crate::base::time::sleep(began.elapsed()).await;
            }
        }
        Ok(removed)
    }

    /// The sums, and the facts of each node.
    pub(in crate::store::redis) async fn server_info(&self) -> Result<ServerInfo, Error> {
        let map = self.map.load_full();
        if map.nodes().is_empty() {
            return Err(self.unknown());
        }
        let mut sum = ServerInfo::default();
        for node in map.nodes() {
            let server_info = match node.connections.current() {
                Ok(connection) => server_info_of(&connection, self.budget).await.ok(),
                Err(_) => None,
            };
            let connected = server_info.is_some();
            let server_info = server_info.unwrap_or_default();
            let plus = |sum: Option<u64>, it: Option<u64>| match (sum, it) {
                (None, it) => it,
                (sum, it) => Some(sum.unwrap_or(0) + it.unwrap_or(0)),
            };
            sum.total_keys = plus(sum.total_keys, server_info.total_keys);
            sum.connected_clients = plus(sum.connected_clients, server_info.connected_clients);
            // The time for which all of them have been up.
            sum.uptime_seconds = [sum.uptime_seconds, server_info.uptime_seconds]
                .into_iter()
                .flatten()
                .min();
            sum.nodes.push(NodeInfo {
                host: node.host.clone(),
                port: node.port,
                connected,
                total_keys: server_info.total_keys,
                used_memory: server_info.used_memory,
                connected_clients: server_info.connected_clients,
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

    /// The capabilities that any of the primaries lacks.
    pub(in crate::store::redis) fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        let map = self.map.load();
        for connection in map
            .nodes()
            .iter()
            .filter_map(|it| it.connections.current().ok())
        {
            for lack in &connection.capabilities.missing {
                if !missing.contains(lack) {
                    missing.push(lack.clone());
                }
            }
        }
        missing
    }

    /// The connection to any primary, for facts that are the same on all of them.
    pub(in crate::store::redis) fn any_connection(&self) -> Result<Arc<Connection>, Error> {
        let map = self.map.load();
        let mut connections = map.nodes().iter().map(|node| node.connections.current());
        match connections.clone().find_map(Result::ok) {
            Some(connection) => Ok(connection),
            None => connections.next().unwrap_or_else(|| Err(self.unknown())),
        }
    }
}

/// A script over each of these keys.
fn steps_over<'k>(
    script: &'static Lua,
    keys: &'k [String],
    args: &[Vec<u8>],
) -> Vec<ScriptCall<'k>> {
    let steps = keys.iter().map(|key| ScriptCall {
        slot: slot_of(key),
        script,
        keys: vec![key],
        args: args.to_vec(),
    });
    steps.collect()
}
