//! What was heard of a key, and the epoch and the heartbeats of a connection.

#[path = "../../../../../cache-runtime/src/local/coarse_clock.rs"]
#[allow(dead_code, reason = "not all of it is tried")]
mod coarse_clock;
#[path = "../../../../../cache-runtime/src/local/flags.rs"]
#[allow(dead_code, reason = "not all of it is tried")]
mod flags;
#[path = "../../../../../cache-runtime/src/local/freshness.rs"]
#[allow(dead_code, reason = "not all of it is tried")]
mod freshness;

use std::sync::Arc;
use std::time::Duration;

use loom::future::block_on;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use self::coarse_clock::{ClockReading, CoarseInstant};
use self::flags::InvalidationFlags;
use self::freshness::{FreshnessBound, NO_EPOCH};
use crate::Schedule;
use crate::Threads::{Three, Two};
use crate::sync::Mutex;

pub const SCHEDULES: [Schedule; 7] = [
    ("word wakes whoever waits", Two, word_wakes_whoever_waits),
    ("word wakes two who wait", Three, word_wakes_two_who_wait),
    (
        "a read that word overtakes is poisoned",
        Three,
        a_read_that_word_overtakes_is_poisoned,
    ),
    (
        "after word a key is quiet again",
        Two,
        after_word_a_key_is_quiet_again,
    ),
    (
        "a beat of an old session never covers",
        Two,
        a_beat_of_an_old_session_never_covers,
    ),
    (
        "a new epoch begins without cover",
        Two,
        a_new_epoch_begins_without_cover,
    ),
    (
        "what is lost is forgotten",
        Three,
        what_is_lost_is_forgotten,
    ),
];

const KEY: u128 = 1;
const SECOND: Duration = Duration::from_secs(1);
const AT_START: CoarseInstant = CoarseInstant(1_000_000_000_000);
const START: ClockReading = ClockReading {
    monotonic: AT_START,
    wall: AT_START,
};

fn word_wakes_whoever_waits() {
    let flags = Arc::new(InvalidationFlags::default());
    let flag = flags.take(KEY);
    let waiter = thread::spawn(move || block_on(flag.invalidated()));
    flags.invalidate(KEY);
    waiter.join().expect("woken");
}

fn word_wakes_two_who_wait() {
    let flags = Arc::new(InvalidationFlags::default());
    let (one, other) = (flags.take(KEY), flags.take(KEY));
    let one = thread::spawn(move || block_on(one.invalidated()));
    let ender = thread::spawn({
        let flags = Arc::clone(&flags);
        move || flags.invalidate(KEY)
    });
    block_on(other.invalidated());
    assert!(!other.is_valid());
    one.join().expect("woken");
    ender.join().expect("ended");
}

/// The server changes a value and pushes word of it; a read takes the flag, then reads. Whatever
/// overtakes what, an old value is not kept under a valid flag.
fn a_read_that_word_overtakes_is_poisoned() {
    let flags = Arc::new(InvalidationFlags::default());
    let server = Arc::new(Mutex::new(0));
    let pusher = thread::spawn({
        let (flags, server) = (Arc::clone(&flags), Arc::clone(&server));
        move || {
            *server.lock() = 1;
            flags.invalidate(KEY);
        }
    });
    let reader = thread::spawn({
        let (flags, server) = (Arc::clone(&flags), Arc::clone(&server));
        move || {
            let flag = flags.take(KEY);
            let value = *server.lock();
            (flag, value)
        }
    });
    let (flag, value) = reader.join().expect("read");
    pusher.join().expect("pushed");
    assert!(value == 1 || !flag.is_valid());
}

/// A write that has returned is known of by a flag; whoever sees it sees the end of what was taken before.
fn after_word_a_key_is_quiet_again() {
    let flags = Arc::new(InvalidationFlags::default());
    let before = flags.take(KEY);
    let returned = Arc::new(AtomicUsize::new(0));
    let writer = thread::spawn({
        let (flags, returned) = (Arc::clone(&flags), Arc::clone(&returned));
        move || {
            flags.invalidate(KEY);
            returned.store(1, Ordering::Release);
        }
    });
    if returned.load(Ordering::Acquire) == 1 {
        assert!(!before.is_valid());
        assert!(flags.take(KEY).is_valid());
    }
    writer.join().expect("written");
}

fn opened() -> (Arc<FreshnessBound>, freshness::ConnectionId) {
    let freshness = Arc::new(FreshnessBound::new(SECOND));
    let connection_id = freshness.announce();
    freshness.open(connection_id);
    (freshness, connection_id)
}

/// Pushes of the old connection are still being handled while the new one is opened.
fn a_beat_of_an_old_session_never_covers() {
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
}

/// Whoever marks a read with the new epoch does not find the old connection's freshness bound.
fn a_new_epoch_begins_without_cover() {
    let (freshness, old) = opened();
    let heartbeat = freshness.start_heartbeat(old, START).expect("open");
    freshness.returned(old, heartbeat);
    let before = freshness.epoch();
    let keeper = thread::spawn({
        let freshness = Arc::clone(&freshness);
        move || {
            let new = freshness.announce();
            freshness.open(new);
        }
    });
    let epoch = freshness.epoch();
    let age = freshness.age(START);
    assert!(epoch == before || age.is_none(), "{epoch} {age:?}");
    keeper.join().expect("opened");
}

/// Whoever knows that a connection was lost is not served what it brought.
fn what_is_lost_is_forgotten() {
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
}
