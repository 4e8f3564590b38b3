//! The same planted histories, under faults that excuse less than others, or more.

use crate::check::{Reason, Violation};
use crate::history::{Event, Fault, FaultKind, Form, Mark, Outcome, Step, Time};
use crate::planted::{
    OTHER, WRITER, acknowledged, done, excused, fault, judge, mark, ms, read, stale, with, world,
};

/// The same of one app only.
fn fault_of(process: u32, kind: FaultKind, from: Time, to: Time) -> Event {
    let slot = usize::try_from(process).ok();
    let (from, to) = (ms(from), ms(to));
    Event::Fault(Fault {
        kind,
        from,
        to,
        slot,
    })
}

/// A write that returned at 120 ms and whose invalidation waited for five seconds, under a fault.
fn pending(form: Form, fault: Event) -> Vec<Event> {
    world(
        form,
        None,
        &[
            mark(110, Step::Committed),
            mark(120, done(Outcome::Returned)),
            mark(121, Step::Pending),
            mark(5_120, Step::InForce),
            fault,
        ],
    )
}

fn is_too_long(events: &[Event]) -> bool {
    let violations = judge(events).violations;
    matches!(
        violations[..],
        [Violation::Unbounded {
            reason: Reason::Pending,
            ..
        }]
    )
}

#[test]
fn a_redis_that_refuses_writes_is_served_from_for_a_while_only() {
    let refused = pending(Form::ById, fault(FaultKind::RefuseWrites, 50, 4_500));
    let soon = with(refused.clone(), read(OTHER, 2_000, 1));
    assert_eq!(excused(&soon), [Reason::Pending]);
    assert!(is_too_long(&with(refused.clone(), read(OTHER, 2_100, 1))));
    // What is right may be served, and when writes are taken again all is as with any fault.
    assert!(excused(&with(refused.clone(), read(OTHER, 2_100, 2))).is_empty());
    let after = with(refused.clone(), read(OTHER, 4_510, 1));
    assert_eq!(excused(&after), [Reason::Pending]);
    // A process that was stopped has yet to notice.
    let stopped = fault_of(OTHER, FaultKind::AppStop, 1_000, 2_050);
    let stopped = with(with(refused.clone(), stopped), read(OTHER, 2_100, 1));
    assert_eq!(excused(&stopped), [Reason::Pending]);
    let another = fault_of(WRITER, FaultKind::AppStop, 1_000, 2_050);
    let another = with(with(refused, another), read(OTHER, 2_100, 1));
    assert!(is_too_long(&another));
}

#[test]
fn a_write_that_requires_redis_does_not_take_place_while_it_refuses_writes() {
    let refuses = |from| fault(FaultKind::RefuseWrites, from, 4_500);
    let accepted = |events: &[Event]| {
        let violations = judge(events).violations;
        matches!(violations[..], [Violation::Accepted { .. }])
    };
    // `begin` is at 100 ms, so these refused before there was a history.
    let long_ago = |form| {
        let mut events = pending(form, refuses(50));
        for event in &mut events {
            let Event::Begin(begin) = event else { continue };
            begin.at = ms(2_100);
        }
        for event in &mut events {
            let Event::Mark(Mark { at, .. }) = event else {
                continue;
            };
            *at += ms(2_000);
        }
        events
    };
    assert!(accepted(&long_ago(Form::Required)));
    assert!(!accepted(&long_ago(Form::ById)));
    assert!(!accepted(&pending(Form::Required, refuses(50))));
}

#[test]
fn resets_hold_an_invalidation_up_for_two_seconds_at_most() {
    let reset = pending(Form::ById, fault(FaultKind::Resets, 50, 4_500));
    let soon = with(reset.clone(), read(OTHER, 2_100, 1));
    assert_eq!(excused(&soon), [Reason::Pending]);
    assert!(is_too_long(&with(reset.clone(), read(OTHER, 2_200, 1))));
    let cut = fault_of(WRITER, FaultKind::Cut, 60, 300);
    let cut = with(with(reset.clone(), cut), read(OTHER, 2_200, 1));
    assert_eq!(excused(&cut), [Reason::Pending]);
    let elsewhere = fault_of(OTHER, FaultKind::Cut, 60, 300);
    let elsewhere = with(with(reset, elsewhere), read(OTHER, 2_200, 1));
    assert!(is_too_long(&elsewhere));
}

