//! Where Redis is, and how to log in.

use std::fmt;

use super::address::{each_once, host_name, is_master, without_brackets};
use super::setting_problems::SettingProblems;
use crate::base::error::shortened;

/// The address of Redis or Valkey, and the login.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedisConfig {
    /// Host name or address. `REDIS_HOST`, default `localhost`.
    pub host: String,
    /// TCP port. `REDIS_PORT`, default 6379.
    pub port: u16,
    /// Database number. `REDIS_DB`, default 0.
    pub db: u32,
    /// ACL user. `REDIS_USERNAME`, default none.
    pub username: Option<String>,
    /// Password. `REDIS_PASSWORD`, default none. Never printed.
    pub password: Option<String>,
    /// Whether to use TLS. `REDIS_TLS`, default false; needs the feature `redis-tls`.
    pub tls: bool,
    /// Some nodes of a cluster; the cache finds the others. Replaces the host and port above.
    /// `REDIS_CLUSTER`, default none. A server that turns out to be a node of a cluster is used as
    /// one even without this.
    pub cluster: Vec<(String, u16)>,
    /// The Sentinels that name the primary; the host and port above are not used then.
    pub sentinel: Option<SentinelConfig>,
    /// Addresses that the nodes of a cluster, or Sentinels, name and this program can't reach, each
    /// with the address to use in its place. `REDIS_NAT_MAP`, default none.
    pub nat_map: Vec<(HostPort, HostPort)>,
}

/// A host and a port.
pub(crate) type HostPort = (String, u16);

/// The addresses of the Sentinels, and their name for the primary.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SentinelConfig {
    /// Host and port of each. `REDIS_SENTINELS`.
    pub addresses: Vec<(String, u16)>,
    /// The primary's name. `REDIS_SENTINEL_MASTER`, default `mymaster`.
    pub master: String,
    /// The Sentinels' own ACL user. `REDIS_SENTINEL_USERNAME`, default none.
    pub username: Option<String>,
    /// The Sentinels' own password. `REDIS_SENTINEL_PASSWORD`, default none. Never printed.
    pub password: Option<String>,
}

impl fmt::Debug for SentinelConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SentinelConfig")
            .field("addresses", &self.addresses)
            .field("master", &self.master)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "***"))
            .finish()
    }
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            host: "localhost".into(),
            port: 6379,
            db: 0,
            username: None,
            password: None,
            tls: false,
            cluster: Vec::new(),
            sentinel: None,
            nat_map: Vec::new(),
        }
    }
}

impl RedisConfig {
    /// Redis at this host and port, database 0, without a password.
    #[must_use]
    pub fn at(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: named(host),
            port,
            ..Self::default()
        }
    }

    /// A cluster with some nodes at these hosts and ports.
    #[must_use]
    pub fn cluster<H: Into<String>>(seeds: impl IntoIterator<Item = (H, u16)>) -> Self {
        let seeds = seeds.into_iter().map(|(host, port)| (named(host), port));
        let cluster: Vec<_> = seeds.collect();
        let (host, port) = match cluster.first() {
            Some((host, port)) => (host.clone(), *port),
            None => (Self::default().host, Self::default().port),
        };
        Self {
            host,
            port,
            cluster,
            ..Self::default()
        }
    }

    /// The primary that the Sentinels at these hosts and ports know under this name. Name all
    /// Sentinels: the majority has to answer.
    #[must_use]
    pub fn sentinels<H: Into<String>>(
        addresses: impl IntoIterator<Item = (H, u16)>,
        master: impl Into<String>,
    ) -> Self {
        let addresses = addresses
            .into_iter()
            .map(|(host, port)| (named(host), port));
        let addresses: Vec<_> = addresses.collect();
        let mut redis = Self::default();
        if let Some((host, port)) = addresses.first() {
            redis.host.clone_from(host);
            redis.port = *port;
        }
        redis.sentinel = Some(SentinelConfig {
            addresses,
            master: master.into(),
            username: None,
            password: None,
        });
        redis
    }

    /// The password of the Sentinels, which is not that of the servers.
    #[must_use]
    pub fn sentinel_password(mut self, password: impl Into<String>) -> Self {
        if let Some(sentinel) = &mut self.sentinel {
            sentinel.password = Some(password.into());
        }
        self
    }

    /// The ACL user of the Sentinels, with its password. They are not those of the servers.
    #[must_use]
    pub fn sentinel_login(
        mut self,
        username: impl Into<String>,
        password: impl Into<String>,
    ) -> Self {
        if let Some(sentinel) = &mut self.sentinel {
            sentinel.username = Some(username.into());
            sentinel.password = Some(password.into());
        }
        self
    }

    /// Connects to the second address of each pair where a cluster or Sentinels name the first:
    /// for programs outside of the network in which the servers have their addresses (NAT, port
    /// forwarding, containers).
    #[must_use]
    pub fn nat_map<A: Into<String>, B: Into<String>>(
        mut self,
        pairs: impl IntoIterator<Item = ((A, u16), (B, u16))>,
    ) -> Self {
        let pairs = pairs.into_iter();
        let pairs = pairs.map(|(from, to)| ((named(from.0), from.1), (named(to.0), to.1)));
        self.nat_map = pairs.collect();
        self
    }

    /// The same settings for a server elsewhere, at the address that others name.
    #[cfg(feature = "redis")]
    pub(crate) fn settings_at(&self, host: &str, port: u16) -> Self {
        let mut pairs = self.nat_map.iter();
        let pair = pairs.find(|((named, at), _)| named == host && *at == port);
        let (host, port) = pair.map_or((host, port), |(_, (host, port))| (host, *port));
        let mut settings = self.clone();
        host.clone_into(&mut settings.host);
        settings.port = port;
        settings
    }

    /// Uses another database.
    #[must_use]
    pub fn db(mut self, db: u32) -> Self {
        self.db = db;
        self
    }

    /// Logs in with a password, as this ACL user or, with `None`, as the default one.
    #[must_use]
    pub fn login(mut self, username: Option<&str>, password: impl Into<String>) -> Self {
        self.username = username.map(str::to_owned);
        self.password = Some(password.into());
        self
    }

    /// Uses TLS.
    #[must_use]
    pub fn tls(mut self, tls: bool) -> Self {
        self.tls = tls;
        self
    }
}

