//! Judges a history.
//!
//! **What a read shows.** Every value carries the versions of the rows it was made of. Versions
//! grow by one with each commit on a row, and the database says afterwards which write made which
//! version. A read *misses* a write if it began when that write was known to be committed (by its
//! process, or by whoever has seen its version or a later one), covers what the write invalidates,
//! and shows an older version of the row.
//!
//! **When a missed write is a violation.** A write obliges a reader from the moment at which the
//! promise begins:
//!
//! | the write | obliges its own process | obliges the others |
//! |---|---|---|
//! | returned (`Ok`, or an error after its commit) | at once | at once, unless the invalidation was seen to wait for Redis; then when it waits no more |
//! | returned an error whose commit came later | once the invalidation at the end of the in-doubt window is out | the same |
//! | was dropped, panicked | once its announcement is out and its commit known, unless a flush, an eviction or a restart may have taken the announcement: then as above | the same |
//! | `crash_safe`, and its process killed | – | at once if the commit was there, else when a commit without a process must have arrived |
//! | anything else whose process was killed | – | never |
//!
//! A manual invalidation says itself whether Redis has it, so it obliges others exactly from its
//! return on. An annotated write doesn't; after it returned its task asks, by a read, whether the
//! process holds something back. Between the return and that answer lies a fraction of a
//! millisecond in which a stale read of *another* process is only excused (`unconfirmed`) if a
//! fault was about that can make an invalidation wait. Without one it is a violation.
//!
//! **What is excused** is counted apart, by reason, and most have a bound, beyond which it is a
//! violation all the same:
//!
//! | reason | why | bound |
//! |---|---|---|
//! | `running` | not acknowledged yet | the callers' deadline |
//! | `pending` | acknowledged as pending; reads of other processes until it is delivered | seen to be delivered |
//! | `unconfirmed` | as above | the answer |
//! | `unknown-outcome` | dropped, panicked, or an error that hid a commit; until the end of the in-doubt window | seen to be out |
//! | `killed` | the process was killed before the invalidation, and the write was not `crash_safe` | TTL |
//! | `killed-pending` | the process was killed while the invalidation waited for Redis, or before it was known not to | TTL |
//! | `intent-lost` | `crash_safe`, and killed, but a flush, an eviction, a restart or a failover before the commit, or at any time a slot that returned, a partition, or a value copied over or made oversized, may have taken the announcement | TTL |
//! | `intent-unseen` | `crash_safe`, and killed, but Redis was away when it looked whether the announcement stands | TTL |
//! | `shifted` | the answers on the reader's link were off by one | the age of the answer before, 2 s |
//! | `late-commit` | a commit behind an error came after the end of the in-doubt window: the premise was broken | TTL |
//!
//! While some faults last, less is excused, or more: see `lasting.rs`. Over a cluster, and with
//! Sentinels, a few cases are weaker, each with a bound of its own: see `weaker.rs`.
//!
//! The TTL counts from the end of the longest load that can have begun before the commit.
//!
//! **Local entries.** A read that one answered, or may have answered in part, may miss a write of
//! *another* process for as long as the bound on their age says, counted from when the write
//! obliges others to when the read began. Each such read is counted with its age (`behind`); past
//! the bound it is a violation. A write of its own process obliges it at once, as ever, and a read
//! that asked for Redis's word is not answered by a local entry at all.
//!
//! **What else is a violation**: a version that nobody has committed, or whose write began after
//! the read had ended; a value of another call or type; a caller without an answer at the deadline;
//! a write that required Redis, and took place while Redis refused writes.

use std::collections::{BTreeMap, HashMap, HashSet};

use cache_runtime::AuditReport;

use crate::history::{
    ABSENT_EVERY, Answer, Begin, Event, FIRST_VERSION, Fault, Form, FoundStale, Life, MILLISECOND,
    Mark, Outcome, Read, ReadKind, Run, Step, Time, Truth, WriteId,
};
use crate::lasting::AFTERMATH;
pub(crate) use crate::verdict::{Excused, Reason, Violation};

