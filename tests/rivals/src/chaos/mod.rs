//! The chaos program of `tests/chaos`, run over this project and rivals, side by side: the same
//! processes, faults, seeds and checker.

use std::process::ExitCode;

use cache_chaos::{Failure, RivalCache, Score, Setting};

use crate::figures::{Row, Table};
use crate::report::{count, time};
use crate::suite::Failed;

mod amalgam;
mod cached;
mod hand_written;
mod hydracache;
mod ours;

/// The caches, in the order of the table.
pub const NAMES: [&str; 8] = [
    "ours",
    "ours-local",
    "ours-memory",
    "hand-written",
    "cached",
    "amalgam",
    "amalgam-strict",
    "hydracache",
];

/// Calls `$do!(Type)` for the cache of that name, or evaluates to `None`.
macro_rules! with_cache {
    ($name:expr, $do:ident) => {
        match $name {
            "ours" => Some($do!(ours::OverRedis)),
            "ours-local" => Some($do!(ours::OverBoth)),
            "ours-memory" => Some($do!(ours::InMemory)),
            "hand-written" => Some($do!(hand_written::HandWritten)),
            "cached" => Some($do!(cached::Cached)),
            "amalgam" => Some($do!(amalgam::Amalgam<false>)),
            "amalgam-strict" => Some($do!(amalgam::Amalgam<true>)),
            "hydracache" => Some($do!(hydracache::Hydra)),
            _ => None,
        }
    };
}

/// One process of the run over a cache: its name, and what the coordinator tells it.
///
/// # Errors
///
/// When it is told something else.
pub fn process(arguments: &[String]) -> Result<ExitCode, Failed> {
    let [name, brief] = arguments else {
        return Err("`chaos-process NAME BRIEF`".into());
    };
    macro_rules! process {
        ($cache:ty) => {
            cache_chaos::process::<$cache>(brief)
        };
    }
    with_cache!(name.as_str(), process).ok_or_else(|| format!("no cache `{name}`").into())
}

/// Runs the chaos program over them, one after the other. Returns the table, and whether all is
/// right with this project.
///
/// # Errors
///
/// When there is no such cache or fault.
pub fn run(names: &[&str], setting: &Setting, say: impl Fn(&str)) -> Result<(Table, bool), Failed> {
    let (mut rows, mut is_right) = (Vec::new(), true);
    for name in names {
        let program = ["chaos-process", name];
        macro_rules! score {
            ($cache:ty) => {
                (
                    title::<$cache>(),
                    cache_chaos::score::<$cache>(setting, &program),
                )
            };
        }
        let (title, score) = with_cache!(*name, score)
            .ok_or_else(|| format!("no cache `{name}`; there are {}", NAMES.join(", ")))?;
        let score = score?;
        if name.starts_with("ours") {
            is_right &= score.unexcused == 0 && score.wrong == 0 && score.stuck == 0;
        }
        say(&format!(
            "{title}: {} reads, {} stale, {} unexcused, {} stuck, {} errors",
            score.reads, score.stale, score.unexcused, score.stuck, score.failed
        ));
        rows.push(row(&title, &score));
    }
    Ok((table(setting, rows), is_right))
}

fn title<C: RivalCache>() -> String {
    if C::SHARED {
        C::NAME.to_owned()
    } else {
        format!("{} (one process)", C::NAME)
    }
}

fn table(setting: &Setting, rows: Vec<Row>) -> Table {
    Table {
        title: "Chaos, side by side".into(),
        text: format!(
            "{} processes (one, if they would share nothing) of sixteen tasks each that read rows and pages of a PostgreSQL through \
             the cache and write rows, for {} s under {}; TTL 10 s, seed {}. Stale: older than a write that had returned without an \
             error before the read began. Unexcused: what is left if each is granted this project's premises, and local entries in the \
             process one second. Errors: calls that returned an error, or panicked, though their own body was not made to.",
            setting.processes,
            setting.seconds,
            if setting.faults.is_empty() {
                "all faults".to_owned()
            } else {
                format!("these faults: {}", setting.faults)
            },
            setting.seed
        ),
        rows,
    }
}

fn row(title: &str, score: &Score) -> Row {
    let million = |number: u64| {
        let share = number as f64 * 1e6 / score.reads.max(1) as f64;
        if number > 0 && share < 10.0 {
            format!("{share:.1}")
        } else {
            count(share)
        }
    };
    let whole = |number: u64| count(number as f64);
    let loads = score.loads as f64 * 100.0 / score.reads.max(1) as f64;
    Row::named(title)
        .with("reads", whole(score.reads))
        .with("writes", whole(score.writes))
        .with("faults", whole(score.faults))
        .with("loads per 100 reads", format!("{loads:.0}"))
        .with("stale", whole(score.stale))
        .with("per million", million(score.stale))
        .with("older than 1 s", whole(score.late))
        .with("oldest", time(score.oldest as f64))
        .with("unexcused", whole(score.unexcused))
        .with("wrong values", whole(score.wrong))
        .with("stuck for 10 s", whole(score.stuck))
        .with("errors", whole(score.failed))
}

/// Where Redis is, as most clients want it said.
fn url(port: u16) -> String {
    format!("redis://127.0.0.1:{port}/")
}

/// The failure of a cache that can't start.
fn failure(error: impl std::fmt::Display) -> Failure {
    Failure::new(error)
}
