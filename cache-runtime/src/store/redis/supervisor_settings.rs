//! The settings with which a supervisor makes and watches a connection.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::runtime::Handle;

use super::confirmation::Confirmation;
use super::health::Health;
use super::sentinel::LatestEpoch;
use super::set_aside::SetAside;
use super::tracking::Tracking;
use crate::config::RedisConfig;

/// The settings of the supervisor.
#[derive(Clone)]
pub(super) struct SupervisorSettings {
    pub(super) config: RedisConfig,
    pub(super) trust_restart: bool,
    pub(super) health: Health,
    pub(super) tracking: Option<Tracking>,
    pub(super) set_aside: Arc<SetAside>,
    /// The budget of one command.
    pub(super) budget: Duration,
    /// The application's runtime, if it has worker threads that poll on their own. A connection
    /// that it drives answers without waking another thread. When that runtime ends, the cache's
    /// own drives the next connection.
    pub(super) application: Option<Handle>,
    /// Whether the server is a node of a cluster, whose messages are logged by other code.
    pub(super) is_node: bool,
    /// The latest failover that Sentinels have told of.
    pub(super) latest: Arc<LatestEpoch>,
    /// The epoch of a node of a cluster, as far as is known.
    pub(super) epoch: Arc<AtomicU64>,
    /// Until when the nodes of a cluster may be used.
    pub(super) confirmation: Option<Arc<Confirmation>>,
}
