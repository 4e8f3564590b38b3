//! A write of row 3 from its beginning at 100 ms to its return at 120 ms, what else happened, and
//! one read.

use crate::check::{Reason, Verdict, Violation, World};
use crate::history::{
    Answer, Begin, Event, Fault, FaultKind, Form, Life, MILLISECOND, Mark, Outcome, Read, ReadKind,
    Run, Step, Stuck, Time, Truth,
};
use crate::score::Acknowledged;

pub(crate) const WRITER: u32 = 1;
pub(crate) const OTHER: u32 = 2;
const WRITE: u64 = 7;
const SECOND: Time = 1_000;

pub(crate) fn ms(time: Time) -> Time {
    time * MILLISECOND
}

fn life(process: u32, killed: Option<Time>) -> Event {
    let slot = usize::try_from(process).expect("small");
    let killed = killed.map(ms);
    Event::Life(Life {
        process,
        slot,
        from: 0,
        killed,
    })
}

fn begin(write: u64, at: Time, form: Form) -> Event {
    let (process, at) = (WRITER, ms(at));
    Event::Begin(Begin {
        write,
        process,
        at,
        form,
    })
}

pub(crate) fn mark(at: Time, step: Step) -> Event {
    let at = ms(at);
    Event::Mark(Mark {
        write: WRITE,
        at,
        step,
    })
}

pub(crate) fn fault(kind: FaultKind, from: Time, to: Time) -> Event {
    let (from, to) = (ms(from), ms(to));
    Event::Fault(Fault {
        kind,
        from,
        to,
        slot: None,
    })
}

fn truth(write: u64, version: u64) -> Event {
    let (kind, id) = (0, 3);
    Event::Truth(Truth {
        write,
        kind,
        id,
        version,
    })
}

fn read_as(read: ReadKind, process: u32, start: Time, version: u64) -> Event {
    Event::Read(Read {
        process,
        start: ms(start),
        end: ms(start + 1),
        read,
        kind: 0,
        argument: 3,
        answer: Answer::Hit,
        local: false,
        strict: false,
        rows: vec![(3, version)],
        wrong: None,
    })
}

pub(crate) fn read(process: u32, start: Time, version: u64) -> Event {
    read_as(ReadKind::Get, process, start, version)
}

pub(crate) fn done(outcome: Outcome) -> Step {
    Step::Done(outcome)
}

/// A write of this form that commits version 2, and what is told of it besides.
pub(crate) fn world(form: Form, killed: Option<Time>, more: &[Event]) -> Vec<Event> {
    let mut events = vec![
        Event::Run(Run {
            ttl: ms(10 * SECOND),
            load: ms(6 * SECOND),
            commit_delay: ms(1_500),
            in_doubt_window: ms(3 * SECOND),
            intent: ms(4 * SECOND),
            deadline: ms(10 * SECOND),
            staleness: ms(SECOND),
            local_mb: 16,
            ..Run::default()
        }),
        life(WRITER, killed),
        life(OTHER, None),
        begin(WRITE, 100, form),
        truth(WRITE, 2),
    ];
    events.extend_from_slice(more);
    events
}

pub(crate) fn judge(events: &[Event]) -> Verdict {
    let world = World::new(events.iter().cloned());
    Verdict::of(&world, events.iter().cloned())
}

/// Late by so many milliseconds, if the reads are stale at all.
pub(crate) fn stale(events: &[Event]) -> Option<Time> {
    let verdict = judge(events);
    (verdict.stale > 0).then_some(verdict.latest / MILLISECOND)
}

pub(crate) fn excused(events: &[Event]) -> Vec<Reason> {
    let verdict = judge(events);
    assert!(verdict.violations.is_empty(), "{:?}", verdict.violations);
    verdict.excused.into_keys().collect()
}

pub(crate) fn with(mut events: Vec<Event>, read: Event) -> Vec<Event> {
    events.push(read);
    events
}

/// Acknowledged at 120 ms, which was certain at 121 ms.
pub(crate) fn acknowledged() -> Vec<Event> {
    world(
        Form::ById,
        None,
        &[
            mark(110, Step::Committed),
            mark(120, done(Outcome::Returned)),
            mark(121, Step::InForce),
        ],
    )
}

