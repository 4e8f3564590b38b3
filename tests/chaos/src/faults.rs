//! The faults: four fault injectors, each of which repairs what it has broken before the next
//! fault.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

use cache_tests::{Mode, Proxy, RedisServer};
use fastrand::Rng;

use crate::clock::now;
use crate::context::IDS;
use crate::coordinator::App;
use crate::history::{Fault, FaultKind, MILLISECOND};
use crate::shop::KINDS;

/// An app is stopped for longer than local entries may be old, for no longer than its announcements
/// outlast, and not again before it has renewed them.
const LONGEST_STOP: u64 = 1_800;
const BETWEEN_STOPS: Duration = Duration::from_secs(3);

/// Within this time an app that is to be killed comes to a crash-safe write, unless its Redis is
/// away.
const MEETS_WITHIN: u64 = 3_000 * MILLISECOND;

/// `CLIENT TRACKING OFF` on somebody's own connection; the reply, which nobody would expect, is
/// left out. In one piece: what came in between would get no reply.
const TRACK_NOTHING: &[u8] =
    b"*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$4\r\nSKIP\r\n*3\r\n$6\r\nCLIENT\r\n$8\r\nTRACKING\r\n$3\r\nOFF\r\n";

/// What each hand draws from.
const AT_REDIS: &[FaultKind] = &[
    FaultKind::RedisStop,
    FaultKind::RestartEmpty,
    FaultKind::RestartSnapshot,
    FaultKind::RestartAof,
    FaultKind::Flush,
    FaultKind::ScriptFlush,
    FaultKind::ClientKill,
    FaultKind::Evict,
    FaultKind::RefuseWrites,
    FaultKind::Resets,
    FaultKind::CopyOver,
    FaultKind::Oversized,
];
pub(crate) const AT_CLUSTER: &[FaultKind] = &[
    FaultKind::PrimaryKill,
    FaultKind::PrimaryStop,
    FaultKind::Failover,
    FaultKind::SlotMove,
    FaultKind::SlotReturn,
    FaultKind::Partition,
    FaultKind::Flush,
    FaultKind::ScriptFlush,
    FaultKind::ClientKill,
];
pub(crate) const AT_SENTINELS: &[FaultKind] = &[
    FaultKind::PrimaryKill,
    FaultKind::PrimaryStop,
    FaultKind::Failover,
    FaultKind::SentinelStop,
    FaultKind::Flush,
    FaultKind::ScriptFlush,
    FaultKind::ClientKill,
];
const AT_APPS: &[FaultKind] = &[FaultKind::Kill, FaultKind::AppStop];
const AT_LINKS: &[FaultKind] = &[
    FaultKind::Cut,
    FaultKind::Delay,
    FaultKind::HalfClose,
    FaultKind::Hold,
    FaultKind::SwallowAnswers,
    FaultKind::SwallowRequests,
    FaultKind::TrackingOff,
    FaultKind::OffByOne,
];

/// What each hand draws from, with these servers.
pub(crate) fn drawn_together(servers: &str) -> [&'static [FaultKind]; 3] {
    let at_servers = match servers {
        "cluster" => AT_CLUSTER,
        "sentinels" => AT_SENTINELS,
        _ => AT_REDIS,
    };
    [at_servers, AT_APPS, AT_LINKS]
}

/// What all hands share.
pub(crate) struct FaultInjector {
    pub(crate) kinds: Vec<FaultKind>,
    pub(crate) over: AtomicBool,
    /// Whether one of the hands has panicked: nobody mends what it has broken.
    pub(crate) is_broken: AtomicBool,
    pub(crate) faults: Mutex<Vec<Fault>>,
    pub(crate) evicted: Mutex<u64>,
    /// Held by whoever breaks links: alone, if it is all of them.
    pub(crate) links: RwLock<()>,
    /// Whether most of the apps that are killed are amid a crash-safe write.
    pub(crate) meets_writes: bool,
}

