//! Where Memcached is.

use std::fmt;

use super::address::host_name;
use super::setting_problems::SettingProblems;
use crate::base::error::shortened;

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
        is_host(host).then(|| Self::at(host, port))
    }

    /// Notes what an environment variable may not hold either.
    pub(super) fn check(&self, problems: &mut SettingProblems) {
        problems.forget("memcached.");
        if let Some(path) = &self.socket {
            if !path.starts_with('/') {
                let path = shortened(path);
                problems.add(format!(
                    "memcached.socket is `{path}`; it may hold a path that begins with `/`"
                ));
            }
            return;
        }
        let Self { host, port, .. } = self;
        if !is_host(host) {
            // A login may have been put there with the rest of a URL.
            let held = match host.contains(['@', '?']) {
                true => "not shown, since a password may be in it".to_owned(),
                false => format!("`{}`", shortened(host)),
            };
            problems.add(format!(
                "memcached.host is {held}; it may hold a host name or an IPv4 address"
            ));
        }
        if *port == 0 {
            let text = "memcached.host has the port 0; it may have 1 to 65535";
            problems.add(text.to_owned());
        }
    }
}

/// Whether it is a host name or an IPv4 address.
fn is_host(text: &str) -> bool {
    !text.is_empty() && text.is_ascii() && !text.contains(':') && host_name(text).is_some()
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
            ("true", None),
            ("11211", None),
        ] {
            assert_eq!(MemcachedConfig::parse(text), expected, "{text}");
        }
        assert_eq!(MemcachedConfig::at("a", 2).to_string(), "a:2");
    }

    #[test]
    fn fields_of_memcached_are_checked_as_its_variable_is() {
        let problems = |config: &MemcachedConfig| {
            let mut problems = SettingProblems::default();
            config.check(&mut problems);
            problems.error().map(|error| error.to_string())
        };
        for (config, problem) in [
            (MemcachedConfig::at("cache.example", 1), None),
            (MemcachedConfig::at("10.0.0.1", 11_211), None),
            (MemcachedConfig::socket("/run/mc.sock"), None),
            (
                MemcachedConfig::at("memcached://a", 1),
                Some("memcached.host is `memcached://a`"),
            ),
            (MemcachedConfig::at("", 1), Some("memcached.host is ``")),
            (
                MemcachedConfig::at("::1", 1),
                Some("memcached.host is `::1`; it may hold a host name or an IPv4 address"),
            ),
            (
                MemcachedConfig::at("me:hunter2@a", 1),
                Some("memcached.host is not shown"),
            ),
            (
                MemcachedConfig::at("a", 0),
                Some("memcached.host has the port 0"),
            ),
            (
                MemcachedConfig::socket("run/mc.sock"),
                Some("memcached.socket is `run/mc.sock`"),
            ),
        ] {
            let found = problems(&config).unwrap_or_default();
            let is_right = match problem {
                Some(problem) => found.starts_with(problem),
                None => found.is_empty(),
            };
            assert!(
                is_right && !found.contains("hunter2"),
                "{config:?}: {found}"
            );
        }
    }

    #[cfg(feature = "memcached")]
    #[test]
    fn the_last_address_of_memcached_counts() {
        use crate::config::{CacheConfig, RedisConfig};

        let wrong = CacheConfig::default().memcached(MemcachedConfig::at("a", 0));
        assert!(wrong.clone().check().is_err());
        let right = MemcachedConfig::at("a", 1);
        assert!(wrong.clone().memcached(right).check().is_ok());
        assert!(wrong.redis(RedisConfig::at("a", 1)).check().is_ok());
    }
}
