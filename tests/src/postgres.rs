//! A private PostgreSQL.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Signal, geteuid};
use tempfile::TempDir;

use crate::process::{Process, find_program};
use crate::wait::{free_port, poll};

const START: Duration = Duration::from_secs(30);
const ATTEMPTS: u32 = 5;
const INSTALL: &str = "PostgreSQL is missing; install it: `sudo apt-get install postgresql` on Debian or \
                       Ubuntu, `brew install postgresql` on macOS";

/// A PostgreSQL cluster on a free loopback port, in a directory of its own, that never waits for a
/// disk.
///
/// Its superuser is `postgres`, without a password. It refuses to run as root, so root runs it as
/// the system's user `postgres`, or as `nobody`.
#[derive(Debug)]
pub struct Postgres {
    process: Process,
    directory: TempDir,
    port: u16,
    databases: AtomicU32,
    settings: Vec<String>,
}

impl Postgres {
    /// The cluster of this test binary: the first to ask starts it, all others share it.
    ///
    /// # Panics
    ///
    /// As [`Postgres::start`].
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// A cluster of one's own.
    ///
    /// # Panics
    ///
    /// When PostgreSQL is not installed, or does not start.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// A cluster of one's own with settings of its own, `name=value`.
    ///
    /// # Panics
    ///
    /// As [`Postgres::start`].
    pub fn start_with(settings: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory for PostgreSQL");
        let user = Unprivileged::needed();
        if let Some(user) = &user {
            chown(directory.path(), Some(user.uid), Some(user.gid))
                .expect("root can give a directory away");
        }
        let data = directory.path().join("data");
        let made = user_command(user.as_ref(), program("initdb"), directory.path())
            .args([
                "--auth=trust",
                "--username=postgres",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
            ])
            .args(["--no-sync", "-D"])
            .arg(&data)
            .output()
            .expect("initdb can be run");
        assert!(
            made.status.success(),
            "initdb failed:\n{}",
            String::from_utf8_lossy(&made.stderr)
        );
        let settings = settings.iter().map(|it| (*it).to_owned());
        Self::launched(user.as_ref(), directory, settings.collect())
    }

    /// On the first free port on which it starts.
    fn launched(user: Option<&Unprivileged>, directory: TempDir, settings: Vec<String>) -> Self {
        let data = directory.path().join("data");
        let mut refusal = String::new();
        for _ in 0..ATTEMPTS {
            let port = free_port();
            match launch(user, directory.path(), &data, port, &settings) {
                Ok(process) => {
                    return Self {
                        process,
                        directory,
                        port,
                        databases: AtomicU32::new(0),
                        settings,
                    };
                }
                Err(lines) => refusal = lines,
            }
        }
        panic!("postgres did not start:\n{refusal}");
    }

    /// A standby of this cluster, which follows it and takes no writes.
    ///
    /// # Panics
    ///
    /// When it can't be made, or does not start.
    pub fn standby(&self) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory for PostgreSQL");
        let user = Unprivileged::needed();
        if let Some(user) = &user {
            chown(directory.path(), Some(user.uid), Some(user.gid))
                .expect("root can give a directory away");
        }
        let copied = user_command(user.as_ref(), program("pg_basebackup"), directory.path())
            // It also writes `standby.signal`, and where the primary is.
            .args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync"])
            .args(["--host=127.0.0.1", "--username=postgres"])
            .arg(format!("--port={}", self.port))
            .arg("--pgdata")
            .arg(directory.path().join("data"))
            .output()
            .expect("pg_basebackup can be run");
        let errors = String::from_utf8_lossy(&copied.stderr);
        assert!(copied.status.success(), "pg_basebackup failed:\n{errors}");
        Self::launched(user.as_ref(), directory, self.settings.clone())
    }

    /// Makes a primary of a standby.
    ///
    /// # Panics
    ///
    /// When it is none.
    pub fn promote(&self) {
        let user = Unprivileged::needed();
        let done = user_command(user.as_ref(), program("pg_ctl"), self.directory.path())
            .args(["promote", "--wait", "--pgdata"])
            .arg(self.directory.path().join("data"))
            .output()
            .expect("pg_ctl can be run");
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "pg_ctl failed:\n{errors}");
    }

    /// The URL of its own database `postgres`.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// Creates an empty database and returns its URL.
    ///
    /// # Panics
    ///
    /// When it can't be created.
    pub fn database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.psql(&self.url(), &format!("CREATE DATABASE {name}"));
        self.url_of(&name)
    }

    /// Runs `sql` in the database at `url` and returns the rows, unaligned and without a heading.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub fn psql(&self, url: &str, sql: &str) -> String {
        let output = Command::new(program("psql"))
            .args([
                "--no-psqlrc",
                "--quiet",
                "--tuples-only",
                "--no-align",
                "-v",
                "ON_ERROR_STOP=1",
            ])
            .args(["-d", url, "-c", sql])
            .output()
            .expect("psql can be run");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{sql}: {errors}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The database at `url` as SQL, which also drops what is there when it is
    /// [restored](Self::restore).
    ///
    /// # Panics
    ///
    /// When it fails.
    pub fn dump(&self, url: &str) -> String {
        let output = Command::new(program("pg_dump"))
            .args(["--clean", "--if-exists", "-d", url])
            .output()
            .expect("pg_dump can be run");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "pg_dump failed:\n{errors}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Runs a [dump](Self::dump) in the database at `url`, in one transaction.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub fn restore(&self, url: &str, dump: &str) {
        let file = self.directory.path().join("dump.sql");
        fs::write(&file, dump).expect("a file in a directory of its own");
        let output = Command::new(program("psql"))
            .args(["--no-psqlrc", "--quiet", "--single-transaction"])
            .args(["-v", "ON_ERROR_STOP=1", "-d", url, "-f"])
            .arg(&file)
            .output()
            .expect("psql can be run");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "a dump was not restored:\n{errors}"
        );
    }

    /// Begins to count transactions anew in this epoch, each of which is 2^32 of them.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub fn begin_epoch(&mut self, epoch: u32) {
        self.shut_down();
        let user = Unprivileged::needed();
        let done = user_command(user.as_ref(), program("pg_resetwal"), self.directory.path())
            .arg(format!("--epoch={epoch}"))
            .arg(self.directory.path().join("data"))
            .output()
            .expect("pg_resetwal can be run");
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "pg_resetwal failed:\n{errors}");
        self.start_again();
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends it at once, as a crash does: what was committed is there when it starts again.
    pub fn stop(&mut self) {
        self.process.stop();
    }

    /// Ends it in order, with all that was committed: unlike a crash, which may lose the last
    /// commits here, since they don't wait for the disk.
    pub fn shut_down(&mut self) {
        self.process.signal(Signal::INT);
        if self.process.wait(START).is_none() {
            self.process.stop();
        }
    }

    /// Starts it again on the same port, with its data.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn start_again(&mut self) {
        let user = Unprivileged::needed();
        let data = self.directory.path().join("data");
        let started = launch(
            user.as_ref(),
            self.directory.path(),
            &data,
            self.port,
            &self.settings,
        );
        self.process = started.unwrap_or_else(|log| panic!("postgres did not start again:\n{log}"));
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }
}

