//! What is said of a rival.

use std::collections::HashMap;

use crate::check::{Verdict, Violation, World};
use crate::coordinator::{Processes, RunResult, run_processes};
use crate::history::{Event, Outcome, Read, Time, events};
use crate::options::Options;

/// What became of a rival on the course.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Score {
    /// Reads that were answered.
    pub reads: u64,
    /// Writes that were begun.
    pub writes: u64,
    /// How many faults there were.
    pub faults: u64,
    /// Reads older than a write that had returned without an error before they began.
    pub stale: u64,
    /// Those of them that were older by more than a second.
    pub late: u64,
    /// By how much the oldest was, in nanoseconds.
    pub oldest: u64,
    /// Reads that break a promise, by the rules that hold for this project: what a premise excuses
    /// does not count, nor does a local entry that is behind another process by less than a second.
    pub unexcused: u64,
    /// Values of another call, and versions that nobody had committed.
    pub wrong: u64,
    /// Callers without an answer after ten seconds.
    pub stuck: u64,
    /// Callers who got an error or a panic that was not in the body of their own call.
    pub failed: u64,
    /// How often the database was asked.
    pub loads: u64,
}

/// What is the same for all.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Decides what the tasks do and which faults come when.
    pub seed: u64,
    /// For how long there are faults.
    pub seconds: u64,
    /// Names of faults with commas between them; empty for all.
    pub faults: String,
    /// Of how many processes a rival consists whose processes share what they keep.
    pub processes: usize,
}

/// Sends a rival over the course. `program` are the words by which this program becomes one of
/// its processes, the last of which it is given then.
///
/// # Errors
/// A fault that there is none of; a history that can't be read.
pub fn score<C: crate::RivalCache>(
    setting: &Setting,
    program: &[&str],
) -> Result<Score, Box<dyn std::error::Error + Send + Sync>> {
    let directory = tempfile::tempdir()?;
    let options = Options::of_course(
        setting,
        directory.path().join("history.jsonl"),
        C::HAS_LOCAL_ENTRIES || !C::SHARED,
    )?;
    let processes = Processes {
        program: program.iter().map(|word| (*word).to_owned()).collect(),
        apps: if C::SHARED { setting.processes } else { 1 },
        with_copies: setting.processes,
        notes_announcements: false,
    };
    let RunResult { history, loads, .. } = run_processes(&options, &processes);
    let world = World::new(events(&history)?);
    let verdict = Verdict::of(&world, events(&history)?);
    let mut score = Score {
        reads: verdict.reads,
        writes: verdict.writes,
        faults: world.faults.len() as u64,
        unexcused: verdict.stale,
        failed: verdict.failed,
        loads,
        ..Score::default()
    };
    for violation in &verdict.violations {
        match violation {
            Violation::Stuck(_) => score.stuck += 1,
            Violation::Wrong { .. } | Violation::Invented { .. } => score.wrong += 1,
            Violation::Stale { .. } | Violation::Unbounded { .. } | Violation::Accepted { .. } => {}
        }
    }
    let acknowledged = Acknowledged::new(&world);
    for event in events(&history)? {
        if let Event::Read(read) = event
            && let Some(age) = acknowledged.age(&read)
        {
            score.stale += 1;
            score.late += u64::from(age > SECOND);
            score.oldest = score.oldest.max(age);
        }
    }
    Ok(score)
}

const SECOND: Time = 1_000_000_000;

/// When which version of a row was first acknowledged, or a later one, in the order of versions.
pub(crate) struct Acknowledged(HashMap<(u8, u32), Vec<Time>>);

impl Acknowledged {
    pub(crate) fn new(world: &World) -> Self {
        let rows = world.rows.iter().map(|(row, makers)| {
            let returned = |id| match world.writes.get(id)?.done? {
                (at, Outcome::Returned) => Some(at),
                _ => None,
            };
            let mut first: Vec<Time> = makers
                .iter()
                .map(|id| returned(id).unwrap_or(Time::MAX))
                .collect();
            for at in (1..first.len()).rev() {
                first[at - 1] = first[at - 1].min(first[at]);
            }
            (*row, first)
        });
        Self(rows.collect())
    }

    /// How much older a read is than a write that was acknowledged before it began.
    pub(crate) fn age(&self, read: &Read) -> Option<Time> {
        let ages = read.rows.iter().filter_map(|(id, version)| {
            let newer =
                usize::try_from(version.checked_sub(crate::history::FIRST_VERSION)?).ok()?;
            let at = self.0.get(&(read.kind, *id))?.get(newer)?;
            (*at < read.start).then(|| read.start - at)
        });
        ages.max()
    }
}
