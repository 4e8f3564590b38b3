use std::time::Duration;

use futures_util::FutureExt as _;

use super::*;

const TYPE: Fingerprint = Fingerprint(7);

fn later() -> Instant {
    Instant::now() + Duration::from_secs(1)
}

fn lead(lanes: &Arc<Lanes>, width: usize) -> Run {
    match lanes.enter("users:1", TYPE, width) {
        Entered::Lead(run) => run,
        Entered::Wait(_) => panic!("there was room"),
    }
}

fn wait(lanes: &Arc<Lanes>, width: usize) -> Waiting {
    match lanes.enter("users:1", TYPE, width) {
        Entered::Wait(waiting) => waiting,
        Entered::Lead(_) => panic!("there was no room"),
    }
}

fn value(n: u8) -> Option<Landed> {
    Some(Landed::Value(Arc::new(n)))
}

fn landed(boarded: Boarded) -> u8 {
    match boarded {
        Boarded::Landed(Landed::Value(value)) => *value.downcast().expect("a number"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_joins_a_load_that_had_begun() {
    let lanes = Arc::new(Lanes::default());
    let first = lead(&lanes, 1);
    let (a, b) = (wait(&lanes, 1), wait(&lanes, 1));
    first.land(|| panic!("those who wait came after it began"));
    drop(first);

    let Boarded::Lead(second) = a.board(later()).await else {
        panic!("somebody leads")
    };
    // Under way now: who comes is for the next one.
    let c = wait(&lanes, 1);
    let b = tokio::spawn(b.board(later()));
    tokio::task::yield_now().await;
    second.land(|| value(2));
    drop(second);
    assert_eq!(landed(b.await.expect("no panic")), 2);
    assert!(matches!(c.board(later()).await, Boarded::Lead(_)));
    assert_eq!(lanes.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_who_leads_and_leaves_wakes_the_others() {
    let lanes = Arc::new(Lanes::default());
    let first = lead(&lanes, 1);
    let (a, b) = (wait(&lanes, 1), wait(&lanes, 1));
    drop(first);
    let Boarded::Lead(second) = a.board(later()).await else {
        panic!("somebody leads")
    };
    drop(second);
    assert!(matches!(b.board(later()).await, Boarded::Gone));
    assert_eq!(lanes.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_who_leaves_before_his_turn_holds_nobody_up() {
    let lanes = Arc::new(Lanes::default());
    let first = lead(&lanes, 1);
    let (a, b) = (wait(&lanes, 1), wait(&lanes, 1));
    let mut a = Box::pin(a.board(later()));
    assert!((&mut a).now_or_never().is_none());
    let mut b = Box::pin(b.board(later()));
    assert!((&mut b).now_or_never().is_none());
    // It is `a`'s turn, and `a` has not heard of it yet.
    drop(first);
    drop(a);
    assert!(matches!(b.await, Boarded::Lead(_)));
    assert_eq!(lanes.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_group_that_has_left_leaves_nothing() {
    let lanes = Arc::new(Lanes::default());
    let first = lead(&lanes, 1);
    drop(wait(&lanes, 1));
    drop(first);
    assert_eq!(lanes.len(), 0);
    lead(&lanes, 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_ever() {
    let lanes = Arc::new(Lanes::default());
    let _first = lead(&lanes, 1);
    let waiting = wait(&lanes, 1);
    assert!(matches!(waiting.board(later()).await, Boarded::TimedOut));
}

#[tokio::test(start_paused = true)]
async fn as_many_run_as_may() {
    let lanes = Arc::new(Lanes::default());
    let mut running: Vec<Run> = (0..AFTER_FAILURE)
        .map(|_| lead(&lanes, AFTER_FAILURE))
        .collect();
    let waiting = wait(&lanes, AFTER_FAILURE);
    running.pop();
    let Boarded::Lead(_fifth) = waiting.board(later()).await else {
        panic!("there is room now")
    };
    // The one who left has made room for one.
    wait(&lanes, AFTER_FAILURE);
}

#[test]
fn other_keys_and_types_have_lanes_of_their_own() {
    let lanes = Arc::new(Lanes::default());
    let _run = lead(&lanes, 1);
    for (key, kind) in [("users:2", TYPE), ("users:1", Fingerprint(8))] {
        assert!(matches!(lanes.enter(key, kind, 1), Entered::Lead(_)));
    }
}
