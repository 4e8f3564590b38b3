//! What people read: the figures of a run, and its violations.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use crate::aftermath::Comparison;
use crate::audited::Findings;
use crate::check::{Verdict, Violation, World};
use crate::history::{Answer, FaultKind, Form, MILLISECOND, Time, events};
use crate::minimise;
use crate::untested::untested;
use crate::weaker;

/// More of one kind say little more.
const SHOWN: usize = 5;

pub(crate) fn check_file(arguments: &[String]) -> ExitCode {
    let [file] = arguments else {
        eprintln!("chaos: check takes the name of one file; see --help");
        return ExitCode::from(2);
    };
    if judge(Path::new(file), &Comparison::default()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Judges a history, and says whether everything is right.
pub(crate) fn judge(history: &Path, comparison: &Comparison) -> bool {
    let mut text = String::new();
    let is_right = match read(history) {
        Ok((world, verdict)) => {
            text += &figures(&world, &verdict, comparison);
            for violation in some(&verdict.violations) {
                text += &minimise::shown(&world, violation, history);
            }
            for complaint in &comparison.complaints {
                text += &format!("NOT AS BEFORE: {complaint}\n");
            }
            let findings = Findings::of(&world);
            text += &audit(&world, &findings);
            let complaints = findings.complaints(&world);
            for complaint in &complaints {
                text += &format!("AUDIT: {complaint}\n");
            }
            let untested = untested(&world, &verdict);
            for it in &untested {
                text += &format!("{it}\n");
            }
            let is_right = verdict.violations.is_empty()
                && !untested.iter().any(|it| it.is_fault)
                && comparison.complaints.is_empty()
                && complaints.is_empty()
                && verdict.reads > 0;
            if is_right {
                text += "nothing stale\n";
            } else {
                let count = verdict.violations.len();
                let whole = history.display();
                text += &format!("\nFAILED, with {count} violations; the history is in {whole}\n");
                let earliest = some(&verdict.violations).first().copied();
                if let Some(small) =
                    earliest.and_then(|violation| minimise::save(violation, history))
                {
                    text += &format!("the earliest alone: chaos check {}\n", small.display());
                }
            }
            is_right
        }
        Err(error) => {
            text += &format!("{} can't be read: {error}\n", history.display());
            false
        }
    };
    // Whoever reads it may have gone.
    let _ = std::io::stdout().write_all(text.as_bytes());
    is_right
}

fn read(history: &Path) -> std::io::Result<(World, Verdict)> {
    let world = World::new(events(history)?);
    let verdict = Verdict::of(&world, events(history)?);
    Ok((world, verdict))
}

/// One violation of each row, the earliest: those that follow tend to be of the same cause.
fn some(violations: &[Violation]) -> Vec<&Violation> {
    let mut by_row: BTreeMap<(u8, u32, &str), &Violation> = BTreeMap::new();
    for violation in violations {
        let (kind, id, start, name) = match violation {
            Violation::Stale { read, id, .. } => (read.kind, *id, read.start, "stale"),
            Violation::Unbounded { read, id, .. } => (read.kind, *id, read.start, "unbounded"),
            Violation::Invented { read, id, .. } => (read.kind, *id, read.start, "invented"),
            Violation::Wrong { read, .. } => (read.kind, 0, read.start, "wrong"),
            Violation::Stuck(stuck) => (0, stuck.process, stuck.start, "stuck"),
            Violation::Accepted { process, at } => (0, *process, *at, "accepted"),
        };
        let earliest = by_row.entry((kind, id, name)).or_insert(violation);
        if start < begin(earliest) {
            *earliest = violation;
        }
    }
    let mut some: Vec<&Violation> = by_row.into_values().collect();
    some.sort_by_key(|violation| begin(violation));
    some.truncate(SHOWN);
    some
}

fn begin(violation: &Violation) -> Time {
    match violation {
        Violation::Stale { read, .. }
        | Violation::Unbounded { read, .. }
        | Violation::Invented { read, .. }
        | Violation::Wrong { read, .. } => read.start,
        Violation::Stuck(stuck) => stuck.start,
        Violation::Accepted { at, .. } => *at,
    }
}

/// The auditors' own report, and what is thought of it.
fn audit(world: &World, findings: &Findings<'_>) -> String {
    let report = &world.audit;
    if report.total.checked == 0 {
        return String::new();
    }
    let mut rows = vec![
        ("hits audited", report.total.checked),
        ("  held for stale", world.found.len() as u64),
        ("  of these excused", findings.explained as u64),
    ];
    if world.run.planted_writer {
        rows.push(("  of these planted", findings.planted as u64));
    }
    let rows = rows
        .iter()
        .map(|(name, value)| format!("{name:<38} {value}\n"));
    let table = report.to_string();
    let table = table.lines().map(|line| format!("    {line}\n"));
    rows.chain(table).collect()
}

pub(crate) fn ms(time: Time) -> f64 {
    time as f64 / MILLISECOND as f64
}

fn figures(world: &World, verdict: &Verdict, comparison: &Comparison) -> String {
    let run = &world.run;
    let mut rows: Vec<(String, String)> = vec![
        (
            "seed, seconds".into(),
            match run.local_mb {
                0 => format!("{}, {}, Redis only", run.seed, run.seconds),
                mb => format!("{}, {}, local entries of {mb} MB", run.seed, run.seconds),
            },
        ),
        (
            "reads checked".into(),
            format!("{} of {} rows", verdict.reads, verdict.rows),
        ),
    ];
    let by_kind: Vec<String> = verdict
        .by_kind
        .iter()
        .map(|(kind, reads)| format!("{kind:?} {reads}"))
        .collect();
    rows.push(("  of these".into(), by_kind.join(", ").to_lowercase()));
    let by_answer: Vec<String> = verdict
        .by_answer
        .iter()
        .map(|(kind, reads)| format!("{kind:?} {reads}"))
        .collect();
    let hits: u64 = [Answer::Hit, Answer::Local]
        .iter()
        .filter_map(|answer| verdict.by_answer.get(answer))
        .sum();
    let rate = 100.0 * hits as f64 / verdict.reads.max(1) as f64;
    rows.push((
        "  answered by".into(),
        format!("{} ({rate:.1} % hits)", by_answer.join(", ").to_lowercase()),
    ));
    rows.push((
        "writes".into(),
        format!("{}, {} rows committed", verdict.writes, verdict.committed),
    ));
    let mut forms: BTreeMap<Form, u64> = BTreeMap::new();
    for write in world.writes.values() {
        *forms.entry(write.begin.form).or_default() += 1;
    }
    let forms: Vec<String> = forms
        .iter()
        .map(|(form, count)| format!("{form:?} {count}"))
        .collect();
    rows.push(("  of these".into(), forms.join(", ").to_lowercase()));
    let mut faults: BTreeMap<FaultKind, u64> = BTreeMap::new();
    for fault in &world.faults {
        *faults.entry(fault.kind).or_default() += 1;
    }
    let faults: Vec<String> = faults
        .iter()
        .map(|(kind, count)| format!("{} {count}", kind.name()))
        .collect();
    rows.push((format!("faults, {}", world.faults.len()), faults.join(", ")));
    let killed = world.lives.values().filter(|life| life.killed.is_some());
    rows.push((
        "crash-safe writes killed and checked".into(),
        format!(
            "{}, of {} that were met by {} kills",
            verdict.crash_safe_kills,
            verdict.crash_safe_met,
            killed.count()
        ),
    ));
    rows.push((
        "STALE".into(),
        format!(
            "{}, the latest by {:.1} ms",
            verdict.stale,
            ms(verdict.latest)
        ),
    ));
    if run.local_mb > 0 {
        let mut ages = verdict.behind.clone();
        ages.sort_unstable();
        let part = |percent: usize| ages.get(ages.len() * percent / 100).or(ages.last());
        let [half, most, all] = [50, 99, 100].map(|it| part(it).map_or(0.0, |age| ms(*age)));
        let count = ages.len();
        rows.push((
            format!("  behind another process, bound {} ms", ms(run.staleness)),
            format!("{count}, by p50 {half:.1} ms, p99 {most:.1} ms, max {all:.1} ms"),
        ));
    }
    let weaker: Vec<_> = world.weaker_cases().iter().map(|(it, ..)| *it).collect();
    rows.extend(weaker::rows(world, &verdict.excused));
    let others = verdict.excused.iter();
    for (reason, excused) in others.filter(|(reason, _)| !weaker.contains(reason)) {
        let value = format!(
            "{}, the latest by {:.1} ms",
            excused.reads,
            ms(excused.latest)
        );
        rows.push((format!("  excused: {}", reason.name()), value));
    }
    let stuck = verdict
        .violations
        .iter()
        .filter(|violation| matches!(violation, Violation::Stuck(_)));
    rows.push(("callers stuck".into(), stuck.count().to_string()));
    let accepted = |violation: &&Violation| matches!(violation, Violation::Accepted { .. });
    rows.push((
        "required writes while Redis refused".into(),
        format!(
            "{} of {}",
            verdict.violations.iter().filter(accepted).count(),
            world.required_while_refused()
        ),
    ));
    let wrong = |violation: &&Violation| {
        matches!(
            violation,
            Violation::Wrong { .. } | Violation::Invented { .. }
        )
    };
    rows.push((
        "callers who got an error".into(),
        verdict.failed.to_string(),
    ));
    rows.push((
        "wrong values".into(),
        verdict.violations.iter().filter(wrong).count().to_string(),
    ));
    let mut text: String = rows
        .iter()
        .map(|(name, value)| format!("{name:<38} {value}\n"))
        .collect();
    for line in &comparison.lines {
        text += &format!("{:<38} {line}\n", "afterwards");
    }
    text
}
