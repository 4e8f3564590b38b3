//! The parts of the suite. Each runs in a process of its own, so that none inherits the memory, the connections or the
//! statics of another, and one that fails takes no other with it.

use std::error::Error;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use crate::figures::Findings;
use crate::measure::Drive;
use crate::progress::Step;

mod compile_time;
mod course;
mod demo;
mod growth;
mod invalidation;
pub mod local_hits;
mod memory;
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
        }
    }
}

type Running<'a> = Pin<Box<dyn Future<Output = Result<Findings, Failed>> + 'a>>;
type Run = for<'a> fn(&'a Settings, &'a Step) -> Running<'a>;

/// Name, what the progress display calls it, and the part itself.
pub const PARTS: [(&str, &str, Run); 9] = [
    ("redis-hits", "Redis hits", |settings, step| {
        Box::pin(redis_hits::run(settings, step))
    }),
    (
        "local-hits",
        "Local hits, and the cache off",
        |settings, step| Box::pin(local_hits::run(settings, step)),
    ),
    (
        "invalidation",
        "Whole-resource invalidation",
        |settings, step| Box::pin(invalidation::run(settings, step)),
    ),
    ("stampede", "Cold stampede", |settings, step| {
        Box::pin(stampede::run(settings, step))
    }),
    ("course", "Stale reads", |settings, step| {
        Box::pin(course::run(settings, step))
    }),
    ("demo", "The demo over PostgreSQL", |settings, step| {
        Box::pin(demo::run(settings, step))
    }),
    ("compile-time", "Compile time", |settings, step| {
        Box::pin(compile_time::run(settings, step))
    }),
    ("growth", "Growth", |settings, step| {
        Box::pin(growth::run(settings, step))
    }),
    ("memory", "Memory", |settings, step| {
        Box::pin(memory::run(settings, step))
    }),
];
