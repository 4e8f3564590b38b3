//! Of each violation the smallest history that shows it.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use crate::check::{Violation, World, Write};
use crate::history::{Answer, Event, Read, Recorder, Time, Truth, WriteId, events};
use crate::report::ms;

/// How many lines are shown from the beginning of a story, and from its end.
const SHOWN: usize = 14;

/// The smallest history that shows a violation: the read, the write that it missed, and what
/// happened to the row between.
pub(crate) fn shown(world: &World, violation: &Violation, history: &Path) -> String {
    let (title, read, id, missed) = match violation {
        Violation::Stuck(stuck) => {
            let time = ms(stuck.end - stuck.start);
            return format!(
                "\nSTUCK: {} of process {} for {time:.0} ms\n",
                stuck.what, stuck.process
            );
        }
        Violation::Accepted { process, at } => {
            return format!(
                "\nACCEPTED: process {process}, at {:.0} ms: a write that required Redis, while it refused writes\n",
                ms(*at)
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
        if is_missed || (write.begin.at <= read.start && last(write) >= origin) {
            lines.extend(steps(
                write,
                &format!("version {version} of row {id}{name}"),
            ));
        }
    }
    for fault in world
        .faults
        .iter()
        .filter(|fault| fault.from <= read.start && fault.to >= origin)
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
            .filter(|killed| (origin..=read.start).contains(killed))
        {
            lines.insert((
                killed,
                format!("process {} of app {} is gone", life.process, life.slot),
            ));
        }
    }
    lines.extend(fills(history, read, origin));
    let first = lines.first().map_or(0, |(at, _)| *at);
    let lines: Vec<String> = lines
        .iter()
        .map(|(at, line)| format!("  {:>12.3} ms  {line}\n", ms(at.saturating_sub(first))))
        .collect();
    let left_out = lines.len().saturating_sub(2 * SHOWN);
    if left_out == 0 {
        return format!("\n{title}\n{}", lines.concat());
    }
    let (begin, end) = (&lines[..SHOWN], &lines[SHOWN + left_out..]);
    let (begin, end) = (begin.concat(), end.concat());
    format!(
        "\n{title}\n{begin}{:>15}  {left_out} more of such\n{end}",
        ".."
    )
}

/// Writes the history of one violation to a file beside the whole one: the read, all that was
/// written to its row, and what happened to the processes and to Redis. It is judged as the whole
/// is.
pub(crate) fn save(violation: &Violation, whole: &Path) -> Option<PathBuf> {
    let (read, id) = match violation {
        Violation::Stale { read, id, .. }
        | Violation::Unbounded { read, id, .. }
        | Violation::Invented { read, id, .. } => (read, *id),
        Violation::Wrong { .. } | Violation::Stuck(_) | Violation::Accepted { .. } => {
            return None;
        }
    };
    let is_of_row = |truth: &Truth| (truth.kind, truth.id) == (read.kind, id);
    let writes: HashSet<WriteId> = events(whole)
        .ok()?
        .filter_map(|event| match event {
            Event::Truth(truth) if is_of_row(&truth) => Some(truth.write),
            _ => None,
        })
        .collect();
    let alone = Read {
        rows: read
            .rows
            .iter()
            .copied()
            .filter(|row| row.0 == id)
            .collect(),
        ..read.clone()
    };
    let path = whole.with_extension("small.jsonl");
    let small = Recorder::create(&path).ok()?;
    for event in events(whole).ok()? {
        let is_kept = match &event {
            Event::Run(_) | Event::Life(_) | Event::Fault(_) => true,
            Event::Truth(truth) => is_of_row(truth),
            Event::Begin(begin) => writes.contains(&begin.write),
            Event::Mark(mark) => writes.contains(&mark.write),
            Event::Read(_) | Event::Stuck(_) | Event::Failed(_) => false,
            Event::FoundStale(_) | Event::Audit(_) => false,
        };
        if is_kept {
            small.note(&event);
        }
    }
    small.note(&Event::Read(alone));
    small.flush();
    Some(path)
}

/// Other reads of the same call about that time: who had the row anew, and who had it like this
/// one.
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

fn last(write: &Write) -> Time {
    let done = write.done.map(|(at, _)| at);
    [done, write.in_force, write.committed]
        .into_iter()
        .flatten()
        .max()
        .unwrap_or(write.begin.at)
}

fn steps(write: &Write, what: &str) -> Vec<(Time, String)> {
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
