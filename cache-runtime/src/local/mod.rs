//! The local tier: decoded values in the process, kept coherent with Redis.

#![cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "only values from Redis get local entries")
)]

mod cells;
mod cover;
mod entry;
mod figures;
mod read_token;
#[cfg(test)]
mod tests;
mod tick;
mod tier;

#[cfg(feature = "redis")]
pub(crate) use self::cover::Beat;
pub(crate) use self::cover::Cover;
#[cfg(any(feature = "redis", feature = "outbox-postgres"))]
pub(crate) use self::cover::Session;
pub(crate) use self::entry::{Again, Asked, Copy, KeptEntry, Shared};
pub use self::figures::LocalFigures;
pub(crate) use self::read_token::ReadToken;
pub(crate) use self::tick::Moment;
pub(crate) use self::tier::Local;
