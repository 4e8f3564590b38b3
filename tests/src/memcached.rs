//! A private Memcached.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::process::{Process, find_program};
use crate::wait::{free_port, poll};

const START: Duration = Duration::from_secs(20);
const ATTEMPTS: u32 = 5;

/// A real Memcached on a free loopback port.
#[derive(Debug)]
pub struct MemcachedServer {
    process: Option<Process>,
    port: u16,
    options: Vec<String>,
}

impl MemcachedServer {
    /// A server with 64 MB.
    ///
    /// # Panics
    ///
    /// When there is no `memcached`, or it does not start.
    pub fn start() -> Self {
        Self::start_with(&["-m", "64"])
    }

    /// A server with these arguments: `-m 2`, `-I 2m`, `-M`.
    ///
    /// # Panics
    ///
    /// When there is no `memcached`, or it does not start.
    pub fn start_with(options: &[&str]) -> Self {
        let mut server = Self {
            process: None,
            port: 0,
            options: options.iter().map(|option| (*option).to_owned()).collect(),
        };
        let mut refusal = String::new();
        for _ in 0..ATTEMPTS {
            server.port = free_port();
            match server.launch() {
                Ok(()) => return server,
                Err(lines) => refusal = lines,
            }
        }
        panic!("memcached did not start:\n{refusal}");
    }

    /// A server that listens at this Unix socket alone.
    ///
    /// # Panics
    ///
    /// When there is no `memcached`, or it does not start.
    pub fn at_socket(path: &str) -> Self {
        let mut process = run(Command::new(program()).args(["-u", "root", "-s", path]));
        let ready = poll(START, || {
            if process.ended().is_some() {
                return Some(false);
            }
            std::os::unix::net::UnixStream::connect(path)
                .is_ok()
                .then_some(true)
        });
        assert_eq!(ready, Some(true), "memcached did not start at {path}");
        Self {
            process: Some(process),
            port: 0,
            options: Vec::new(),
        }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `memcached://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("memcached://127.0.0.1:{}", self.port)
    }

    /// Kills the server, as a crash would.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Kills the server and starts it again on the same port: empty.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn restart(&mut self) {
        self.stop();
        if let Err(lines) = self.launch() {
            panic!("memcached did not start again:\n{lines}");
        }
    }

    /// Pauses the server: connections stay open, and nothing answers.
    ///
    /// # Panics
    ///
    /// When it does not run.
    pub fn pause(&mut self) {
        self.process.as_mut().expect("the server runs").pause();
    }

    /// Lets a paused server go on.
    ///
    /// # Panics
    ///
    /// When it does not run.
    pub fn resume(&mut self) {
        self.process.as_mut().expect("the server runs").resume();
    }

    /// Sends one command, with its data behind a line break if it has any, and returns the answer
    /// up to the line that ends it: for a look at what is stored, and for changes by hand.
    ///
    /// # Panics
    ///
    /// When the server does not answer.
    pub fn ask(&self, command: &str) -> String {
        ask(self.port, command).expect("memcached answers")
    }

    fn launch(&mut self) -> Result<(), String> {
        let mut command = Command::new(program());
        let port = self.port.to_string();
        command.args(["-l", "127.0.0.1", "-p", &port, "-U", "0", "-u", "root"]);
        command.args(&self.options);
        let mut process = run(&mut command);
        let port = self.port;
        let id = process.id().to_string();
        let ready = poll(START, || {
            if process.ended().is_some() {
                return Some(false);
            }
            // Another server may answer on a port this one then fails to get.
            let stats = ask(port, "stats").unwrap_or_default();
            stats
                .contains(&format!("STAT pid {id}\r\n"))
                .then_some(true)
        });
        if ready == Some(true) {
            self.process = Some(process);
            return Ok(());
        }
        let mut lines = process.stdout().lines();
        lines.extend(process.stderr().lines());
        Err(lines.join("\n"))
    }
}

fn program() -> PathBuf {
    find_program("memcached", &[]).expect(
        "memcached is missing; install it: `sudo apt-get install memcached` on Debian or Ubuntu, \
         `brew install memcached` on macOS",
    )
}

fn run(command: &mut Command) -> Process {
    Process::start(command, Signal::KILL, None).expect("memcached can be run")
}

/// Sends a command, and `mn` behind it, whose answer ends the reading.
fn ask(port: u16, command: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(format!("{command}\r\nmn\r\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while !answer.ends_with(b"MN\r\n") {
        match stream.read(&mut piece)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => answer.extend_from_slice(&piece[..read]),
        }
    }
    answer.truncate(answer.len() - 4);
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_answers_forgets_and_ends_with_its_owner() {
        let mut server = MemcachedServer::start();
        assert_eq!(server.ask("set a 0 0 1\r\n1"), "STORED\r\n");
        assert_eq!(server.ask("get a"), "VALUE a 0 1\r\n1\r\nEND\r\n");
        server.restart();
        assert_eq!(server.ask("get a"), "END\r\n");
        let port = server.port();
        drop(server);
        assert!(ask(port, "version").is_err());
    }
}
