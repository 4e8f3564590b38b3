//! What happened on the course, and whether it may.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use crate::figures::Row;
use crate::report::count;

use super::GRACE;

/// A read that was answered. Times are of the clock all processes share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    pub key: u64,
    pub begun: u64,
    pub version: u64,
}

/// A write, or its commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    pub key: u64,
    pub at: u64,
    pub version: u64,
}

/// What one process saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    pub reads: Vec<Read>,
    /// Commits, whatever became of the write.
    pub commits: Vec<Write>,
    /// Writes that returned.
    pub acknowledged: Vec<Write>,
    pub loads: u64,
    pub failed: u64,
    /// Reads that got no answer within their deadline.
    pub stuck: u64,
}

impl History {
    /// Writes it down, eight bytes a number.
    ///
    /// # Errors
    ///
    /// When the file can't be written.
    pub fn write(&self, file: &Path) -> io::Result<()> {
        let mut numbers = vec![
            self.reads.len() as u64,
            self.commits.len() as u64,
            self.acknowledged.len() as u64,
            self.loads,
            self.failed,
            self.stuck,
        ];
        for read in &self.reads {
            numbers.extend([read.key, read.begun, read.version]);
        }
        for write in self.commits.iter().chain(&self.acknowledged) {
            numbers.extend([write.key, write.at, write.version]);
        }
        let bytes: Vec<u8> = numbers
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect();
        std::fs::write(file, bytes)
    }

    /// Reads what [`History::write`] wrote.
    ///
    /// # Errors
    ///
    /// When the file can't be read.
    pub fn read(file: &Path) -> io::Result<Self> {
        let bytes = std::fs::read(file)?;
        let (chunks, _) = bytes.as_chunks::<8>();
        let mut numbers = chunks.iter().map(|chunk| u64::from_le_bytes(*chunk));
        let mut next = || numbers.next().ok_or(io::ErrorKind::UnexpectedEof);
        let (reads, commits, acknowledged) = (next()?, next()?, next()?);
        let mut history = Self {
            loads: next()?,
            failed: next()?,
            stuck: next()?,
            ..Self::default()
        };
        for _ in 0..reads {
            let (key, begun, version) = (next()?, next()?, next()?);
            history.reads.push(Read {
                key,
                begun,
                version,
            });
        }
        for number in 0..commits + acknowledged {
            let (key, at, version) = (next()?, next()?, next()?);
            let write = Write { key, at, version };
            if number < commits {
                history.commits.push(write);
            } else {
                history.acknowledged.push(write);
            }
        }
        Ok(history)
    }
}

/// What is to be said of one who took the course.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub name: String,
    pub ours: bool,
    pub reads: u64,
    pub stale: u64,
    /// How old the most outdated value was, in nanoseconds since the acknowledgement.
    pub oldest: u64,
    /// Stale reads after a hang-up that are not stale otherwise.
    pub abandoned: u64,
    pub hung_up: u64,
    pub writes: u64,
    pub loads: u64,
    pub failed: u64,
    pub stuck: u64,
}

impl Verdict {
    /// For the table.
    pub fn row(&self) -> Row {
        let million = |number: u64| {
            let share = number as f64 * 1e6 / self.reads.max(1) as f64;
            if number > 0 && share < 10.0 {
                format!("{share:.1}")
            } else {
                count(share)
            }
        };
        let loads = self.loads as f64 * 100.0 / self.reads.max(1) as f64;
        Row::named(&self.name)
            .with("reads", count(self.reads as f64))
            .with("writes", count(self.writes as f64))
            .with("stale, per million", million(self.stale))
            .with("oldest", crate::report::time(self.oldest as f64))
            .with("after a hang-up, per million", million(self.abandoned))
            .with("loads per 100 reads", format!("{loads:.1}"))
            .with("failed", count(self.failed as f64))
            .with("stuck for 5 s", count(self.stuck as f64))
    }
}

/// Moments in order, each with the newest version by then.
struct Newest(HashMap<u64, Vec<(u64, u64)>>);

impl Newest {
    fn new(writes: impl Iterator<Item = Write>) -> Self {
        let mut newest: HashMap<u64, Vec<(u64, u64)>> = HashMap::new();
        for write in writes {
            newest
                .entry(write.key)
                .or_default()
                .push((write.at, write.version));
        }
        for moments in newest.values_mut() {
            moments.sort_unstable();
            let mut highest = 0;
            for (_, version) in moments {
                highest = highest.max(*version);
                *version = highest;
            }
        }
        Self(newest)
    }

