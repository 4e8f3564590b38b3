//! The local tier: decoded values in the process, kept coherent with Redis. The store in memory
//! shares its flags, its clocks, and the entries that threads keep.

#![cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "only values from Redis get local entries")
)]

mod coarse_clock;
mod counters;
mod entry;
mod flags;
mod freshness;
mod kept;
mod read_token;
#[cfg(test)]
mod tests;
mod tier;

pub(crate) use self::coarse_clock::{ClockReading, CoarseInstant};
pub use self::counters::LocalStats;
pub(crate) use self::entry::{AnyValue, ExpectedEntry, NewLocalEntry};
pub(crate) use self::flags::{InvalidationFlag, InvalidationFlags};
#[cfg(any(feature = "redis", feature = "outbox-postgres"))]
pub(crate) use self::freshness::ConnectionId;
pub(crate) use self::freshness::FreshnessBound;
#[cfg(feature = "redis")]
pub(crate) use self::freshness::HeartbeatId;
pub(crate) use self::kept::{EntrySource, KeptEntry, KeptHit, ServableEntry};
pub(crate) use self::read_token::ReadToken;
pub(crate) use self::tier::Local;
