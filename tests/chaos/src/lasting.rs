//! What a fault excuses while it lasts, and what it does not excuse.
//!
//! - Answers that are **off by one**: an older answer to the very question that was asked can't be
//!   told from its own, so a read of that process may be as old as the answer before it. Another
//!   row's answer can be told, and is never excused.
//! - **Writes are refused**: after a second nobody serves from that Redis, since nobody's
//!   invalidation gets there. A write that is pending excuses no hit from then on, and a write that
//!   requires Redis is refused.
//! - **Resets**, and nothing else that holds invalidations up: what is pending is delivered on the
//!   next connection but few.

use crate::check::{Duty, Reason, Violation, World, Write};
use crate::history::{
    Answer, Fault, FaultKind, Form, Life, MILLISECOND, Outcome, Read, Time, WriteId,
};

/// A second is promised; the other one is for a machine on which everything else is going on.
const NOTICED: Time = 2_000 * MILLISECOND;
/// For how long an invalidation may be held up by resets, on such a machine.
const RESENT: Time = 2_000 * MILLISECOND;
/// How much older the answer before can be: a link is never without a question for long.
const BEFORE: Time = 2_000 * MILLISECOND;
/// A link that was in trouble may be without a connection for so long afterwards.
pub(crate) const AFTERMATH: Time = 8_000 * MILLISECOND;

impl World {
    /// What a read owes to a write, in view of the faults that were about.
    pub(crate) fn in_view_of_faults(&self, write: &Write, read: &Read, duty: Duty) -> Duty {
        match duty {
            Duty::Owed(from) | Duty::Behind(from) => match self.off_by_one(read) {
                Some(until) => Duty::Excused(Reason::Shifted, Some(until.min(from + BEFORE))),
                None => match self.weaker(write, read, from) {
                    Some((reason, until)) => Duty::Excused(reason, Some(until)),
                    None => duty,
                },
            },
            Duty::Excused(Reason::Pending | Reason::KilledPending, _)
                if matches!(read.answer, Answer::Hit | Answer::Local) =>
            {
                let limits = [
                    self.refused_since(read.process, read.start, read.end)
                        .map(|since| since + NOTICED),
                    self.resent_by(write),
                ];
                match (limits.into_iter().flatten().min(), duty) {
                    (Some(limit), Duty::Excused(reason, until)) => {
                        Duty::Excused(reason, Some(until.unwrap_or(limit).min(limit)))
                    }
                    _ => duty,
                }
            }
            duty => duty,
        }
    }

    /// Writes that required Redis and took place, though it had refused writes for longer than it
    /// takes to notice.
    pub(crate) fn accepted(&self) -> impl Iterator<Item = Violation> {
        let is_committed = |id: &WriteId| self.rows.values().flatten().any(|maker| maker == id);
        let mut accepted: Vec<Violation> = Vec::new();
        for (id, write) in &self.writes {
            let Some((done, Outcome::Returned)) = write.done else {
                continue;
            };
            let begin = &write.begin;
            if begin.form == Form::Required
                && self.refused_since(begin.process, begin.at, done).is_some()
                && is_committed(id)
            {
                accepted.push(Violation::Accepted {
                    process: begin.process,
                    at: begin.at,
                });
            }
        }
        accepted.into_iter()
    }

    /// How many `required` writes had to be refused, all in all.
    pub(crate) fn required_while_refused(&self) -> usize {
        let writes = self.writes.values();
        let is_refused = |write: &&Write| {
            let begin = &write.begin;
            begin.form == Form::Required
                && write.done.is_some_and(|(done, _)| {
                    let since = self.refused_since(begin.process, begin.at, done);
                    since.is_some()
                })
        };
        writes.filter(is_refused).count()
    }

    /// Since when Redis had refused writes, if it did so all the time and long enough before `from`
    /// to be noticed by a process that was not stopped.
    fn refused_since(&self, process: u32, from: Time, to: Time) -> Option<Time> {
        let fault = self.faults.iter().find(|fault| {
            fault.kind == FaultKind::RefuseWrites && fault.from + NOTICED <= from && to <= fault.to
        })?;
        let slot = self.slot(process);
        let was_stopped = self.faults.iter().any(|other| {
            other.kind == FaultKind::AppStop
                && other.slot == slot
                && other.from <= to
                && other.to + NOTICED >= from
        });
        (!was_stopped).then_some(fault.from)
    }

    /// By when an invalidation has to be delivered that nothing but resets has held up.
    fn resent_by(&self, write: &Write) -> Option<Time> {
        let (done, _) = write.done?;
        let slot = self.slot(write.begin.process);
        let about = |fault: &&Fault| {
            fault.kind.holds_invalidations_up()
                && fault.from <= done + RESENT
                && fault.to + AFTERMATH >= write.begin.at
                && (fault.slot.is_none() || fault.slot == slot)
        };
        let mut about = self.faults.iter().filter(about).peekable();
        about.peek()?;
        about
            .all(|fault| fault.kind == FaultKind::Resets)
            .then_some(done + RESENT)
    }

    /// Until when the answers of a read's link were off by one, if they were.
    fn off_by_one(&self, read: &Read) -> Option<Time> {
        let slot = self.slot(read.process);
        let mut faults = self.faults.iter();
        let fault = faults.find(|fault| {
            fault.kind == FaultKind::OffByOne
                && fault.slot == slot
                && fault.from <= read.end
                && fault.to >= read.start
        })?;
        Some(fault.to)
    }

    pub(crate) fn slot(&self, process: u32) -> Option<usize> {
        self.lives.get(&process).map(|life: &Life| life.slot)
    }
}
