//! The command line.

use std::io::Write;
use std::path::PathBuf;

use crate::history::FaultKind;

const HELP: &str = "\
chaos [--seed N] [--seconds S] [--reads N] [--faults LIST] [--history FILE]
chaos check FILE

  --seed N        decides what the tasks do and which faults come when (default 1)
  --seconds S     for how long there are faults (default 20)
  --reads N       goes on until so many reads have been made
  --faults LIST   only these, with commas between them; `none` for none, `mishaps` for callers who hang up and bodies
                  that fail, panic and take long (default: all)
  --history FILE  keeps the history, also of a run without a violation
  check FILE      judges a history once more

faults: mishaps";

#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    pub(crate) seconds: u64,
    pub(crate) reads: u64,
    pub(crate) faults: Vec<FaultKind>,
    pub(crate) mishaps: bool,
    pub(crate) history: Option<PathBuf>,
}

impl Options {
    /// `None` if help was asked for, and given.
    pub(crate) fn read(arguments: &[String]) -> Result<Option<Self>, String> {
        let mut options = Self {
            seed: 1,
            seconds: 20,
            reads: 0,
            faults: FaultKind::ALL.to_vec(),
            mishaps: true,
            history: None,
        };
        let mut arguments = arguments.iter();
        while let Some(name) = arguments.next() {
            if name == "--help" || name == "-h" {
                let names = FaultKind::ALL.map(FaultKind::name).join(" ");
                let _ = writeln!(std::io::stdout(), "{HELP} {names}");
                return Ok(None);
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
                "--history" => options.history = Some(value.into()),
                "--faults" => {
                    (options.faults, options.mishaps) = faults(value)?;
                }
                _ => return Err(format!("there is no option `{name}`")),
            }
        }
        Ok(Some(options))
    }
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
