//! What a run has never met: a check without an occasion finds nothing, and looks as good as one
//! that has passed.

use std::fmt;

use crate::check::{Verdict, World, Write};
use crate::faults::drawn_together;
use crate::history::{Answer, FaultKind, Form, ReadKind};

/// Something that the run was to meet, and has not.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Untested {
    what: String,
    /// Whether the run was so long that this can't be chance.
    pub(crate) is_fault: bool,
}

impl fmt::Display for Untested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.is_fault {
            true => "NOT TESTED",
            false => "WARNING: not tested in this run",
        };
        write!(f, "{how}: {}", self.what)
    }
}

/// What was expected so often by chance, and did not come, is told.
const TOLD: f64 = 4.0;
/// The same, and the run has failed. Among a hundred such things one is missing by chance in a
/// thousand runs.
const TOO_MANY: f64 = 12.0;

/// The seldom ones: of a thousand writes, five are of such a form; of a thousand reads, ten.
const WRITES_PER_FORM: f64 = 200.0;
const READS_PER_KIND: f64 = 100.0;
/// Of so many killed processes, one at least had committed a crash-safe write that can be judged.
const KILLS: f64 = 1.5;
/// The same with several servers: most of the time something is about that loses announcements.
const KILLS_OF_SEVERAL: f64 = 6.0;
/// Of so many crash-safe writes, one at least has seen its announcement.
const LOOKS: f64 = 5.0;
/// Of so many times that Redis refused writes, a `required` write came at one at least.
const REFUSALS: f64 = 2.0;

const FORMS: [Form; 13] = [
    Form::ById,
    Form::Whole,
    Form::CrashSafe,
    Form::CrashSafeWhole,
    Form::Required,
    Form::Transaction,
    Form::AfterCommit,
    Form::TransactionCrashSafe,
    Form::Invalidate,
    Form::InvalidateAll,
    Form::ClearAll,
    Form::Pattern,
    Form::Delete,
];

const READS: [ReadKind; 11] = [
    ReadKind::Get,
    ReadKind::Batch,
    ReadKind::Lookup,
    ReadKind::Peek,
    ReadKind::List,
    ReadKind::Filter,
    ReadKind::Tagged,
    ReadKind::Dependent,
    ReadKind::ByHand,
    ReadKind::Typed,
    ReadKind::Nested,
];

