//! The mutex of loom or of shuttle, with the methods of parking_lot's.

use std::fmt;
use std::sync::PoisonError;

#[cfg(cache_loom)]
use loom::sync as model;
#[cfg(cache_shuttle)]
use shuttle::sync as model;

#[derive(Default)]
pub(crate) struct Mutex<T>(model::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(model::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> model::MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mutex")
    }
}
