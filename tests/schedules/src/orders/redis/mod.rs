//! Reads that travel together.

#[path = "../../../../../cache-runtime/src/store/redis/batcher.rs"]
#[allow(dead_code, reason = "not all of it is tried")]
mod batcher;
mod errors;
mod link;
mod reads;
mod schedules;

pub use self::schedules::SCHEDULES;
use crate::base::error::{Error, ErrorKind};

fn miscounted() -> Error {
    Error::new(ErrorKind::Store, "miscounted")
}