#[test]
fn acknowledged_invalidations_are_shown() {
    for process in [WRITER, OTHER] {
        assert_eq!(stale(&with(acknowledged(), read(process, 130, 2))), None);
        assert_eq!(
            stale(&with(acknowledged(), read(process, 130, 1))),
            Some(10)
        );
        assert_eq!(
            stale(&with(acknowledged(), read(process, 5_120, 1))),
            Some(5_000)
        );
    }
}

#[test]
fn a_read_that_began_before_the_acknowledgement_may_miss_it() {
    assert_eq!(
        excused(&with(acknowledged(), read(OTHER, 115, 1))),
        [Reason::Running]
    );
    let before_the_commit = with(acknowledged(), read(OTHER, 105, 1));
    assert!(excused(&before_the_commit).is_empty());
}

#[test]
fn of_many_rows_each_counts() {
    let mut late = acknowledged();
    late.push(Event::Read(Read {
        process: OTHER,
        start: ms(130),
        end: ms(131),
        read: ReadKind::List,
        kind: 0,
        argument: 0,
        answer: Answer::Hit,
        local: false,
        strict: false,
        rows: vec![(2, 1), (3, 1)],
        wrong: None,
    }));
    assert_eq!(stale(&late), Some(10));
}

#[test]
fn before_it_is_certain_others_are_excused_only_if_there_was_trouble() {
    let read = read(OTHER, 120, 1);
    let Event::Read(mut between) = read else {
        unreachable!()
    };
    between.start += MILLISECOND / 2;
    let between = Event::Read(between);
    assert_eq!(stale(&with(acknowledged(), between.clone())), Some(0));
    let mut troubled = with(acknowledged(), between);
    troubled.push(fault(FaultKind::RedisStop, 50, 90));
    assert_eq!(excused(&troubled), [Reason::Unconfirmed]);
    // The process itself knows.
    let mut own = with(acknowledged(), self::read(WRITER, 130, 1));
    own.push(fault(FaultKind::RedisStop, 50, 90));
    assert_eq!(stale(&own), Some(10));
}

#[test]
fn while_it_is_pending_only_others_are_excused() {
    let pending = world(
        Form::ById,
        None,
        &[
            mark(110, Step::Committed),
            mark(120, done(Outcome::Returned)),
            mark(121, Step::Pending),
            mark(900, Step::InForce),
        ],
    );
    let other = with(pending.clone(), read(OTHER, 500, 1));
    assert_eq!(excused(&other), [Reason::Pending]);
    assert_eq!(
        stale(&with(pending.clone(), read(WRITER, 500, 1))),
        Some(380)
    );
    assert_eq!(stale(&with(pending, read(OTHER, 1_000, 1))), Some(100));
}

#[test]
fn delivered_means_delivered() {
    let told = world(
        Form::Invalidate,
        None,
        &[
            mark(110, Step::Committed),
            mark(120, done(Outcome::Returned)),
            mark(120, Step::Delivered),
            fault(FaultKind::Cut, 50, 90),
        ],
    );
    assert_eq!(stale(&with(told, read(OTHER, 121, 1))), Some(1));
}

#[test]
fn a_deletion_reaches_the_row_and_nothing_derived() {
    let deleted = world(
        Form::Delete,
        None,
        &[
            mark(120, done(Outcome::Returned)),
            mark(120, Step::Delivered),
        ],
    );
    assert_eq!(stale(&with(deleted.clone(), read(OTHER, 130, 1))), Some(10));
    let list = with(deleted, read_as(ReadKind::List, OTHER, 130, 1));
    assert!(excused(&list).is_empty());
}

#[test]
fn an_unknown_outcome_obliges_from_the_deadline_on() {
    for outcome in [Outcome::Dropped, Outcome::Panicked, Outcome::Unknown] {
        let unknown = world(
            Form::ById,
            None,
            &[
                mark(110, Step::Committed),
                mark(120, done(outcome)),
                mark(4_000, Step::InForce),
            ],
        );
        let before = with(unknown.clone(), read(WRITER, 3_000, 1));
        assert_eq!(excused(&before), [Reason::UnknownOutcome]);
        assert_eq!(stale(&with(unknown, read(WRITER, 4_010, 1))), Some(10));
    }
}

