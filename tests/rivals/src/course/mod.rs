//! The course: readers and writers of few rows in two processes, loads under way while
//! invalidations are acknowledged, and callers who hang up. It counts reads that are older than a
//! write acknowledged before they began.

use std::path::PathBuf;
use std::time::Duration;

use cache_tests::RedisServer;

use crate::figures::{Row, Table};
use crate::rivals::Rival;
use crate::suite::Failed;
use crate::{with_rival, worker};

pub mod check;
pub mod node;

pub use check::Verdict;

/// What is the same for all who take the course.
#[derive(Clone, Debug)]
pub struct Setting {
    pub seed: u64,
    pub seconds: u64,
    pub keys: i64,
    pub readers: u64,
    pub writers: u64,
    pub processes: usize,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            seed: 1,
            seconds: 20,
            keys: 4,
            readers: 8,
            writers: 2,
            processes: 2,
        }
    }
}

/// Whose caller hung up is excused for this long: what has begun may still arrive.
pub const GRACE: Duration = Duration::from_secs(1);

/// Sends them over the course, one after the other.
///
/// # Errors
///
/// When there is no such rival, or a process of it fails.
pub async fn run(
    names: &[&str],
    setting: &Setting,
    say: impl Fn(&str),
) -> Result<(Table, Vec<Verdict>), Failed> {
    let mut verdicts = Vec::new();
    for name in names {
        say(name);
        verdicts.push(one(name, setting).await?);
    }
    let rows = verdicts.iter().map(Verdict::row).collect::<Vec<Row>>();
    let table = Table {
        title: "Stale reads".into(),
        text: format!(
            "Two processes (one, if the cache shares nothing) of {} readers and {} writers each on {} rows for {} s; a load takes \
             1 to 4 ms, a write 1 ms after its commit; callers give up one read in a hundred, and two writes a second, of \
             as many rows again that nobody else writes. Stale: older than a write that was acknowledged before the read began. \
             After a hang-up: older than a write that was committed more than {} s before, and whose caller had hung up. Seed {}.",
            setting.readers,
            setting.writers,
            setting.keys,
            setting.seconds,
            GRACE.as_secs(),
            setting.seed
        ),
        rows,
    };
    Ok((table, verdicts))
}

async fn one(name: &str, setting: &Setting) -> Result<Verdict, Failed> {
    let (server, truth) = (RedisServer::start(), RedisServer::start());
    macro_rules! facts {
        ($rival:ty) => {
            (<$rival>::NAME, <$rival>::SHARED)
        };
    }
    let (title, shared) = with_rival!(name, facts).ok_or_else(|| format!("no rival `{name}`"))?;
    let processes = if shared { setting.processes } else { 1 };
    let start = worker::now() + 1_500_000_000;
    let arguments = [
        "course".to_owned(),
        name.to_owned(),
        server.port().to_string(),
        truth.port().to_string(),
        start.to_string(),
        setting.seed.to_string(),
        setting.seconds.to_string(),
        setting.keys.to_string(),
        setting.readers.to_string(),
        setting.writers.to_string(),
    ];
    let files: Vec<PathBuf> = worker::start(processes, &arguments).await?;
    let mut histories = Vec::new();
    for file in &files {
        histories.push(check::History::read(file)?);
        std::fs::remove_file(file)?;
    }
    let title = if processes == 1 {
        format!("{title} (one process)")
    } else {
        title.to_owned()
    };
    Ok(check::judge(title, name.starts_with("ours"), histories))
}
