//! A private primary with replicas, and the Sentinels that watch them.

use std::time::Duration;

use crate::cluster::Refused;
use crate::redis::{RedisOptions, RedisServer};
use crate::wait::poll;

const START: Duration = Duration::from_secs(30);
/// A Sentinel that was stopped, or did not get to run, for two seconds does nothing for 30 s after
/// that: it is in tilt. With two of these there is no majority, and one that is told to fail over
/// does so afterwards. After an election that nobody has won they wait for ten more.
const FAILOVER: Duration = Duration::from_secs(90);

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
        self.try_for_another(port)
            .unwrap_or_else(|refused| panic!("{refused}"));
    }

    /// The same, without a panic.
    ///
    /// # Errors
    /// When it does not.
    pub fn try_for_another(&self, port: u16) -> Result<(), Refused> {
        let is_other = || (self.primary_port() != port).then_some(());
        let none = || format!("no failover within {FAILOVER:?}\n{}", self.state());
        poll(FAILOVER, is_other).ok_or_else(|| Refused::new(none()))
    }

    /// Whether a Sentinel does nothing, since it was stopped or starved not long ago.
    pub fn is_in_tilt(&self, number: usize) -> bool {
        let info = self.sentinels[number].cli(&["INFO", "sentinel"]);
        info.contains("sentinel_tilt:1")
    }

    /// The states that servers and Sentinels report.
    fn state(&self) -> String {
        let mut state = String::new();
        for (number, sentinel) in self.sentinels.iter().enumerate() {
            let known = sentinel.cli(&["SENTINEL", "MASTER", Self::NAME]);
            let value = |field: &str| {
                let mut lines = known.lines().skip_while(|line| *line != field);
                lines.nth(1).unwrap_or("?").to_owned()
            };
            let log = sentinel.log();
            let last = log.len().saturating_sub(8);
            state += &format!(
                "Sentinel {number}: in tilt {}, primary {}, flags {}\n{}\n",
                self.is_in_tilt(number),
                value("port"),
                value("flags"),
                log[last..].join("\n")
            );
        }
        for server in &self.servers {
            let info = server.cli(&["INFO", "replication"]);
            let kept = ["role:", "master_port:", "master_link_status:", "slave0:"];
            let is_kept = |line: &&str| kept.iter().any(|it| line.starts_with(it));
            let info: Vec<_> = info.lines().filter(is_kept).collect();
            state += &format!("{}: {}\n", server.port(), info.join(" "));
        }
        state
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

    /// Returns when one server is the primary, the other replicates it, and all Sentinels know
    /// them.
    ///
    /// # Panics
    /// When that does not happen in time.
    pub fn wait_until_whole(&self) {
        self.try_until_whole()
            .unwrap_or_else(|refused| panic!("{refused}"));
    }

    /// The same, without a panic.
    ///
    /// # Errors
    /// When that does not happen in time.
    pub fn try_until_whole(&self) -> Result<(), Refused> {
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
        let not_whole = || format!("not whole within {FAILOVER:?}\n{}", self.state());
        poll(FAILOVER, is_whole).ok_or_else(|| Refused::new(not_whole()))
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

    /// One that was stopped says `OK` when it is told to fail over, and does so half a minute
    /// later.
    #[test]
    fn one_that_was_stopped_is_in_tilt() {
        let mut sentinels = Sentinels::start();
        assert!(!sentinels.is_in_tilt(1));
        sentinels.sentinel_mut(1).pause();
        std::thread::sleep(Duration::from_millis(2_500));
        sentinels.sentinel_mut(1).resume();
        let is_in_tilt = || sentinels.is_in_tilt(1).then_some(());
        assert!(poll(START, is_in_tilt).is_some());
        assert!(!sentinels.is_in_tilt(0));
    }

    #[test]
    fn they_fail_over() {
        let sentinels = Sentinels::start();
        assert_eq!(sentinels.primary_port(), sentinels.server(0).port());
        sentinels.fail_over();
        assert_eq!(sentinels.primary_port(), sentinels.server(1).port());
    }
}
