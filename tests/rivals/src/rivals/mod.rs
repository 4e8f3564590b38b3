//! The caches under test, behind one small trait. Each adapter does what its crate's documentation
//! shows, with the options it recommends for a service of several processes; ../README.md says
//! which.

use std::fmt::Display;

use crate::data::User;

pub mod amalgam;
pub mod cached;
pub mod hand_written;
pub mod hitbox;
pub mod hydracache;
pub mod ours;

/// Why a rival did not answer.
#[derive(Clone, Debug)]
pub struct Failure(pub String);

impl Failure {
    /// Anything that can be shown.
    pub fn new(error: impl Display) -> Self {
        Self(error.to_string())
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// What any cache of a service does: reads through, and forgets what was written.
pub trait Rival: Sized + Send + Sync + 'static {
    /// How tables call it.
    const NAME: &'static str;
    /// Whether processes share what it keeps.
    const SHARED: bool;

    /// One instance, as a process has it. `port` is that of a Redis on loopback.
    fn start(port: u16) -> impl Future<Output = Self> + Send;

    /// The row, from the cache or by [`crate::data::load`].
    fn user(&self, id: i64) -> impl Future<Output = Result<User, Failure>> + Send;

    /// A hundred rows, from the cache or [`crate::data::page`].
    fn page(&self, number: i64) -> impl Future<Output = Result<Vec<User>, Failure>> + Send;

    /// A text of that many bytes, from the cache or [`crate::data::text`].
    fn text(&self, size: i64) -> impl Future<Output = Result<String, Failure>> + Send;

    /// Writes the row, then forgets what is cached of it. When this returns, the invalidation is
    /// acknowledged.
    fn write(&self, id: i64) -> impl Future<Output = Result<u64, Failure>> + Send;
}

/// Calls `$do!(Type)` for the rival of that name, or evaluates to `None`.
#[macro_export]
macro_rules! with_rival {
    ($name:expr, $do:ident) => {
        match $name {
            "ours" => Some($do!($crate::rivals::ours::Ours)),
            "ours-memory" => Some($do!($crate::rivals::ours::OursInMemory)),
            "hand-written" => Some($do!($crate::rivals::hand_written::HandWritten)),
            "cached" => Some($do!($crate::rivals::cached::Cached)),
            "hitbox" => Some($do!($crate::rivals::hitbox::Hitbox)),
            "amalgam" => Some($do!($crate::rivals::amalgam::Amalgam)),
            "amalgam-strict" => Some($do!($crate::rivals::amalgam::AmalgamStrict)),
            "hydracache" => Some($do!($crate::rivals::hydracache::Hydra)),
            _ => None,
        }
    };
}

/// The names that [`with_rival`] knows, in the order of tables.
pub const NAMES: [&str; 8] = [
    "ours",
    "ours-memory",
    "hand-written",
    "cached",
    "hitbox",
    "amalgam",
    "amalgam-strict",
    "hydracache",
];
