//! A Redis Cluster: entries in all slots, generations in slots of their own, and a connection to
//! each primary.
//!
//! Each node is handled like a single server: a [`Connections`] with its own supervisor, breaker
//! and health check. This module adds which slot a key belongs to and which node owns it
//! ([`topology`]). An entry and its generations may come from several servers, so the stamp covers
//! all of them. Nothing needs to be atomic across nodes: a generation is read after each
//! acknowledged change of it, and an entry is removed with its lease by one script at its own node.
//!
//! The client library's own cluster client is not used: it reconnects and retries unseen, and does
//! not tell which node has answered.

mod answers;
mod batches;
mod former_owner;
mod former_slots;
mod health_key;
mod intents;
mod invalidations;
mod late;
mod leases;
mod lookup;
mod namespace;
mod node;
mod owners;
mod repetition;
mod routing;
mod sending;
mod state;
mod switches;
mod topology;
mod unserved;
mod walks;

pub(super) use self::routing::routed;
pub(super) use self::state::Cluster;
pub(super) use self::topology::{TopologySettings, run};
