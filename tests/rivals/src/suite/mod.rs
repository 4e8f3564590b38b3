//! The parts of the suite. Each runs in a process of its own, so that none inherits the memory, the
//! connections or the statics of another, and one that fails takes no other with it.

use std::error::Error;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use crate::figures::Findings;
use crate::measure::Drive;
use crate::progress::Step;

mod cluster;
mod compile_time;
mod course;
mod demo;
mod growth;
mod invalidation;
pub mod local_hits;
mod memory;
mod network;
mod observed;
mod redis_hits;
mod stampede;

/// What went wrong in a part.
pub type Failed = Box<dyn Error + Send + Sync>;

/// How thorough a run is, and where things are.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Seconds per part in place of minutes: to see that it works.
    pub quick: bool,
    /// The release build of `demo-api`.
    pub demo: Option<PathBuf>,
    /// The root of the repository.
    pub root: PathBuf,
}

impl Settings {
    /// One of two, by how thorough the run is.
    pub fn pick<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }

    fn drive(&self, tasks: usize) -> Drive {
        Drive {
            tasks,
            round: self.pick(Duration::from_millis(200), Duration::from_secs(1)),
            rounds: self.pick(4, 15),
            misses: 1,
        }
    }
}

type Running<'a> = Pin<Box<dyn Future<Output = Result<Findings, Failed>> + 'a>>;
type Run = for<'a> fn(&'a Settings, &'a Step) -> Running<'a>;

/// One part.
pub struct Part {
    /// As in `--only`.
    pub name: &'static str,
    /// What the progress display calls it.
    pub title: &'static str,
    /// Threads that run tasks; as many as processors if it does not say.
    ///
    /// One where a single caller is timed: with more it is chance whether caller and connection
    /// share a thread, and waking another costs several times what is measured.
    pub threads: Option<usize>,
    /// Does it.
    pub run: Run,
}

macro_rules! part {
    ($name:literal, $title:literal, $threads:expr, $run:path) => {
        Part {
            name: $name,
            title: $title,
            threads: $threads,
            run: |settings, step| Box::pin($run(settings, step)),
        }
    };
}

/// All of them, in the order of the page.
pub const PARTS: [Part; 15] = [
    part!(
        "redis-hits",
        "Redis hits, one caller",
        Some(1),
        redis_hits::alone
    ),
    part!(
        "redis-load",
        "Redis hits, many callers",
        None,
        redis_hits::load
    ),
    part!(
        "one-thread",
        "Redis hits on a runtime with one thread",
        None,
        redis_hits::one_thread
    ),
    part!(
        "local-hits",
        "Local hits, and the cache off",
        None,
        local_hits::run
    ),
    part!(
        "cluster-hits",
        "A cluster, one caller",
        Some(1),
        cluster::alone
    ),
    part!(
        "cluster-load",
        "A cluster, many callers, slots that move, a failover",
        None,
        cluster::load
    ),
    part!("network", "Redis hits over a link", None, network::run),
    part!("observed", "Metrics and log on a hit", None, observed::run),
    part!(
        "invalidation",
        "Whole-resource invalidation",
        None,
        invalidation::run
    ),
    part!("stampede", "Cold stampede", None, stampede::run),
    part!("course", "Stale reads", None, course::run),
    part!("demo", "The demo over PostgreSQL", None, demo::run),
    part!("compile-time", "Compile time", None, compile_time::run),
    part!("growth", "Growth", Some(1), growth::run),
    part!("memory", "Memory", None, memory::run),
];
