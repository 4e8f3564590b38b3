//! Starts everything, lets the faults loose, and sees what is left.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cache_runtime::AuditReport;
use cache_tests::{Links, Postgres, Process, Proxy};
use fastrand::Rng;

use crate::aftermath::{self, Aftermath, Comparison};
use crate::app::{DEADLINE, Figures, IN_DOUBT_WINDOW, INTENT, Phase, ProcessConfig, TTL};
use crate::clock::now;
use crate::context::IDS;
use crate::faults::FaultInjector;
use crate::history::{Event, Life, Mark, Run, Step, Time, Truth, last_events};
use crate::options::Options;
use crate::report;
use crate::servers::Servers;
use crate::shop::{KINDS, PLANTED_ROWS};

const APPS: usize = 4;
/// So many bytes of a history are a second or so.
const LAST_MOMENTS: u64 = 256 << 10;
const TASKS: u32 = 16;
/// Each of the planted rows is changed after four times this, so that what the auditor sees stands
/// for as long as it takes to be certain.
const PLANTED_EVERY: Duration = Duration::from_millis(1_200);
const WARM_UP: Duration = Duration::from_secs(3);
/// The longest a load can take: its pause, a connection of the pool, its statement, and its process
/// being stopped.
const LOAD: Duration = Duration::from_secs(7);
/// A statement of a killed process goes on until the database gives it up.
const COMMIT_DELAY: Duration = Duration::from_millis(1_500);
/// For apps that start, and for those that come to rest.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);

/// One of the four: its process now, and all it was before.
pub(crate) struct App {
    pub(crate) process: Process,
    pub(crate) process_config: ProcessConfig,
    pub(crate) lives: Vec<Life>,
}

impl App {
    fn start(process_config: ProcessConfig) -> Self {
        let from = now();
        let life = Life {
            process: process_config.process,
            slot: process_config.slot,
            from,
            killed: None,
        };
        Self {
            process: spawn(&process_config),
            process_config,
            lives: vec![life],
        }
    }

    /// Has the writes that begin from now on stand between their commit and their invalidation.
    pub(crate) fn doom(&self) {
        std::fs::write(self.process_config.doom(), "").expect("the apps can be told");
    }

    /// Whether a crash-safe write stands between its commit and its invalidation, as far as its
    /// history says: nearly everything of the last moments.
    pub(crate) fn is_amid_a_write(&self) -> bool {
        let events = last_events(&self.process_config.history(), LAST_MOMENTS);
        is_amid_a_write(events.unwrap_or_default())
    }

    /// Kills the process, and starts the next at once.
    pub(crate) fn kill_and_start(&mut self) {
        // SIGKILL is its last signal anyway; when this returns it is certainly gone.
        self.process.stop();
        if let Some(life) = self.lives.last_mut() {
            life.killed = Some(now());
        }
        self.process_config.process += u32::try_from(self.process_config.apps).unwrap_or_default();
        let next = Self::start(self.process_config.clone());
        self.process = next.process;
        self.lives.extend(next.lives);
    }

    /// It ends when it is killed, and at the end.
    pub(crate) fn assert_running(&mut self) {
        if let Some(status) = self.process.ended() {
            let words = self.process.stderr().lines();
            let last = words.len().saturating_sub(40);
            panic!(
                "an app has ended by itself, {status}:\n{}",
                words[last..].join("\n")
            );
        }
    }

    /// What it says of itself since it was told to be in this phase.
    pub(crate) fn figures(&self, phase: &str) -> Option<Figures> {
        let lines = self.process.stdout().lines();
        let figures = lines
            .iter()
            .rev()
            .filter_map(|line| serde_json::from_str::<Figures>(line).ok());
        figures.take(1).find(|figures| figures.phase == phase)
    }
}

fn is_amid_a_write(events: Vec<Event>) -> bool {
    let [mut announced, mut committed, mut done] = [(); 3].map(|()| HashSet::new());
    for event in events {
        if let Event::Mark(Mark { write, step, .. }) = event {
            match step {
                Step::Announced => announced.insert(write),
                Step::Committed => committed.insert(write),
                Step::Done(_) => done.insert(write),
                _ => false,
            };
        }
    }
    let mut stand = committed.difference(&done);
    stand.any(|write| announced.contains(write))
}

