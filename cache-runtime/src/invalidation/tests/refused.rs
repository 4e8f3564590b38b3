//! What the store refuses while it takes the rest.

use std::time::Duration;

use super::held::Held;
use super::{LIMIT, engine, over, request};
use crate::base::background::Background;
use crate::invalidation::{Acknowledgement, InvalidationRequest};
use crate::telemetry::events::EventKind;

/// How many invalidations the store got that name this generation.
fn got(store: &Held, name: &str) -> usize {
    let got = store.got.lock();
    let naming = got.iter().filter(|names| names.iter().any(|it| it == name));
    naming.count()
}

#[tokio::test(start_paused = true)]
async fn refused_requests_are_sent_apart_and_after_a_pause() {
    let store = Held::open();
    store.forbidden.lock().push("orders");
    let invalidations = over(&store);
    let told = invalidations.send(request("orders")).acknowledged(LIMIT);
    assert_eq!(told.await, Acknowledgement::Pending);
    assert!(invalidations.refuses(&request("orders")));
    // They come one after another, so each wakes the task that delivers.
    for _ in 0..50 {
        let told = invalidations.send(request("users")).acknowledged(LIMIT);
        assert_eq!(told.await, Acknowledgement::Delivered);
    }
    // By its caller's task, and once more since others have come.
    assert!(got(&store, "orders") <= 2, "{:?}", store.got);
    for names in store.got.lock().iter() {
        assert_eq!(names.len(), 1, "sent with others: {names:?}");
    }
    let before = got(&store, "orders");
    // Others do not put it off.
    for _ in 0..40 {
        crate::base::time::sleep(Duration::from_millis(50)).await;
        let told = invalidations.send(request("users")).acknowledged(LIMIT);
        assert_eq!(told.await, Acknowledgement::Delivered);
    }
    assert!(got(&store, "orders") > before);
    assert!(invalidations.refuses(&request("orders")) && !invalidations.refuses(&request("users")));
    store.forbidden.lock().clear();
    while invalidations.pending() > 0 {
        crate::base::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!invalidations.refuses(&request("orders")));
}

