//! Where more than one Redis promises less than one does, and for how long.
//!
//! - **`replaced`**, with Sentinels. A writer that has not learnt of a failover has its
//!   invalidation acknowledged by the former primary, and repeats it at the new one: 3 s after it
//!   was acknowledged.
//! - **`returned`**, in a cluster. A row was invalidated while its slot was away for less than a
//!   second, at a node that was lost with it. Each process has asked for the epoch again 2 s after
//!   the slot's return.
//!
//! Each read that only such a case excuses is counted there; past the bound it is a violation. A
//! process that was stopped asks later by as much, and what a process that was killed would have
//! repeated stays stale until the TTL.

use std::collections::BTreeMap;

use crate::check::{Excused, Reason, World, Write};
use crate::history::{Fault, FaultKind, MILLISECOND, Read, Time};

/// Within this time a process has learnt of a change, on a machine on which everything else is
/// going on: a second is promised.
const LEARNT: Time = 2_000 * MILLISECOND;
/// The same, and has repeated what it has to.
const REPEATED: Time = 3_000 * MILLISECOND;

impl World {
    /// The weaker case that a read falls under which misses a write that obliges it from this time
    /// on, and until when.
    pub(crate) fn weaker(&self, write: &Write, read: &Read, from: Time) -> Option<(Reason, Time)> {
        let is_own = write.begin.process == read.process;
        if read.local && !is_own && read.start.saturating_sub(from) <= self.run.staleness {
            // A local entry that is no older than it may be.
            return None;
        }
        let cases = [self.replaced(write, from), self.returned(read, from)];
        cases.into_iter().flatten().max_by_key(|(_, until)| *until)
    }

    /// How often each case could have come about, and its bound.
    pub(crate) fn weaker_cases(&self) -> Vec<(Reason, Time, usize)> {
        let count = |kinds: &[FaultKind]| {
            let faults = self.faults.iter();
            faults.filter(|fault| kinds.contains(&fault.kind)).count()
        };
        match self.run.servers.as_str() {
            "sentinels" => vec![(Reason::Replaced, REPEATED, count(&FAILOVERS))],
            "cluster" => vec![(Reason::Returned, LEARNT, count(&[FaultKind::SlotReturn]))],
            _ => Vec::new(),
        }
    }

    fn replaced(&self, write: &Write, from: Time) -> Option<(Reason, Time)> {
        if self.run.servers != "sentinels" {
            return None;
        }
        let mut faults = self.faults.iter();
        let is_about = |fault: &Fault| fault.from <= from && from <= fault.to + LEARNT;
        faults.find(|fault| FAILOVERS.contains(&fault.kind) && is_about(fault))?;
        Some((
            Reason::Replaced,
            self.repeated_by(write, from, from + REPEATED),
        ))
    }

    fn returned(&self, read: &Read, from: Time) -> Option<(Reason, Time)> {
        let is_about = |fault: &&Fault| {
            fault.kind == FaultKind::SlotReturn && fault.from <= from && from <= fault.to
        };
        let until = self
            .faults
            .iter()
            .filter(is_about)
            .map(|fault| fault.to + LEARNT)
            .max()?;
        Some((
            Reason::Returned,
            self.stopped_until(read.process, from, until),
        ))
    }

    /// By when a process has repeated an invalidation, if that is `until` where nothing happens to
    /// it.
    fn repeated_by(&self, write: &Write, from: Time, until: Time) -> Time {
        let process = write.begin.process;
        let until = self.stopped_until(process, from, until);
        match self.killed(process) {
            Some(killed) if killed <= until => self.expired(from),
            _ => until,
        }
    }

    /// The later end of a time in which a process was stopped.
    fn stopped_until(&self, process: u32, from: Time, until: Time) -> Time {
        let slot = self.slot(process);
        let stops = self.faults.iter().filter(|fault| {
            fault.kind == FaultKind::AppStop
                && fault.slot == slot
                && fault.from <= until
                && fault.to >= from
        });
        until + stops.map(|stop| stop.to - stop.from).sum::<Time>()
    }
}

const FAILOVERS: [FaultKind; 3] = [
    FaultKind::Failover,
    FaultKind::PrimaryStop,
    FaultKind::PrimaryKill,
];

/// A row of a report for each case, with its bound and how often it could have come about.
pub(crate) fn rows(world: &World, excused: &BTreeMap<Reason, Excused>) -> Vec<(String, String)> {
    let cases = world.weaker_cases().into_iter();
    let row = |(reason, bound, occasions): (Reason, Time, usize)| {
        let Excused { reads, latest } = excused.get(&reason).copied().unwrap_or_default();
        let (bound, latest) = (bound / MILLISECOND, latest / MILLISECOND);
        let name = format!("  weaker: {}, bound {bound} ms", reason.name());
        (
            name,
            format!("{reads} in {occasions} occasions, the latest by {latest} ms"),
        )
    };
    cases.map(row).collect()
}
