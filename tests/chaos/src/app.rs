//! One app process: sixteen tasks, and what it says of itself when it rests.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cache_runtime::{Cache, CacheConfig, RedisConfig};
use fastrand::Rng;
use serde::{Deserialize, Serialize};

use crate::act::{self, Stage};
use crate::clock::now;
use crate::desk::{PLANNED, connect};
use crate::history::{Event, Recorder, Stuck};
use crate::shop::{Apples, Figs, Pears, Plums, Quinces};
use crate::writes;

pub(crate) const TTL: Duration = Duration::from_secs(10);
pub(crate) const LEASE: Duration = Duration::from_millis(800);
const WAIT: Duration = Duration::from_millis(500);
pub(crate) const UNCERTAINTY: Duration = Duration::from_secs(3);
pub(crate) const INTENT: Duration = Duration::from_secs(4);
/// Within this time any caller has an answer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

/// What an app process is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Brief {
    pub(crate) process: u32,
    pub(crate) slot: usize,
    pub(crate) seed: u64,
    pub(crate) tasks: u32,
    pub(crate) redis: u16,
    pub(crate) postgres: String,
    pub(crate) directory: PathBuf,
    pub(crate) mishaps: bool,
    /// Megabytes of copies in the process, and how old they may be.
    pub(crate) local_mb: u32,
    pub(crate) staleness: Duration,
}

impl Brief {
    pub(crate) fn history(&self) -> PathBuf {
        self.directory.join(format!("app-{}.jsonl", self.process))
    }

    /// The file that says that this process is about to be killed.
    pub(crate) fn doom(&self) -> PathBuf {
        self.history().with_extension("doomed")
    }
}

/// What everybody does now; the coordinator says so in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    Rest,
    Load,
    /// Reads everything once, and rests.
    Sweep,
    End,
}

impl Phase {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rest => "rest",
            Self::Load => "load",
            Self::Sweep => "sweep",
            Self::End => "end",
        }
    }

    fn read(directory: &Path) -> Option<(Self, String)> {
        let text = std::fs::read_to_string(directory.join("phase")).ok()?;
        let name = text.split_whitespace().next()?;
        let all = [Self::Rest, Self::Load, Self::Sweep, Self::End];
        let phase = all.into_iter().find(|phase| phase.name() == name)?;
        Some((phase, text))
    }

    /// Tells all apps; `number` tells one rest from the next.
    pub(crate) fn tell(self, directory: &Path, number: u32) -> std::io::Result<()> {
        let new = directory.join("phase.new");
        std::fs::write(&new, format!("{} {number}", self.name()))?;
        std::fs::rename(new, directory.join("phase"))
    }
}

/// What a process that rests says of itself, on a line of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) phase: String,
    pub(crate) tasks: usize,
    pub(crate) threads: u64,
    pub(crate) pending: u64,
    pub(crate) unsettled: u32,
    pub(crate) connected: bool,
    pub(crate) rss_kb: u64,
    pub(crate) reads: u64,
}

pub(crate) fn run(brief: &str) -> ExitCode {
    let brief: Brief = serde_json::from_str(brief).expect("a brief from the coordinator");
    quiet_planned_panics();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(live(brief));
    runtime.shutdown_timeout(Duration::from_secs(2));
    ExitCode::SUCCESS
}

fn quiet_planned_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic
            .payload()
            .downcast_ref::<String>()
            .is_none_or(|text| text != PLANNED)
        {
            usual(panic);
        }
    }));
}

async fn live(brief: Brief) {
    let config = CacheConfig::default()
        .redis(RedisConfig::at("127.0.0.1", brief.redis))
        .default_ttl(TTL)
        .lease(LEASE)
        .wait_limit(WAIT)
        .uncertainty(UNCERTAINTY)
        .intent(INTENT)
        .local_mb(brief.local_mb)
        .local_max_staleness(brief.staleness);
    let recorder = Recorder::create(&brief.history()).expect("a history can be written");
    let stage = Arc::new(Stage {
        cache: Cache::new(config).await,
        pool: connect(&brief.postgres).await,
        recorder: Arc::new(recorder),
        process: brief.process,
        slot: brief.slot,
        seed: brief.seed,
        mishaps: brief.mishaps,
        keeps_copies: brief.local_mb > 0,
        lease: LEASE,
        uncertainty: UNCERTAINTY,
        written: AtomicU32::new(0),
        quiet: Mutex::default(),
        doomed: AtomicBool::new(false),
        reads: AtomicU64::new(0),
        unsettled: AtomicU32::new(0),
    });
    let phase = Arc::new(AtomicU8::new(Phase::Rest as u8));
    let busy = Arc::new(AtomicU32::new(0));
    for task in 0..brief.tasks {
        let seed = brief.seed ^ (u64::from(brief.process) << 20) ^ (u64::from(task) << 8);
        let (stage, phase, busy) = (Arc::clone(&stage), Arc::clone(&phase), Arc::clone(&busy));
        tokio::spawn(act_on(stage, phase, busy, Rng::with_seed(seed)));
    }
    let mut told = String::new();
    loop {
        tokio::time::sleep(LOOK).await;
        stage.recorder.flush();
        stage.doomed.store(brief.doom().exists(), Ordering::SeqCst);
        let reads = stage.reads.load(Ordering::Relaxed).to_string();
        std::fs::write(brief.history().with_extension("reads"), reads)
            .expect("figures can be written");
        let Some((now, text)) = Phase::read(&brief.directory) else {
            continue;
        };
        phase.store(now as u8, Ordering::SeqCst);
        match now {
            Phase::End => break,
            Phase::Load => {}
            Phase::Rest | Phase::Sweep if busy.load(Ordering::SeqCst) > 0 => {}
            Phase::Rest | Phase::Sweep => {
                if now == Phase::Sweep && told != text {
                    sweep(&stage).await;
                }
                say(&stage, &text).await;
                told = text;
                tokio::time::sleep(LOOK * 5).await;
            }
        }
    }
    stage.cache.shutdown().await;
    stage.pool.close().await;
    stage.recorder.flush();
}