/// A retry that becomes due while others are sent is not put off.
#[tokio::test(start_paused = true)]
async fn refused_requests_are_sent_although_others_come_all_the_time() {
    let store = Held::open();
    store.forbidden.lock().push("orders");
    let invalidations = over(&store);
    let told = invalidations.send(request("orders")).acknowledged(LIMIT);
    assert_eq!(told.await, Acknowledgement::Pending);
    *store.takes.lock() = Duration::from_millis(10);
    let before = got(&store, "orders");
    for _ in 0..5_000 {
        drop(invalidations.enqueue(request("users")));
        crate::base::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(got(&store, "users") > 400, "sent one after the other");
    // Five seconds, and a pause of one at most.
    let tried = got(&store, "orders") - before;
    assert!(tried >= 4, "{tried}");
}

/// The more is refused, the longer a retry takes, and others wait meanwhile.
#[tokio::test(start_paused = true)]
async fn retries_of_what_is_refused_take_a_small_part_of_the_time() {
    let store = Held::open();
    store.forbidden.lock().push("orders");
    *store.takes.lock() = Duration::from_secs(1);
    let invalidations = over(&store);
    drop(invalidations.enqueue(request("orders")));
    crate::base::time::sleep(Duration::from_secs(110)).await;
    let tried = got(&store, "orders");
    assert!((5..=12).contains(&tried), "{tried}");
}

/// Those that are told of invalidations hear of what is done, while something else is refused.
#[tokio::test(start_paused = true)]
async fn delivered_parts_are_told_though_the_rest_is_refused() {
    let store = Held::open();
    store.forbidden.lock().push("orders");
    let engine = engine(&store, Background::here());
    let mut events = engine.telemetry.events.subscribe();
    let invalidations = &engine.invalidations;
    let told = invalidations.send(request("orders")).acknowledged(LIMIT);
    assert_eq!(told.await, Acknowledgement::Pending);
    let told = invalidations.send(request("users")).acknowledged(LIMIT);
    assert_eq!(told.await, Acknowledgement::Delivered);
    let mut invalidated = Vec::new();
    while let Some(event) = events.try_next() {
        if let EventKind::Invalidated { dependencies, .. } = event.kind {
            invalidated.extend(dependencies);
        }
    }
    assert_eq!(invalidated, ["users"]);
}

/// A load that names a tag goes by the generation of all tags, which is replaced first.
#[tokio::test(start_paused = true)]
async fn tags_wait_for_what_is_replaced_before_them() {
    let store = Held::open();
    store.forbidden.lock().push("~~");
    let invalidations = over(&store);
    for name in ["~team:7", "~team:8"] {
        let told = invalidations.send(tag(name)).acknowledged(LIMIT);
        assert_eq!(told.await, Acknowledgement::Pending);
    }
    let told = invalidations.send(request("users")).acknowledged(LIMIT);
    assert_eq!(told.await, Acknowledgement::Delivered);
    store.forbidden.lock().clear();
    while invalidations.pending() > 0 {
        crate::base::time::sleep(Duration::from_millis(50)).await;
    }
    assert_tags_came_with_theirs(&store);
}

/// The tag was refused and is allowed now, and the generation of all tags the other way round.
#[tokio::test(start_paused = true)]
async fn tags_wait_for_what_has_just_been_refused() {
    let (store, connection) = Held::connected();
    store.forbidden.lock().push("~team:7");
    let invalidations = over(&store);
    let told = invalidations.send(tag("~team:7")).acknowledged(LIMIT);
    assert_eq!(told.await, Acknowledgement::Pending);
    *store.forbidden.lock() = vec!["~~"];
    // Over a new connection, what was refused is sent at once.
    connection.established();
    let told = invalidations.send(tag("~team:7")).acknowledged(LIMIT);
    assert_eq!(told.await, Acknowledgement::Pending);
    assert_eq!(got(&store, "~~"), 2);
    store.forbidden.lock().clear();
    while invalidations.pending() > 0 {
        crate::base::time::sleep(Duration::from_millis(50)).await;
    }
    assert_tags_came_with_theirs(&store);
}

/// A write of a tag, and the generation of all tags.
fn tag(name: &str) -> InvalidationRequest {
    InvalidationRequest {
        rotates: [request(name).rotates, request("~~").rotates].concat(),
        ..InvalidationRequest::default()
    }
}

fn assert_tags_came_with_theirs(store: &Held) {
    let got = store.got.lock();
    let is_of_tag = |names: &&Vec<String>| names.iter().any(|it| it.starts_with("~team"));
    assert!(got.iter().any(|names| is_of_tag(&names)));
    for names in got.iter().filter(is_of_tag) {
        assert_eq!(names[names.len() - 1], "~~", "without: {names:?}");
    }
}

/// The task may have sent others for long before that, without a pause.
#[tokio::test(start_paused = true)]
async fn what_was_sent_before_a_refusal_puts_no_retry_off() {
    let store = Held::open();
    *store.takes.lock() = Duration::from_millis(10);
    let invalidations = over(&store);
    for _ in 0..500 {
        drop(invalidations.enqueue(request("users")));
        crate::base::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(got(&store, "users") > 200, "sent one after the other");
    store.forbidden.lock().push("orders");
    drop(invalidations.enqueue(request("orders")));
    crate::base::time::sleep(Duration::from_secs(5)).await;
    let tried = got(&store, "orders");
    assert!(tried >= 5, "{tried}");
}

/// Nothing had been refused when they were enqueued.
#[tokio::test(start_paused = true)]
async fn others_in_the_batch_of_the_first_refusal_are_told_that_they_are_done() {
    let store = Held::shut();
    store.forbidden.lock().push("orders");
    let invalidations = over(&store);
    let teams = invalidations.send(request("teams"));
    let [orders, users] = ["orders", "users"].map(|name| invalidations.enqueue(request(name)));
    store.gate.add_permits(1_000);
    let told = tokio::join!(
        teams.acknowledged(LIMIT),
        orders.acknowledged(LIMIT),
        users.acknowledged(LIMIT)
    );
    let (delivered, pending) = (Acknowledgement::Delivered, Acknowledgement::Pending);
    assert_eq!(told, (delivered, pending, delivered));
}

/// A refusal is an answer: the server is there.
#[tokio::test(start_paused = true)]
async fn a_lost_connection_is_waited_for_while_something_is_refused() {
    let (store, _connection) = Held::connected();
    store.forbidden.lock().push("orders");
    let invalidations = over(&store);
    let told = invalidations.send(request("orders")).acknowledged(LIMIT);
    assert_eq!(told.await, Acknowledgement::Pending);
    let told = invalidations.send(request("users")).acknowledged(LIMIT);
    assert_eq!(told.await, Acknowledgement::Delivered);
    store.lose_connection();
    let users = invalidations.send(request("users"));
    let back = async {
        crate::base::time::sleep(Duration::from_millis(30)).await;
        store.connect();
    };
    let (told, ()) = tokio::join!(users.acknowledged(LIMIT), back);
    assert_eq!(told, Acknowledgement::Delivered);
}
