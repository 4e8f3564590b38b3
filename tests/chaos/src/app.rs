//! One app process: sixteen tasks, and what it says of itself when it rests.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cache_runtime::AuditReport;
use fastrand::Rng;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;

use crate::clock::now;
use crate::context::{PLANNED, connect};
use crate::history::{Event, Failed, Read, Recorder, Stuck, WriteId};
use crate::servers::Address;

/// For how long entries are served, of whatever cache.
pub const TTL: Duration = Duration::from_secs(10);
pub(crate) const LEASE: Duration = Duration::from_millis(800);
pub(crate) const WAIT: Duration = Duration::from_millis(500);
pub(crate) const IN_DOUBT_WINDOW: Duration = Duration::from_secs(3);
pub(crate) const INTENT: Duration = Duration::from_secs(4);
/// Within this time any caller has an answer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

/// What an app process is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ProcessConfig {
    pub(crate) process: u32,
    pub(crate) slot: usize,
    /// How many processes there are at a time.
    pub(crate) apps: usize,
    pub(crate) seed: u64,
    pub(crate) tasks: u32,
    /// By which words this program becomes such a process.
    pub(crate) program: Vec<String>,
    pub(crate) redis: Address,
    pub(crate) postgres: String,
    pub(crate) directory: PathBuf,
    pub(crate) mishaps: bool,
    /// Megabytes of local entries, and how old they may be.
    pub(crate) local_mb: u32,
    pub(crate) staleness: Duration,
    /// Whether its hits are audited.
    pub(crate) is_audited: bool,
    /// Whether there are rows that somebody changes behind the cache's back.
    pub(crate) planted_writer: bool,
    /// The folder for what it logs.
    pub(crate) logs: Option<PathBuf>,
}

impl ProcessConfig {
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
    pub(crate) panics: u64,
    pub(crate) reads: u64,
}

/// What the tasks of a process do, and what it has to say of itself.
pub(crate) trait Workload: Sized + Send + Sync + 'static {
    fn begin(process_config: &ProcessConfig, common: Common) -> impl Future<Output = Self> + Send;
    fn common(&self) -> &Common;
    /// One operation; it may panic.
    fn run_operation(self: Arc<Self>, rng: Rng) -> impl Future<Output = ()> + Send;
    /// Reads everything once.
    fn sweep(&self) -> impl Future<Output = ()> + Send;
    /// Whether it is connected, and how many invalidations wait.
    fn standing(&self) -> impl Future<Output = (bool, u64)> + Send;
    fn end(&self) -> impl Future<Output = ()> + Send;
    /// What its auditor has found, if it has one.
    fn audit(&self) -> Option<AuditReport> {
        None
    }
}

/// What any process has.
pub(crate) struct Common {
    pub(crate) pool: PgPool,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) process: u32,
    pub(crate) slot: usize,
    pub(crate) apps: usize,
    pub(crate) seed: u64,
    /// Whether callers hang up and bodies fail.
    pub(crate) mishaps: bool,
    pub(crate) written: AtomicU32,
    /// In which window quiet rows were last written, and how many.
    pub(crate) quiet: Mutex<(u64, i64)>,
    /// About to be killed: writes stand between their commit and their invalidation, so that some
    /// are met there.
    pub(crate) doomed: AtomicBool,
    pub(crate) reads: AtomicU64,
    /// How often a body has read the database.
    pub(crate) loads: AtomicU64,
    /// Writes of which it is not known yet whether their invalidation is out.
    pub(crate) unsettled: AtomicU32,
}

impl Common {
    async fn new(process_config: &ProcessConfig) -> Self {
        let recorder =
            Recorder::create(&process_config.history()).expect("a history can be written");
        Self {
            pool: connect(&process_config.postgres).await,
            recorder: Arc::new(recorder),
            process: process_config.process,
            slot: process_config.slot,
            apps: process_config.apps,
            seed: process_config.seed,
            mishaps: process_config.mishaps,
            written: AtomicU32::new(0),
            quiet: Mutex::default(),
            doomed: AtomicBool::new(false),
            reads: AtomicU64::new(0),
            loads: AtomicU64::new(0),
            unsettled: AtomicU32::new(0),
        }
    }

    /// What all processes draw alike for a window of time: a number below 100.
    pub(crate) fn weather(&self, kind: u8, what: u64, window: Duration) -> u64 {
        let window = now() / u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        let mix = (window << 16) ^ (what << 8) ^ u64::from(kind);
        Rng::with_seed(self.seed ^ mix.wrapping_mul(0x9e37_79b9_7f4a_7c15)).u64(..100)
    }

    /// The name of a write that begins now.
    pub(crate) fn next_write(&self) -> WriteId {
        let number = self.written.fetch_add(1, Ordering::Relaxed);
        (u64::from(self.process) << 32) | u64::from(number)
    }

    pub(crate) fn note(&self, read: Read) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.recorder.note(&Event::Read(read));
    }
}