async fn act_on(stage: Arc<Stage>, phase: Arc<AtomicU8>, busy: Arc<AtomicU32>, mut rng: Rng) {
    loop {
        if phase.load(Ordering::SeqCst) != Phase::Load as u8 {
            tokio::time::sleep(LOOK).await;
            continue;
        }
        busy.fetch_add(1, Ordering::SeqCst);
        operation(&stage, &mut rng).await;
        busy.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One operation in a task of its own, which may panic; it is given up at the deadline.
async fn operation(stage: &Arc<Stage>, rng: &mut Rng) {
    let start = now();
    let kind = rng.u32(..9);
    let (for_task, seed) = (Arc::clone(stage), rng.fork());
    let mut running = match kind {
        0..2 => tokio::spawn(one::<Apples>(for_task, seed)),
        2..4 => tokio::spawn(one::<Pears>(for_task, seed)),
        4..6 => tokio::spawn(one::<Plums>(for_task, seed)),
        6..8 => tokio::spawn(one::<Figs>(for_task, seed)),
        _ => tokio::spawn(one_quiet(for_task, seed)),
    };
    if tokio::time::timeout(DEADLINE, &mut running).await.is_err() {
        stage.recorder.note(&Event::Stuck(Stuck {
            process: stage.process,
            start,
            end: now(),
            what: format!("an operation on resource {kind}"),
        }));
        running.abort();
    }
}

async fn one<K: crate::shop::Kind>(stage: Arc<Stage>, mut rng: Rng) {
    if rng.u32(..1_000) < writes::share::<K>(&stage) {
        writes::write::<K>(&stage, &mut rng).await;
    } else if stage.mishaps && rng.u32(..100) < 2 {
        // A caller who hangs up.
        let patience = Duration::from_micros(rng.u64(50..5_000));
        let _ = tokio::time::timeout(patience, act::read::<K>(&stage, &mut rng)).await;
    } else if stage.keeps_copies && rng.u32(..100) < 20 {
        // What is read again and again is answered by copies, and some of them have just been written.
        for _ in 0..rng.u32(2..12) {
            act::read::<K>(&stage, &mut rng.clone()).await;
        }
    } else {
        act::read::<K>(&stage, &mut rng).await;
    }
}

/// The same with rows that are written once in a long while.
async fn one_quiet(stage: Arc<Stage>, mut rng: Rng) {
    if let Some(id) = writes::quiet_turn(&stage) {
        writes::write_quietly::<Quinces>(&stage, &mut rng, id).await;
    } else {
        act::read::<Quinces>(&stage, &mut rng).await;
    }
}

async fn sweep(stage: &Stage) {
    act::sweep::<Apples>(stage).await;
    act::sweep::<Pears>(stage).await;
    act::sweep::<Plums>(stage).await;
    act::sweep::<Figs>(stage).await;
    act::sweep::<Quinces>(stage).await;
    stage.recorder.flush();
}

async fn say(stage: &Stage, phase: &str) {
    let stats = stage.cache.get_stats().await;
    let figures = Figures {
        phase: phase.to_owned(),
        tasks: tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks(),
        threads: status("Threads:"),
        pending: stats.counters.pending,
        unsettled: stage.unsettled.load(Ordering::SeqCst),
        connected: stats.connected,
        rss_kb: status("VmRSS:"),
        reads: stage.reads.load(Ordering::Relaxed),
    };
    let line = serde_json::to_string(&figures).expect("plain data");
    writeln!(std::io::stdout(), "{line}").expect("the coordinator listens");
}

/// A figure the kernel has of this process.
fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or_default()
}
