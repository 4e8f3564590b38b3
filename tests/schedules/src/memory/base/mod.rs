//! The runtime's lowest layer, with stand-ins for what is not tried.

#[path = "../../../../../cache-runtime/src/base/mutation.rs"]
pub mod mutation;

pub(crate) use crate::sync;

/// Nobody asks for the time here: it is handed in.
pub mod clock {
    use std::time::Duration;

    pub const TICK: Duration = Duration::from_millis(10);

    pub fn coarse_nanos() -> u64 {
        0
    }

    pub fn coarse_wall_nanos() -> u64 {
        0
    }
}