#[test]
fn a_connection_left_behind_is_held_until_its_commit() {
    let held = world(
        Form::ById,
        None,
        &[
            mark(120, done(Outcome::Dropped)),
            mark(125, Step::Held),
            mark(4_000, Step::InForce),
            read(OTHER, 199, 2),
        ],
    );
    // From 200 ms on it is known to be committed, since somebody has seen it.
    assert!(excused(&with(held.clone(), read(OTHER, 190, 1))).is_empty());
    assert_eq!(stale(&with(held.clone(), read(OTHER, 210, 1))), Some(10));
    let lost = with(held, fault(FaultKind::Flush, 150, 151));
    assert_eq!(
        excused(&with(lost, read(OTHER, 210, 1))),
        [Reason::UnknownOutcome]
    );
}

#[test]
fn a_commit_after_the_deadline_breaks_the_premise() {
    let late = world(
        Form::ById,
        None,
        &[
            mark(120, done(Outcome::Unknown)),
            mark(3_600, Step::Committed),
            mark(4_000, Step::InForce),
        ],
    );
    assert_eq!(
        excused(&with(late, read(OTHER, 5_000, 1))),
        [Reason::LateCommit]
    );
}

#[test]
fn a_killed_write_is_excused_for_the_ttl() {
    let killed = world(Form::ById, Some(150), &[mark(110, Step::Committed)]);
    assert_eq!(
        excused(&with(killed.clone(), read(OTHER, 9_000, 1))),
        [Reason::Killed]
    );
    let verdict = judge(&with(killed, read(OTHER, 17_000, 1)));
    assert!(matches!(
        verdict.violations[..],
        [Violation::Unbounded {
            reason: Reason::Killed,
            ..
        }]
    ));
}

#[test]
fn a_killed_process_takes_what_waited_with_it() {
    let killed = world(
        Form::ById,
        Some(300),
        &[mark(120, done(Outcome::Returned)), mark(121, Step::Pending)],
    );
    assert_eq!(
        excused(&with(killed, read(OTHER, 5_000, 1))),
        [Reason::KilledPending]
    );
}

#[test]
fn a_killed_crash_safe_write_is_shown_at_once() {
    let announced = [mark(105, Step::Announced), mark(110, Step::Committed)];
    let killed = world(Form::CrashSafe, Some(150), &announced);
    assert_eq!(stale(&with(killed.clone(), read(OTHER, 160, 1))), Some(10));
    assert_eq!(judge(&killed).crash_safe_kills, 1);
    for kind in [FaultKind::Flush, FaultKind::PrimaryKill] {
        let lost = with(killed.clone(), fault(kind, 107, 108));
        assert_eq!(
            excused(&with(lost, read(OTHER, 3_000, 1))),
            [Reason::IntentLost]
        );
    }
    let returned = with(killed.clone(), fault(FaultKind::SlotReturn, 2_000, 2_001));
    assert_eq!(
        excused(&with(returned, read(OTHER, 3_000, 1))),
        [Reason::IntentLost]
    );
    // What was stored before the commit is gone as well, or dead.
    for kind in [FaultKind::Flush, FaultKind::Failover] {
        let gone = with(killed.clone(), fault(kind, 2_000, 2_001));
        assert_eq!(stale(&with(gone, read(OTHER, 3_000, 1))), Some(2_850));
    }
    // Nobody knows when the commit was made: by then at the latest.
    let unknown = world(Form::CrashSafe, Some(150), &announced[..1]);
    assert_eq!(stale(&with(unknown, read(OTHER, 1_700, 1))), Some(50));
    // Not announced at all, and nothing was in the way.
    let unseen = world(Form::CrashSafe, Some(150), &announced[1..]);
    assert_eq!(stale(&with(unseen.clone(), read(OTHER, 160, 1))), Some(10));
    for trouble in [mark(105, Step::Away), fault(FaultKind::Cut, 90, 104)] {
        let troubled = with(with(unseen.clone(), trouble), read(OTHER, 160, 1));
        assert_eq!(excused(&troubled), [Reason::IntentUnseen]);
    }
}

