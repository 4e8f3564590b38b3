//! Invalidations that the task of their caller sends.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;

use super::held::Held;
use super::{LIMIT, entry_ref, over, request};
use crate::invalidation::Acknowledgement;

#[tokio::test(start_paused = true)]
async fn a_lone_caller_sends_its_invalidation_itself() {
    let store = Held::open();
    let invalidations = over(&store);
    let told = invalidations.send(request("users")).acknowledged(LIMIT);
    // Polled once: no other task has run.
    assert_eq!(told.now_or_never(), Some(Acknowledgement::Delivered));
    assert_eq!(store.attempts.load(Ordering::SeqCst), 1);
    assert_eq!(invalidations.pending(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_a_dropped_caller_is_delivered() {
    let store = Held::shut();
    let invalidations = over(&store);
    for is_polled in [false, true] {
        let told = invalidations.send(request("users")).acknowledged(LIMIT);
        if is_polled {
            assert_eq!(told.now_or_never(), None);
        } else {
            drop(told);
        }
        assert!(
            invalidations.is_pending(&entry_ref("users")),
            "reads know of it"
        );
        store.gate.add_permits(1);
        store.takes_one().await;
        while invalidations.pending() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(!invalidations.is_pending(&entry_ref("users")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_a_caller_sent_in_vain_is_sent_again() {
    let store = Held::open();
    store.refusals.store(1, Ordering::SeqCst);
    let invalidations = over(&store);
    let told = invalidations.send(request("users")).acknowledged(LIMIT);
    assert_eq!(told.await, Acknowledgement::Pending);
    assert!(invalidations.is_pending(&entry_ref("users")));
    store.takes_one().await;
    assert_eq!(store.attempts.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn the_next_caller_does_not_wait_for_an_unpolled_task() {
    let store = Held::shut();
    let invalidations = over(&store);
    let mut stuck = Box::pin(invalidations.send(request("users")).acknowledged(LIMIT));
    assert_eq!((&mut stuck).now_or_never(), None);
    store.gate.add_permits(10);
    let next = invalidations.send(request("teams")).acknowledged(LIMIT);
    assert_eq!(next.await, Acknowledgement::Delivered);
    assert_eq!(stuck.await, Acknowledgement::Delivered);
    assert_eq!(invalidations.pending(), 0);
}

#[tokio::test(start_paused = true)]
async fn requests_behind_a_refused_one_are_not_held_up() {
    let store = Held::shut();
    store.refusals.store(1, Ordering::SeqCst);
    let invalidations = over(&store);
    let began = tokio::time::Instant::now();
    let mut first = Box::pin(invalidations.send(request("users")).acknowledged(LIMIT));
    // Polled first when the second is in the queue, and refused at once.
    let second = invalidations.send(request("teams")).acknowledged(LIMIT);
    store.gate.add_permits(10);
    let (told, second) = tokio::join!(&mut first, second);
    assert_eq!(told, Acknowledgement::Pending);
    assert_eq!(second, Acknowledgement::Delivered);
    assert!(
        began.elapsed() < Duration::from_millis(50),
        "a retry's pause"
    );
}
