//! The links between one program and servers that name each other.

use crate::proxy::Proxy;

/// A proxy in front of each of several servers, for one program alone: the servers name their own
/// ports, and the program connects to the proxies in their place.
#[derive(Debug)]
pub struct Links(Vec<(u16, Proxy)>);

impl Links {
    /// A proxy in front of the server at each of these loopback ports.
    pub fn to(servers: impl IntoIterator<Item = u16>) -> Self {
        let servers = servers.into_iter();
        Self(servers.map(|port| (port, Proxy::start(port))).collect())
    }

    /// The pairs of addresses that lead the program to the proxies (`RedisConfig::nat_map`).
    pub fn nat_map(&self) -> Vec<((String, u16), (String, u16))> {
        let at = |port| ("127.0.0.1".to_owned(), port);
        let pairs = self.0.iter();
        pairs
            .map(|(port, proxy)| (at(*port), at(proxy.port())))
            .collect()
    }

    /// The link to the server at this port.
    ///
    /// # Panics
    /// When there is none.
    pub fn link(&self, server: u16) -> &Proxy {
        let link = self.0.iter().find(|(port, _)| *port == server);
        &link.unwrap_or_else(|| panic!("no link to {server}")).1
    }

    /// All links, each with the port of its server.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &Proxy)> {
        self.0.iter().map(|(port, proxy)| (*port, proxy))
    }
}