fn spawn(process_config: &ProcessConfig) -> Process {
    let program = std::env::current_exe().expect("this program has a path");
    let words = serde_json::to_string(process_config).expect("plain data");
    let mut command = Command::new(program);
    command.args(&process_config.program).arg(words);
    Process::start(
        &mut command,
        rustix::process::Signal::KILL,
        Some(&process_config.directory),
    )
    .expect("this program can be started again")
}

/// The processes of a run.
#[derive(Debug)]
pub(crate) struct Processes {
    /// By which words this program becomes one of its processes.
    pub(crate) program: Vec<String>,
    pub(crate) apps: usize,
    /// How many of them, from the first on, keep local entries, if any do.
    pub(crate) with_copies: usize,
    /// Whether they note what has been announced.
    pub(crate) notes_announcements: bool,
}

/// What a run has left.
#[derive(Debug)]
pub(crate) struct RunResult {
    pub(crate) history: PathBuf,
    pub(crate) comparison: Comparison,
    pub(crate) loads: u64,
}

pub(crate) fn run(options: &Options) -> ExitCode {
    let processes = Processes {
        program: vec!["app".into()],
        apps: APPS,
        // The last asks Redis each time.
        with_copies: APPS - 1,
        notes_announcements: true,
    };
    let RunResult {
        history,
        comparison,
        ..
    } = run_processes(options, &processes);
    let is_right = report::judge(&history, &comparison);
    if is_right && options.history.is_none() {
        let _ = std::fs::remove_file(&history);
    }
    if is_right {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

pub(crate) fn run_processes(options: &Options, processes: &Processes) -> RunResult {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let postgres = Postgres::start();
    let database = postgres.database();
    postgres.psql(&database, &tables());
    let mut servers = Servers::start(options.servers);
    let links: Vec<Links> = (0..processes.apps).map(|_| servers.links()).collect();

    let phases = PhaseControl {
        directory: directory.path(),
        phase: Mutex::new((Phase::Rest, 0)),
    };
    phases.tell(Phase::Rest);
    let mut apps: Vec<App> = (0..processes.apps)
        .map(|slot| {
            App::start(ProcessConfig {
                process: u32::try_from(slot).unwrap_or_default(),
                slot,
                apps: processes.apps,
                seed: options.seed,
                program: processes.program.clone(),
                tasks: TASKS,
                redis: servers.address(&links[slot]),
                postgres: database.clone(),
                directory: directory.path().to_owned(),
                mishaps: options.mishaps,
                local_mb: if slot < processes.with_copies {
                    options.local_mb
                } else {
                    0
                },
                staleness: options.staleness,
                // One with local entries, if any has, and the one without.
                is_audited: slot % 3 == 0,
                planted_writer: options.planted_writer,
                logs: options.logs.clone(),
            })
        })
        .collect();
    phases.settled(&apps, STEP_TIMEOUT);
    phases.tell(Phase::Load);
    std::thread::sleep(WARM_UP);
    phases.tell(Phase::Rest);
    phases.settled(&apps, STEP_TIMEOUT);
    let before = Aftermath::measure(&apps, &phases.phase(), &servers, &postgres, &database);

    phases.tell(Phase::Load);
    let injector = FaultInjector {
        meets_writes: options.mishaps && processes.notes_announcements,
        ..FaultInjector::new(&options.faults)
    };
    let began = Instant::now();
    let mut rng = Rng::with_seed(options.seed);
    let at_servers = std::thread::scope(|scope| {
        let hands: Vec<Rng> = (0..4).map(|_| rng.fork()).collect();
        let (servers, apps, injector) = (&mut servers, &mut apps, &injector);
        let of_all: &[Links] = &links;
        let proxies = of_all.iter().enumerate();
        let proxies = proxies.flat_map(|(slot, it)| it.iter().map(move |(_, link)| (slot, link)));
        let proxies: Vec<(usize, &Proxy)> = proxies.collect();
        let (some, others) = proxies.split_at(proxies.len() / 2);
        let (some, others) = (some.to_vec(), others.to_vec());
        let [at_redis, at_apps, at_some, at_others] = <[Rng; 4]>::try_from(hands).expect("four");
        let at_servers = scope.spawn(move || {
            injector.to_its_end(|| match servers {
                Servers::One(redis) => injector.at_redis(redis, at_redis),
                Servers::Cluster(cluster) => injector.at_cluster(cluster, of_all, at_redis),
                Servers::Sentinels(sentinels) => injector.at_sentinels(sentinels, at_redis),
            });
        });
        if options.planted_writer {
            let (postgres, database) = (&postgres, &database);
            scope.spawn(move || {
                for id in (1..=PLANTED_ROWS).cycle() {
                    if injector.over.load(Ordering::SeqCst) {
                        return;
                    }
                    let sql = format!("UPDATE planted SET version = version + 1 WHERE id = {id}");
                    postgres.psql(database, &sql);
                    std::thread::sleep(PLANTED_EVERY);
                }
            });
        }
        scope.spawn(move || injector.to_its_end(|| injector.at_apps(apps, at_apps)));
        scope.spawn(move || injector.at_links(&some, at_some));
        scope.spawn(move || injector.at_links(&others, at_others));
        let until = Duration::from_secs(options.seconds);
        while (began.elapsed() < until || sum(directory.path(), "reads") < options.reads)
            && !injector.is_broken.load(Ordering::SeqCst)
        {
            std::thread::sleep(Duration::from_millis(200));
        }
        injector.over.store(true, Ordering::SeqCst);
        // What was read until then is judged all the same.
        at_servers.join()
    });
    let lasted = began.elapsed();

    let over = Instant::now();
    phases.tell(Phase::Rest);
    let recovered = phases
        .settled(&apps, aftermath::RECOVERY)
        .then(|| over.elapsed());
    let after = Aftermath::measure(&apps, &phases.phase(), &servers, &postgres, &database);
    for _ in 0..2 {
        phases.tell(Phase::Sweep);
        phases.settled(&apps, STEP_TIMEOUT);
    }
    phases.tell(Phase::End);
    for app in &mut apps {
        app.process.wait(STEP_TIMEOUT);
    }

    let run = Run {
        seed: options.seed,
        seconds: lasted.as_secs(),
        ttl: nanos(TTL),
        load: nanos(LOAD),
        commit_delay: nanos(COMMIT_DELAY),
        in_doubt_window: nanos(IN_DOUBT_WINDOW),
        intent: nanos(INTENT),
        deadline: nanos(DEADLINE),
        staleness: nanos(options.staleness),
        local_mb: options.local_mb,
        kinds: KINDS.iter().map(|kind| (*kind).to_owned()).collect(),
        planted_writer: options.planted_writer,
        servers: options.servers.name().to_owned(),
        faults: options.faults.clone(),
        mishaps: options.mishaps,
    };
    let lives: Vec<Life> = apps.iter().flat_map(|app| app.lives.clone()).collect();
    let evicted = *injector
        .evicted
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let faults = injector
        .faults
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let log = postgres.psql(&database, "SELECT write, kind, id, version FROM log");
    let mut events = vec![Event::Run(run)];
    events.extend(lives.iter().cloned().map(Event::Life));
    events.extend(faults.into_iter().map(Event::Fault));
    events.extend(log.lines().filter_map(truth).map(Event::Truth));
    events.push(Event::Audit(audits(directory.path())));
    let history = options
        .history
        .clone()
        .unwrap_or_else(|| default_history(options.seed));
    write_history(&history, &events, directory.path(), &lives).expect("the history can be written");

    let mut comparison = after.compared_with(&before, recovered, evicted);
    if at_servers.is_err() {
        let early = "the servers could not be broken any more, so the run has ended early";
        comparison.complaints.push(early.to_owned());
    }
    RunResult {
        history,
        comparison,
        loads: sum(directory.path(), "loads"),
    }
}

/// Tells the apps the phase of the run, and waits for their answers.
struct PhaseControl<'a> {
    directory: &'a Path,
    phase: Mutex<(Phase, u32)>,
}

impl PhaseControl<'_> {
    fn tell(&self, phase: Phase) {
        let mut told = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        *told = (phase, told.1 + 1);
        phase
            .tell(self.directory, told.1)
            .expect("the apps can be told");
    }

    fn phase(&self) -> String {
        let (phase, number) = *self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        format!("{} {number}", phase.name())
    }

    /// Waits until all rest, are connected, and hold nothing back; says whether they do in time.
    fn settled(&self, apps: &[App], limit: Duration) -> bool {
        let end = Instant::now() + limit;
        let phase = self.phase();
        let is_settled = |app: &App| {
            app.figures(&phase).is_some_and(|figures| {
                figures.connected && figures.pending == 0 && figures.unsettled == 0
            })
        };
        while Instant::now() < end {
            if apps.iter().all(is_settled) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

fn nanos(time: Duration) -> Time {
    Time::try_from(time.as_nanos()).unwrap_or(Time::MAX)
}

fn tables() -> String {
    format!(
        "CREATE UNLOGGED TABLE planted (id bigint PRIMARY KEY, version bigint NOT NULL); \
         INSERT INTO planted SELECT id, 1 FROM generate_series(1, {PLANTED_ROWS}) id; \
         CREATE UNLOGGED TABLE rows (kind smallint, id bigint, version bigint NOT NULL, PRIMARY KEY (kind, id)) WITH (fillfactor = 20); \
         CREATE UNLOGGED TABLE log (write bigint, kind smallint, id bigint, version bigint); \
         INSERT INTO rows SELECT kind, id, 1 FROM generate_series(0, {}) kind, generate_series(1, {IDS}) id",
        KINDS.len() - 1
    )
}

fn truth(line: &str) -> Option<Truth> {
    let mut numbers = line.split('|').map(str::parse::<u64>);
    let mut next = || numbers.next()?.ok();
    Some(Truth {
        write: next()?,
        kind: u8::try_from(next()?).ok()?,
        id: u32::try_from(next()?).ok()?,
        version: next()?,
    })
}

/// A figure of all processes together, those that were killed included.
fn sum(directory: &Path, figure: &str) -> u64 {
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let counts = files.filter(|file| {
        file.path()
            .extension()
            .is_some_and(|extension| extension == figure)
    });
    counts
        .filter_map(|file| {
            std::fs::read_to_string(file.path())
                .ok()?
                .parse::<u64>()
                .ok()
        })
        .sum()
}

/// What the auditors of all processes have counted, those that were killed included.
fn audits(directory: &Path) -> AuditReport {
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let paths = files.map(|file| file.path());
    let paths = paths.filter(|path| path.extension().is_some_and(|it| it == "audit"));
    let reports = paths.filter_map(|path| std::fs::read(path).ok());
    AuditReport::merged(reports.filter_map(|report| serde_json::from_slice(&report).ok()))
}

fn default_history(seed: u64) -> PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    target.join("chaos").join(format!("seed-{seed}.jsonl"))
}

fn write_history(
    to: &Path,
    events: &[Event],
    directory: &Path,
    lives: &[Life],
) -> std::io::Result<()> {
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut file = BufWriter::new(File::create(to)?);
    for event in events {
        serde_json::to_writer(&mut file, event)?;
        file.write_all(b"\n")?;
    }
    for life in lives {
        // A process that was killed while it started has none.
        let Ok(part) = File::open(directory.join(format!("app-{}.jsonl", life.process))) else {
            continue;
        };
        for line in BufReader::new(part).split(b'\n') {
            file.write_all(&line?)?;
            file.write_all(b"\n")?;
        }
    }
    file.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Outcome;

    #[test]
    fn a_write_is_met_between_its_commit_and_its_end() {
        let is_amid = |steps: &[(u64, Step)]| {
            let mark = |(write, step): &(u64, Step)| {
                Event::Mark(Mark {
                    write: *write,
                    at: 1,
                    step: *step,
                })
            };
            is_amid_a_write(steps.iter().map(mark).collect())
        };
        let (announced, committed) = ((1, Step::Announced), (1, Step::Committed));
        let done = (1, Step::Done(Outcome::Returned));
        assert!(!is_amid(&[announced]));
        assert!(!is_amid(&[committed]), "no crash-safe write");
        assert!(is_amid(&[announced, committed]));
        assert!(!is_amid(&[announced, committed, done]));
        assert!(is_amid(&[
            announced,
            committed,
            done,
            (2, Step::Announced),
            (2, Step::Committed)
        ]));
    }

    #[test]
    fn half_a_line_is_left_out() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let event = Event::Mark(Mark {
            write: 1,
            at: 1,
            step: Step::Announced,
        });
        let line = serde_json::to_string(&event).expect("plain data");
        std::fs::write(file.path(), format!("{line}\n{line}\n{line}\n{{\"M\"")).expect("written");
        let bytes = u64::try_from(2 * line.len()).expect("few");
        assert_eq!(last_events(file.path(), bytes).expect("read").len(), 1);
        assert_eq!(last_events(file.path(), 10 * bytes).expect("read").len(), 3);
    }
}