#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) reads: u64,
    pub(crate) rows: u64,
    pub(crate) by_kind: BTreeMap<ReadKind, u64>,
    pub(crate) by_answer: BTreeMap<Answer, u64>,
    pub(crate) writes: u64,
    pub(crate) committed: u64,
    /// Writes whose process was killed after their commit and before their end, and that obliged
    /// readers all the same.
    pub(crate) crash_safe_kills: u64,
    /// The same, whether they obliged readers or not.
    pub(crate) crash_safe_met: u64,
    pub(crate) stale: u64,
    pub(crate) latest: Time,
    /// Callers who got an error of the cache's making.
    pub(crate) failed: u64,
    /// How old local entries were that missed a write of another process, within the bound.
    pub(crate) behind: Vec<Time>,
    pub(crate) excused: BTreeMap<Reason, Excused>,
    pub(crate) violations: Vec<Violation>,
}

/// All that is known of one write.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) begin: Begin,
    pub(crate) announced: Option<Time>,
    away: bool,
    held: Option<Time>,
    pub(crate) committed: Option<Time>,
    pub(crate) done: Option<(Time, Outcome)>,
    pub(crate) delivered: Option<Time>,
    pub(crate) pending: Option<Time>,
    pub(crate) in_force: Option<Time>,
}

impl Write {
    fn new(begin: Begin) -> Self {
        Self {
            begin,
            announced: None,
            away: false,
            held: None,
            committed: None,
            done: None,
            delivered: None,
            pending: None,
            in_force: None,
        }
    }

    fn mark(&mut self, mark: &Mark) {
        let at = mark.at;
        match mark.step {
            Step::Announced => self.announced = Some(at),
            Step::Away => self.away = true,
            Step::Held => self.held = Some(at),
            Step::Committed => self.committed = Some(at),
            Step::Done(outcome) => self.done = Some((at, outcome)),
            Step::Delivered => self.delivered = Some(at),
            Step::Pending => self.pending = Some(at),
            Step::InForce => self.in_force = Some(at),
        }
    }
}

/// What a missed write means to one who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duty {
    /// The read had to show it, from this time on.
    Owed(Time),
    /// The same, but a local entry may be behind by as much as it is.
    Behind(Time),
    /// It need not, until this time at the latest.
    Excused(Reason, Option<Time>),
}

/// Everything but the reads.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) run: Run,
    pub(crate) lives: HashMap<u32, Life>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) writes: HashMap<WriteId, Write>,
    /// Per row, by version from `FIRST_VERSION + 1` on: who made it.
    pub(crate) rows: HashMap<(u8, u32), Vec<WriteId>>,
    /// The same with the time by which it was certainly committed.
    known: HashMap<(u8, u32), Vec<Time>>,
    /// The same with the time before which neither it nor a later one had begun.
    begun: HashMap<(u8, u32), Vec<Time>>,
    /// What auditors held for stale, and what they have counted.
    pub(crate) found: Vec<FoundStale>,
    pub(crate) audit: AuditReport,
}

impl World {
    pub(crate) fn new(events: impl Iterator<Item = Event>) -> Self {
        let mut world = Self::default();
        let (mut marks, mut truths) = (Vec::new(), Vec::new());
        let mut shown: HashMap<(u8, u32, u64), Time> = HashMap::new();
        for event in events {
            match event {
                Event::Run(run) => world.run = run,
                Event::Life(life) => {
                    world.lives.insert(life.process, life);
                }
                Event::Fault(fault) => world.faults.push(fault),
                Event::Begin(begin) => {
                    world.writes.insert(begin.write, Write::new(begin));
                }
                Event::Mark(mark) => marks.push(mark),
                Event::Truth(truth) => truths.push(truth),
                Event::Read(read) => {
                    for (id, version) in read.rows {
                        let first = shown.entry((read.kind, id, version)).or_insert(read.end);
                        *first = read.end.min(*first);
                    }
                }
                Event::FoundStale(found) => world.found.push(found),
                Event::Audit(audit) => world.audit = audit,
                Event::Stuck(_) | Event::Failed(_) => {}
            }
        }
        for mark in marks {
            if let Some(write) = world.writes.get_mut(&mark.write) {
                write.mark(&mark);
            }
        }
        truths.sort_by_key(|truth| truth.version);
        for Truth {
            write, kind, id, ..
        } in truths
        {
            world.rows.entry((kind, id)).or_default().push(write);
        }
        for (row, makers) in &world.rows {
            let known = (FIRST_VERSION + 1..).zip(makers).map(|(version, maker)| {
                // Whoever has seen it knows, too.
                let seen = shown.get(&(row.0, row.1, version)).copied();
                world.known_by(*maker).min(seen.unwrap_or(Time::MAX))
            });
            let mut known: Vec<Time> = known.collect();
            // A later version is there only when all before it are.
            for at in (1..known.len()).rev() {
                known[at - 1] = known[at - 1].min(known[at]);
            }
            world.known.insert(*row, known);
            let begun = |id| {
                world
                    .writes
                    .get(id)
                    .map_or(0, |write: &Write| write.begin.at)
            };
            let mut begun: Vec<Time> = makers.iter().map(begun).collect();
            for at in (1..begun.len()).rev() {
                begun[at - 1] = begun[at - 1].min(begun[at]);
            }
            world.begun.insert(*row, begun);
        }
        world
    }

