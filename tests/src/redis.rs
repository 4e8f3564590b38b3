//! A private Redis.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::process::{Output, Process, find_program};
use crate::tls::Certificate;
use crate::wait::{free_port, poll};

const START: Duration = Duration::from_secs(20);
const ATTEMPTS: u32 = 5;

/// The options of a [`RedisServer`].
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    port: Option<u16>,
    password: Option<String>,
    config: Vec<String>,
    is_sentinel: bool,
    tls: Option<Certificate>,
}

impl RedisOptions {
    /// A port chosen by the caller, to start a server where one was missed.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// `requirepass`; [`RedisServer::cli`] and [`RedisServer::url`] use it.
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// One more line of `redis.conf`: `maxmemory 8mb`, `rename-command KEYS ""`, `user app on ..`.
    pub fn config(mut self, line: &str) -> Self {
        self.config.push(line.to_owned());
        self
    }

    /// Listens for TLS as well, on a [port](RedisServer::service_port) of its own.
    pub fn tls(mut self, certificate: &Certificate) -> Self {
        self.tls = Some(certificate.clone());
        self
    }

    /// Its certificate for clients that connect over TLS.
    pub(crate) fn certificate(&self) -> Option<&Certificate> {
        self.tls.as_ref()
    }

    /// Its password.
    pub(crate) fn password_of(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// Starts it as a Sentinel.
    pub fn sentinel(mut self) -> Self {
        self.is_sentinel = true;
        self
    }

    /// Starts the server and waits until it answers.
    ///
    /// # Panics
    ///
    /// When there is no `redis-server`, or it does not start.
    pub fn start(self) -> RedisServer {
        RedisServer::start_with(self)
    }
}

/// A real Redis on a free loopback port, in a directory of its own, without persistence unless
/// asked for.
#[derive(Debug)]
pub struct RedisServer {
    process: Option<Process>,
    port: u16,
    tls_port: Option<u16>,
    options: RedisOptions,
    directory: TempDir,
}

impl RedisServer {
    /// A server with the default options.
    ///
    /// # Panics
    ///
    /// When there is no `redis-server`, or it does not start.
    pub fn start() -> Self {
        Self::options().start()
    }

    /// To start a server with a password, on a given port, or with more configuration.
    pub fn options() -> RedisOptions {
        RedisOptions::default()
    }

    fn start_with(options: RedisOptions) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory for Redis");
        let mut server = Self {
            process: None,
            port: 0,
            tls_port: None,
            options,
            directory,
        };
        let attempts = if server.options.port.is_some() {
            1
        } else {
            ATTEMPTS
        };
        let mut refusal = String::new();
        for _ in 0..attempts {
            server.port = server.options.port.unwrap_or_else(free_port);
            server.tls_port = server.options.certificate().map(|_| free_port());
            match server.launch() {
                Ok(()) => return server,
                Err(lines) => refusal = lines,
            }
        }
        panic!("redis-server did not start:\n{refusal}");
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port for clients and other servers: that for TLS where it has one.
    pub fn service_port(&self) -> u16 {
        self.tls_port.unwrap_or(self.port)
    }

    /// `redis://127.0.0.1:PORT/0`, with the password if there is one.
    pub fn url(&self) -> String {
        let password = self.options.password.as_ref();
        let user = password.map_or_else(String::new, |password| format!(":{password}@"));
        format!("redis://{user}127.0.0.1:{}/0", self.port)
    }

    /// Kills the server, as a crash would.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Stops the server in its tracks: connections stay open, nothing answers.
    pub fn pause(&mut self) {
        self.running().pause();
    }

    /// Lets a paused server go on.
    pub fn resume(&mut self) {
        self.running().resume();
    }

    /// Kills the server and starts it again on the same port, with what it has on disk: nothing,
    /// unless it was told to save (`SAVE`, `save ..`, `appendonly yes`).
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn restart(&mut self) {
        self.restart_with(&[]);
    }

    /// The same with more configuration, this once: `appendonly yes`.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn restart_with(&mut self, lines: &[&str]) {
        self.stop();
        let usual = self.options.config.len();
        let more = lines.iter().map(|line| (*line).to_owned());
        self.options.config.extend(more);
        let launched = self.launch();
        self.options.config.truncate(usual);
        if let Err(lines) = launched {
            panic!("redis-server did not start again:\n{lines}");
        }
    }