impl RedisConfig {
    /// With hosts as they are looked up, whoever has written the fields, and each server once. What
    /// an environment variable may not hold is a problem here, too.
    pub(super) fn checked(mut self, problems: &mut SettingProblems) -> Self {
        let once = |addresses: Vec<HostPort>| {
            let addresses = addresses.into_iter();
            each_once(addresses.map(|(host, port)| (named(host), port)).collect())
        };
        self.host = named(self.host);
        self.cluster = once(self.cluster);
        if let Some(sentinel) = &mut self.sentinel {
            sentinel.addresses = once(std::mem::take(&mut sentinel.addresses));
        }
        for ((from, _), (to, _)) in &mut self.nat_map {
            for host in [from, to] {
                *host = named(std::mem::take(host));
            }
        }

        problems.forget("redis.");
        let own = [(self.host.clone(), self.port)];
        let (setting, addresses) = match &self.sentinel {
            Some(sentinel) => ("redis.sentinel", sentinel.addresses.as_slice()),
            None if self.cluster.is_empty() => ("redis.host", own.as_slice()),
            None => ("redis.cluster", self.cluster.as_slice()),
        };
        let replaced = self.nat_map.iter().flat_map(|(from, to)| [from, to]);
        let replaced = replaced.map(|address| ("redis.nat_map", address));
        let addresses = addresses.iter().map(|address| (setting, address));
        for (setting, (host, port)) in addresses.chain(replaced) {
            if host_name(host).is_none_or(|host| host.is_empty()) {
                // A password may have been put there with the rest of a URL.
                let held = match host.contains(['@', '?']) {
                    true => "not shown, since a password may be in it".to_owned(),
                    false => format!("`{}`", shortened(host)),
                };
                problems.add(format!(
                    "{setting} is {held}; it may hold a host name or address"
                ));
            }
            if *port == 0 {
                problems.add(format!("{setting} has the port 0; it may have 1 to 65535"));
            }
        }
        if let Some(sentinel) = &self.sentinel {
            if sentinel.addresses.is_empty() {
                let text =
                    "redis.sentinel is without addresses; it may hold those of all Sentinels";
                problems.add(text.to_owned());
            }
            if sentinel.master.is_empty() || !is_master(&sentinel.master) {
                let master = shortened(&sentinel.master);
                problems.add(format!(
                    "redis.sentinel has the primary `{master}`; it may have letters, digits and `.-_`"
                ));
            }
            if !self.cluster.is_empty() {
                let text = "redis.sentinel is set; it may hold nothing beside redis.cluster: a cluster has no Sentinels";
                problems.add(text.to_owned());
            }
        }
        if self.db != 0 && !self.cluster.is_empty() {
            let db = self.db;
            problems.add(format!(
                "redis.db is `{db}`; it may hold 0 beside redis.cluster: a cluster has one database"
            ));
        }
        if self.tls && !cfg!(feature = "redis-tls") {
            let text = "redis.tls is `true`; it may hold false, because this program was built without the feature `redis-tls`";
            problems.add(text.to_owned());
        }
        self
    }
}