    pub(crate) fn killed(&self, process: u32) -> Option<Time> {
        self.lives.get(&process)?.killed
    }

    /// By when a committed write had certainly been committed.
    pub(crate) fn known_by(&self, id: WriteId) -> Time {
        let Some(write) = self.writes.get(&id) else {
            return Time::MAX;
        };
        let returned = match write.done {
            Some((at, Outcome::Returned)) => Some(at),
            _ => None,
        };
        let arrived = self.killed(write.begin.process);
        let arrived = arrived.map(|killed| killed + self.run.commit_delay);
        [write.committed, returned, write.in_force, arrived]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(Time::MAX)
    }

    /// By when nothing that was loaded before the commit can be served any more.
    pub(crate) fn expired(&self, from: Time) -> Time {
        from + self.run.load + self.run.ttl
    }

    pub(crate) fn duty(&self, id: WriteId, known: Time, process: u32) -> Duty {
        let write = &self.writes[&id];
        let killed = self.killed(write.begin.process);
        let lost = |reason| {
            let from = killed.unwrap_or_default().max(known);
            Duty::Excused(reason, Some(self.expired(from)))
        };
        let is_own = write.begin.process == process;
        match write.done {
            Some((done, Outcome::Returned)) if is_own => Duty::Owed(done),
            Some((done, Outcome::Returned)) => match (write.delivered, write.in_force) {
                (Some(delivered), _) => Duty::Owed(delivered),
                (None, Some(_)) if write.pending.is_none() => Duty::Owed(done),
                (None, Some(in_force)) => Duty::Owed(in_force),
                (None, None) if killed.is_some() => lost(Reason::KilledPending),
                (None, None) => Duty::Excused(Reason::Pending, None),
            },
            Some((done, outcome)) => {
                let is_late = write
                    .committed
                    .is_some_and(|committed| committed > done + self.run.in_doubt_window);
                let held = match outcome {
                    Outcome::Dropped | Outcome::Panicked => write.held,
                    _ => None,
                };
                let end = held.unwrap_or_default() + self.run.in_doubt_window + 1_000 * MILLISECOND;
                let held = held.filter(|held| !self.may_lose_intents(*held, end));
                match write.in_force {
                    _ if is_late => Duty::Excused(Reason::LateCommit, Some(self.expired(known))),
                    _ if held.is_some() => Duty::Owed(known.max(held.unwrap_or_default())),
                    Some(in_force) => Duty::Owed(in_force),
                    None if killed.is_some() => self.after_kill(write, lost),
                    None => Duty::Excused(Reason::UnknownOutcome, None),
                }
            }
            None if killed.is_some() => self.after_kill(write, lost),
            None => Duty::Excused(Reason::Running, Some(write.begin.at + self.run.deadline)),
        }
    }

    /// A write whose process was killed before the invalidation was out.
    fn after_kill(&self, write: &Write, lost: impl Fn(Reason) -> Duty) -> Duty {
        let killed = self.killed(write.begin.process).unwrap_or_default();
        if !write.begin.form.is_crash_safe() {
            return lost(Reason::Killed);
        }
        // What runs inside a transaction can't look. Others have looked before they committed.
        let may_be_unseen = write.away
            || write.begin.form == Form::TransactionCrashSafe
            || self.was_troubled(write, killed);
        if write.announced.is_none() && may_be_unseen {
            return lost(Reason::IntentUnseen);
        }
        let announced = write.announced.unwrap_or(write.begin.at);
        let end = killed + self.run.intent + 1_000 * MILLISECOND;
        if self.may_lose_announcement(announced, write.committed, end) {
            return lost(Reason::IntentLost);
        }
        match write.committed {
            Some(committed) => Duty::Owed(committed.max(killed)),
            None => Duty::Owed(killed + self.run.commit_delay),
        }
    }

