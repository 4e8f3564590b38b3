//! The demo API as a process of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use reqwest::{Method, header::HeaderMap};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Output, Process};
use crate::wait::poll;

const START: Duration = Duration::from_secs(60);
const LISTENING: [&str; 2] = [
    "Listening on http://127.0.0.1:",
    "Listening on http://0.0.0.0:",
];

/// A running `demo-api`, in a directory of its own.
#[derive(Debug)]
pub struct Demo {
    process: Process,
    port: u16,
    client: reqwest::Client,
    directory: Option<TempDir>,
}

impl Demo {
    /// Starts the demo with `environment` on a free port and waits until it listens.
    ///
    /// It inherits none of this process's `REDIS_*`, `CACHE_*` and similar variables. Without a
    /// `DATABASE_URL` it makes its own SQLite file, which is removed with it.
    ///
    /// # Panics
    ///
    /// When it can't be built or started; the message holds what it wrote.
    pub fn start<'a>(environment: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self::run(Command::new(demo_program()), environment)
    }

    /// The same, with `open_files` file descriptors at most.
    ///
    /// # Panics
    ///
    /// When it can't be built or started; the message holds what it wrote.
    pub fn start_with_files<'a>(
        open_files: u32,
        environment: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let mut command = Command::new("sh");
        command
            .args(["-c", r#"ulimit -n "$1" && exec "$0""#])
            .arg(demo_program())
            .arg(open_files.to_string());
        Self::run(command, environment)
    }

    fn run<'a>(
        mut command: Command,
        environment: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory for the demo");
        command
            .current_dir(directory.path())
            .env("HOST", "127.0.0.1")
            .env("PORT", "0");
        for (name, _) in std::env::vars_os() {
            let inherited = name.to_string_lossy();
            // A technique that a mutation takes out is missing in the demo as well.
            let is_mutation = inherited == "CACHE_MUTATION";
            if !is_mutation
                && [
                    "REDIS_",
                    "CACHE_",
                    "DATABASE_",
                    "RUST_LOG",
                    "MAX_CONNECTIONS",
                    "CLIENT_TIMEOUT_",
                    "OUTBOX",
                ]
                .iter()
                .any(|prefix| inherited.starts_with(prefix))
            {
                command.env_remove(&name);
            }
        }
        command.envs(environment);
        let mut process = Process::start(&mut command, Signal::KILL, Some(directory.path()))
            .expect("demo-api can be run");
        let port = poll(START, || {
            let port = port_of(process.stdout());
            port.map(Some).or_else(|| process.ended().map(|_| None))
        });
        let Some(Some(port)) = port else {
            panic!(
                "demo-api did not start:\n{}\n{}",
                process.stdout().lines().join("\n"),
                process.stderr().lines().join("\n")
            );
        };
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(30))
            .build();
        Self {
            process,
            port,
            client: client.expect("an HTTP client"),
            directory: Some(directory),
        }
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address of `path`.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The processor time it has used so far.
    ///
    /// # Panics
    ///
    /// When it has ended.
    pub fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()));
        let stat = stat.expect("it runs");
        // After the name in brackets: state, and eleven more, then the ticks in user and system
        // mode.
        let fields = stat.rsplit(") ").next().expect("fields").split(' ');
        let ticks = fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>());
        let ticks: u64 = ticks.map(|ticks| ticks.expect("a number")).sum();
        Duration::from_millis(ticks * 1_000 / rustix::param::clock_ticks_per_second())
    }

    /// The directory it runs in.
    pub fn directory(&self) -> &Path {
        self.directory
            .as_ref()
            .map_or(Path::new("."), TempDir::path)
    }

    /// The HTTP client, for requests the helpers below do not make.
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// Its standard output so far.
    pub fn stdout(&self) -> &Output {
        self.process.stdout()
    }

    /// Its standard error so far.
    pub fn stderr(&self) -> &Output {
        self.process.stderr()
    }

    /// All lines of both streams, standard output first.
    pub fn log(&self) -> Vec<String> {
        let mut lines = self.stdout().lines();
        lines.extend(self.stderr().lines());
        lines
    }

    /// `GET path`.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None).await
    }

    /// `POST path` with a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, Some(body)).await
    }

    /// `PUT path` with a JSON body.
    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PUT, path, Some(body)).await
    }

    /// `DELETE path`.
    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, None).await
    }

    /// Any request.
    ///
    /// # Panics
    ///
    /// When there is no answer.
    pub async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let mut request = self.client.request(method.clone(), self.url(path));
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => panic!("{method} {path}: {error:?}\n{}", self.log().join("\n")),
        };
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response
            .text()
            .await
            .unwrap_or_else(|error| panic!("{method} {path}: {error:?}"));
        Answer {
            status,
            headers,
            body,
        }
    }

    /// Sends SIGTERM, as a service manager does.
    pub fn terminate(&mut self) {
        self.process.signal(Signal::TERM);
    }

    /// Kills it, as a crash does.
    pub fn kill(&mut self) {
        self.process.stop();
    }

    /// Pauses it, until [`Demo::resume`].
    pub fn pause(&mut self) {
        self.process.pause();
    }

    /// Lets a paused demo go on.
    pub fn resume(&mut self) {
        self.process.resume();
    }

    /// Waits up to `limit` for its end.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        self.process.wait(limit)
    }
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, as text.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Panics
    ///
    /// When it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("{error} in the {} answer {:?}", self.status, self.body))
    }

    /// The `Cache-Status` header.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn cache_status(&self) -> CacheStatus {
        let header = self.headers.get("cache-status");
        let header = header.unwrap_or_else(|| panic!("no Cache-Status in {self:?}"));
        CacheStatus::parse(header.to_str().expect("a header of text"))
    }
}