/// A host as it is looked up: an IPv6 address without brackets.
fn named(host: impl Into<String>) -> String {
    let host = host.into();
    match without_brackets(&host) {
        inside if inside.len() == host.len() => host,
        inside => inside.to_owned(),
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("db", &self.db)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "***"))
            .field("tls", &self.tls)
            .field("cluster", &self.cluster)
            .field("sentinel", &self.sentinel)
            .field("nat_map", &self.nat_map)
            .finish()
    }
}

#[cfg(all(test, feature = "redis"))]
mod tests {
    use super::*;
    use crate::config::CacheConfig;

    #[test]
    fn an_address_may_have_brackets() {
        assert_eq!(RedisConfig::at("[::1]", 7), RedisConfig::at("::1", 7));
        let cluster = RedisConfig::cluster([("[::1]", 7), ("a", 8)]);
        assert_eq!(cluster, RedisConfig::cluster([("::1", 7), ("a", 8)]));
        let sentinels = RedisConfig::sentinels([("[::1]", 7)], "m");
        assert_eq!(sentinels, RedisConfig::sentinels([("::1", 7)], "m"));
    }

    #[test]
    fn fields_are_checked_as_variables_are() {
        let checked = |change: fn(&mut RedisConfig)| {
            let mut redis = RedisConfig::default();
            change(&mut redis);
            CacheConfig::default().redis(redis).check()
        };
        let is_at = |change: fn(&mut RedisConfig), expected: RedisConfig| {
            let config = checked(change).expect("it can be used");
            assert_eq!(config.redis, Some(expected));
        };
        is_at(
            |redis| redis.host = "[::1]".into(),
            RedisConfig::at("::1", 6379),
        );
        is_at(
            |redis| {
                *redis = RedisConfig::cluster([("a", 1), ("b", 2)]);
                redis.cluster.push(("[::1]".into(), 3));
                redis.cluster.push(("b".into(), 2));
            },
            RedisConfig::cluster([("a", 1), ("b", 2), ("::1", 3)]),
        );
        is_at(
            |redis| {
                *redis = RedisConfig::sentinels([("a", 1), ("a", 1)], "m");
                if let Some(sentinel) = &mut redis.sentinel {
                    sentinel.addresses.push(("[::1]".into(), 3));
                }
            },
            RedisConfig::sentinels([("a", 1), ("::1", 3)], "m"),
        );
        is_at(
            |redis| redis.nat_map = vec![(("[::1]".into(), 1), ("[::2]".into(), 2))],
            RedisConfig::default().nat_map([(("::1", 1), ("::2", 2))]),
        );
        type Change = fn(&mut RedisConfig);
        let wrong: [(Change, &str); 9] = [
            (|it| it.host = "a:6379".into(), "redis.host is `a:6379`"),
            (|it| it.host = String::new(), "redis.host is ``"),
            (
                |it| it.host = "redis://me:hunter2@a".into(),
                "redis.host is not shown",
            ),
            (|it| it.port = 0, "redis.host has the port 0"),
            (
                |it| *it = RedisConfig::cluster([("a", 0)]),
                "redis.cluster has the port 0",
            ),
            (
                |it| *it = RedisConfig::cluster([("a", 1)]).db(2),
                "redis.db is `2`",
            ),
            (
                |it| *it = RedisConfig::sentinels([] as [(&str, u16); 0], "m"),
                "redis.sentinel is without addresses",
            ),
            (
                |it| *it = RedisConfig::sentinels([("a", 1)], "my master"),
                "redis.sentinel has the primary `my master`",
            ),
            (
                |it| {
                    it.sentinel = RedisConfig::sentinels([("a", 1)], "m").sentinel;
                    it.cluster = vec![("a".into(), 1)];
                },
                "redis.sentinel is set; it may hold nothing beside redis.cluster",
            ),
        ];
        for (change, problem) in wrong {
            let error = checked(change).expect_err(problem).to_string();
            assert!(
                error.starts_with(problem) && !error.contains("hunter2"),
                "{error}"
            );
        }
        // The last call counts.
        let config = CacheConfig::default().redis(RedisConfig::at("a b", 1));
        assert!(config.clone().check().is_err());
        assert!(config.redis(RedisConfig::at("a", 1)).check().is_ok());
    }

    #[test]
    fn an_address_is_replaced_as_a_whole() {
        let redis = RedisConfig::at("seed", 1).nat_map([(("a", 1), ("b", 2))]);
        let used = |host, port| {
            let RedisConfig { host, port, .. } = redis.settings_at(host, port);
            (host, port)
        };
        assert_eq!(used("a", 1), ("b".into(), 2));
        assert_eq!(used("a", 2), ("a".into(), 2));
        assert_eq!(used("b", 1), ("b".into(), 1));
    }
}
