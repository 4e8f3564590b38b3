//! A demo, or several over one database, and what it answers.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use cache_tests::{Demo, RedisServer};
use serde_json::Value;

use crate::calls::{Call, Known};

/// How the demo is to cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Not at all: what it answers is right.
    Off,
    Memory,
    Redis,
    /// Local entries, beside Redis.
    Both,
    /// Two processes over one Redis and one database, without local entries: each call goes to
    /// either of them.
    Shared,
    /// Two processes over one database, each with a cache in memory. Neither hears of the other's
    /// writes, so this is wrong.
    Apart,
}

impl Mode {
    /// All that have to answer as [`Off`](Self::Off) does.
    pub(crate) const RIGHT: [Self; 4] = [Self::Memory, Self::Redis, Self::Both, Self::Shared];

    fn processes(self) -> usize {
        match self {
            Self::Shared | Self::Apart => 2,
            _ => 1,
        }
    }

    fn environment(self, port: u16) -> Vec<(&'static str, String)> {
        let local = |mb: &str| ("CACHE_LOCAL_MB", mb.to_owned());
        let redis = [
            ("REDIS_ENABLED", "true".to_owned()),
            ("REDIS_PORT", port.to_string()),
            // The machine may be slow; what a timeout does is for other tests.
            ("CACHE_TIMEOUT_MS", "5000".to_owned()),
        ];
        match self {
            Self::Off => vec![local("0")],
            Self::Memory | Self::Apart => vec![local("16")],
            Self::Redis | Self::Shared => [local("0")].into_iter().chain(redis).collect(),
            Self::Both => [local("16")].into_iter().chain(redis).collect(),
        }
    }
}

/// An answer without what differs from one demo to the next.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Shown {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Value,
}

/// The cache will be cleared when Redis can be reached.
const ACCEPTED: u16 = 202;

/// `etag` is a hash of the body, times of added rows included; whether it means the same is seen by
/// `If-None-Match`.
const OWN_HEADERS: [&str; 4] = ["cache-invalidation", "cache-status", "date", "etag"];

/// One way to run the API.
pub(crate) struct Subject {
    pub(crate) mode: Mode,
    demos: Vec<Demo>,
    /// The tags of the last answers, by path.
    tags: Mutex<HashMap<String, String>>,
    /// How many answers came from the cache.
    pub(crate) hits: AtomicU64,
}

impl Subject {
    /// Over an empty cache and the rows that every demo begins with.
    pub(crate) fn start(mode: Mode, redis: &RedisServer) -> Self {
        static STARTED: AtomicU64 = AtomicU64::new(0);
        let mut environment = mode.environment(redis.port());
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        environment.push(("CACHE_NAMESPACE", format!("d{number}")));
        environment.push(("RUST_LOG", "error".into()));
        let mut demos: Vec<Demo> = Vec::new();
        for _ in 0..mode.processes() {
            if let Some(first) = demos.first() {
                let file = first.directory().join("demo.db");
                environment.push(("DATABASE_URL", format!("sqlite://{}", file.display())));
            }
            let variables = environment
                .iter()
                .map(|(name, value)| (*name, value.as_str()));
            demos.push(Demo::start(variables));
        }
        Self {
            mode,
            demos,
            tags: Mutex::default(),
            hits: AtomicU64::new(0),
        }
    }

    /// One for each mode. They start at the same time, since starting is mostly waiting.
    pub(crate) fn start_all<'a>(
        modes: impl Iterator<Item = &'a Mode>,
        redis: &RedisServer,
    ) -> Vec<Self> {
        thread::scope(|scope| {
            let start = |mode| scope.spawn(move || Self::start(mode, redis));
            let starting: Vec<_> = modes.copied().map(start).collect();
            let started = starting.into_iter().map(|it| it.join());
            started.map(|it| it.expect("demos that start")).collect()
        })
    }

    /// Sends a call, and waits for the answer.
    pub(crate) async fn ask(&self, call: &Call) -> Shown {
        // On a machine that is busy Redis may not answer in time, and the demo says so: it is asked
        // again.
        for _ in 0..20 {
            let shown = self.ask_once(call).await;
            if shown.status != ACCEPTED {
                return shown;
            }
        }
        panic!("{:?}: {call}: Redis does not answer", self.mode);
    }

    async fn ask_once(&self, call: &Call) -> Shown {
        let demo = &self.demos[call.seat % self.demos.len()];
        let mut request = demo
            .client()
            .request(call.method.clone(), demo.url(&call.path));
        if let Some(body) = &call.body {
            request = request
                .header("content-type", "application/json")
                .body(body.clone());
        }
        let known = match call.known {
            Known::Nothing => None,
            Known::Last => self.tag_of(&call.path),
            Known::Anything => Some("*".into()),
            Known::Other => Some("\"nobody's\"".into()),
        };
        if let Some(known) = known {
            request = request.header("if-none-match", known);
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => panic!(
                "{:?}: {call}: {error:?}\n{}",
                self.mode,
                demo.log().join("\n")
            ),
        };
        let status = response.status().as_u16();
        let mut headers = BTreeMap::new();
        for (name, value) in response.headers() {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            match name.as_str() {
                "cache-status" if value.contains("; hit") => {
                    self.hits.fetch_add(1, Ordering::Relaxed);
                }
                "etag" => {
                    let mut tags = self.tags.lock().unwrap_or_else(PoisonError::into_inner);
                    tags.insert(call.path.clone(), value.clone());
                }
                _ => {}
            }
            if !OWN_HEADERS.contains(&name.as_str()) {
                headers.insert(name.as_str().to_owned(), value);
            }
        }
        let body = response.text().await;
        let body = body.unwrap_or_else(|error| panic!("{:?}: {call}: {error:?}", self.mode));
        let (body, had_times) = without_times(&body);
        if had_times {
            // A time is as long as its fraction of a second.
            headers.remove("content-length");
        }
        Shown {
            status,
            headers,
            body,
        }
    }

    fn tag_of(&self, path: &str) -> Option<String> {
        let tags = self.tags.lock().unwrap_or_else(PoisonError::into_inner);
        tags.get(path).cloned()
    }
}

/// The body without the times of rows that were added in this run, and whether there were any;
/// those of the others are fixed.
fn without_times(body: &str) -> (Value, bool) {
    fn walk(value: &mut Value, found: &mut bool) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| walk(item, found)),
            Value::Object(fields) => {
                for (name, value) in fields {
                    let is_fixed = value.as_str().is_some_and(|time| time.starts_with("2024-"));
                    if name == "created_at" && !is_fixed {
                        *value = Value::Null;
                        *found = true;
                    } else {
                        walk(value, found);
                    }
                }
            }
            _ => {}
        }
    }
    let mut value = serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()));
    let mut found = false;
    walk(&mut value, &mut found);
    (value, found)
}

impl Shown {
    /// Without the ids of rows that were added, which depend on who else adds some.
    pub(crate) fn without_new_ids(mut self) -> Self {
        fn walk(value: &mut Value) {
            match value {
                Value::Array(items) => items.iter_mut().for_each(walk),
                Value::Object(fields) => {
                    let is_new = fields.get("created_at").is_some_and(Value::is_null);
                    if is_new {
                        fields.insert("id".into(), Value::Null);
                    }
                    fields.values_mut().for_each(walk);
                }
                _ => {}
            }
        }
        walk(&mut self.body);
        self
    }
}
