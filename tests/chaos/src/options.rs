//! The command line.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use crate::faults::drawn_together;
use crate::history::FaultKind;
use crate::score::Setting;
use crate::servers::Setup;

const HELP: &str = "\
chaos [--seed N] [--seconds S] [--reads N] [--local MB] [--staleness MS] [--faults LIST] [--history FILE]
      [--planted-writer] [--servers KIND] [--logs FOLDER]
chaos check FILE

  --seed N        decides what the tasks do and which faults come when (default 1)
  --seconds S     for how long there are faults (default 20)
  --reads N       goes on until so many reads have been made
  --local MB      three of the four processes keep local entries of so many megabytes (default 0: Redis only)
  --staleness MS  how old local entries may be (default 1000)
  --faults LIST   only these, with commas between them; `none` for none, `mishaps` for callers who hang up and bodies
                  that fail, panic and take long (default: all)
  --planted-writer
                  somebody changes some rows behind the cache's back, which the auditors of two of the processes have to
                  find
  --servers KIND  `one` Redis (the default), a `cluster` of three shards with a replica each, or a primary and a replica
                  that `sentinels` watch
  --history FILE  keeps the history, also of a run without a violation
  --logs FOLDER   keeps there what each process logs
  check FILE      judges a history once more

faults: mishaps";

#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    pub(crate) seconds: u64,
    pub(crate) reads: u64,
    pub(crate) local_mb: u32,
    pub(crate) staleness: Duration,
    pub(crate) faults: Vec<FaultKind>,
    pub(crate) mishaps: bool,
    pub(crate) history: Option<PathBuf>,
    pub(crate) planted_writer: bool,
    pub(crate) servers: Setup,
    pub(crate) logs: Option<PathBuf>,
}

impl Options {
    /// Those of the workload that other caches can take.
    pub(crate) fn of_course(
        setting: &Setting,
        history: PathBuf,
        has_local_entries: bool,
    ) -> Result<Self, String> {
        let (faults, mishaps) = match setting.faults.as_str() {
            "" => (FaultKind::common(), true),
            list => faults(list)?,
        };
        Ok(Self {
            seed: setting.seed,
            seconds: setting.seconds,
            reads: 0,
            local_mb: if has_local_entries { 16 } else { 0 },
            staleness: Duration::from_secs(1),
            faults,
            mishaps,
            history: Some(history),
            planted_writer: false,
            servers: Setup::One,
            logs: None,
        })
    }

    /// `None` if help was asked for, and given.
    pub(crate) fn read(arguments: &[String]) -> Result<Option<Self>, String> {
        let mut options = Self {
            seed: 1,
            seconds: 20,
            reads: 0,
            local_mb: 0,
            staleness: Duration::from_secs(1),
            faults: FaultKind::ALL.to_vec(),
            mishaps: true,
            history: None,
            planted_writer: false,
            servers: Setup::One,
            logs: None,
        };
        let mut is_chosen = false;
        let mut arguments = arguments.iter();
        while let Some(name) = arguments.next() {
            if name == "--help" || name == "-h" {
                let names = FaultKind::ALL.map(FaultKind::name).join(" ");
                let _ = writeln!(std::io::stdout(), "{HELP} {names}");
                return Ok(None);
            }
            if name == "--planted-writer" {
                options.planted_writer = true;
                continue;
            }
            let value = arguments.next().ok_or(format!("{name} needs a value"))?;
            let number = || {
                value
                    .parse()
                    .map_err(|_| format!("{name} is a number, not `{value}`"))
            };
            match name.as_str() {
                "--seed" => options.seed = number()?,
                "--seconds" => options.seconds = number()?,
                "--reads" => options.reads = number()?,
                "--local" => {
                    options.local_mb =
                        u32::try_from(number()?).map_err(|_| "--local is too large")?;
                }
                "--staleness" => options.staleness = Duration::from_millis(number()?),
                "--servers" => options.servers = Setup::named(value)?,
                "--logs" => options.logs = Some(folder(name, value)?),
                "--history" => options.history = Some(file(name, value)?),
                "--faults" => {
                    is_chosen = true;
                    (options.faults, options.mishaps) = faults(value)?;
                }
                _ => return Err(format!("there is no option `{name}`")),
            }
        }
        let hands = drawn_together(options.servers.name());
        let is_drawn = |kind: &&FaultKind| hands.iter().any(|hand| hand.contains(kind));
        match options.faults.iter().find(|kind| !is_drawn(kind)) {
            Some(kind) if is_chosen => Err(format!(
                "with these servers there is no fault `{}`",
                kind.name()
            )),
            _ => Ok(Some(options)),
        }
    }
}

/// The folder is made now: after the run it would be too late to find out that it can't be.
fn folder(option: &str, path: &str) -> Result<PathBuf, String> {
    let made = std::fs::create_dir_all(path);
    made.map_err(|error| format!("{option} can't make the folder `{path}`: {error}"))?;
    Ok(path.into())
}

/// The same for a file. Nothing that is in it is lost yet.
fn file(option: &str, path: &str) -> Result<PathBuf, String> {
    let opened = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path);
    opened.map_err(|error| format!("{option} can't write the file `{path}`: {error}"))?;
    Ok(path.into())
}

fn faults(list: &str) -> Result<(Vec<FaultKind>, bool), String> {
    let mut mishaps = false;
    let mut kinds = Vec::new();
    for name in list.split(',').filter(|name| *name != "none") {
        match FaultKind::ALL.into_iter().find(|kind| kind.name() == name) {
            Some(kind) => kinds.push(kind),
            None if name == "mishaps" => mishaps = true,
            None => return Err(format!("there is no fault `{name}`")),
        }
    }
    Ok((kinds, mishaps))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &str) -> Result<Option<Options>, String> {
        let arguments: Vec<_> = arguments.split(' ').map(str::to_owned).collect();
        Options::read(&arguments)
    }

    #[test]
    fn places_that_can_not_be_written_are_told_before_the_run() {
        let directory = tempfile::tempdir().expect("a folder");
        let (made, file) = (directory.path().join("a/b"), directory.path().join("file"));
        let chosen = read(&format!(
            "--logs {} --history {}",
            made.display(),
            file.display()
        ));
        assert!(chosen.is_ok_and(|it| it.is_some()));
        assert!(made.is_dir() && file.is_file());
        for option in ["--logs", "--history"] {
            let refused = read(&format!("{option} {}/c", file.display()));
            let refused = refused.expect_err("a file is no folder");
            assert!(
                refused.starts_with(option) && refused.contains("/file/c`"),
                "{refused}"
            );
        }
    }

    /// A run without the faults that it was to have finds nothing.
    #[test]
    fn a_fault_that_does_not_come_can_not_be_chosen() {
        for (faults, servers) in [
            ("evict", "cluster"),
            ("slot-move", "one"),
            ("cut-off", "cluster"),
        ] {
            let refused = read(&format!("--faults kill,{faults} --servers {servers}"));
            let refused = refused.expect_err("it never comes");
            assert!(refused.ends_with(&format!("`{faults}`")), "{refused}");
        }
        for faults in ["none", "mishaps", "kill,slot-move"] {
            let chosen = read(&format!("--faults {faults} --servers cluster"));
            assert!(chosen.is_ok_and(|it| it.is_some()), "{faults}");
        }
    }
}
