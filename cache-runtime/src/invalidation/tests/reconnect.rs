//! A lost connection, and the next one.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::held::{Held, refused};
use super::{LIMIT, a_while_later, entry_ref, over, request};
use crate::base::clock;
use crate::base::error::{Error, ErrorKind};
use crate::invalidation::{ACK_TIMEOUT, Acknowledgement};

const MS: Duration = Duration::from_millis(1);

/// Tokio's timers have a resolution of one millisecond.
fn is_about(elapsed: Duration, expected: Duration) -> bool {
    expected <= elapsed && elapsed <= expected + 2 * MS
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_to_one_of_several_servers_is_waited_for() {
    let (store, _watch) = Held::connected();
    store.is_partly_away.store(true, Ordering::SeqCst);
    let invalidations = over(&store);
    let began = clock::now();
    let pending_ack = invalidations.enqueue(request("users"));
    let back = async {
        crate::base::time::sleep(30 * MS).await;
        store.is_partly_away.store(false, Ordering::SeqCst);
        store.connect();
    };
    let (told, ()) = tokio::join!(pending_ack.acknowledged(ACK_TIMEOUT), back);
    assert_eq!(told, Acknowledgement::Delivered);
    assert!(is_about(began.elapsed(), 30 * MS), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_is_waited_for_and_the_next_one_is_used_at_once() {
    let (store, _watch) = Held::connected();
    let invalidations = over(&store);
    store.lose_connection();
    let began = clock::now();
    let dropped = invalidations.enqueue(request("teams"));
    let back = async {
        crate::base::time::sleep(15 * MS).await;
        // The caller hangs up.
        drop(dropped);
        // What it wrote is out of date here until it is delivered, and nobody waits for that.
        assert!(invalidations.is_degraded(), "reads go past the cache");
        crate::base::time::sleep(15 * MS).await;
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
async fn requests_lost_with_a_connection_are_sent_again_over_the_next() {
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
                crate::base::time::sleep(after * MS).await;
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
        assert!(invalidations.is_pending(&entry_ref("users")));
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
        store.takes_one().await;
        assert_eq!(began.elapsed(), Duration::ZERO, "woken by the connection");
    }
}

#[tokio::test(start_paused = true)]
async fn a_direct_read_is_repeated_over_the_next_connection() {
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
        crate::base::time::sleep(50 * MS).await;
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
