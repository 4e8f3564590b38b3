//! Processes of the backend, and requests to them in turn.

use std::process::Command;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use cache_tests::{Postgres, Process, RedisServer};
use reqwest::{Method, StatusCode};
use rustix::process::Signal;
use serde_json::Value;

/// How the backend caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Off,
    Memory,
    Redis,
    Both,
    /// Both tiers, in two processes that are asked in turn.
    TwoProcesses,
}

impl Mode {
    pub(crate) const ALL: [Self; 5] = [
        Self::Off,
        Self::Memory,
        Self::Redis,
        Self::Both,
        Self::TwoProcesses,
    ];
}

/// One or two processes over a database of their own.
pub(crate) struct Backend {
    processes: Vec<(Process, String)>,
    next: AtomicUsize,
    hits: AtomicU64,
    client: reqwest::Client,
    _redis: Option<RedisServer>,
}

/// What came back.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
}

impl Backend {
    pub(crate) fn start(mode: Mode) -> Self {
        let database = Postgres::shared().database();
        let redis = matches!(mode, Mode::Redis | Mode::Both | Mode::TwoProcesses);
        let redis = redis.then(RedisServer::start);
        let megabytes = match mode {
            Mode::Off | Mode::Redis => "0",
            Mode::Memory | Mode::Both | Mode::TwoProcesses => "16",
        };
        let processes = if mode == Mode::TwoProcesses { 2 } else { 1 };
        let start = |_| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_realworld"));
            for (name, _) in std::env::vars_os() {
                let inherited = name.to_string_lossy();
                if ["REDIS_", "CACHE_"]
                    .iter()
                    .any(|prefix| inherited.starts_with(prefix))
                {
                    command.env_remove(&name);
                }
            }
            command
                .env("DATABASE_URL", &database)
                .env("PORT", "0")
                .env("CACHE_LOCAL_MB", megabytes)
                .env(
                    "REDIS_ENABLED",
                    if redis.is_some() { "True" } else { "False" },
                );
            if let Some(redis) = &redis {
                command.env("REDIS_URL", redis.url());
            }
            let process = Process::start(&mut command, Signal::KILL, None).expect("it is built");
            process.stdout().wait_for("Listening on ");
            let lines = process.stdout().lines();
            let url = lines
                .iter()
                .find_map(|line| line.strip_prefix("Listening on "));
            let url = format!("{}/api", url.expect("it says where"));
            (process, url)
        };
        Self {
            processes: (0..processes).map(start).collect(),
            next: AtomicUsize::new(0),
            hits: AtomicU64::new(0),
            client: reqwest::Client::builder()
                .no_proxy()
                .build()
                .expect("a client"),
            _redis: redis,
        }
    }

    /// Whether several processes answer.
    pub(crate) fn is_spread(&self) -> bool {
        self.processes.len() > 1
    }

    /// How many cached calls were hits.
    pub(crate) fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> Answer {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.processes.len();
        let url = format!("{}{path}", self.processes[turn].1);
        let mut request = self.client.request(method, url);
        if let Some(token) = token {
            request = request.header("Authorization", format!("Token {token}"));
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.expect("an answer");
        let status = response.status();
        let said = response.headers().get_all("Cache-Status");
        let hits: usize = said
            .iter()
            .filter_map(|value| value.to_str().ok())
            .map(|value| value.matches("; hit").count())
            .sum();
        self.hits.fetch_add(hits as u64, Ordering::Relaxed);
        let text = response.text().await.expect("a body");
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Answer { status, body }
    }
}
