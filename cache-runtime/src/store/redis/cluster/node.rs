//! The primaries, each with its own connection, and the owner of each slot.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::watch;

use super::super::connection::Connection;
use super::super::connection::health::Health;
use super::super::connection::supervisor::Connections;
use super::super::slots::SLOTS;
use crate::base::error::Error;

/// One primary.
pub(super) struct Node {
    /// Its id in the cluster.
    pub(super) id: String,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) connections: Arc<Connections>,
    pub(super) health: Health,
    /// Its epoch, as it or others have said: part of the identity of all connections to it.
    pub(super) epoch: Arc<AtomicU64>,
    /// Closes its connection, and ends the tasks that keep it.
    pub(super) closing: watch::Sender<bool>,
    /// Turns true after the first attempt to connect.
    pub(super) attempted: watch::Receiver<bool>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("address", &self.address())
            .field("connected", &self.connections.is_connected())
            .finish_non_exhaustive()
    }
}

impl Node {
    pub(super) fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// The owner of a slot without an owner.
const NOBODY: u16 = u16::MAX;

/// The owner of each slot.
#[derive(Debug)]
pub(super) struct SlotMap {
    owners: Box<[u16]>,
    nodes: Vec<Arc<Node>>,
}

impl Default for SlotMap {
    fn default() -> Self {
        Self {
            owners: vec![NOBODY; SLOTS.into()].into(),
            nodes: Vec::new(),
        }
    }
}

impl SlotMap {
    /// `owners` has the index of a node for each slot.
    pub(super) fn new(nodes: Vec<Arc<Node>>, owners: impl Iterator<Item = Option<usize>>) -> Self {
        let owners = owners.map(|owner| {
            let owner = owner.and_then(|owner| u16::try_from(owner).ok());
            owner.unwrap_or(NOBODY)
        });
        Self {
            owners: owners.collect(),
            nodes,
        }
    }

    pub(super) fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    pub(super) fn owner(&self, slot: u16) -> Option<&Arc<Node>> {
        self.nodes.get(self.place_of(slot)?)
    }

    /// The index of the owner of a slot among the nodes.
    pub(super) fn place_of(&self, slot: u16) -> Option<usize> {
        let place = usize::from(*self.owners.get(usize::from(slot))?);
        (place < self.nodes.len()).then_some(place)
    }

    /// The connection to the owner of a slot.
    pub(super) fn connection(&self, slot: u16) -> Result<Arc<Connection>, Error> {
        match self.owner(slot) {
            Some(node) => node.connections.current(),
            None => Err(Error::unavailable("no node of the cluster has the slot")),
        }
    }
}
