//! The settings with which a supervisor makes and watches a connection.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::runtime::Handle;

use super::super::failover::confirmation::Confirmation;
use super::super::failover::sentinel::LatestEpoch;
use super::super::reads::set_aside::SetAside;
use super::super::tracking::Tracking;
use super::health::Health;
use crate::config::RedisConfig;

/// The settings of the supervisor.
#[derive(Clone)]
pub(crate) struct SupervisorSettings {
    pub(crate) config: RedisConfig,
    pub(crate) trust_restart: bool,
    pub(crate) health: Health,
    pub(crate) tracking: Option<Tracking>,
    pub(crate) set_aside: Arc<SetAside>,
    /// The budget of one command.
    pub(crate) budget: Duration,
    /// The application's runtime, if it has worker threads that poll on their own. A connection
    /// that it drives answers without waking another thread. When that runtime ends, the cache's
    /// own drives the next connection.
    pub(crate) application: Option<Handle>,
    /// The cache's own runtime, whose thread no caller blocks.
    pub(crate) background: Handle,
    /// Whether the server is a node of a cluster, whose messages are logged by other code.
    pub(crate) is_node: bool,
    /// The latest failover that Sentinels have told of.
    pub(crate) latest: Arc<LatestEpoch>,
    /// The epoch of a node of a cluster, as far as is known.
    pub(crate) epoch: Arc<AtomicU64>,
    /// Until when the nodes of a cluster may be used.
    pub(crate) confirmation: Option<Arc<Confirmation>>,
}
