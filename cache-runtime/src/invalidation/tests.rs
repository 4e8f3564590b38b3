mod held;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};

use self::held::{Held, refused};
use super::*;
use crate::base::background::Background;
use crate::base::clock;
use crate::base::error::{Error, ErrorKind};
use crate::base::nonce::Nonce;
use crate::call::returns::Owned;
use crate::call::transaction::{self, TransactionOutcome};
use crate::call::write::{Never, Unchanged, Write};
use crate::config::CacheConfig;
use crate::engine::{Engine, StripedEngine};
use crate::invalidation::queue::Queue;
use crate::invalidation::shared::SharedQueue;
use crate::invalidation::worker::CLOSING_BUDGET;
use crate::protocol::generation::Dep;
use crate::registry::{Role, Site};
use crate::store::{Intent, Probe, Store};

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
        bumps: vec![Dep::new(format!("@gen:{resource}"))],
        ..InvalidationRequest::default()
    }
}

fn probe(resource: &str) -> Probe {
    Probe {
        key: format!("{resource}:1"),
        kind: crate::EntryKind::Entity,
        deps: request(resource).bumps.into(),
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
fn who_is_told_pending_reads_past_the_cache() {
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
    shared.take_back();
    assert_eq!(poll(), Poll::Ready(Ok(Acknowledgement::Pending)));
    assert_eq!(*witness.saw_degraded.lock(), Some(true));
}

#[tokio::test(start_paused = true)]
async fn who_waits_alone_sends_its_invalidation_itself() {
    let store = Held::open();
    let invalidations = over(&store);
    let told = invalidations.send(request("users")).acknowledged(LIMIT);
    // Polled once: no other task has run.
    assert_eq!(told.now_or_never(), Some(Acknowledgement::Delivered));
    assert_eq!(store.attempts.load(Ordering::SeqCst), 1);
    assert_eq!(invalidations.pending(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_caller_sends_is_delivered_although_it_is_dropped() {
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
            invalidations.is_pending(&probe("users")),
            "reads know of it"
        );
        store.gate.add_permits(1);
        let taken = tokio::time::timeout(LIMIT, store.taken.acquire()).await;
        taken.expect("in time").expect("never closed").forget();
        while invalidations.pending() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(!invalidations.is_pending(&probe("users")));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_caller_has_sent_in_vain_is_sent_again() {
    let store = Held::open();
    store.refusals.store(1, Ordering::SeqCst);
    let invalidations = over(&store);
    let told = invalidations.send(request("users")).acknowledged(LIMIT);
    assert_eq!(told.await, Acknowledgement::Pending);
    assert!(invalidations.is_pending(&probe("users")));
    let taken = tokio::time::timeout(LIMIT, store.taken.acquire()).await;
    taken.expect("in time").expect("never closed").forget();
    assert_eq!(store.attempts.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn who_comes_next_does_not_wait_for_a_task_that_nobody_polls() {
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
async fn who_comes_behind_what_is_refused_is_not_held_up() {
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
        invalidations.is_pending(&probe("teams")) && !invalidations.is_pending(&probe("posts"))
    );
    a_while_later().await;
    assert_eq!(store.attempts.load(Ordering::SeqCst), 0);
    store.is_away.store(false, Ordering::SeqCst);
    // The timer checks; no write is needed.
    let taken = tokio::time::timeout(LIMIT, store.taken.acquire()).await;
    taken.expect("in time").expect("never closed").forget();
    assert!(!invalidations.is_pending(&probe("teams")));
    assert_eq!(store.attempts.load(Ordering::SeqCst), 1);
}

/// Time is paused and moves on when all tasks are idle: the shutdown gets as far as it can.
async fn a_while_later() {
    tokio::time::sleep(CLOSING_BUDGET / 2).await;
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
async fn a_block_ends_when_what_was_dropped_in_it_is_announced_or_bypassed() {
    static SITE: Site = Site::new(Role::Writes, "write", "");
    for announced in [false, true] {
        let store = Held::shut();
        // The invalidation is taken. The intent is taken only if there is a second one.
        store.gate.add_permits(1 + usize::from(announced));
        let engine = StripedEngine::new(engine(&store, Background::here()));
        let write: Write<(), Owned, _, _> =
            Write::new(Some(engine.handle()), &SITE, |plan| plan.resource("users"));
        let block = async {
            tokio::select! {
                () = write.run(async |_| std::future::pending().await) => {}
                () = a_while_later() => {}
            }
            ((), TransactionOutcome::Committed)
        };
        transaction::run(engine.handle(), block).await;
        assert_eq!(engine.invalidations.is_pending(&probe("users")), !announced);
        let taken = store.taken.available_permits();
        assert_eq!(taken, 1 + usize::from(announced));
    }
}

#[tokio::test(start_paused = true)]
async fn a_block_ends_when_everything_is_invalidated_or_bypassed() {
    // This store refuses an invalidation of the namespace.
    let store = Held::open();
    let engine = StripedEngine::new(engine(&store, Background::here()));
    let handle = engine.handle();
    let block = async {
        transaction::defer_everything(&handle);
        ((), TransactionOutcome::Committed)
    };
    transaction::run(engine.handle(), block).await;
    assert!(engine.invalidations.is_pending(&probe("users")));
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
async fn what_the_store_refuses_to_the_end_is_lost_and_counted() {
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
async fn whoever_shuts_down_second_waits_as_well() {
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
    let closed = tokio::time::timeout(LIMIT, store.closed.acquire()).await;
    closed.expect("in time").expect("never closed").forget();
    assert_eq!(store.taken.available_permits(), 1);
}

#[tokio::test]
async fn what_was_enqueued_by_the_last_to_leave_is_delivered() {
    let store = Held::open();
    store.refusals.store(5, Ordering::SeqCst);
    let engine = engine(&store, Background::start().expect("a thread"));
    drop(engine.invalidations.enqueue(request("users")));
    drop(engine);
    let taken = tokio::time::timeout(LIMIT, store.taken.acquire()).await;
    taken.expect("in time").expect("never closed").forget();
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
            deps: request("teams").bumps,
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
        invalidations.is_pending(&probe("teams")) && !invalidations.is_pending(&probe("users"))
    );
    store.refuses_intents.store(false, Ordering::SeqCst);
    a_while_later().await;
    assert!(!invalidations.is_pending(&probe("teams")));
}

#[tokio::test(start_paused = true)]
async fn what_one_server_does_not_take_holds_up_no_announcement_at_another() {
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
            deps: request("teams").bumps,
            length: LIMIT,
        }],
        ..InvalidationRequest::default()
    };
    drop(invalidations.enqueue(announcement));
    let taken = tokio::time::timeout(LIMIT, store.taken.acquire()).await;
    taken.expect("in time").expect("never closed").forget();
    assert!(invalidations.is_pending(&probe("users")));
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_to_one_of_several_servers_is_waited_for() {
    let (store, _watch) = Held::connected();
    store.is_partly_away.store(true, Ordering::SeqCst);
    let invalidations = over(&store);
    let began = clock::now();
    let pending_ack = invalidations.enqueue(request("users"));
    let back = async {
        tokio::time::sleep(30 * MS).await;
        store.is_partly_away.store(false, Ordering::SeqCst);
        store.connect();
    };
    let (told, ()) = tokio::join!(pending_ack.acknowledged(ACK_TIMEOUT), back);
    assert_eq!(told, Acknowledgement::Delivered);
    assert!(is_about(began.elapsed(), 30 * MS), "{:?}", began.elapsed());
}

const MS: Duration = Duration::from_millis(1);

/// Tokio's timers have a resolution of one millisecond.
fn is_about(elapsed: Duration, expected: Duration) -> bool {
    expected <= elapsed && elapsed <= expected + 2 * MS
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_is_waited_for_and_the_next_one_is_used_at_once() {
    let (store, _watch) = Held::connected();
    let invalidations = over(&store);
    store.lose_connection();
    let began = clock::now();
    let dropped = invalidations.enqueue(request("teams"));
    let back = async {
        tokio::time::sleep(15 * MS).await;
        // The caller hangs up.
        drop(dropped);
        // What it wrote is out of date here until it is delivered, and nobody waits for that.
        assert!(invalidations.is_degraded(), "reads go past the cache");
        tokio::time::sleep(15 * MS).await;
        store.connect();
    };
    let pending_ack = invalidations.enqueue(request("users"));
    let (told, ()) = tokio::join!(pending_ack.acknowledged(ACK_TIMEOUT), back);
    assert_eq!(told, Acknowledgement::Delivered);
    assert!(is_about(began.elapsed(), 30 * MS), "{:?}", began.elapsed());
    assert_eq!(store.attempts.load(Ordering::SeqCst), 1, "both together");
    assert_eq!(invalidations.pending(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_lost_with_its_connection_is_sent_again_over_the_next() {
    let (store, _watch) = Held::connected();
    store.reconnects.store(true, Ordering::SeqCst);
    store.refusals.store(3, Ordering::SeqCst);
    let invalidations = over(&store);
    let began = clock::now();
    let pending_ack = invalidations.enqueue(request("users"));
    assert_eq!(
        pending_ack.acknowledged(ACK_TIMEOUT).await,
        Acknowledgement::Delivered
    );
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(store.attempts.load(Ordering::SeqCst), 4);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_waited_for_once() {
    let (store, watch) = Held::connected();
    let invalidations = over(&store);
    for (fails_after, waits) in [(None, 80), (Some(5), 15), (None, 80)] {
        store.lose_connection();
        let mut began = clock::now();
        let fails = async {
            if let Some(after) = fails_after {
                tokio::time::sleep(after * MS).await;
                watch.failed();
            }
        };
        let pending_ack = invalidations.enqueue(request("users"));
        let (told, ()) = tokio::join!(pending_ack.acknowledged(ACK_TIMEOUT), fails);
        assert_eq!(told, Acknowledgement::Pending);
        assert!(
            is_about(began.elapsed(), waits * MS),
            "{:?}",
            began.elapsed()
        );
        assert!(invalidations.is_pending(&probe("users")));
        // Later callers don't wait, whether they enqueue or ask the store themselves.
        began = clock::now();
        let pending_ack = invalidations.enqueue(request("users"));
        assert_eq!(
            pending_ack.acknowledged(ACK_TIMEOUT).await,
            Acknowledgement::Pending
        );
        let error = Error::unavailable("lost");
        assert!(
            !invalidations
                .reconnected(invalidations.attempt(), &error)
                .await
        );
        assert_eq!(began.elapsed(), Duration::ZERO);
        store.taken.forget_permits(usize::MAX >> 4);
        store.connect();
        let taken = tokio::time::timeout(LIMIT, store.taken.acquire()).await;
        taken.expect("in time").expect("never closed").forget();
        assert_eq!(began.elapsed(), Duration::ZERO, "woken by the connection");
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_by_himself_asks_again_over_the_next_connection() {
    let (store, _watch) = Held::connected();
    let invalidations = over(&store);
    store.lose_connection();
    let answers = async {
        let mut asked = 0;
        let answer = invalidations.persist(|| {
            asked += 1;
            let is_away = store.is_away.load(Ordering::SeqCst);
            async move { if is_away { refused() } else { Ok(()) } }
        });
        let answer = answer.await;
        (answer.is_ok(), asked)
    };
    let back = async {
        tokio::time::sleep(50 * MS).await;
        store.connect();
    };
    let (answered, ()) = tokio::join!(answers, back);
    assert_eq!(answered, (true, 2));

    // A request that the store itself refuses is not repeated.
    let refusal = Error::new(ErrorKind::Store, "the test refuses it");
    assert!(
        !invalidations
            .reconnected(invalidations.attempt(), &refusal)
            .await
    );
}

#[tokio::test(start_paused = true)]
async fn while_something_waits_the_connection_is_wanted() {
    let (store, watch) = Held::connected();
    let invalidations = over(&store);
    store.lose_connection();
    let pending_ack = invalidations.enqueue(request("users"));
    assert_eq!(
        pending_ack.acknowledged(ACK_TIMEOUT).await,
        Acknowledgement::Pending
    );
    let began = clock::now();
    watch.pause(LIMIT, 100 * MS).await;
    assert!(is_about(began.elapsed(), 100 * MS), "{:?}", began.elapsed());
    store.connect();
    a_while_later().await;
    let began = clock::now();
    watch.pause(LIMIT, 100 * MS).await;
    assert!(is_about(began.elapsed(), LIMIT), "{:?}", began.elapsed());
}
