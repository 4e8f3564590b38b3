mod blocks;
mod direct;
mod held;
mod reconnect;
mod refused;
mod shutdown;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};

use self::held::Held;
use super::*;
use crate::base::background::Background;
use crate::base::clock;
use crate::base::nonce::Nonce;
use crate::config::CacheConfig;
use crate::engine::Engine;
use crate::invalidation::queue::Queue;
use crate::invalidation::shared::SharedQueue;
use crate::invalidation::worker::CLOSING_BUDGET;
use crate::protocol::generation::Dependency;
use crate::store::{EntryRef, Intent, Store};

/// A test that hangs has failed.
const LIMIT: Duration = Duration::from_secs(60);
const INTENT: Duration = Duration::from_secs(10);

fn over(store: &Arc<Held>) -> InvalidationQueue {
    let store: Arc<dyn Store> = Arc::clone(store) as _;
    InvalidationQueue::start(store, "", 100, INTENT, Arc::default(), &Background::here())
}

fn engine(store: &Arc<Held>, background: Background) -> Engine {
    let store: Arc<dyn Store> = Arc::clone(store) as _;
    Engine::new(CacheConfig::default().local_mb(1), store, background)
}

fn request(resource: &str) -> InvalidationRequest {
    InvalidationRequest {
        rotates: vec![Dependency::new(format!("@gen:{resource}"))],
        ..InvalidationRequest::default()
    }
}

fn entry_ref(resource: &str) -> EntryRef {
    EntryRef {
        key: format!("{resource}:1"),
        kind: crate::EntryKind::Entity,
        deps: request(resource).rotates.into(),
    }
}

fn shared() -> Arc<SharedQueue> {
    Arc::new(SharedQueue {
        queue: Mutex::new(Queue::new(100, INTENT, clock::now())),
        wake: Notify::new(),
        failure: Mutex::default(),
        is_degraded: AtomicBool::new(false),
        running: watch::Sender::new(0),
        is_elsewhere: false,
        telemetry: Arc::default(),
    })
}

/// Records what a reader would have seen at the moment at which a writer is told the result.
struct Witness {
    shared: Arc<SharedQueue>,
    saw_degraded: Mutex<Option<bool>>,
}

impl Wake for Witness {
    fn wake(self: Arc<Self>) {
        let is_degraded = self.shared.is_degraded.load(Ordering::Acquire);
        *self.saw_degraded.lock() = Some(is_degraded);
    }
}

#[test]
fn a_caller_that_was_told_pending_bypasses_the_cache() {
    let shared = shared();
    let (sender, pending_ack) = oneshot::channel();
    let entered = shared.change(|queue| queue.enter(Some(request("users")), sender));
    entered.expect("open");
    let witness = Arc::new(Witness {
        shared: Arc::clone(&shared),
        saw_degraded: Mutex::default(),
    });
    let waker = Waker::from(Arc::clone(&witness));
    let mut pending_ack = pin!(pending_ack);
    let mut poll = || pending_ack.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(poll().is_pending());
    shared.change(|queue| queue.send(clock::now()));
    shared.take_back(true);
    assert_eq!(poll(), Poll::Ready(Ok(Acknowledgement::Pending)));
    assert_eq!(*witness.saw_degraded.lock(), Some(true));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_is_not_tried_until_it_is_back() {
    let store = Held::open();
    store.is_away.store(true, Ordering::SeqCst);
    let invalidations = over(&store);
    for resource in ["users", "teams", "users"] {
        let pending_ack = invalidations.enqueue(request(resource));
        assert_eq!(
            pending_ack.acknowledged(ACK_TIMEOUT).await,
            Acknowledgement::Pending
        );
    }
    assert!(
        invalidations.is_pending(&entry_ref("teams"))
            && !invalidations.is_pending(&entry_ref("posts"))
    );
    a_while_later().await;
    assert_eq!(store.attempts.load(Ordering::SeqCst), 0);
    store.is_away.store(false, Ordering::SeqCst);
    // The timer checks; no write is needed.
    store.takes_one().await;
    assert!(!invalidations.is_pending(&entry_ref("teams")));
    assert_eq!(store.attempts.load(Ordering::SeqCst), 1);
}

/// Time is paused and moves on when all tasks are idle: the shutdown gets as far as it can.
async fn a_while_later() {
    crate::base::time::sleep(CLOSING_BUDGET / 2).await;
}
#[tokio::test(start_paused = true)]
async fn an_announcement_that_is_refused_holds_nobody_up() {
    let store = Held::open();
    store.refuses_intents.store(true, Ordering::SeqCst);
    let invalidations = over(&store);
    let announcement = InvalidationRequest {
        intents: vec![Intent {
            token: Nonce::fresh(),
            rows: Vec::new(),
            deps: request("teams").rotates,
            length: LIMIT,
        }],
        ..InvalidationRequest::default()
    };
    let refused = invalidations.enqueue(announcement);
    for _ in 0..3 {
        let pending_ack = invalidations.enqueue(request("users"));
        assert_eq!(
            pending_ack.acknowledged(ACK_TIMEOUT).await,
            Acknowledgement::Delivered
        );
    }
    assert_eq!(
        refused.acknowledged(ACK_TIMEOUT).await,
        Acknowledgement::Pending
    );
    assert!(
        invalidations.is_pending(&entry_ref("teams"))
            && !invalidations.is_pending(&entry_ref("users"))
    );
    store.refuses_intents.store(false, Ordering::SeqCst);
    a_while_later().await;
    assert!(!invalidations.is_pending(&entry_ref("teams")));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_delays_no_announcement_at_another() {
    let (store, _watch) = Held::connected();
    store.is_partly_away.store(true, Ordering::SeqCst);
    let invalidations = over(&store);
    let pending_ack = invalidations.enqueue(request("users"));
    assert_eq!(
        pending_ack.acknowledged(ACK_TIMEOUT).await,
        Acknowledgement::Pending
    );
    let announcement = InvalidationRequest {
        intents: vec![Intent {
            token: Nonce::fresh(),
            rows: Vec::new(),
            deps: request("teams").rotates,
            length: LIMIT,
        }],
        ..InvalidationRequest::default()
    };
    drop(invalidations.enqueue(announcement));
    store.takes_one().await;
    assert!(invalidations.is_pending(&entry_ref("users")));
}

/// Another server takes what has come while one that is away was asked.
#[tokio::test(start_paused = true)]
async fn requests_that_come_while_one_server_is_away_are_sent_next() {
    let store = Held::open();
    store.is_partly_away.store(true, Ordering::SeqCst);
    store.forbidden.lock().push("orders");
    let invalidations = over(&store);
    let told = invalidations.send(request("orders")).acknowledged(LIMIT);
    assert_eq!(told.await, Acknowledgement::Pending);
    *store.takes.lock() = Duration::from_millis(10);
    let orders = invalidations.send(request("orders"));
    // It is asked now.
    crate::base::time::sleep(Duration::from_millis(5)).await;
    let users = invalidations.send(request("users"));
    let told = tokio::join!(orders.acknowledged(LIMIT), users.acknowledged(LIMIT));
    assert_eq!(told, (Acknowledgement::Pending, Acknowledgement::Delivered));
}
