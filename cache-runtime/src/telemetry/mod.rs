//! The measurements and reports of a cache: plain data, below everything that uses it.

pub(crate) mod audit;
pub(crate) mod events;
pub(crate) mod function;
pub(crate) mod histogram;
#[cfg(feature = "metrics")]
pub(crate) mod published;
mod record;
mod server;
pub(crate) mod switches;

pub(crate) use self::histogram::micros;
pub(crate) use self::record::Telemetry;
pub(crate) use self::server::StoreServer;
