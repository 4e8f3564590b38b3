//! Every order of changes of a key, of readers that take its flag, and of callers that wait for it.

use std::sync::Arc;

use loom::future::block_on;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use super::InvalidationFlags;
use crate::base::sync::{Mutex, every_order_of_three, every_order_of_two};

const KEY: u128 = 1;

#[test]
fn a_change_wakes_a_caller_that_waits() {
    every_order_of_two(|| {
        let flags = Arc::new(InvalidationFlags::default());
        let flag = flags.take(KEY);
        let waiter = thread::spawn(move || block_on(flag.invalidated()));
        flags.invalidate(KEY);
        waiter.join().expect("woken");
    });
}

#[test]
fn a_change_wakes_both_callers_that_wait() {
    every_order_of_three(|| {
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
    });
}

/// The server changes a value and reports that; a reader takes the flag, then reads. In no order is
/// an old value stored under a valid flag.
#[test]
fn a_read_that_a_change_overtakes_is_not_valid() {
    every_order_of_three(|| {
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
    });
}

/// A reader that knows that a write has returned finds the flags from before the write set.
#[test]
fn after_a_change_a_new_flag_is_valid() {
    every_order_of_two(|| {
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
    });
}
