//! The local tier: decoded values in the process, kept coherent with Redis. The store in memory
//! shares its flags, its clocks, and the entries that threads keep.

#![cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "only values from Redis get local entries")
)]

mod cells;
mod cover;
mod entry;
mod figures;
mod kept;
mod read_token;
#[cfg(test)]
mod tests;
mod tick;
mod tier;

pub(crate) use self::cells::{Cell, Cells};
#[cfg(feature = "redis")]
pub(crate) use self::cover::Beat;
pub(crate) use self::cover::Cover;
#[cfg(any(feature = "redis", feature = "outbox-postgres"))]
pub(crate) use self::cover::Session;
pub(crate) use self::entry::{Asked, Copy, Shared};
pub use self::figures::LocalFigures;
pub(crate) use self::kept::{Again, Keeper, KeptEntry, Serves};
pub(crate) use self::read_token::ReadToken;
pub(crate) use self::tick::{Moment, Tick};
pub(crate) use self::tier::Local;
