//! The module `redis` of unit tests that are compiled with `--cfg cache_shuttle`, in place of
//! `redis/mod.rs`.
//!
//! A real connection needs Tokio's network and timers, which shuttle does not run. So the batcher
//! and the choice of the read path are compiled with the connection of `stand_ins.rs`. The feature
//! `redis` has to be off.

mod schedules;
mod stand_ins;

// The modules that the batcher imports from.
mod connection {
    pub(super) use super::stand_ins::{self as errors, Connection};
}

mod reads {
    #[allow(dead_code, unused_imports, reason = "not all of it is tested here")]
    pub(crate) mod batcher;
    #[allow(dead_code, reason = "not all of it is tested here")]
    pub(crate) mod read_path;

    pub(super) use super::stand_ins::{self as mget, self as read_driver, self as stored};
}