#[test]
fn answers_that_are_off_by_one_may_be_old_and_are_never_another_rows() {
    let shifted = |process| {
        let fault = fault_of(process, FaultKind::OffByOne, 125, 4_000);
        with(acknowledged(), fault)
    };
    let old = with(shifted(OTHER), read(OTHER, 130, 1));
    assert_eq!(excused(&old), [Reason::Shifted]);
    assert_eq!(stale(&with(shifted(WRITER), read(OTHER, 130, 1))), Some(10));
    assert_eq!(
        stale(&with(shifted(OTHER), read(OTHER, 4_120, 1))),
        Some(4_000)
    );
    // The answer before can't be that old; it is another question's.
    let verdict = judge(&with(shifted(OTHER), read(OTHER, 2_130, 1)));
    assert!(matches!(
        verdict.violations[..],
        [Violation::Unbounded {
            reason: Reason::Shifted,
            ..
        }]
    ));
    let Event::Read(mut wrong) = read(OTHER, 130, 2) else {
        unreachable!()
    };
    wrong.wrong = Some("another row".to_owned());
    let verdict = judge(&with(shifted(OTHER), Event::Read(wrong)));
    assert!(matches!(verdict.violations[..], [Violation::Wrong { .. }]));
}

/// The same with these servers.
fn over(servers: &str, mut events: Vec<Event>) -> Vec<Event> {
    for event in &mut events {
        if let Event::Run(run) = event {
            servers.clone_into(&mut run.servers);
        }
    }
    events
}

fn is_unbounded(events: &[Event], why: Reason) -> bool {
    let violations = judge(events).violations;
    matches!(violations[..], [Violation::Unbounded { reason, .. }] if reason == why)
}

#[test]
fn acknowledgements_of_a_former_primary_may_be_missed_until_repeated() {
    let failover = |servers| {
        let fault = fault(FaultKind::Failover, 50, 5_000);
        over(servers, with(acknowledged(), fault))
    };
    let soon = |servers| with(failover(servers), read(OTHER, 3_100, 1));
    assert_eq!(excused(&soon("sentinels")), [Reason::Replaced]);
    assert_eq!(stale(&soon("cluster")), Some(2_980));
    assert_eq!(stale(&soon("one")), Some(2_980));
    let late = with(failover("sentinels"), read(OTHER, 3_200, 1));
    assert!(is_unbounded(&late, Reason::Replaced));
    // The writer was stopped, and repeats it later by as much.
    let stopped = fault_of(WRITER, FaultKind::AppStop, 200, 1_200);
    let stopped = with(with(failover("sentinels"), stopped), read(OTHER, 3_200, 1));
    assert_eq!(excused(&stopped), [Reason::Replaced]);
    // A failover that was long over.
    let before = with(acknowledged(), fault(FaultKind::Failover, 0, 10));
    let mut long_ago = over("sentinels", before);
    for event in &mut long_ago {
        match event {
            Event::Begin(begin) => begin.at += ms(3_000),
            Event::Mark(mark) => mark.at += ms(3_000),
            _ => {}
        }
    }
    assert_eq!(stale(&with(long_ago, read(OTHER, 3_130, 1))), Some(10));
}

#[test]
fn a_process_cut_off_with_a_primary_serves_nothing_stale() {
    let cut_off = |process| {
        let events = with(
            acknowledged(),
            fault_of(process, FaultKind::CutOff, 90, 4_000),
        );
        over("cluster", events)
    };
    for process in [WRITER, OTHER] {
        let read = with(cut_off(process), read(OTHER, 130, 1));
        assert_eq!(stale(&read), Some(10));
    }
}

#[test]
fn invalidations_while_a_slot_was_away_may_be_missed_until_all_have_asked() {
    let returned = over(
        "cluster",
        with(acknowledged(), fault(FaultKind::SlotReturn, 50, 900)),
    );
    let soon = with(returned.clone(), read(OTHER, 2_800, 1));
    assert_eq!(excused(&soon), [Reason::Returned]);
    let late = with(returned.clone(), read(OTHER, 3_000, 1));
    assert!(is_unbounded(&late, Reason::Returned));
    let stopped = fault_of(OTHER, FaultKind::AppStop, 800, 1_800);
    let stopped = with(with(returned, stopped), read(OTHER, 3_000, 1));
    assert_eq!(excused(&stopped), [Reason::Returned]);
    let before = over(
        "cluster",
        with(acknowledged(), fault(FaultKind::SlotReturn, 200, 900)),
    );
    assert_eq!(stale(&with(before, read(OTHER, 250, 1))), Some(130));
}
