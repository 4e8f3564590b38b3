//! Where Memcached is.

use std::fmt;

/// The port of Memcached unless another is named.
const PORT: u16 = 11_211;

/// The address of one Memcached, 1.6 or later.
///
/// All processes have to use the same server: name one, and no address that leads to several.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemcachedConfig {
    /// Host name or IPv4 address; the client connects by IPv4 alone.
    pub host: String,
    /// TCP port, 11211 by default.
    pub port: u16,
    /// The path of a Unix socket, in place of host and port.
    pub socket: Option<String>,
}

impl MemcachedConfig {
    /// Memcached at this host and port.
    #[must_use]
    pub fn at(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
            socket: None,
        }
    }

    /// Memcached at a Unix socket.
    #[must_use]
    pub fn socket(path: impl Into<String>) -> Self {
        Self {
            socket: Some(path.into()),
            ..Self::at("localhost", PORT)
        }
    }

    /// Reads `memcached://host:port`, `host:port`, `host` or `unix:///path`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("unix://") {
            return path.starts_with('/').then(|| Self::socket(path));
        }
        let schemes = ["memcached://", "memcache://", "tcp://"];
        let scheme = schemes.iter().find_map(|scheme| text.strip_prefix(scheme));
        let address = scheme.unwrap_or(text);
        let address = address.strip_suffix('/').unwrap_or(address);
        let (host, port) = match address.split_once(':') {
            Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0)?),
            None => (address, PORT),
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        (!host.is_empty() && host.chars().all(is_name)).then(|| Self::at(host, port))
    }
}

impl fmt::Display for MemcachedConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.socket {
            Some(path) => f.write_str(path),
            None => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let at = |host: &str, port| Some(MemcachedConfig::at(host, port));
        for (text, expected) in [
            (
                "memcached://cache.example:11212",
                at("cache.example", 11_212),
            ),
            ("memcached://10.0.0.1", at("10.0.0.1", 11_211)),
            ("memcache://localhost/", at("localhost", 11_211)),
            ("tcp://localhost:1", at("localhost", 1)),
            ("localhost:11211", at("localhost", 11_211)),
            ("mc", at("mc", 11_211)),
            (
                "unix:///run/mc.sock",
                Some(MemcachedConfig::socket("/run/mc.sock")),
            ),
            ("unix://run/mc.sock", None),
            ("memcached://", None),
            ("localhost:0", None),
            ("localhost:port", None),
            ("localhost:99999", None),
            ("a:1,b:2", None),
            ("memcached://user:word@host", None),
            ("redis://host", None),
            ("[::1]:11211", None),
        ] {
            assert_eq!(MemcachedConfig::parse(text), expected, "{text}");
        }
        assert_eq!(MemcachedConfig::at("a", 2).to_string(), "a:2");
    }
}