/// A `Cache-Status` header (RFC 9211) with one member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheStatus {
    /// The cache that wrote it.
    pub cache: String,
    /// Served from the cache.
    pub hit: bool,
    /// Why it was not served from the cache: `miss`, `bypass`.
    pub fwd: Option<String>,
    /// Whether the response was stored.
    pub stored: bool,
    /// For how many seconds it is still fresh.
    pub ttl: Option<i64>,
    /// The key.
    pub key: Option<String>,
    /// Further information.
    pub detail: Option<String>,
}

impl CacheStatus {
    /// Reads a header, and skips unknown parameters.
    pub fn parse(header: &str) -> Self {
        let mut parts = header.split(';').map(str::trim);
        let mut status = Self {
            cache: parts.next().unwrap_or_default().to_owned(),
            ..Self::default()
        };
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, "?1"));
            let value = value.trim_matches('"');
            match name {
                "hit" => status.hit = value == "?1",
                "stored" => status.stored = value == "?1",
                "fwd" => status.fwd = Some(value.to_owned()),
                "ttl" => status.ttl = value.parse().ok(),
                "key" => status.key = Some(value.to_owned()),
                "detail" => status.detail = Some(value.to_owned()),
                _ => {}
            }
        }
        status
    }
}

fn port_of(output: &Output) -> Option<u16> {
    output.lines().iter().find_map(|line| {
        let (_, rest) = LISTENING
            .iter()
            .find_map(|listening| line.split_once(listening))?;
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .map_or(rest, |end| &rest[..end]);
        digits.parse().ok()
    })
}

/// The demo's executable, beside the tests; built first, if it is older than its sources.
///
/// # Panics
///
/// When it can't be built.
pub fn demo_program() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let test = std::env::current_exe().expect("a test knows its executable");
        // <target>/<profile>/deps/<test>
        let profile = test
            .ancestors()
            .nth(2)
            .expect("tests lie in target/<profile>/deps");
        let executable = profile.join("demo-api");
        if !is_fresh(&executable) {
            build(profile);
        }
        assert!(
            executable.is_file(),
            "cargo built no {}",
            executable.display()
        );
        executable
    })
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests lie in the workspace")
}

fn is_fresh(executable: &Path) -> bool {
    let Ok(built) = executable.metadata().and_then(|file| file.modified()) else {
        return false;
    };
    ["cache-macros", "cache-runtime", "demo-api"]
        .iter()
        .all(|package| newest(&workspace().join(package)).is_none_or(|changed| changed <= built))
}

/// When something in a package's sources was changed last; its tests and examples do not count.
fn newest(path: &Path) -> Option<SystemTime> {
    let name = path.file_name()?.to_str()?;
    if name == "target" || name == "tests" || name == "examples" || name == "benches" {
        return None;
    }
    let metadata = path.metadata().ok()?;
    if !metadata.is_dir() {
        return metadata.modified().ok();
    }
    let entries = path.read_dir().ok()?;
    entries
        .flatten()
        .filter_map(|entry| newest(&entry.path()))
        .max()
}

fn build(profile: &Path) {
    let output = cargo_build(profile).output().expect("cargo can be run");
    assert!(
        output.status.success(),
        "demo-api can't be built:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn cargo_build(profile: &Path) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "-p", "demo-api", "--bin", "demo-api"])
        // `scripts/mutations` sets it for the test alone. Build scripts watch it, so dependencies
        // would be compiled again.
        .env_remove("RUSTC_BOOTSTRAP")
        .current_dir(workspace());
    if let Some(target) = profile.parent() {
        command.arg("--target-dir").arg(target);
    }
    if profile.ends_with("release") {
        command.arg("--release");
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_is_built_without_rustc_bootstrap() {
        let command = cargo_build(Path::new("/target/debug"));
        let mut removed = command.get_envs().filter(|(_, value)| value.is_none());
        assert!(removed.any(|(name, _)| name == "RUSTC_BOOTSTRAP"));
    }

    #[test]
    fn cache_status_is_read() {
        let hit = CacheStatus::parse("cache-runtime; hit; ttl=295; key=\"users:1\"");
        assert_eq!(hit.cache, "cache-runtime");
        assert!(hit.hit && !hit.stored && hit.fwd.is_none());
        assert_eq!((hit.ttl, hit.key.as_deref()), (Some(295), Some("users:1")));
        let miss = CacheStatus::parse("cache-runtime;fwd=miss;stored;key=\"users:list:00\"");
        assert!(!miss.hit && miss.stored);
        assert_eq!(miss.fwd.as_deref(), Some("miss"));
    }
}