/// All of it.
pub(crate) fn untested(world: &World, verdict: &Verdict) -> Vec<Untested> {
    let run = &world.run;
    let mut untested = Vec::new();
    let mut expect = |seen: u64, expected: f64, what: String| {
        if seen == 0 && expected >= TOLD {
            let is_fault = expected >= TOO_MANY;
            untested.push(Untested { what, is_fault });
        }
    };
    let count = |kind: FaultKind| world.faults.iter().filter(|it| it.kind == kind).count() as u64;
    for kinds in drawn_together(&run.servers) {
        let drawn = kinds.iter().filter(|kind| run.faults.contains(kind));
        let drawn: Vec<_> = drawn.map(|kind| (*kind, count(*kind))).collect();
        let all: u64 = drawn.iter().map(|(_, count)| count).sum();
        let each = all as f64 / drawn.len().max(1) as f64;
        for (kind, count) in drawn {
            expect(count, each, format!("the fault {}", kind.name()));
        }
    }
    let lives = world.lives.values();
    let killed = lives.filter(|life| life.killed.is_some()).count() as f64;
    if run.mishaps {
        let kills = match run.servers.as_str() {
            "cluster" | "sentinels" => KILLS_OF_SEVERAL,
            _ => KILLS,
        };
        let what = format!("{killed} processes were killed, and no crash-safe write was checked");
        expect(verdict.crash_safe_kills, killed / kills, what);
    }
    let look = |write: &&Write| {
        matches!(
            write.begin.form,
            Form::CrashSafe | Form::CrashSafeWhole if write.committed.is_some()
        )
    };
    let looked = world.writes.values().filter(look);
    let announced = looked.clone().filter(|it| it.announced.is_some()).count() as u64;
    let looked = looked.count() as f64 / LOOKS;
    let what = "announcements that were seen to stand before the commit".into();
    expect(announced, looked, what);
    let forms = |form: Form| {
        world
            .writes
            .values()
            .filter(move |it| it.begin.form == form)
    };
    for form in FORMS {
        let expected = verdict.writes as f64 / WRITES_PER_FORM;
        let what = format!("writes of the form {form:?}");
        expect(forms(form).count() as u64, expected, what);
    }
    let reads = verdict.reads as f64 / READS_PER_KIND;
    for kind in READS {
        let seen = verdict.by_kind.get(&kind).copied().unwrap_or_default();
        expect(seen, reads, format!("reads of the kind {kind:?}"));
    }
    let answered = |answer| verdict.by_answer.get(&answer).copied().unwrap_or_default();
    expect(answered(Answer::Hit), reads, "hits in Redis".into());
    if run.local_mb > 0 {
        expect(answered(Answer::Local), reads, "hits in the process".into());
    }
    expect(world.audit.total.checked, reads, "audits of hits".into());
    let refusals = count(FaultKind::RefuseWrites) as f64 / REFUSALS;
    let what = "`required` writes while Redis refused writes".into();
    expect(world.required_while_refused() as u64, refusals, what);
    untested
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Begin, Event, Fault, Life, Mark, Run, Step};

    fn told(events: Vec<Event>) -> Vec<String> {
        let world = World::new(events.iter().cloned());
        let verdict = Verdict::of(&world, events.into_iter());
        let untested = untested(&world, &verdict);
        untested.iter().map(Untested::to_string).collect()
    }

    fn run() -> Event {
        Event::Run(Run {
            mishaps: true,
            faults: FaultKind::ALL.to_vec(),
            ..Run::default()
        })
    }

    #[test]
    fn crash_safe_writes_that_are_never_met_are_told() {
        let killed = |count| {
            let life = |process| Life {
                process,
                slot: 0,
                from: 0,
                killed: Some(1),
            };
            let lives = (0..count).map(|process| Event::Life(life(process)));
            told(std::iter::once(run()).chain(lives).collect())
        };
        assert!(killed(3).is_empty());
        let what = "7 processes were killed, and no crash-safe write was checked";
        assert_eq!(
            killed(7),
            [format!("WARNING: not tested in this run: {what}")]
        );
        assert!(killed(40)[0].starts_with("NOT TESTED: 40 processes"));
    }

    /// As a look from inside the body is, which does not ask Redis.
    #[test]
    fn announcements_that_nobody_sees_are_told() {
        let told = |step: Step| {
            let writes = (0..20).flat_map(|write| {
                let begin = Event::Begin(Begin {
                    write,
                    process: 0,
                    at: 1,
                    form: Form::CrashSafe,
                });
                let mark = |step| Event::Mark(Mark { write, at: 2, step });
                [begin, mark(step), mark(Step::Committed)]
            });
            told(std::iter::once(run()).chain(writes).collect())
        };
        assert!(told(Step::Announced).is_empty());
        let what = "announcements that were seen to stand before the commit";
        let told = told(Step::Away);
        assert_eq!(told, [format!("WARNING: not tested in this run: {what}")]);
    }

    #[test]
    fn faults_that_never_come_are_told() {
        let faults = |kind, count: usize| {
            let fault = Event::Fault(Fault {
                kind,
                from: 0,
                to: 1,
                slot: Some(0),
            });
            told(std::iter::once(run()).chain(vec![fault; count]).collect())
        };
        assert!(faults(FaultKind::Kill, 7).is_empty());
        let stop = "WARNING: not tested in this run: the fault app-stop";
        assert_eq!(faults(FaultKind::Kill, 8), [stop]);
        assert_eq!(
            faults(FaultKind::Kill, 24),
            ["NOT TESTED: the fault app-stop"]
        );
        // One of eight.
        assert!(faults(FaultKind::Cut, 31).is_empty());
        assert_eq!(faults(FaultKind::Cut, 32).len(), 7);
    }
}
