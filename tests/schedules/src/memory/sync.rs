//! `crate::sync` of the runtime, as loom sees it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};

use loom::sync::MutexGuard;
pub use loom::sync::atomic;
use loom::sync::atomic::{AtomicBool, Ordering};

#[derive(Default)]
pub struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mutex")
    }
}

/// As the standard library's: what it holds is published by a store with `Release`, and read by a load with `Acquire`.
#[derive(Default)]
pub struct OnceLock<T> {
    is_made: AtomicBool,
    making: Mutex<()>,
    value: std::sync::OnceLock<T>,
}

impl<T> OnceLock<T> {
    pub fn get(&self) -> Option<&T> {
        self.is_made
            .load(Ordering::Acquire)
            .then(|| self.value.get())?
    }

    pub fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
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

/// As Tokio's, as far as it is used: all under one lock, as there.
#[derive(Debug, Default)]
pub struct Notify(Mutex<Calls>);

#[derive(Debug, Default)]
struct Calls {
    number: usize,
    waiting: Vec<Waker>,
}

impl Notify {
    pub fn notify_waiters(&self) {
        let waiting = {
            let mut calls = self.0.lock();
            calls.number += 1;
            std::mem::take(&mut calls.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Hears of every call from here on.
    pub fn notified(&self) -> Notified<'_> {
        let heard = self.0.lock().number;
        Notified {
            notify: self,
            heard,
        }
    }
}

pub struct Notified<'a> {
    notify: &'a Notify,
    heard: usize,
}

impl Notified<'_> {
    pub fn enable(self: Pin<&mut Self>) -> bool {
        // Tokio puts it into the list here; for calls to all who wait it has heard of them since it was made.
        self.notify.0.lock().number != self.heard
    }
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut calls = self.notify.0.lock();
        if calls.number != self.heard {
            return Poll::Ready(());
        }
        calls.waiting.push(context.waker().clone());
        Poll::Pending
    }
}
