//! A cluster: entries over all slots, generations in slots of their own, and a connection to each primary.
//!
//! Each node is kept as the server without a cluster is: a [`Links`] with its own supervisor, breaker and health. What is new is
//! above them: which slot a key lies in, who owns it ([`topology`]), and that an entry and its generations come from several
//! servers, all of which are named in its stamp. Nothing needs to be atomic across nodes: each acknowledged bump precedes the
//! read of that generation, and an entry is removed with its lease by one script at its own node.
//!
//! The client library's own cluster client is not used: it reconnects and retries unseen, and does not say who has answered.

mod batches;
mod changes;
mod lookup;
mod node;
mod routing;
mod state;
mod topology;
mod walks;

pub(super) use self::state::Cluster;
pub(super) use self::topology::{Plan, run};