pub(crate) fn run<C: Workload>(process_config: &str) -> ExitCode {
    let process_config: ProcessConfig =
        serde_json::from_str(process_config).expect("settings from the coordinator");
    quiet_planned_panics();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(live::<C>(process_config));
    runtime.shutdown_timeout(Duration::from_secs(2));
    ExitCode::SUCCESS
}

/// How many panics nobody had planned. Tokio catches those of a task, and the cache may go on
/// without it.
static PANICS: AtomicU64 = AtomicU64::new(0);

fn quiet_planned_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic
            .payload()
            .downcast_ref::<String>()
            .is_none_or(|text| text != PLANNED)
        {
            PANICS.fetch_add(1, Ordering::SeqCst);
            usual(panic);
        }
    }));
}

async fn live<C: Workload>(process_config: ProcessConfig) {
    if let Some(logs) = &process_config.logs {
        let file = logs.join(format!("app-{}.log", process_config.process));
        crate::log::write_to(&file).expect("a log can be written");
    }
    let workload = Arc::new(C::begin(&process_config, Common::new(&process_config).await).await);
    let common = workload.common();
    let phase = Arc::new(AtomicU8::new(Phase::Rest as u8));
    let busy = Arc::new(AtomicU32::new(0));
    for task in 0..process_config.tasks {
        let seed = process_config.seed
            ^ (u64::from(process_config.process) << 20)
            ^ (u64::from(task) << 8);
        let (workload, phase, busy) =
            (Arc::clone(&workload), Arc::clone(&phase), Arc::clone(&busy));
        tokio::spawn(act_on(workload, phase, busy, Rng::with_seed(seed)));
    }
    let mut told = String::new();
    loop {
        tokio::time::sleep(LOOK).await;
        common.recorder.flush();
        common
            .doomed
            .store(process_config.doom().exists(), Ordering::SeqCst);
        for (figure, extension) in [(&common.reads, "reads"), (&common.loads, "loads")] {
            let figure = figure.load(Ordering::Relaxed).to_string();
            std::fs::write(process_config.history().with_extension(extension), figure)
                .expect("figures can be written");
        }
        if let Some(report) = workload.audit() {
            write_audit(&process_config, &report).expect("figures can be written");
        }
        let Some((now, text)) = Phase::read(&process_config.directory) else {
            continue;
        };
        phase.store(now as u8, Ordering::SeqCst);
        match now {
            Phase::End => break,
            Phase::Load => {}
            Phase::Rest | Phase::Sweep if busy.load(Ordering::SeqCst) > 0 => {}
            Phase::Rest | Phase::Sweep => {
                if now == Phase::Sweep && told != text {
                    workload.sweep().await;
                    common.recorder.flush();
                }
                say(&*workload, &text).await;
                told = text;
                tokio::time::sleep(LOOK * 5).await;
            }
        }
    }
    workload.end().await;
    common.pool.close().await;
    common.recorder.flush();
}

/// In one step, since the process may be killed meanwhile.
fn write_audit(process_config: &ProcessConfig, report: &AuditReport) -> std::io::Result<()> {
    let new = process_config.history().with_extension("audit-new");
    std::fs::write(&new, serde_json::to_vec(report)?)?;
    std::fs::rename(new, process_config.history().with_extension("audit"))
}

async fn act_on<C: Workload>(
    workload: Arc<C>,
    phase: Arc<AtomicU8>,
    busy: Arc<AtomicU32>,
    mut rng: Rng,
) {
    loop {
        if phase.load(Ordering::SeqCst) != Phase::Load as u8 {
            tokio::time::sleep(LOOK).await;
            continue;
        }
        busy.fetch_add(1, Ordering::SeqCst);
        operation(&workload, &mut rng).await;
        busy.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One operation in a task of its own, which may panic; it is given up at the deadline.
async fn operation<C: Workload>(workload: &Arc<C>, rng: &mut Rng) {
    let start = now();
    let mut running = tokio::spawn(Arc::clone(workload).run_operation(rng.fork()));
    let common = workload.common();
    match tokio::time::timeout(DEADLINE, &mut running).await {
        Ok(Ok(())) => {}
        Ok(Err(ended)) => {
            let is_planned = ended.is_panic()
                && (ended.into_panic().downcast_ref::<String>()).is_some_and(|it| it == PLANNED);
            if !is_planned {
                common.recorder.note(&Event::Failed(Failed {
                    process: common.process,
                    at: now(),
                    what: "a panic".into(),
                }));
            }
        }
        Err(_) => {
            common.recorder.note(&Event::Stuck(Stuck {
                process: common.process,
                start,
                end: now(),
                what: "an operation".into(),
            }));
            running.abort();
        }
    }
}

async fn say<C: Workload>(workload: &C, phase: &str) {
    let common = workload.common();
    let (connected, pending) = workload.standing().await;
    let figures = Figures {
        phase: phase.to_owned(),
        tasks: tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks(),
        threads: status("Threads:"),
        pending,
        unsettled: common.unsettled.load(Ordering::SeqCst),
        connected,
        rss_kb: status("VmRSS:"),
        panics: PANICS.load(Ordering::SeqCst),
        reads: common.reads.load(Ordering::Relaxed),
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
