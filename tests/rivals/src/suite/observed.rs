//! What metrics and log lines cost a hit that the process answers.
//!
//! Features are chosen when a program is compiled, so `scripts/hit-cost` builds one small program
//! several times. The programs run in turn, a few milliseconds each, and the differences of such
//! rounds count: what else the machine does meets all of them alike.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use cache_tests::RedisServer;

use super::{Failed, Settings};
use crate::figures::{Bound, Findings, Goal, Row, Table};
use crate::progress::Step;

/// Hits of one round of one program.
const HITS: u64 = 50_000;
/// The builds, and how a row is called. The others are compared with the first.
const PROGRAMS: [(&str, bool, &str); 4] = [
    ("plain", false, "without the feature `metrics`"),
    ("metrics", false, "with it, no recorder"),
    ("metrics", true, "with it, and Prometheus' recorder"),
    (
        "silent",
        false,
        "without the feature, the log compiled out (`max_level_off`)",
    ),
];

/// A program that waits for the number of hits to make.
struct Program {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Program {
    fn start(mut command: Command) -> Result<Self, Failed> {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = child.spawn()?;
        let input = child.stdin.take().ok_or("its input")?;
        let output = BufReader::new(child.stdout.take().ok_or("its output")?);
        let mut program = Self {
            child,
            input,
            output,
        };
        match program.line()?.as_str() {
            "ready" => Ok(program),
            other => Err(format!("the program said `{other}`").into()),
        }
    }

    fn line(&mut self) -> Result<String, Failed> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    /// Nanoseconds per hit.
    fn hits(&mut self, hits: u64) -> Result<f64, Failed> {
        writeln!(self.input, "{hits}")?;
        let nanos: f64 = self.line()?.parse()?;
        Ok(nanos / hits as f64)
    }

    fn end(self) -> Result<(), Failed> {
        let mut child = self.child;
        drop(self.input);
        match child.wait()?.success() {
            true => Ok(()),
            false => Err("a program has failed".into()),
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Where the executables lie, by name.
fn build(root: &Path) -> Result<Vec<(String, PathBuf)>, Failed> {
    let output = Command::new(root.join("scripts/hit-cost")).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let text = String::from_utf8(output.stdout)?;
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    Ok(lines
        .map(|(name, path)| (name.to_owned(), path.into()))
        .collect())
}

/// Instructions per hit, by callgrind; `None` without valgrind. What comes before the hits is in
/// both of two runs.
fn instructions(
    executable: &Path,
    arguments: &[String],
    folder: &Path,
) -> Result<Option<f64>, Failed> {
    const FEW: u64 = 2_000;
    const MANY: u64 = 22_000;
    let is_there = Command::new("valgrind").arg("--version").output();
    if !is_there.is_ok_and(|output| output.status.success()) {
        return Ok(None);
    }
    let mut counts = [0.0; 2];
    for (count, hits) in counts.iter_mut().zip([FEW, MANY]) {
        let file = folder.join(format!("callgrind-{hits}"));
        let mut command = Command::new("valgrind");
        command
            .args(["--quiet", "--tool=callgrind", "--collect-atstart=no"])
            .arg("--toggle-collect=*at_once*")
            .arg(format!("--callgrind-out-file={}", file.display()))
            .arg(executable)
            .args(arguments);
        let mut program = Program::start(command)?;
        program.hits(hits)?;
        program.end()?;
        let text = std::fs::read_to_string(&file)?;
        let total = text.lines().find_map(|line| {
            line.strip_prefix("summary: ")
                .or(line.strip_prefix("totals: "))
        });
        *count = total.ok_or("callgrind's total")?.trim().parse()?;
    }
    Ok(Some((counts[1] - counts[0]) / (MANY - FEW) as f64))
}

pub(super) async fn run(settings: &Settings, step: &Step) -> Result<Findings, Failed> {
    step.say("building one program three times");
    let built = build(&settings.root)?;
    let server = RedisServer::start();
    let mut programs = Vec::new();
    for (build, has_recorder, _) in PROGRAMS {
        let executable = built.iter().find(|(name, _)| name == build);
        let (_, executable) = executable.ok_or("an executable of scripts/hit-cost")?;
        let mut arguments = vec![server.port().to_string()];
        arguments.extend(has_recorder.then(|| "recorder".to_owned()));
        programs.push((executable, arguments));
    }
    step.say("hits in turn");
    let mut running = Vec::new();
    for (executable, arguments) in &programs {
        let mut command = Command::new(executable);
        command.args(arguments);
        running.push(Program::start(command)?);
    }
    let mut times = vec![Vec::new(); running.len()];
    for _ in 0..settings.pick(40, 1_000) {
        for (program, times) in running.iter_mut().zip(&mut times) {
            times.push(program.hits(HITS)?);
        }
    }
    for program in running {
        program.end()?;
    }
    step.say("counting instructions");
    let folder = callgrind_folder(&settings.root)?;
    let mut counted = Vec::new();
    for (executable, arguments) in &programs {
        counted.push(instructions(executable, arguments, &folder)?);
    }

    let over: Vec<f64> = times
        .iter()
        .map(|own| median(own.iter().zip(&times[0]).map(|(a, b)| a - b).collect()))
        .collect();
    let rows = PROGRAMS.iter().enumerate().map(|(index, (_, _, name))| {
        let mut row = Row::named(*name);
        row.p50 = Some(median(times[index].clone()));
        let row = row.with("over the first", format!("{:+.1} ns", over[index]));
        match counted[index] {
            Some(count) => row.with("instructions", format!("{count:.0}")),
            None => row,
        }
    });
    let mut findings = Findings::default();
    findings.tables.push(Table {
        title: "Metrics and log on a local hit".into(),
        text: format!(
            "One of a thousand rows in turn, as an `Arc`, beside Redis; {HITS} hits of each program in turn. The time over the \
             first row is the median of the differences of single rounds. Programs that are compiled in another way also \
             differ by where the compiler puts their code, so the instructions say more. Instructions are counted by callgrind \
             where valgrind is installed. No log is read in any of them."
        ),
        rows: rows.collect(),
    });
    findings.goals.extend([
        Goal::measured(
            "Metrics on a local hit, without a recorder: over the feature off",
            Bound::AtMost(3.0),
            "ns",
            over[1],
        ),
        Goal::measured(
            "The same with Prometheus' recorder",
            Bound::AtMost(15.0),
            "ns",
            over[2],
        ),
        Goal::reported(
            "Log on a local hit that nobody reads: over the log compiled out",
            "ns",
            -over[3],
        ),
    ]);
    Ok(findings)
}

/// Where callgrind writes.
fn callgrind_folder(root: &Path) -> Result<PathBuf, Failed> {
    let folder = root.join("target/hit-cost/callgrind");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}
