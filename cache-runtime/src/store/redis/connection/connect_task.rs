//! Keeps the connection to the server, or those to the primaries of a cluster.

use std::sync::{Arc, OnceLock};

use tokio::sync::watch;

use super::super::cluster::{self, Cluster};
use super::super::whole_resources::WholeResources;
use super::connections::Connections;
use super::supervisor::{self, StopReason};
use super::supervisor_settings::SupervisorSettings;
use crate::config::{CacheConfig, RedisConfig};

/// The task that connects, from the start of the cache to its end.
#[derive(Clone)]
pub(crate) struct ConnectTask {
    pub(crate) connections: Arc<Connections>,
    pub(crate) cluster: Arc<OnceLock<Arc<Cluster>>>,
    pub(crate) settings: SupervisorSettings,
    pub(crate) config: CacheConfig,
    pub(in crate::store::redis) wholes: Arc<WholeResources>,
    pub(crate) attempted: watch::Sender<bool>,
    pub(crate) closing: watch::Receiver<bool>,
}

impl ConnectTask {
    /// Keeps the connection to the server. If a cluster is configured, or the server turns out to
    /// be a node of one, keeps the connections to all primaries.
    pub(crate) async fn run(self) {
        let redis = &self.settings.config;
        let mut seeds = redis.cluster.clone();
        if seeds.is_empty() {
            let (connections, settings) = (Arc::clone(&self.connections), self.settings.clone());
            if supervisor::run(connections, settings, self.closing.clone()).await
                == StopReason::Closed
            {
                return;
            }
            let RedisConfig { host, port, .. } = redis;
            tracing::info!(
                host,
                port,
                "{host}:{port} is a node of a cluster, which is used as one"
            );
            seeds.push((redis.host.clone(), redis.port));
        }
        let cluster = self.cluster.get_or_init(|| {
            let tracking = self.settings.tracking.as_ref();
            let local = tracking.map(|it| Arc::clone(it.local()));
            let (watch, redis) = (self.connections.watch.clone(), redis.clone());
            let wholes = Arc::clone(&self.wholes);
            Arc::new(Cluster::new(&self.config, watch, local, redis, wholes))
        });
        let plan = cluster::TopologySettings {
            supervisor: self.settings.clone(),
            seeds,
            space: self.config.key_space(),
        };
        cluster::run(Arc::clone(cluster), plan, self.attempted, self.closing).await;
    }
}
