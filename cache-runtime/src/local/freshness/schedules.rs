//! Every order of heartbeats of a connection, of its loss, and of its replacement.

use std::sync::Arc;
use std::time::Duration;

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use super::{ConnectionId, FreshnessBound, NO_EPOCH};
use crate::base::sync::{every_order_of_three, every_order_of_two};
use crate::local::coarse_clock::{ClockReading, CoarseInstant};

const SECOND: Duration = Duration::from_secs(1);
const AT_START: CoarseInstant = CoarseInstant(1_000_000_000_000);
const START: ClockReading = ClockReading {
    monotonic: AT_START,
    wall: AT_START,
};

fn opened() -> (Arc<FreshnessBound>, ConnectionId) {
    let freshness = Arc::new(FreshnessBound::new(SECOND));
    let connection_id = freshness.announce();
    freshness.open(connection_id);
    (freshness, connection_id)
}

/// Messages of the old connection are still being handled while the new one is opened.
#[test]
fn a_heartbeat_of_an_old_connection_never_counts() {
    every_order_of_two(|| {
        let (freshness, old) = opened();
        let heartbeat = freshness.start_heartbeat(old, START).expect("open");
        let late = thread::spawn({
            let freshness = Arc::clone(&freshness);
            move || freshness.returned(old, heartbeat)
        });
        let epoch = freshness.epoch();
        freshness.close(old);
        let new = freshness.announce();
        freshness.open(new);
        assert_eq!(freshness.age(START), None);
        late.join().expect("handled");
        assert_eq!(freshness.age(START), None);
        assert_ne!(freshness.epoch(), epoch);
    });
}

/// A read that belongs to the new epoch does not use the old connection's freshness bound.
#[test]
fn a_new_epoch_begins_without_a_heartbeat() {
    every_order_of_two(|| {
        let (freshness, old) = opened();
        let heartbeat = freshness.start_heartbeat(old, START).expect("open");
        freshness.returned(old, heartbeat);
        let before = freshness.epoch();
        let opener = thread::spawn({
            let freshness = Arc::clone(&freshness);
            move || {
                let new = freshness.announce();
                freshness.open(new);
            }
        });
        let epoch = freshness.epoch();
        let age = freshness.age(START);
        assert!(epoch == before || age.is_none(), "{epoch} {age:?}");
        opener.join().expect("opened");
    });
}

/// A reader that knows of the loss of a connection is served nothing that it has brought.
#[test]
fn a_lost_connection_drops_what_it_has_brought() {
    every_order_of_three(|| {
        let (freshness, connection_id) = opened();
        let heartbeat = freshness
            .start_heartbeat(connection_id, START)
            .expect("open");
        let is_known = Arc::new(AtomicUsize::new(0));
        let heartbeats = thread::spawn({
            let freshness = Arc::clone(&freshness);
            move || freshness.returned(connection_id, heartbeat)
        });
        let closer = thread::spawn({
            let (freshness, is_known) = (Arc::clone(&freshness), Arc::clone(&is_known));
            move || {
                freshness.close(connection_id);
                is_known.store(1, Ordering::Release);
            }
        });
        if is_known.load(Ordering::Acquire) == 1 {
            assert_eq!(freshness.age(START), None);
            assert_eq!(freshness.epoch(), NO_EPOCH);
        }
        heartbeats.join().expect("handled");
        closer.join().expect("closed");
    });
}
