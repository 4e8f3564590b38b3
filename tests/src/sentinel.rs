//! A private primary with replicas, and the Sentinels that watch them.

use std::time::Duration;

use crate::redis::{RedisOptions, RedisServer};
use crate::wait::poll;

const START: Duration = Duration::from_secs(30);

/// A real primary, its replicas, and real Sentinels that watch them under the name `mymaster`.
#[derive(Debug)]
pub struct Sentinels {
    /// The first is the primary when all begins.
    servers: Vec<RedisServer>,
    sentinels: Vec<RedisServer>,
}

impl Sentinels {
    /// The name under which the primary is known.
    pub const NAME: &str = "mymaster";

    /// One primary, one replica, three Sentinels.
    ///
    /// # Panics
    /// When a server does not start, or they don't find each other.
    pub fn start() -> Self {
        Self::start_with(&RedisOptions::default(), None)
    }

    /// The same with more configuration of the servers, and a password of the Sentinels.
    ///
    /// # Panics
    /// When a server does not start, or they don't find each other.
    pub fn start_with(options: &RedisOptions, password: Option<&str>) -> Self {
        Self::start_all(options, password, 1)
    }

    /// The same with so many replicas.
    ///
    /// # Panics
    /// When a server does not start, or they don't find each other.
    pub fn with_replicas(replicas: usize) -> Self {
        Self::start_all(&RedisOptions::default(), None, replicas)
    }

    fn start_all(options: &RedisOptions, password: Option<&str>, replicas: usize) -> Self {
        let primary = options.clone().config("repl-diskless-sync-delay 0").start();
        let replica = |number| {
            let options = options.clone().config("repl-diskless-sync-delay 0");
            let of = format!("replicaof 127.0.0.1 {}", primary.service_port());
            // The first is the first to be promoted.
            let priority = format!("replica-priority {}", 100 + number);
            options.config(&of).config(&priority).start()
        };
        let followers: Vec<_> = (0..replicas).map(replica).collect();
        let name = Self::NAME;
        let sentinels = (0..3).map(|_| {
            let mut sentinel = RedisOptions::default()
                .config(&format!(
                    "sentinel monitor {name} 127.0.0.1 {} 2",
                    primary.service_port()
                ))
                .config(&format!("sentinel down-after-milliseconds {name} 1000"))
                .config(&format!("sentinel failover-timeout {name} 5000"))
                .sentinel();
            if let Some(certificate) = options.certificate() {
                sentinel = sentinel.tls(certificate);
            }
            if let Some(password) = options.password_of() {
                sentinel = sentinel.config(&format!("sentinel auth-pass {name} {password}"));
            }
            if let Some(password) = password {
                sentinel = sentinel
                    .password(password)
                    .config(&format!("sentinel sentinel-pass {password}"));
            }
            sentinel.start()
        });
        let sentinels: Vec<_> = sentinels.collect();
        let sentinels = Self {
            sentinels,
            servers: std::iter::once(primary).chain(followers).collect(),
        };
        for sentinel in &sentinels.sentinels {
            let is_ready = poll(START, || {
                let known = sentinel.cli(&["SENTINEL", "MASTER", name]);
                let value = |field: &str| {
                    let mut lines = known.lines().skip_while(|line| *line != field);
                    lines.nth(1).unwrap_or_default().to_owned()
                };
                let is_known = value("num-slaves") == replicas.to_string();
                (value("num-other-sentinels") == "2" && is_known).then_some(())
            });
            assert!(
                is_ready.is_some(),
                "{}",
                sentinel.cli(&["SENTINEL", "MASTER", name])
            );
        }
        sentinels
    }

    /// One of the servers: 0 is the primary when all begins.
    pub fn server(&self, number: usize) -> &RedisServer {
        &self.servers[number]
    }

    /// The same, to stop or to pause.
    pub fn server_mut(&mut self, number: usize) -> &mut RedisServer {
        &mut self.servers[number]
    }

    /// One of the Sentinels.
    pub fn sentinel(&self, number: usize) -> &RedisServer {
        &self.sentinels[number]
    }

    /// The same, to stop or to pause.
    pub fn sentinel_mut(&mut self, number: usize) -> &mut RedisServer {
        &mut self.sentinels[number]
    }

    /// `host:port,..` of the Sentinels.
    pub fn addresses(&self) -> String {
        let addresses = self
            .sentinels
            .iter()
            .map(|it| format!("127.0.0.1:{}", it.service_port()));
        addresses.collect::<Vec<_>>().join(",")
    }

    /// Has the first Sentinel fail over; returns when it names another primary.
    ///
    /// # Panics
    /// When it refuses.
    pub fn fail_over(&self) {
        let before = self.primary_port();
        let answer = self.sentinels[0].cli(&["SENTINEL", "FAILOVER", Self::NAME]);
        assert_eq!(answer, "OK");
        self.wait_for_another(before);
    }

    /// Returns when the first Sentinel names another primary than the one at this port.
    ///
    /// # Panics
    /// When it does not.
    pub fn wait_for_another(&self, port: u16) {
        let is_other = || (self.primary_port() != port).then_some(());
        assert!(
            poll(START, is_other).is_some(),
            "no failover within {START:?}"
        );
    }

    /// The number of the primary that the first Sentinel names.
    ///
    /// # Panics
    /// When it names none.
    pub fn primary(&self) -> usize {
        let port = self.primary_port();
        let mut servers = self.servers.iter();
        let primary = servers.position(|server| server.port() == port);
        primary.unwrap_or_else(|| panic!("the primary at {port} is none of the servers"))
    }

    /// Returns when one server is the primary, the other hears of what it does, and all Sentinels know them.
    ///
    /// # Panics
    /// When that does not come to be.
    pub fn wait_until_whole(&self) {
        let is_whole = || {
            let primary = self.primary();
            let roles = self.servers.iter().enumerate().all(|(number, server)| {
                let info = server.cli(&["INFO", "replication"]);
                match number == primary {
                    true => info.contains("role:master") && info.contains("state=online"),
                    false => info.contains("master_link_status:up"),
                }
            });
            let known = self.sentinels.iter().all(|sentinel| {
                let named = sentinel.cli(&["SENTINEL", "MASTER", Self::NAME]);
                let mut flags = named.lines().skip_while(|line| *line != "flags");
                flags.nth(1) == Some("master")
                    && named
                        .lines()
                        .any(|it| it == self.servers[primary].port().to_string())
            });
            (roles && known).then_some(())
        };
        let replication = || {
            self.servers
                .iter()
                .map(|it| it.cli(&["INFO", "replication"]))
        };
        assert!(
            poll(2 * START, is_whole).is_some(),
            "{}",
            replication().collect::<Vec<_>>().join("\n")
        );
    }

    /// The port of the primary that the first Sentinel names.
    ///
    /// # Panics
    /// When it names none.
    pub fn primary_port(&self) -> u16 {
        let address = self.sentinels[0].cli(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", Self::NAME]);
        let port = address.lines().nth(1).and_then(|port| port.parse().ok());
        port.unwrap_or_else(|| panic!("no primary is named: {address}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_fail_over() {
        let sentinels = Sentinels::start();
        assert_eq!(sentinels.primary_port(), sentinels.server(0).port());
        sentinels.fail_over();
        assert_eq!(sentinels.primary_port(), sentinels.server(1).port());
    }
}