    /// The newest version before `moment`.
    fn before(&self, key: u64, moment: u64) -> u64 {
        let moments = self.0.get(&key).map_or(&[][..], Vec::as_slice);
        let passed = moments.partition_point(|(at, _)| *at < moment);
        passed.checked_sub(1).map_or(0, |last| moments[last].1)
    }

    /// When a version newer than `version` was first there.
    fn outdated(&self, key: u64, version: u64) -> Option<u64> {
        let moments = self.0.get(&key)?;
        let newer = moments.partition_point(|(_, newest)| *newest <= version);
        moments.get(newer).map(|(at, _)| *at)
    }
}

/// Looks at all reads of all processes.
pub fn judge(name: String, ours: bool, histories: Vec<History>) -> Verdict {
    let all = |writes: fn(&History) -> &Vec<Write>| histories.iter().flat_map(writes).copied();
    let acknowledged = Newest::new(all(|history| &history.acknowledged));
    let answered: std::collections::HashSet<(u64, u64)> = all(|history| &history.acknowledged)
        .map(|write| (write.key, write.version))
        .collect();
    let given_up: Vec<Write> = all(|history| &history.commits)
        .filter(|write| !answered.contains(&(write.key, write.version)))
        .collect();
    let hung_up = given_up.len() as u64;
    let excused = given_up.into_iter().map(|write| Write {
        at: write.at + GRACE.as_nanos() as u64,
        ..write
    });
    let abandoned = Newest::new(excused);

    let mut verdict = Verdict {
        name,
        ours,
        reads: 0,
        stale: 0,
        oldest: 0,
        abandoned: 0,
        hung_up,
        writes: answered.len() as u64,
        loads: histories.iter().map(|history| history.loads).sum(),
        failed: histories.iter().map(|history| history.failed).sum(),
        stuck: histories.iter().map(|history| history.stuck).sum(),
    };
    for read in histories.iter().flat_map(|history| &history.reads) {
        verdict.reads += 1;
        if read.version < acknowledged.before(read.key, read.begun) {
            verdict.stale += 1;
            let since = acknowledged.outdated(read.key, read.version);
            let age = read.begun.saturating_sub(since.unwrap_or(read.begun));
            verdict.oldest = verdict.oldest.max(age);
        } else if read.version < abandoned.before(read.key, read.begun) {
            verdict.abandoned += 1;
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(at: u64, version: u64) -> Write {
        Write {
            key: 1,
            at,
            version,
        }
    }

    fn read(begun: u64, version: u64) -> Read {
        Read {
            key: 1,
            begun,
            version,
        }
    }

    #[test]
    fn a_planted_stale_read_is_found() {
        let history = History {
            // The second was acknowledged before the first.
            commits: vec![write(5, 1), write(6, 2), write(100, 3)],
            acknowledged: vec![write(20, 1), write(10, 2)],
            reads: vec![read(9, 0), read(11, 2), read(30, 1), read(101, 2)],
            ..History::default()
        };
        let verdict = judge(String::new(), false, vec![history]);
        assert_eq!((verdict.reads, verdict.stale, verdict.oldest), (4, 1, 20));
        assert_eq!((verdict.hung_up, verdict.abandoned), (1, 0));
    }

    #[test]
    fn a_write_whose_caller_hung_up_counts_after_its_grace() {
        let grace = GRACE.as_nanos() as u64;
        let history = History {
            commits: vec![write(5, 1)],
            reads: vec![read(6, 0), read(7 + grace, 0), read(8 + grace, 1)],
            ..History::default()
        };
        let verdict = judge(String::new(), false, vec![history]);
        assert_eq!((verdict.stale, verdict.abandoned), (0, 1));
    }

    #[test]
    fn a_history_survives_its_file() {
        let history = History {
            reads: vec![read(1, 2)],
            commits: vec![write(3, 4)],
            acknowledged: vec![write(5, 4)],
            loads: 6,
            failed: 7,
            stuck: 8,
        };
        let file = std::env::temp_dir().join(format!("history-{}", std::process::id()));
        history.write(&file).unwrap();
        assert_eq!(History::read(&file).unwrap(), history);
        std::fs::remove_file(file).unwrap();
    }
}
