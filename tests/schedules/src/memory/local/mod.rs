//! What was heard of a key, and the epoch and the heartbeats of a connection.

#[path = "../../../../../cache-runtime/src/local/cells.rs"]
#[allow(dead_code, reason = "not all of it is tried")]
mod cells;
#[path = "../../../../../cache-runtime/src/local/cover.rs"]
#[allow(dead_code, reason = "not all of it is tried")]
mod cover;
#[path = "../../../../../cache-runtime/src/local/tick.rs"]
#[allow(dead_code, reason = "not all of it is tried")]
mod tick;

use std::sync::Arc;
use std::time::Duration;

use loom::future::block_on;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use self::cells::Cells;
use self::cover::{Cover, NO_EPOCH};
use self::tick::{Moment, Tick};
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
const AT_START: Tick = Tick(1_000_000_000_000);
const START: Moment = Moment {
    tick: AT_START,
    wall: AT_START,
};

fn word_wakes_whoever_waits() {
    let cells = Arc::new(Cells::default());
    let cell = cells.take(KEY);
    let waiter = thread::spawn(move || block_on(cell.ended()));
    cells.end(KEY);
    waiter.join().expect("woken");
}

fn word_wakes_two_who_wait() {
    let cells = Arc::new(Cells::default());
    let (one, other) = (cells.take(KEY), cells.take(KEY));
    let one = thread::spawn(move || block_on(one.ended()));
    let ender = thread::spawn({
        let cells = Arc::clone(&cells);
        move || cells.end(KEY)
    });
    block_on(other.ended());
    assert!(!other.is_quiet());
    one.join().expect("woken");
    ender.join().expect("ended");
}

/// The server changes a value and pushes word of it; a read takes the cell, then reads. Whatever overtakes what, an old
/// value is not kept under a quiet cell.
fn a_read_that_word_overtakes_is_poisoned() {
    let cells = Arc::new(Cells::default());
    let server = Arc::new(Mutex::new(0));
    let pusher = thread::spawn({
        let (cells, server) = (Arc::clone(&cells), Arc::clone(&server));
        move || {
            *server.lock() = 1;
            cells.end(KEY);
        }
    });
    let reader = thread::spawn({
        let (cells, server) = (Arc::clone(&cells), Arc::clone(&server));
        move || {
            let cell = cells.take(KEY);
            let value = *server.lock();
            (cell, value)
        }
    });
    let (cell, value) = reader.join().expect("read");
    pusher.join().expect("pushed");
    assert!(value == 1 || !cell.is_quiet());
}

/// A write that has returned is known of by a flag; whoever sees it sees the end of what was taken before.
fn after_word_a_key_is_quiet_again() {
    let cells = Arc::new(Cells::default());
    let before = cells.take(KEY);
    let returned = Arc::new(AtomicUsize::new(0));
    let writer = thread::spawn({
        let (cells, returned) = (Arc::clone(&cells), Arc::clone(&returned));
        move || {
            cells.end(KEY);
            returned.store(1, Ordering::Release);
        }
    });
    if returned.load(Ordering::Acquire) == 1 {
        assert!(!before.is_quiet());
        assert!(cells.take(KEY).is_quiet());
    }
    writer.join().expect("written");
}

fn opened() -> (Arc<Cover>, cover::Session) {
    let cover = Arc::new(Cover::new(SECOND));
    let session = cover.announce();
    cover.open(session);
    (cover, session)
}

/// Pushes of the old connection are still being handled while the new one is opened.
fn a_beat_of_an_old_session_never_covers() {
    let (cover, old) = opened();
    let beat = cover.beat(old, START).expect("open");
    let late = thread::spawn({
        let cover = Arc::clone(&cover);
        move || cover.returned(old, beat)
    });
    let epoch = cover.epoch();
    cover.close(old);
    let new = cover.announce();
    cover.open(new);
    assert_eq!(cover.age(START), None);
    late.join().expect("handled");
    assert_eq!(cover.age(START), None);
    assert_ne!(cover.epoch(), epoch);
}

/// Whoever marks a read with the new epoch does not find the old connection's cover.
fn a_new_epoch_begins_without_cover() {
    let (cover, old) = opened();
    let beat = cover.beat(old, START).expect("open");
    cover.returned(old, beat);
    let before = cover.epoch();
    let keeper = thread::spawn({
        let cover = Arc::clone(&cover);
        move || {
            let new = cover.announce();
            cover.open(new);
        }
    });
    let epoch = cover.epoch();
    let age = cover.age(START);
    assert!(epoch == before || age.is_none(), "{epoch} {age:?}");
    keeper.join().expect("opened");
}

/// Whoever knows that a connection was lost is not served what it brought.
fn what_is_lost_is_forgotten() {
    let (cover, session) = opened();
    let beat = cover.beat(session, START).expect("open");
    let is_known = Arc::new(AtomicUsize::new(0));
    let beats = thread::spawn({
        let cover = Arc::clone(&cover);
        move || cover.returned(session, beat)
    });
    let closer = thread::spawn({
        let (cover, is_known) = (Arc::clone(&cover), Arc::clone(&is_known));
        move || {
            cover.close(session);
            is_known.store(1, Ordering::Release);
        }
    });
    if is_known.load(Ordering::Acquire) == 1 {
        assert_eq!(cover.age(START), None);
        assert_eq!(cover.epoch(), NO_EPOCH);
    }
    beats.join().expect("handled");
    closer.join().expect("closed");
}