    fn may_lose_intents(&self, from: Time, to: Time) -> bool {
        let mut faults = self.faults.iter();
        faults.any(|fault| fault.kind.loses_intents() && fault.from <= to && fault.to >= from)
    }

    /// The same for what protects a write whose process was killed. Once it is committed, what
    /// takes the entries as well does no harm: whatever is stored later was loaded later.
    fn may_lose_announcement(&self, from: Time, committed: Option<Time>, to: Time) -> bool {
        let mut faults = self.faults.iter();
        faults.any(|fault| {
            let to = match committed {
                Some(committed) if fault.kind.takes_entries_too() => committed.min(to),
                _ => to,
            };
            fault.kind.loses_intents() && fault.from <= to && fault.to >= from
        })
    }

    /// Whether something was about that can make an invalidation of this write wait.
    fn was_troubled(&self, write: &Write, until: Time) -> bool {
        let slot = self.lives.get(&write.begin.process).map(|life| life.slot);
        self.faults.iter().any(|fault| {
            fault.kind.holds_invalidations_up()
                && fault.from <= until
                && fault.to + AFTERMATH >= write.begin.at
                && (fault.slot.is_none() || fault.slot == slot)
        })
    }

    /// What a read that begins now may not show of a row, and why: the worst of the writes that it
    /// misses.
    fn missed(&self, read: &Read, id: u32, shown: u64) -> Option<(WriteId, Duty)> {
        let row = (read.kind, id);
        let (makers, known) = (self.rows.get(&row)?, self.known.get(&row)?);
        let first = usize::try_from(shown.saturating_sub(FIRST_VERSION)).ok()?;
        let (mut behind, mut excused): (Option<(WriteId, Time)>, _) = (None, None);
        for (maker, known) in makers.iter().zip(known).skip(first) {
            let Some(write) = self.writes.get(maker) else {
                continue;
            };
            if write.begin.at >= read.start {
                // Whatever came after it was committed later still.
                break;
            }
            if *known >= read.start || !write.begin.form.covers(read.read) {
                continue;
            }
            let duty = match self.duty(*maker, *known, read.process) {
                Duty::Owed(from) if from >= read.start => match write.done {
                    Some((done, Outcome::Returned)) if done < read.start => {
                        Duty::Excused(Reason::Pending, Some(from))
                    }
                    Some((done, _)) if done < read.start => {
                        Duty::Excused(Reason::UnknownOutcome, Some(from))
                    }
                    _ => Duty::Excused(Reason::Running, None),
                },
                // Its own process knows; of the others none can say when exactly it was
                // acknowledged.
                Duty::Owed(from) if write.begin.process != read.process => {
                    match (write.in_force, write.done, write.delivered, write.pending) {
                        (Some(in_force), Some((_, Outcome::Returned)), None, None)
                            if read.start <= in_force && self.was_troubled(write, in_force) =>
                        {
                            Duty::Excused(Reason::Unconfirmed, Some(in_force))
                        }
                        _ => Duty::Owed(from),
                    }
                }
                duty => match write.done {
                    // Nothing was promised of it when the read began.
                    Some((done, _)) if done >= read.start => Duty::Excused(Reason::Running, None),
                    _ => duty,
                },
            };
            let duty = self.in_view_of_faults(write, read, duty);
            let is_own = write.begin.process == read.process;
            match duty {
                Duty::Owed(from)
                    if read.local && !is_own && read.start - from <= self.run.staleness =>
                {
                    behind = behind
                        .filter(|(_, earliest)| *earliest <= from)
                        .or(Some((*maker, from)));
                }
                Duty::Owed(_) | Duty::Behind(_) => return Some((*maker, duty)),
                Duty::Excused(_, until) if until.is_some_and(|until| until < read.start) => {
                    return Some((*maker, duty));
                }
                Duty::Excused(..) => excused = excused.or(Some((*maker, duty))),
            }
        }
        behind
            .map(|(maker, from)| (maker, Duty::Behind(from)))
            .or(excused)
    }