    /// Kills the server and starts it again on the same port, without any data.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn restart_empty(&mut self) {
        self.stop();
        fs::remove_dir_all(self.directory.path()).expect("Redis's directory can be emptied");
        fs::create_dir(self.directory.path()).expect("Redis's directory can be made again");
        self.restart();
    }

    /// Runs `redis-cli` with `arguments` and returns what it prints, trimmed.
    ///
    /// # Panics
    ///
    /// When there is no `redis-cli`.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        if let Some(password) = &self.options.password {
            command.env("REDISCLI_AUTH", password);
        }
        self.run(
            command
                .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
                .args(arguments),
        )
    }

    /// Runs a line of shell in which `redis-cli` talks to this server: for what people type, pipes
    /// and all.
    ///
    /// # Panics
    ///
    /// When there is no shell.
    pub fn shell(&self, line: &str) -> String {
        let cli = format!("redis-cli -h 127.0.0.1 -p {}", self.port);
        let mut command = Command::new("sh");
        if let Some(password) = &self.options.password {
            command.env("REDISCLI_AUTH", password);
        }
        self.run(command.args(["-c", &line.replace("redis-cli", &cli)]))
    }

    /// How often a command was called since the statistics were reset; a subcommand as
    /// `client|list`.
    ///
    /// # Panics
    ///
    /// When there is no `redis-cli`.
    pub fn calls(&self, command: &str) -> u64 {
        let stats = self.cli(&["INFO", "commandstats"]);
        let prefix = format!("cmdstat_{command}:calls=");
        let line = stats.lines().find_map(|line| line.strip_prefix(&prefix));
        let calls = line.and_then(|line| line.split(',').next()?.parse().ok());
        calls.unwrap_or(0)
    }

    /// How often it has refused a command, since it knows no such command, or the user may not run
    /// it, or not with its keys.
    ///
    /// # Panics
    ///
    /// When there is no `redis-cli`.
    pub fn refused(&self, command: &str) -> u64 {
        let stats = self.cli(&["INFO", "commandstats"]);
        let prefix = format!("cmdstat_{command}:");
        let line = stats.lines().find_map(|line| line.strip_prefix(&prefix));
        let refused = line.and_then(|line| line.split_once("rejected_calls="));
        let refused = refused.and_then(|(_, rest)| rest.split(',').next()?.parse().ok());
        refused.unwrap_or(0)
    }

    /// How many connections programs have to it over RESP3, as the cache has all of its own. That
    /// of `redis-cli`, and those that servers keep to each other for a while after `MIGRATE`, are
    /// of RESP2.
    ///
    /// # Panics
    ///
    /// When there is no `redis-cli`.
    pub fn connections(&self) -> usize {
        let clients = self.cli(&["CLIENT", "LIST"]);
        let is_ours = |line: &&str| line.contains(" resp=3");
        clients.lines().filter(is_ours).count()
    }

    /// The server's log so far.
    pub fn log(&self) -> Vec<String> {
        self.process
            .as_ref()
            .map(Process::stdout)
            .map(Output::lines)
            .unwrap_or_default()
    }

    fn run(&self, command: &mut Command) -> String {
        let output = command
            .output()
            .expect("redis-cli runs; `apt-get install redis-server` brings it");
        let text = if output.stdout.is_empty() {
            output.stderr
        } else {
            output.stdout
        };
        String::from_utf8_lossy(&text).trim().to_owned()
    }

    fn running(&mut self) -> &mut Process {
        self.process.as_mut().expect("the server runs")
    }

    /// Starts the process; `Err` holds its log.
    fn launch(&mut self) -> Result<(), String> {
        let program = server_program().expect(
            "redis-server is missing; install it: `sudo apt-get install redis-server` on Debian or Ubuntu, \
             `brew install redis` on macOS",
        );
        let file = self.directory.path().join("redis.conf");
        fs::write(&file, self.configuration()).expect("redis.conf can be written");
        let directory = self.directory.path();
        let mut command = Command::new(program);
        command.arg(file).current_dir(directory);
        if self.options.is_sentinel {
            command.arg("--sentinel");
        }
        let mut process = Process::start(&mut command, Signal::KILL, Some(directory))
            .expect("redis-server can be run");
        let port = self.port;
        let ready = poll(START, || {
            if process.ended().is_some() {
                return Some(false);
            }
            // Its own word first: another server may answer on a port this one then fails to get.
            let said = process.stdout();
            let is_up = said.contains("eady to accept connections") || said.contains("+monitor");
            (is_up && answers(port)).then_some(true)
        });
        if ready == Some(true) {
            self.process = Some(process);
            return Ok(());
        }
        let mut lines = process.stdout().lines();
        lines.extend(process.stderr().lines());
        Err(lines.join("\n"))
    }

    fn configuration(&self) -> String {
        let mut lines = vec![
            "bind 127.0.0.1".to_owned(),
            format!("port {}", self.port),
            format!("dir \"{}\"", self.directory.path().display()),
            "save \"\"".to_owned(),
        ];
        lines.extend(
            self.options
                .password
                .iter()
                .map(|password| format!("requirepass {password}")),
        );
        if let (Some(certificate), Some(port)) = (self.options.certificate(), self.tls_port) {
            lines.extend(certificate.configuration(port));
        }
        lines.extend(self.options.config.iter().cloned());
        lines.join("\n") + "\n"
    }
}