#[test]
fn a_later_write_obliges_to_all_before_it() {
    let mut killed = world(Form::ById, Some(150), &[mark(110, Step::Committed)]);
    let (process, write) = (OTHER, 8);
    killed.extend([
        Event::Begin(Begin {
            write,
            process,
            at: ms(200),
            form: Form::ById,
        }),
        truth(write, 3),
    ]);
    for step in [done(Outcome::Returned), Step::InForce] {
        let at = ms(210);
        killed.push(Event::Mark(Mark { write, at, step }));
    }
    assert_eq!(stale(&with(killed.clone(), read(OTHER, 220, 1))), Some(10));
    assert_eq!(stale(&with(killed, read(OTHER, 220, 3))), None);
}

#[test]
fn an_absent_row_is_as_new_as_it_can_be() {
    let mut events = acknowledged();
    events.extend((3..=9).flat_map(|version| {
        let write = 100 + version;
        let mark = |at, step| Event::Mark(Mark { write, at, step });
        [
            begin(write, 200 + 10 * version, Form::ById),
            truth(write, version),
            mark(ms(205 + 10 * version), done(Outcome::Returned)),
            mark(ms(205 + 10 * version), Step::InForce),
        ]
    }));
    // Version 8 is absent, and was replaced at 295 ms.
    assert_eq!(stale(&with(events.clone(), read(OTHER, 286, 0))), None);
    assert_eq!(stale(&with(events, read(OTHER, 300, 0))), Some(5));
}

#[test]
fn a_version_that_nobody_committed_is_a_violation() {
    for (start, version) in [(50, 2), (500, 3)] {
        let verdict = judge(&with(acknowledged(), read(OTHER, start, version)));
        assert!(
            matches!(verdict.violations[..], [Violation::Invented { shown, .. }] if shown == version)
        );
    }
}

#[test]
fn a_wrong_value_and_a_stuck_caller_are_violations() {
    let Event::Read(mut wrong) = read(OTHER, 130, 2) else {
        unreachable!()
    };
    wrong.wrong = Some("another row".to_owned());
    let verdict = judge(&with(acknowledged(), Event::Read(wrong)));
    assert!(matches!(verdict.violations[..], [Violation::Wrong { .. }]));
    let stuck = Stuck {
        process: OTHER,
        start: 0,
        end: ms(10_000),
        what: "a read".into(),
    };
    let verdict = judge(&with(acknowledged(), Event::Stuck(stuck)));
    assert!(matches!(verdict.violations[..], [Violation::Stuck(_)]));
}

/// The same read, answered by a local entry.
fn by_local_entry(read: Event) -> Event {
    match read {
        Event::Read(read) => Event::Read(Read {
            answer: Answer::Local,
            local: true,
            ..read
        }),
        other => other,
    }
}

/// The same read, of one who asked for Redis's word.
fn strictly(read: Event) -> Event {
    match read {
        Event::Read(read) => Event::Read(Read {
            strict: true,
            ..read
        }),
        other => other,
    }
}

/// How far behind local entries were, in milliseconds, in a history without a violation.
fn behind(events: &[Event]) -> Vec<Time> {
    let verdict = judge(events);
    assert!(verdict.violations.is_empty(), "{:?}", verdict.violations);
    let ages = verdict.behind.into_iter();
    ages.map(|age| age / MILLISECOND).collect()
}

#[test]
fn a_local_entry_may_be_behind_another_process_by_the_bound() {
    for (start, age) in [(121, 1), (130, 10), (1_120, 1_000)] {
        let late = with(acknowledged(), by_local_entry(read(OTHER, start, 1)));
        assert_eq!(behind(&late), [age]);
    }
    let too_late = with(acknowledged(), by_local_entry(read(OTHER, 1_121, 1)));
    assert_eq!(stale(&too_late), Some(1_001));
    assert!(judge(&too_late).behind.is_empty());
    // One that is up to date is not behind.
    let right = with(acknowledged(), by_local_entry(read(OTHER, 130, 2)));
    assert!(behind(&right).is_empty());
}

#[test]
fn a_local_entry_is_as_far_behind_as_the_first_write_that_it_misses() {
    let mut twice = acknowledged();
    let (process, write) = (WRITER, 8);
    twice.extend([
        Event::Begin(Begin {
            write,
            process,
            at: ms(500),
            form: Form::ById,
        }),
        truth(write, 3),
    ]);
    for step in [done(Outcome::Returned), Step::InForce] {
        let at = ms(510);
        twice.push(Event::Mark(Mark { write, at, step }));
    }
    let late = with(twice.clone(), by_local_entry(read(OTHER, 1_000, 1)));
    assert_eq!(behind(&late), [880]);
    // The second is within the bound, the first is not.
    let too_late = with(twice, by_local_entry(read(OTHER, 1_130, 1)));
    assert_eq!(stale(&too_late), Some(1_010));
}

