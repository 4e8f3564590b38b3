//! Reads that travel together.

#[path = "../../../../../cache-runtime/src/store/redis/batcher/mod.rs"]
#[allow(dead_code, unused_imports, reason = "not all of it is tried")]
mod batcher;
mod connection;
mod errors;
#[path = "../../../../../cache-runtime/src/store/redis/read_path.rs"]
#[allow(dead_code, reason = "not all of it is tried")]
mod read_path;
mod reads;
mod schedules;

use self::reads as mget;
use self::reads as stored;

pub use self::schedules::SCHEDULES;

mod reply {
    use crate::base::error::{Error, ErrorKind};

    pub fn miscounted() -> Error {
        Error::new(ErrorKind::Store, "miscounted")
    }
}
