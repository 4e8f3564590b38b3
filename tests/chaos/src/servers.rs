//! The Redis of a run: one server, a cluster of three shards, or a primary that Sentinels watch.

use cache_runtime::RedisConfig;
use cache_tests::{Links, RedisCluster, RedisServer, Sentinels};
use serde::{Deserialize, Serialize};

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setup {
    One,
    Cluster,
    Sentinels,
}

impl Setup {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Cluster => "cluster",
            Self::Sentinels => "sentinels",
        }
    }

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

/// Where a process finds it: loopback ports, and pairs of ports: that of a server, and that of the
/// proxy which the process reaches it through.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Address {
    One(u16),
    Cluster(Vec<u16>, Vec<(u16, u16)>),
    Sentinels(Vec<u16>, Vec<(u16, u16)>),
}

impl Address {
    pub(crate) fn config(&self) -> RedisConfig {
        let all = |ports: &[u16]| -> Vec<_> { ports.iter().map(|it| ("127.0.0.1", *it)).collect() };
        let nat_map = |links: &[(u16, u16)]| -> Vec<_> {
            let at = |port| ("127.0.0.1", port);
            let pairs = links.iter();
            pairs.map(|(named, used)| (at(*named), at(*used))).collect()
        };
        match self {
            Self::One(port) => RedisConfig::at("127.0.0.1", *port),
            Self::Cluster(seeds, links) => RedisConfig::cluster(all(seeds)).nat_map(nat_map(links)),
            Self::Sentinels(ports, links) => {
                RedisConfig::sentinels(all(ports), Sentinels::NAME).nat_map(nat_map(links))
            }
        }
    }

    /// The port of the one server, or of the first.
    pub(crate) fn port(&self) -> u16 {
        match self {
            Self::One(port) => *port,
            Self::Cluster(ports, _) | Self::Sentinels(ports, _) => {
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
            Setup::Cluster => Self::Cluster(RedisCluster::of_islands(3, 1)),
            Setup::Sentinels => Self::Sentinels(Sentinels::start()),
        }
    }

    /// The links of one process to all servers that hold data.
    pub(crate) fn links(&self) -> Links {
        Links::to(self.all().map(RedisServer::port))
    }

    /// Where the process that has these links finds it.
    pub(crate) fn address(&self, links: &Links) -> Address {
        let pairs: Vec<_> = links
            .iter()
            .map(|(port, link)| (port, link.port()))
            .collect();
        match self {
            Self::One(_) => Address::One(pairs.first().map_or(0, |(_, link)| *link)),
            Self::Cluster(_) => {
                let ports = self.all().map(RedisServer::port);
                Address::Cluster(ports.collect(), pairs)
            }
            Self::Sentinels(it) => {
                let ports = (0..3).map(|number| it.sentinel(number).port());
                Address::Sentinels(ports.collect(), pairs)
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
        self.all().map(RedisServer::connections).sum()
    }
}