/// Starts the server; `Err` holds its log.
fn launch(
    user: Option<&Unprivileged>,
    directory: &Path,
    data: &Path,
    port: u16,
    settings: &[String],
) -> Result<Process, String> {
    let port = port.to_string();
    let mut command = user_command(user, program("postgres"), directory);
    command
        .args(["-p", &port, "-k", "", "-h", "127.0.0.1", "-D"])
        .arg(data);
    for setting in [
        "fsync=off",
        "full_page_writes=off",
        "synchronous_commit=off",
        "shared_buffers=16MB",
        "max_wal_size=256MB",
        "timezone=UTC",
    ]
    .into_iter()
    .chain(settings.iter().map(String::as_str))
    {
        command.args(["-c", setting]);
    }
    // SIGQUIT is its immediate shutdown: its children end too, and nothing is written.
    let mut process =
        Process::start(&mut command, Signal::QUIT, Some(directory)).expect("postgres can be run");
    let ready = poll(START, || {
        if process.ended().is_some() {
            return Some(false);
        }
        process
            .stderr()
            // A standby is ready to accept read-only ones.
            .contains("ready to accept ")
            .then_some(true)
    });
    if ready == Some(true) {
        Ok(process)
    } else {
        Err(process.stderr().lines().join("\n"))
    }
}

/// In `PATH`, or where Debian keeps each version's own, the newest first.
fn program(name: &str) -> PathBuf {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            Some((
                entry.file_name().to_str()?.parse().ok()?,
                entry.path().join("bin"),
            ))
        })
        .collect();
    versions.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    let folders: Vec<PathBuf> = versions.into_iter().map(|(_, folder)| folder).collect();
    find_program(name, &folders).expect(INSTALL)
}

/// The user root runs PostgreSQL as.
#[derive(Debug)]
struct Unprivileged {
    uid: u32,
    gid: u32,
}

impl Unprivileged {
    fn needed() -> Option<Self> {
        if !geteuid().is_root() {
            return None;
        }
        let found = ["postgres", "nobody"].into_iter().find_map(|name| {
            Some(Self {
                uid: id("-u", name)?,
                gid: id("-g", name)?,
            })
        });
        Some(found.expect(
            "PostgreSQL refuses to run as root, and there is no user `postgres` or `nobody`",
        ))
    }
}

fn id(option: &str, user: &str) -> Option<u32> {
    let output = Command::new("id").args([option, user]).output().ok()?;
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}

/// `program` as `user`, in a directory that user may enter; the child's number is the program's
/// own.
fn user_command(
    user: Option<&Unprivileged>,
    program: impl AsRef<OsStr>,
    directory: &Path,
) -> Command {
    let mut command = match user {
        None => Command::new(program),
        Some(user) => {
            use std::os::unix::process::CommandExt;
            let mut command = Command::new(program);
            command.uid(user.uid).gid(user.gid);
            command
        }
    };
    command.current_dir(directory);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_holds_databases_apart() {
        let cluster = Postgres::shared();
        let (one, two) = (cluster.database(), cluster.database());
        cluster.psql(&one, "CREATE TABLE t (id int); INSERT INTO t VALUES (7)");
        assert_eq!(cluster.psql(&one, "SELECT id FROM t"), "7");
        assert_eq!(
            cluster.psql(&two, "SELECT count(*) FROM pg_tables WHERE tablename = 't'"),
            "0"
        );
        assert_eq!(cluster.psql(&cluster.url(), "SHOW fsync"), "off");
    }

    #[test]
    fn a_dropped_cluster_is_gone() {
        let cluster = Postgres::start();
        let directory = cluster.directory.path().to_owned();
        let port = cluster.port;
        drop(cluster);
        assert!(!directory.exists());
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    }
}
