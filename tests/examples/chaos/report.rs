//! What people read: the figures of a run, and of each violation the smallest history that shows it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use crate::aftermath::Comparison;
use crate::check::{Verdict, Violation, World, Write as Written};
use crate::history::{Answer, Event, FaultKind, Form, MILLISECOND, Read, Time, WriteId, events};

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
                text += &shown(&world, violation, history);
            }
            for complaint in &comparison.complaints {
                text += &format!("NOT AS BEFORE: {complaint}\n");
            }
            let is_right = verdict.violations.is_empty()
                && comparison.complaints.is_empty()
                && verdict.reads > 0;
            let history = history.display();
            if is_right {
                text += "nothing stale\n";
            } else {
                text += &format!(
                    "FAILED, with {} violations; the history is in {history}\n",
                    verdict.violations.len()
                );
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
    }
}

fn ms(time: Time) -> f64 {
    time as f64 / MILLISECOND as f64
}

fn figures(world: &World, verdict: &Verdict, comparison: &Comparison) -> String {
    let run = &world.run;
    let mut rows: Vec<(String, String)> = vec![
        (
            "seed, seconds".into(),
            format!("{}, {}", run.seed, run.seconds),
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
    let hits = verdict
        .by_answer
        .get(&Answer::Hit)
        .copied()
        .unwrap_or_default();
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
    rows.push((
        "crash-safe writes killed and checked".into(),
        verdict.crash_safe_kills.to_string(),
    ));
    rows.push((
        "STALE".into(),
        format!(
            "{}, the latest by {:.1} ms",
            verdict.stale,
            ms(verdict.latest)
        ),
    ));
    for (reason, excused) in &verdict.excused {
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
    let wrong = |violation: &&Violation| {
        matches!(
            violation,
            Violation::Wrong { .. } | Violation::Invented { .. }
        )
    };
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

/// The smallest history that shows a violation: the read, the write that it missed, and what happened to the row between.
fn shown(world: &World, violation: &Violation, history: &Path) -> String {
    let (title, read, id, missed) = match violation {
        Violation::Stuck(stuck) => {
            let time = ms(stuck.end - stuck.start);
            return format!(
                "\nSTUCK: {} of process {} for {time:.0} ms\n",
                stuck.what, stuck.process
            );
        }
        Violation::Wrong { read, text } => {
            return format!("\nWRONG VALUE: {} got {text}\n", call(world, read));
        }
        Violation::Invented { read, id, shown } => {
            let title =
                format!("INVENTED: version {shown} of row {id}, which nobody had committed");
            (title, read, *id, None)
        }
        Violation::Stale {
            read,
            id,
            shown,
            missed,
            late,
        } => {
            let title = format!("STALE by {:.3} ms: version {shown} of row {id}", ms(*late));
            (title, read, *id, Some(*missed))
        }
        Violation::Unbounded {
            read,
            id,
            missed,
            reason,
            late,
        } => {
            let title = format!(
                "EXCUSED FOR TOO LONG ({}): row {id}, {:.0} ms late",
                reason.name(),
                ms(*late)
            );
            (title, read, *id, Some(*missed))
        }
    };
    let missed = missed.and_then(|id| world.writes.get(&id));
    let origin = missed
        .map_or(read.start, |write| write.begin.at)
        .min(read.start);
    let mut lines: BTreeSet<(Time, String)> = BTreeSet::new();
    lines.insert((read.start, format!("{} begins", call(world, read))));
    lines.insert((
        read.end,
        format!("  and shows {:?}, {:?}", read.rows, read.answer),
    ));
    // A version more on either side tells where the write stands among its neighbours.
    let makers = world
        .rows
        .get(&(read.kind, id))
        .map(Vec::as_slice)
        .unwrap_or_default();
    for (version, maker) in (2_u64..).zip(makers) {
        let Some(write) = world.writes.get(maker) else {
            continue;
        };
        let is_missed = missed.is_some_and(|missed| missed.begin.write == *maker);
        let name = if is_missed { " (missed)" } else { "" };
        if is_missed || (write.begin.at <= read.end && last(write) >= origin) {
            lines.extend(steps(
                write,
                &format!("version {version} of row {id}{name}"),
            ));
        }
    }
    for fault in world
        .faults
        .iter()
        .filter(|fault| fault.from <= read.end && fault.to >= origin)
    {
        let whose = fault
            .slot
            .map_or(String::new(), |slot| format!(" of app {slot}"));
        lines.insert((fault.from, format!("{}{whose} begins", fault.kind.name())));
        lines.insert((fault.to, format!("{}{whose} ends", fault.kind.name())));
    }
    for life in world.lives.values() {
        if let Some(killed) = life
            .killed
            .filter(|killed| (origin..=read.end).contains(killed))
        {
            lines.insert((
                killed,
                format!("process {} of app {} is gone", life.process, life.slot),
            ));
        }
    }
    lines.extend(fills(history, read, origin));
    let first = lines.first().map_or(0, |(at, _)| *at);
    let lines: String = lines
        .iter()
        .map(|(at, line)| format!("  {:>12.3} ms  {line}\n", ms(at - first)))
        .collect();
    format!("\n{title}\n{lines}")
}

/// Other reads of the same call about that time: who had the row anew, and who had it like this one.
fn fills(history: &Path, stale: &Read, origin: Time) -> Vec<(Time, String)> {
    let Ok(events) = events(history) else {
        return Vec::new();
    };
    let mut similar: Vec<(Time, String)> = events
        .filter_map(|event| match event {
            Event::Read(read)
                if (read.read, read.kind, read.argument)
                    == (stale.read, stale.kind, stale.argument)
                    && (read.end >= origin && read.start <= stale.start)
                    && read.start != stale.start
                    && read.answer != Answer::Hit =>
            {
                let shown = format!(
                    "process {} reads it from {:.3} ms before, {:?}: {:?}",
                    read.process,
                    ms(read.end - read.start),
                    read.answer,
                    read.rows
                );
                Some((read.end, shown))
            }
            _ => None,
        })
        .collect();
    similar.sort();
    let some = similar.len().saturating_sub(12);
    similar.split_off(some)
}

fn call(world: &World, read: &Read) -> String {
    let kind = world.run.kinds.get(usize::from(read.kind));
    let kind = kind.map_or("?", String::as_str);
    format!(
        "process {}: {:?} {kind} {}",
        read.process, read.read, read.argument
    )
}

fn last(write: &Written) -> Time {
    let done = write.done.map(|(at, _)| at);
    [done, write.in_force, write.committed]
        .into_iter()
        .flatten()
        .max()
        .unwrap_or(write.begin.at)
}

fn steps(write: &Written, what: &str) -> Vec<(Time, String)> {
    let begin = &write.begin;
    let id: WriteId = begin.write & 0xffff_ffff;
    let name = format!("process {}, write {id}, {what}", begin.process);
    let mut steps = vec![(begin.at, format!("{name}: {:?} begins", begin.form))];
    let named = [
        (write.announced, "announced"),
        (write.committed, "committed"),
        (write.delivered, "told that Redis has it"),
        (write.pending, "seen to wait for Redis"),
        (write.in_force, "seen to wait no more"),
    ];
    steps.extend(
        named
            .into_iter()
            .filter_map(|(at, step)| Some((at?, format!("{name}: {step}")))),
    );
    steps.extend(
        write
            .done
            .map(|(at, outcome)| (at, format!("{name}: {outcome:?}"))),
    );
    steps
}