    /// The newest version of a row that can have been committed when a read ended.
    fn newest(&self, read: &Read, id: u32) -> u64 {
        let begun = self.begun.get(&(read.kind, id));
        let begun = begun.map(Vec::as_slice).unwrap_or_default();
        let count = begun.partition_point(|begun| *begun < read.end);
        FIRST_VERSION + count as u64
    }
}

impl Verdict {
    /// Judges everything in `events`, which the world was made of.
    pub(crate) fn of(world: &World, events: impl Iterator<Item = Event>) -> Self {
        let mut verdict = Self {
            writes: world.writes.len() as u64,
            ..Self::default()
        };
        let committed: HashSet<WriteId> = world.rows.values().flatten().copied().collect();
        for id in committed {
            let met = world.writes.get(&id).filter(|write| {
                let is_killed = world.killed(write.begin.process).is_some();
                is_killed && write.done.is_none() && write.begin.form.is_crash_safe()
            });
            let is_owed = met.is_some() && matches!(world.duty(id, 0, u32::MAX), Duty::Owed(_));
            verdict.crash_safe_met += u64::from(met.is_some());
            verdict.crash_safe_kills += u64::from(is_owed);
        }
        verdict.violations.extend(world.accepted());
        verdict.committed = world.rows.values().map(|makers| makers.len() as u64).sum();
        for event in events {
            match event {
                Event::Read(read) => verdict.read(world, read),
                Event::Stuck(stuck) => verdict.violations.push(Violation::Stuck(stuck)),
                Event::Failed(_) => verdict.failed += 1,
                _ => {}
            }
        }
        verdict
    }

    fn read(&mut self, world: &World, read: Read) {
        self.reads += 1;
        *self.by_kind.entry(read.read).or_default() += 1;
        *self.by_answer.entry(read.answer).or_default() += 1;
        if let Some(text) = read.wrong.clone() {
            let read = read.clone();
            self.violations.push(Violation::Wrong { read, text });
        }
        if read.strict && read.local {
            let text = "a local entry, though it was strict".to_owned();
            let read = read.clone();
            self.violations.push(Violation::Wrong { read, text });
        }
        let mut excuse: Option<(Reason, Time)> = None;
        let mut behind: Option<Time> = None;
        let mut is_stale = false;
        for &(id, version) in &read.rows {
            self.rows += 1;
            let newest = world.newest(&read, id);
            let shown = match version {
                // The newest that would read as absent: nobody can say which it was.
                0 => newest - newest % ABSENT_EVERY,
                version => version,
            };
            if shown > newest || shown < FIRST_VERSION {
                let read = read.clone();
                self.violations
                    .push(Violation::Invented { read, id, shown });
                continue;
            }
            let Some((missed, duty)) = world.missed(&read, id, shown) else {
                continue;
            };
            match duty {
                Duty::Owed(from) => {
                    let late = read.start - from;
                    self.latest = self.latest.max(late);
                    is_stale = true;
                    let read = read.clone();
                    self.violations.push(Violation::Stale {
                        read,
                        id,
                        shown,
                        missed,
                        late,
                    });
                }
                Duty::Behind(from) => behind = behind.max(Some(read.start - from)),
                Duty::Excused(reason, until) => {
                    let late = read.start - world.known_by(missed).min(read.start);
                    if let Some(until) = until
                        && until < read.start
                    {
                        is_stale = true;
                        let read = read.clone();
                        self.violations.push(Violation::Unbounded {
                            read,
                            id,
                            missed,
                            reason,
                            late,
                        });
                    } else if excuse.is_none_or(|(_, latest)| late > latest) {
                        excuse = Some((reason, late));
                    }
                }
            }
        }
        self.stale += u64::from(is_stale);
        if let Some(age) = behind.filter(|_| !is_stale) {
            self.behind.push(age);
            return;
        }
        if let Some((reason, late)) = excuse.filter(|_| !is_stale) {
            let excused = self.excused.entry(reason).or_default();
            excused.reads += 1;
            excused.latest = excused.latest.max(late);
        }
    }
}
