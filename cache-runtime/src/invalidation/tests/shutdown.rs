//! A shutdown delivers what it can, and counts the rest as lost.

use std::pin::pin;
use std::sync::atomic::Ordering;

use futures_util::FutureExt;

use super::held::Held;
use super::{LIMIT, a_while_later, engine, over, request};
use crate::base::background::Background;
use crate::call::returns::Owned;
use crate::call::write::{Never, Unchanged, Write};
use crate::engine::StripedEngine;
use crate::invalidation::{ACK_TIMEOUT, Acknowledgement};
use crate::registry::{Role, Site};

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_what_a_caller_sends() {
    let store = Held::shut();
    let invalidations = over(&store);
    let mut told = Box::pin(invalidations.send(request("users")).acknowledged(LIMIT));
    assert_eq!((&mut told).now_or_never(), None);
    let close = async {
        store.gate.add_permits(10);
        invalidations.close().await;
    };
    let (told, ()) = tokio::join!(told, close);
    assert_eq!(told, Acknowledgement::Delivered);
    assert_eq!(invalidations.pending(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_tries_again_while_it_has_time() {
    let store = Held::open();
    store.refusals.store(5, Ordering::SeqCst);
    let invalidations = over(&store);
    drop(invalidations.enqueue(request("users")));
    invalidations.close().await;
    assert_eq!(
        (store.taken.available_permits(), invalidations.pending()),
        (1, 0)
    );
}

/// Runs a write of `users` while the cache is shut down. Returns what the store has received and
/// what it has not.
async fn shut_down_during(
    write: impl AsyncFnOnce(Write<(), Owned, Never<(), Owned>, Unchanged<(), Owned>>),
) -> (usize, u64) {
    static SITE: Site = Site::new(Role::Writes, "write", "");
    let store = Held::open();
    let engine = StripedEngine::new(engine(&store, Background::here()));
    let handle = engine.handle();
    let prepared = Write::new(Some(handle), &SITE, |plan| plan.resource("users"));
    tokio::join!(write(prepared), engine.close());
    (
        store.taken.available_permits(),
        engine.invalidations.pending(),
    )
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_the_writes_that_are_running() {
    let ended = shut_down_during(async |write| {
        write.run(async |_| a_while_later().await).await;
    });
    assert_eq!(ended.await, (1, 0));
    let dropped = shut_down_during(async |write| {
        let body = async |_| std::future::pending().await;
        tokio::select! {
            () = write.run(body) => {}
            () = a_while_later() => {}
        }
    });
    assert_eq!(
        dropped.await,
        (2, 0),
        "the announcement, and the invalidation that would have followed it"
    );
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_what_is_owed() {
    let store = Held::open();
    let invalidations = over(&store);
    let asks = async {
        let guard = invalidations.guard(request("users"));
        a_while_later().await;
        // The caller hangs up.
        drop(guard);
    };
    tokio::join!(asks, invalidations.close());
    assert_eq!(
        (store.taken.available_permits(), invalidations.pending()),
        (1, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_write_that_outlasts_the_shutdown_is_lost_and_counted() {
    let invalidations = over(&Held::open());
    let running = invalidations.begin();
    invalidations.close().await;
    let pending_ack = invalidations.enqueue(request("users"));
    drop(running);
    assert_eq!(
        pending_ack.acknowledged(ACK_TIMEOUT).await,
        Acknowledgement::Lost
    );
    assert_eq!(invalidations.pending(), 1);
}

#[tokio::test(start_paused = true)]
async fn requests_refused_to_the_end_are_lost_and_counted() {
    let store = Held::shut();
    let invalidations = over(&store);
    let pending_ack = invalidations.enqueue(request("users"));
    invalidations.close().await;
    assert_eq!(
        pending_ack.acknowledged(ACK_TIMEOUT).await,
        Acknowledgement::Lost
    );
    assert_eq!(invalidations.pending(), 1);
    assert_eq!(store.closed.available_permits(), 1);
}

#[tokio::test]
async fn a_second_shutdown_waits_as_well() {
    let store = Held::shut();
    let engine = engine(&store, Background::here());
    drop(engine.invalidations.enqueue(request("users")));
    let mut first = pin!(engine.close());
    let mut second = pin!(engine.close());
    assert!(first.as_mut().now_or_never().is_none());
    assert!(second.as_mut().now_or_never().is_none());
    store.gate.add_permits(1);
    second.await;
    assert_eq!(store.taken.available_permits(), 1);
}

#[tokio::test]
async fn a_shutdown_that_nobody_waits_for_goes_on() {
    let store = Held::open();
    let engine = engine(&store, Background::here());
    drop(engine.invalidations.enqueue(request("users")));
    assert!(engine.close().now_or_never().is_none());
    let closed = crate::base::time::timeout(LIMIT, store.closed.acquire()).await;
    closed.expect("in time").expect("never closed").forget();
    assert_eq!(store.taken.available_permits(), 1);
}

#[tokio::test]
async fn requests_of_the_last_to_leave_are_delivered() {
    let store = Held::open();
    store.refusals.store(5, Ordering::SeqCst);
    let engine = engine(&store, Background::start().expect("a thread"));
    drop(engine.invalidations.enqueue(request("users")));
    drop(engine);
    store.takes_one().await;
}