impl FaultInjector {
    pub(crate) fn new(kinds: &[FaultKind]) -> Self {
        Self {
            kinds: kinds.to_vec(),
            over: AtomicBool::new(false),
            is_broken: AtomicBool::new(false),
            faults: Mutex::default(),
            evicted: Mutex::default(),
            links: RwLock::default(),
            meets_writes: false,
        }
    }

    pub(crate) fn goes_on(&self) -> bool {
        !self.over.load(Ordering::SeqCst)
    }

    /// Remembers whether a hand has panicked before it came to its end.
    pub(crate) fn to_its_end(&self, hand: impl FnOnce()) {
        struct Noted<'a>(&'a AtomicBool);
        impl Drop for Noted<'_> {
            fn drop(&mut self) {
                self.0.fetch_or(std::thread::panicking(), Ordering::SeqCst);
            }
        }
        let _noted = Noted(&self.is_broken);
        hand();
    }

    /// Waits for some time within `ms`, and no longer than there are faults.
    pub(crate) fn wait(&self, ms: std::ops::Range<u64>, rng: &mut Rng) {
        let end = now() + rng.u64(ms) * 1_000_000;
        while now() < end && self.goes_on() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn choose(&self, among: &[FaultKind], rng: &mut Rng) -> Option<FaultKind> {
        let among: Vec<FaultKind> = among
            .iter()
            .copied()
            .filter(|kind| self.kinds.contains(kind))
            .collect();
        rng.choice(among)
    }

    pub(crate) fn note(&self, kind: FaultKind, from: u64, slot: Option<usize>) {
        let to = now();
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.push(Fault {
            kind,
            from,
            to,
            slot,
        });
    }

    /// Breaks Redis.
    pub(crate) fn at_redis(&self, redis: &mut RedisServer, mut rng: Rng) {
        use FaultKind::{
            ClientKill, CopyOver, Flush, Oversized, RedisStop, RefuseWrites, Resets, RestartAof,
            RestartEmpty, RestartSnapshot, ScriptFlush,
        };
        while self.goes_on() {
            self.wait(400..2_500, &mut rng);
            let Some(kind) = self.choose(AT_REDIS, &mut rng) else {
                return;
            };
            if !self.goes_on() {
                return;
            }
            let mut from = now();
            match kind {
                RedisStop => {
                    redis.pause();
                    self.wait(30..2_000, &mut rng);
                    redis.resume();
                }
                RestartSnapshot => {
                    redis.cli(&["SAVE"]);
                    self.wait(50..2_000, &mut rng);
                    from = now();
                    redis.stop();
                    self.wait(0..1_000, &mut rng);
                    redis.restart();
                }
                RestartEmpty => {
                    redis.stop();
                    self.wait(0..1_000, &mut rng);
                    redis.restart_empty();
                }
                RestartAof => {
                    redis.cli(&["CONFIG", "SET", "appendonly", "yes"]);
                    while redis
                        .cli(&["INFO", "persistence"])
                        .contains("aof_rewrite_in_progress:1")
                    {
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    self.wait(50..500, &mut rng);
                    from = now();
                    redis.restart_with(&["appendonly yes"]);
                    redis.cli(&["CONFIG", "SET", "appendonly", "no"]);
                }
                Flush => drop(redis.cli(&["FLUSHDB"])),
                ScriptFlush => drop(redis.cli(&["SCRIPT", "FLUSH"])),
                ClientKill => drop(redis.cli(&["CLIENT", "KILL", "TYPE", "normal"])),
                RefuseWrites => self.refuse_writes(redis, &mut rng),
                Resets => self.reset(redis, &mut rng),
                CopyOver => self.copy_over(redis, &mut rng),
                Oversized => self.oversize(redis, &mut rng),
                _ => self.evict(redis, &mut rng),
            }
            self.note(kind, from, None);
        }
    }

    /// Less memory than there is data: keys go as they come, entries, generations and announcements
    /// alike.
    fn evict(&self, redis: &RedisServer, rng: &mut Rng) {
        let before = figure(redis, "stats", "evicted_keys:");
        redis.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
        let end = now() + rng.u64(200..1_500) * 1_000_000;
        while now() < end && self.goes_on() {
            let used = figure(redis, "memory", "used_memory:");
            let limit = used.saturating_sub(rng.u64(4_000..40_000)).to_string();
            redis.cli(&["CONFIG", "SET", "maxmemory", &limit]);
            std::thread::sleep(Duration::from_millis(50));
        }
        redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
        let evicted = figure(redis, "stats", "evicted_keys:").saturating_sub(before);
        *self.evicted.lock().unwrap_or_else(PoisonError::into_inner) += evicted;
    }

    /// Reads are answered, writes are refused or wait: for longer than anybody may go on serving.
    fn refuse_writes(&self, redis: &RedisServer, rng: &mut Rng) {
        let time = rng.u64(2_500..4_500);
        let (refuse, accept): ([&str; 4], &[&str]) = match rng.u32(..4) {
            // As a primary does that has lost its replicas: NOREPLICAS.
            0 => (
                ["CONFIG", "SET", "min-replicas-to-write", "1"],
                &["CONFIG", "SET", "min-replicas-to-write", "0"],
            ),
            // As with an access list that somebody forgot the scripts in: NOPERM.
            1 => (
                ["ACL", "SETUSER", "default", "-@scripting"],
                &["ACL", "SETUSER", "default", "+@all"],
            ),
            // As after a disk that was full when a snapshot was due: MISCONF.
            2 => return self.fail_a_snapshot(redis, time, rng),
            // As during a failover: writes get no answer.
            _ => {
                redis.cli(&["CLIENT", "PAUSE", &time.to_string(), "WRITE"]);
                self.wait(time..time + 1, rng);
                redis.cli(&["CLIENT", "UNPAUSE"]);
                return;
            }
        };
        redis.cli(&refuse);
        self.wait(time..time + 1, rng);
        redis.cli(accept);
    }

    /// Where its snapshot belongs stands a folder, so it can't be written.
    fn fail_a_snapshot(&self, redis: &RedisServer, time: u64, rng: &mut Rng) {
        let folder = redis.cli(&["CONFIG", "GET", "dir"]);
        let folder = Path::new(folder.lines().last().expect("a folder"));
        let (file, kept) = (folder.join("dump.rdb"), folder.join("kept.rdb"));
        let had_one = fs::rename(&file, &kept).is_ok();
        fs::create_dir(&file).expect("a folder in place of the snapshot");
        redis.cli(&["CONFIG", "SET", "save", "3600 1"]);
        redis.cli(&["BGSAVE"]);
        let end = now() + 500_000_000;
        while now() < end
            && !redis
                .cli(&["INFO", "persistence"])
                .contains("rdb_last_bgsave_status:err")
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.wait(time..time + 1, rng);
        // Without a time for snapshots a failed one refuses nothing.
        redis.cli(&["CONFIG", "SET", "save", ""]);
        fs::remove_dir(&file).expect("the folder is empty");
        if had_one {
            fs::rename(&kept, &file).expect("the snapshot is put back");
        }
    }

    /// As a balancer does that is short of memory.
    fn reset(&self, redis: &RedisServer, rng: &mut Rng) {
        let end = now() + rng.u64(1_500..4_000) * 1_000_000;
        while now() < end && self.goes_on() {
            redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
            self.wait(300..301, rng);
        }
    }

    /// As hands do that restore a row, or a script that moves keys.
    fn copy_over(&self, redis: &RedisServer, rng: &mut Rng) {
        for _ in 0..rng.u32(1..30) {
            let (from, to) = (row_key(rng), row_key(rng));
            if rng.u32(..4) == 0 {
                redis.cli(&["RENAME", &from, &to]);
            } else {
                redis.cli(&["COPY", &from, &to, "REPLACE"]);
            }
        }
    }

    /// As another program does that has the same names for something else.
    fn oversize(&self, redis: &RedisServer, rng: &mut Rng) {
        const FILL: &str = "return redis.call('SET', KEYS[1], string.rep('x', ARGV[1]))";
        let length = (rng.u64(20..60) << 20).to_string();
        let key = row_key(rng);
        redis.cli(&["EVAL", FILL, "1", &key, &length]);
        self.wait(500..2_500, rng);
        redis.cli(&["DEL", &key]);
    }

    /// Kills and stops apps.
    pub(crate) fn at_apps(&self, apps: &mut [App], mut rng: Rng) {
        let mut stopped = vec![None; apps.len()];
        while self.goes_on() {
            self.wait(300..2_000, &mut rng);
            let Some(kind) = self.choose(AT_APPS, &mut rng) else {
                return;
            };
            let slot = rng.usize(..apps.len());
            if !self.goes_on() {
                return;
            }
            let mut from = now();
            if kind == FaultKind::Kill {
                apps[slot].doom();
                if self.meets_writes && rng.u32(..4) > 0 {
                    let end = now() + MEETS_WITHIN;
                    while self.goes_on() && now() < end && !apps[slot].is_amid_a_write() {
                        std::thread::sleep(Duration::from_millis(10));
                    }
                    self.wait(0..100, &mut rng);
                } else {
                    self.wait(60..400, &mut rng);
                }
                from = now();
                apps[slot].kill_and_start();
            } else {
                apps[slot].assert_running();
                let rested =
                    stopped[slot].is_none_or(|at: std::time::Instant| at.elapsed() > BETWEEN_STOPS);
                if !rested {
                    continue;
                }
                apps[slot].process.pause();
                self.wait(50..LONGEST_STOP, &mut rng);
                apps[slot].process.resume();
                stopped[slot] = Some(std::time::Instant::now());
            }
            self.note(kind, from, Some(slot));
        }
    }

    /// Breaks the links of some apps.
    pub(crate) fn at_links(&self, proxies: &[(usize, &Proxy)], mut rng: Rng) {
        use FaultKind::{
            Delay, HalfClose, Hold, OffByOne, SwallowAnswers, SwallowRequests, TrackingOff,
        };
        while self.goes_on() {
            self.wait(800..4_000, &mut rng);
            let Some(kind) = self.choose(AT_LINKS, &mut rng) else {
                return;
            };
            let Some((slot, proxy)) = rng.choice(proxies) else {
                return;
            };
            let _shared = self.links.read().unwrap_or_else(PoisonError::into_inner);
            if !self.goes_on() {
                return;
            }
            let from = now();
            if kind == TrackingOff {
                proxy.inject(TRACK_NOTHING);
                self.note(kind, from, Some(*slot));
                continue;
            }
            proxy.set(match kind {
                Delay => Mode::Delay(Duration::from_millis(rng.u64(1..150))),
                HalfClose => Mode::HalfClose,
                Hold => Mode::Hold,
                SwallowRequests => Mode::SwallowRequests,
                SwallowAnswers => Mode::SwallowAnswers,
                OffByOne => Mode::OffByOne,
                _ => Mode::Cut,
            });
            self.wait(30..1_500, &mut rng);
            match kind {
                SwallowRequests | SwallowAnswers | OffByOne => proxy.cut_then(Mode::Pass),
                _ => proxy.set(Mode::Pass),
            }
            self.note(kind, from, Some(*slot));
        }
    }
}

/// One number of what the server says of itself.
pub(crate) fn figure(redis: &RedisServer, section: &str, name: &str) -> u64 {
    let info = redis.cli(&["INFO", section]);
    let value = info
        .lines()
        .find_map(|line| line.trim().strip_prefix(name)?.parse().ok());
    value.unwrap_or_default()
}

/// The key of a row, one that is often read.
pub(crate) fn row_key(rng: &mut Rng) -> String {
    format!("{}:{}", KINDS[rng.usize(..KINDS.len())], rng.i64(1..=IDS))
}