#[test]
fn a_local_entry_shows_what_its_own_process_wrote() {
    let own = with(acknowledged(), by_local_entry(read(WRITER, 121, 1)));
    assert_eq!(stale(&own), Some(1));
    // Before the write has returned nothing is promised.
    let before = with(acknowledged(), by_local_entry(read(WRITER, 115, 1)));
    assert_eq!(excused(&before), [Reason::Running]);
}

#[test]
fn answers_of_redis_are_exact_beside_local_entries() {
    let redis = with(acknowledged(), read(OTHER, 121, 1));
    assert_eq!(stale(&redis), Some(1));
    let strict = with(acknowledged(), strictly(read(OTHER, 121, 1)));
    assert_eq!(stale(&strict), Some(1));
    let right = with(acknowledged(), strictly(read(OTHER, 121, 2)));
    assert!(judge(&right).violations.is_empty());
}

#[test]
fn a_strict_read_is_not_answered_by_a_local_entry() {
    let verdict = judge(&with(
        acknowledged(),
        strictly(by_local_entry(read(OTHER, 121, 2))),
    ));
    assert!(matches!(verdict.violations[..], [Violation::Wrong { .. }]));
}

#[test]
fn the_bound_counts_from_when_a_write_obliges() {
    let pending = world(
        Form::ById,
        None,
        &[
            mark(110, Step::Committed),
            mark(120, done(Outcome::Returned)),
            mark(121, Step::Pending),
            mark(900, Step::InForce),
        ],
    );
    let late = with(pending.clone(), by_local_entry(read(OTHER, 1_800, 1)));
    assert_eq!(behind(&late), [900]);
    assert_eq!(
        excused(&with(pending.clone(), by_local_entry(read(OTHER, 800, 1)))),
        [Reason::Pending]
    );
    let too_late = with(pending, by_local_entry(read(OTHER, 1_901, 1)));
    assert_eq!(stale(&too_late), Some(1_001));
}

/// What is said of rivals, with no excuse at all, in milliseconds.
fn older_by(events: &[Event]) -> Option<Time> {
    let acknowledged = Acknowledged::new(&World::new(events.iter().cloned()));
    let ages = events.iter().filter_map(|event| match event {
        Event::Read(read) => acknowledged.age(read),
        _ => None,
    });
    ages.max().map(|age| age / MILLISECOND)
}

#[test]
fn without_excuses_what_has_returned_counts_and_nothing_else() {
    assert_eq!(
        older_by(&with(acknowledged(), read(OTHER, 130, 1))),
        Some(10)
    );
    assert_eq!(older_by(&with(acknowledged(), read(OTHER, 130, 2))), None);
    assert_eq!(older_by(&with(acknowledged(), read(OTHER, 115, 1))), None);
    let pending = world(
        Form::ById,
        None,
        &[
            mark(120, done(Outcome::Returned)),
            mark(121, Step::Pending),
            mark(900, Step::InForce),
        ],
    );
    assert_eq!(older_by(&with(pending, read(OTHER, 500, 1))), Some(380));
    let local = by_local_entry(read(OTHER, 130, 1));
    assert_eq!(older_by(&with(acknowledged(), local)), Some(10));
    for outcome in [Outcome::Dropped, Outcome::Panicked, Outcome::Unknown] {
        let unknown = world(Form::ById, None, &[mark(120, done(outcome))]);
        assert_eq!(older_by(&with(unknown, read(OTHER, 500, 1))), None);
    }
    // A later write that has returned makes an earlier one known that has not.
    let mut later = world(Form::ById, Some(150), &[mark(110, Step::Committed)]);
    let write = 8;
    later.extend([
        begin(write, 200, Form::ById),
        truth(write, 3),
        Event::Mark(Mark {
            write,
            at: ms(210),
            step: done(Outcome::Returned),
        }),
    ]);
    assert_eq!(older_by(&with(later, read(OTHER, 240, 1))), Some(30));
}
