use std::time::Duration;

use futures_util::FutureExt as _;

use super::*;

const TYPE: Fingerprint = Fingerprint(7);

fn later() -> Instant {
    Instant::now() + Duration::from_secs(1)
}

fn lead(load_gates: &Arc<LoadGates>, limit: usize) -> GateLeader {
    match load_gates.enter("users:1", TYPE, limit) {
        GateRole::Lead(run) => run,
        GateRole::Wait(_) => panic!("there was room"),
    }
}

fn wait(load_gates: &Arc<LoadGates>, limit: usize) -> GateWaiter {
    match load_gates.enter("users:1", TYPE, limit) {
        GateRole::Wait(waiting) => waiting,
        GateRole::Lead(_) => panic!("there was no room"),
    }
}

fn value(n: u8) -> Option<LoadResult> {
    Some(LoadResult::Value(Arc::new(n)))
}

fn load_result(result: GateResult) -> u8 {
    match result {
        GateResult::LoadResult(LoadResult::Value(value)) => *value.downcast().expect("a number"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_load_that_had_begun_is_not_joined() {
    let load_gates = Arc::new(LoadGates::default());
    let first = lead(&load_gates, 1);
    let (a, b) = (wait(&load_gates, 1), wait(&load_gates, 1));
    first.complete(|| panic!("those who wait came after it began"));
    drop(first);

    let GateResult::Lead(second) = a.wait(later()).await else {
        panic!("somebody leads")
    };
    // It is running now: a later caller is for the next one.
    let c = wait(&load_gates, 1);
    let b = tokio::spawn(b.wait(later()));
    tokio::task::yield_now().await;
    second.complete(|| value(2));
    drop(second);
    assert_eq!(load_result(b.await.expect("no panic")), 2);
    assert!(matches!(c.wait(later()).await, GateResult::Lead(_)));
    assert_eq!(load_gates.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_who_leads_and_leaves_wakes_the_others() {
    let load_gates = Arc::new(LoadGates::default());
    let first = lead(&load_gates, 1);
    let (a, b) = (wait(&load_gates, 1), wait(&load_gates, 1));
    drop(first);
    let GateResult::Lead(second) = a.wait(later()).await else {
        panic!("somebody leads")
    };
    drop(second);
    assert!(matches!(b.wait(later()).await, GateResult::Gone));
    assert_eq!(load_gates.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_who_leaves_before_his_turn_holds_nobody_up() {
    let load_gates = Arc::new(LoadGates::default());
    let first = lead(&load_gates, 1);
    let (a, b) = (wait(&load_gates, 1), wait(&load_gates, 1));
    let mut a = Box::pin(a.wait(later()));
    assert!((&mut a).now_or_never().is_none());
    let mut b = Box::pin(b.wait(later()));
    assert!((&mut b).now_or_never().is_none());
    // It is `a`'s turn, but `a` has not been polled since.
    drop(first);
    drop(a);
    assert!(matches!(b.await, GateResult::Lead(_)));
    assert_eq!(load_gates.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_group_that_has_left_leaves_nothing() {
    let load_gates = Arc::new(LoadGates::default());
    let first = lead(&load_gates, 1);
    drop(wait(&load_gates, 1));
    drop(first);
    assert_eq!(load_gates.len(), 0);
    lead(&load_gates, 1);
}

#[tokio::test(start_paused = true)]
async fn no_call_waits_for_ever() {
    let load_gates = Arc::new(LoadGates::default());
    let _first = lead(&load_gates, 1);
    let waiting = wait(&load_gates, 1);
    assert!(matches!(waiting.wait(later()).await, GateResult::TimedOut));
}

#[tokio::test(start_paused = true)]
async fn as_many_run_as_may() {
    let load_gates = Arc::new(LoadGates::default());
    let mut running: Vec<GateLeader> = (0..AFTER_FAILURE)
        .map(|_| lead(&load_gates, AFTER_FAILURE))
        .collect();
    let waiting = wait(&load_gates, AFTER_FAILURE);
    running.pop();
    let GateResult::Lead(_fifth) = waiting.wait(later()).await else {
        panic!("there is room now")
    };
    // The load that ended has made room for one.
    wait(&load_gates, AFTER_FAILURE);
}

#[test]
fn other_keys_and_types_have_lanes_of_their_own() {
    let load_gates = Arc::new(LoadGates::default());
    let _run = lead(&load_gates, 1);
    for (key, kind) in [("users:2", TYPE), ("users:1", Fingerprint(8))] {
        assert!(matches!(load_gates.enter(key, kind, 1), GateRole::Lead(_)));
    }
}