/// The server that tests run against: `redis-server`, unless `CACHE_TEST_REDIS_SERVER` names
/// another program that speaks the protocol and takes the same options.
fn server_program() -> Option<PathBuf> {
    match std::env::var_os("CACHE_TEST_REDIS_SERVER").filter(|it| !it.is_empty()) {
        Some(program) => Some(program.into()).filter(|program: &PathBuf| program.is_file()),
        None => find_program("redis-server", &[]),
    }
}

/// Whether a server there answers `PING`, be it that it wants a password first.
fn answers(port: u16) -> bool {
    let ask = || -> std::io::Result<[u8; 1]> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"PING\r\n")?;
        let mut first = [0];
        stream.read_exact(&mut first)?;
        Ok(first)
    };
    matches!(ask(), Ok([b'+' | b'-']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_answers_and_ends_with_its_owner() {
        let server = RedisServer::start();
        assert_eq!(server.cli(&["PING"]), "PONG");
        assert_eq!(
            server.url(),
            format!("redis://127.0.0.1:{}/0", server.port())
        );
        let port = server.port();
        drop(server);
        assert!(!answers(port));
    }

    #[test]
    fn it_forgets_or_keeps_its_data_over_a_restart() {
        let mut server = RedisServer::start();
        let port = server.port();
        server.cli(&["SET", "kept", "1"]);
        server.cli(&["SAVE"]);
        server.cli(&["SET", "lost", "1"]);
        server.restart();
        assert_eq!(server.cli(&["MGET", "kept", "lost"]), "1");
        assert_eq!(server.port(), port);
        server.restart_empty();
        assert_eq!(server.cli(&["DBSIZE"]), "0");
    }

    #[test]
    fn it_takes_a_password_and_more_configuration() {
        let server = RedisServer::options()
            .password("s3cret")
            .config("maxmemory 8mb")
            .config("rename-command KEYS \"\"")
            .config("user app on >pw ~users:* +get")
            .start();
        assert_eq!(
            server.cli(&["CONFIG", "GET", "maxmemory"]),
            "maxmemory\n8388608"
        );
        assert!(server.cli(&["KEYS", "*"]).contains("unknown command"));
        assert_eq!(
            server.cli(&[
                "--user",
                "app",
                "--pass",
                "pw",
                "--no-auth-warning",
                "GET",
                "users:1"
            ]),
            ""
        );
        assert_eq!(server.shell("redis-cli PING | tr A-Z a-z"), "pong");
        assert_eq!(
            server.url(),
            format!("redis://:s3cret@127.0.0.1:{}/0", server.port())
        );
    }

    #[test]
    fn a_paused_server_is_there_and_silent() {
        let mut server = RedisServer::start();
        server.pause();
        assert!(!answers(server.port()));
        assert!(TcpStream::connect(("127.0.0.1", server.port())).is_ok());
        server.resume();
        assert!(answers(server.port()));
    }

    #[test]
    #[should_panic(expected = "redis-server did not start")]
    fn a_server_that_cannot_start_says_why() {
        RedisServer::options().config("no-such-option 1").start();
    }
}
