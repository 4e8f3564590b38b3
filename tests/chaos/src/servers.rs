//! The Redis of a run: one server, a cluster of three shards, or a primary that Sentinels watch.

use cache_runtime::RedisConfig;
use cache_tests::{RedisCluster, RedisServer, Sentinels};
use serde::{Deserialize, Serialize};

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setup {
    One,
    Cluster,
    Sentinels,
}

impl Setup {
    pub(crate) fn named(name: &str) -> Result<Self, String> {
        match name {
            "one" => Ok(Self::One),
            "cluster" => Ok(Self::Cluster),
            "sentinels" => Ok(Self::Sentinels),
            other => Err(format!(
                "--servers is `one`, `cluster` or `sentinels`, not `{other}`"
            )),
        }
    }
}

/// Where the processes find it: loopback ports.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Address {
    One(u16),
    Cluster(Vec<u16>),
    Sentinels(Vec<u16>),
}

impl Address {
    pub(crate) fn config(&self) -> RedisConfig {
        let all = |ports: &[u16]| -> Vec<_> { ports.iter().map(|it| ("127.0.0.1", *it)).collect() };
        match self {
            Self::One(port) => RedisConfig::at("127.0.0.1", *port),
            Self::Cluster(seeds) => RedisConfig::cluster(all(seeds)),
            Self::Sentinels(ports) => RedisConfig::sentinels(all(ports), Sentinels::NAME),
        }
    }

    /// The port of the one server, or of the first.
    pub(crate) fn port(&self) -> u16 {
        match self {
            Self::One(port) => *port,
            Self::Cluster(ports) | Self::Sentinels(ports) => {
                ports.first().copied().unwrap_or_default()
            }
        }
    }
}

#[derive(Debug)]
pub(crate) enum Servers {
    One(RedisServer),
    Cluster(RedisCluster),
    Sentinels(Sentinels),
}

impl Servers {
    pub(crate) fn start(setup: Setup) -> Self {
        match setup {
            Setup::One => Self::One(RedisServer::start()),
            Setup::Cluster => Self::Cluster(RedisCluster::start(3, 1)),
            Setup::Sentinels => Self::Sentinels(Sentinels::start()),
        }
    }

    /// Where a process finds it; `proxy` is the port of the proxy in front of the one server.
    pub(crate) fn address(&self, proxy: u16) -> Address {
        match self {
            Self::One(_) => Address::One(proxy),
            Self::Cluster(_) => Address::Cluster(self.all().map(RedisServer::port).collect()),
            Self::Sentinels(it) => {
                Address::Sentinels((0..3).map(|number| it.sentinel(number).port()).collect())
            }
        }
    }

    /// All servers that hold data.
    pub(crate) fn all(&self) -> impl Iterator<Item = &RedisServer> {
        let (one, cluster, sentinels) = match self {
            Self::One(server) => (Some(server), None, None),
            Self::Cluster(cluster) => (None, Some(cluster), None),
            Self::Sentinels(sentinels) => (None, None, Some(sentinels)),
        };
        let nodes = cluster
            .into_iter()
            .flat_map(|it| (0..it.len()).map(|number| it.node(number)));
        let watched = sentinels
            .into_iter()
            .flat_map(|it| (0..2).map(|number| it.server(number)));
        one.into_iter().chain(nodes).chain(watched)
    }

    /// How many connections the processes have, to all servers together.
    pub(crate) fn connections(&self) -> usize {
        let of_one = |server: &RedisServer| {
            let clients = server.cli(&["CLIENT", "LIST", "TYPE", "normal"]);
            // All but the one who asks.
            clients.lines().count().saturating_sub(1)
        };
        self.all().map(of_one).sum()
    }
}
