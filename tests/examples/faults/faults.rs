//! What goes wrong, and how it is mended.

use std::time::Duration;

use cache_runtime::{CacheConfig, RedisConfig};
use cache_tests::{Mode, Proxy, RedisServer, free_port};

use crate::fake::{Fake, Lie};

/// How long a fault lasts, unless it is over by itself.
pub(crate) const LASTS: Duration = Duration::from_secs(3);

/// The servers of one row.
#[derive(Default)]
pub(crate) struct Stage {
    server: Option<RedisServer>,
    proxy: Option<Proxy>,
    fake: Option<Fake>,
    port: u16,
}

impl Stage {
    pub(crate) fn new(fault: &Fault) -> Self {
        let mut stage = Self {
            port: free_port(),
            ..Self::default()
        };
        if !fault.absent_at_the_start {
            stage.serve();
        }
        if fault.proxied {
            stage.proxy = Some(Proxy::start(stage.port));
        }
        stage
    }

    /// Where the cache finds its Redis. The advice would be asked for in the middle of a fault.
    pub(crate) fn config(&self) -> CacheConfig {
        let port = self.proxy.as_ref().map_or(self.port, Proxy::port);
        let redis = RedisConfig::at("127.0.0.1", port).login(Some("app"), "app-word");
        CacheConfig::default().redis(redis).advice(false)
    }

    fn serve(&mut self) {
        let options = RedisServer::options()
            .port(self.port)
            .config("user app on >app-word ~* +@all")
            // While it loads it listens in between, and says so.
            .config("loading-process-events-interval-bytes 1024");
        self.server = Some(options.start());
    }

    fn server(&mut self) -> &mut RedisServer {
        self.server.as_mut().expect("a server was started")
    }

    fn cli(&mut self, words: &[&str]) {
        let answer = self.server().cli(words);
        assert!(!answer.contains("ERR"), "{words:?}: {answer}");
    }

    fn through(&self, mode: Mode) {
        self.proxy.as_ref().expect("a proxy was started").set(mode);
    }

    fn lie(&mut self, lie: Lie) {
        self.server = None;
        self.fake = Some(Fake::start(self.port, lie));
    }

    fn speak_the_truth(&mut self) {
        self.fake = None;
        self.serve();
    }
}

/// One row of the table.
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    pub(crate) lasts: Duration,
    pub(crate) begin: fn(&mut Stage),
    pub(crate) end: fn(&mut Stage),
    pub(crate) absent_at_the_start: bool,
    proxied: bool,
}

impl Fault {
    fn new(name: &'static str, begin: fn(&mut Stage), end: fn(&mut Stage)) -> Self {
        Self {
            name,
            lasts: LASTS,
            begin,
            end,
            absent_at_the_start: false,
            proxied: false,
        }
    }

    /// It takes as long as it takes to cause it.
    fn at_once(name: &'static str, cause: fn(&mut Stage)) -> Self {
        Self {
            lasts: Duration::ZERO,
            ..Self::new(name, cause, |_| ())
        }
    }

    fn on_the_way(name: &'static str, begin: fn(&mut Stage)) -> Self {
        Self {
            proxied: true,
            ..Self::new(name, begin, |stage| stage.through(Mode::Pass))
        }
    }
}

pub(crate) fn all() -> Vec<Fault> {
    let absent = Fault {
        absent_at_the_start: true,
        ..Fault::new("absent from the start", |_| (), Stage::serve)
    };
    vec![
        Fault::new("none, to compare", |_| (), |_| ()),
        absent,
        Fault::new(
            "killed, connections refused",
            |stage| stage.server().stop(),
            |stage| stage.server().restart(),
        ),
        Fault::at_once("restarted without data", |stage| {
            stage.server().restart_empty()
        }),
        Fault::at_once("restarted with data", |stage| {
            stage.cli(&["SAVE"]);
            stage.server().restart();
        }),
        Fault::at_once("loading its data, for 2 s", load_slowly),
        Fault::new(
            "hung (SIGSTOP)",
            |stage| stage.server().pause(),
            |stage| stage.server().resume(),
        ),
        Fault::new(
            "`CLIENT PAUSE 3000`",
            |stage| stage.cli(&["CLIENT", "PAUSE", "3000"]),
            |_| (),
        ),
        Fault::on_the_way("slow by 20 ms each way", |stage| {
            stage.through(Mode::Delay(Duration::from_millis(20)));
        }),
        Fault::on_the_way("slow by 200 ms each way", |stage| {
            stage.through(Mode::Delay(Duration::from_millis(200)));
        }),
        Fault::new(
            "full (`maxmemory 1mb`, `noeviction`)",
            |stage| stage.cli(&["CONFIG", "SET", "maxmemory", "1mb"]),
            |stage| stage.cli(&["CONFIG", "SET", "maxmemory", "0"]),
        ),
        Fault::new(
            "read-only (`REPLICAOF`)",
            |stage| stage.cli(&["REPLICAOF", "127.0.0.1", "1"]),
            |stage| stage.cli(&["REPLICAOF", "NO", "ONE"]),
        ),
        Fault::new(
            "another password, connections closed",
            |stage| change_password(stage, ">new-word"),
            |stage| change_password(stage, ">app-word"),
        ),
        Fault::on_the_way("connections cut", |stage| stage.through(Mode::Cut)),
        Fault::on_the_way("half-closed", |stage| stage.through(Mode::HalfClose)),
        Fault::on_the_way("requests swallowed", |stage| {
            stage.through(Mode::SwallowRequests);
        }),
        Fault::on_the_way("answers swallowed", |stage| {
            stage.through(Mode::SwallowAnswers);
        }),
        Fault::new(
            "lying: garbage",
            |stage| stage.lie(Lie::Garbage),
            Stage::speak_the_truth,
        ),
        Fault::new(
            "lying: other types, other counts",
            |stage| stage.lie(Lie::WrongTypes),
            Stage::speak_the_truth,
        ),
        Fault::new(
            "lying: half an entry everywhere",
            |stage| stage.lie(Lie::HalfEntries),
            Stage::speak_the_truth,
        ),
        Fault::new(
            "foreign values under all keys",
            |stage| stage.cli(&["EVAL", FOREIGN, "0"]),
            |stage| stage.cli(&["FLUSHALL"]),
        ),
    ]
}

const FOREIGN: &str =
    "redis.call('FLUSHALL') for n = 0, 199 do redis.call('RPUSH', 'rows:' .. n, 'a') end";

fn change_password(stage: &mut Stage, password: &str) {
    stage.cli(&["ACL", "SETUSER", "app", "resetpass", password]);
    let closed = stage.server().cli(&["CLIENT", "KILL", "USER", "app"]);
    assert!(closed.parse::<u32>().is_ok(), "{closed}");
}

/// Keys enough, and a pause for each, that the server is up and says `LOADING`.
fn load_slowly(stage: &mut Stage) {
    let populate = "for n = 1, 2000 do redis.call('SET', 'other:' .. n, string.rep('x', 100)) end";
    stage.cli(&["EVAL", populate, "0"]);
    stage.cli(&["SAVE"]);
    stage.server().restart_with(&["key-load-delay 1000"]);
}
