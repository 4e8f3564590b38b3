//! The synchronization types of the code whose interleavings are tested, under one name.
//!
//! They are those of the standard library, parking_lot and Tokio. Unit tests that are compiled with
//! `--cfg cache_loom` or `--cfg cache_shuttle` get types of loom or shuttle in their place, which
//! run a test many times, each time in another order. The tests are the modules named `schedules`,
//! beside the code that they test; `scripts/schedules` compiles and runs them.
//!
//! Only unit tests can be compiled in this way, since loom and shuttle are dev-dependencies: they
//! are in no lock file of a user.

#[cfg(all(test, any(cache_loom, cache_shuttle)))]
mod mutex;
#[cfg(all(test, cache_loom))]
mod under_loom;
#[cfg(all(test, cache_shuttle))]
mod under_shuttle;

#[cfg(not(all(test, any(cache_loom, cache_shuttle))))]
mod as_usual {
    pub(crate) use std::sync::{OnceLock, atomic};

    pub(crate) use parking_lot::Mutex;
    pub(crate) use tokio::sync::Notify;

    pub(crate) use crate::base::time;
}

#[cfg(not(all(test, any(cache_loom, cache_shuttle))))]
pub(crate) use self::as_usual::*;
#[cfg(all(test, cache_loom))]
pub(crate) use self::under_loom::*;
#[cfg(all(test, cache_shuttle))]
pub(crate) use self::under_shuttle::*;
