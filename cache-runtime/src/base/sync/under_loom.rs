//! The types of loom, with the names and methods of the usual ones.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

pub(crate) use loom::sync::atomic;
use loom::sync::atomic::{AtomicBool, Ordering};
pub(crate) use tokio::time;

pub(crate) use super::mutex::Mutex;

/// How often a thread may be interrupted where it need not wait, in tests of three threads. Most
/// faults show with two interruptions; with no limit such a test takes hours.
const INTERRUPTIONS: usize = 2;

/// Runs the test in every order of its two threads, with every value that the memory model lets
/// them see. Panics if the test fails in one of them, or if all threads wait.
pub(crate) fn every_order_of_two(test: fn()) {
    every_order(None, test);
}

/// The same for three threads, each of which is interrupted [`INTERRUPTIONS`] times at most.
pub(crate) fn every_order_of_three(test: fn()) {
    every_order(Some(INTERRUPTIONS), test);
}

fn every_order(interruptions: Option<usize>, test: fn()) {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    let orders = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&orders);
    let mut model = loom::model::Builder::new();
    model.preemption_bound = interruptions;
    model.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        test();
    });
    eprintln!("{} orders", orders.load(Ordering::Relaxed));
}

/// Like the standard library's: the value is published by a store with `Release`, and read after a
/// load with `Acquire`.
#[derive(Default)]
pub(crate) struct OnceLock<T> {
    is_made: AtomicBool,
    making: Mutex<()>,
    value: std::sync::OnceLock<T>,
}

impl<T> OnceLock<T> {
    pub(crate) fn get(&self) -> Option<&T> {
        self.is_made
            .load(Ordering::Acquire)
            .then(|| self.value.get())?
    }

    pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        if !self.is_made.load(Ordering::Acquire) {
            let _making = self.making.lock();
            self.value.get_or_init(make);
            self.is_made.store(true, Ordering::Release);
        }
        self.value.get().expect("made")
    }
}

impl<T> fmt::Debug for OnceLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnceLock")
    }
}

/// Like Tokio's, as far as the tested code uses it. Its state is under one lock, as there.
#[derive(Debug, Default)]
pub(crate) struct Notify(Mutex<Calls>);

#[derive(Debug, Default)]
struct Calls {
    number: usize,
    waiting: Vec<Waker>,
}

impl Notify {
    pub(crate) fn notify_waiters(&self) {
        let waiting = {
            let mut calls = self.0.lock();
            calls.number += 1;
            std::mem::take(&mut calls.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Is woken by every call from here on.
    pub(crate) fn notified(&self) -> Notified<'_> {
        let seen = self.0.lock().number;
        Notified { notify: self, seen }
    }
}

pub(crate) struct Notified<'a> {
    notify: &'a Notify,
    /// The number of calls before it was created.
    seen: usize,
}

impl Notified<'_> {
    /// Tokio's registers here for `notify_one`. `notify_waiters` wakes it since it was created.
    pub(crate) fn enable(self: Pin<&mut Self>) -> bool {
        self.notify.0.lock().number != self.seen
    }
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut calls = self.notify.0.lock();
        if calls.number != self.seen {
            return Poll::Ready(());
        }
        calls.waiting.push(context.waker().clone());
        Poll::Pending
    }
}
