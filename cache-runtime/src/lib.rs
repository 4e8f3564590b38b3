//! Cache-aside for async Rust services, by two attributes.
//!
//! ```
//! use cache_runtime::{Cache, CacheConfig, cached, invalidates};
//! # #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
//! # struct User { id: i64, name: String }
//! # #[derive(Debug)] struct DbError;
//! ```
//!
//! A read that starts after an invalidation was acknowledged never gets older data: across processes, with
//! loads in flight, callers hanging up and processes dying. With Redis off, away, hung or wrong, annotated
//! functions simply run.
//!
//! # Features
//!
//! | feature | default | what it brings |
//! |---|---|---|
//! | `redis` | yes | the shared tier |
//! | `redis-tls` | no | TLS to Redis, with rustls |
//! | `testing` | no | the contract suite for stores of one's own |

// In reading order.
mod background;
mod cache;
mod clock;
mod codec;
mod config;
mod delivery;
mod engine;
mod entry;
mod error;
mod flight;
mod generation;
mod key;
mod nonce;
mod observe;
mod policy;
mod read;
mod registry;
mod returns;
mod stats;
pub mod store;
mod write;

#[cfg(any(test, feature = "testing"))]
pub mod testing;

#[doc(hidden)]
pub mod __private;

pub use cache_macros::{cached, invalidates};

pub use crate::cache::{Cache, Lease, Lookup, cache, init};
pub use crate::config::{CacheConfig, ConfigError, RedisConfig};
pub use crate::delivery::Acknowledgement;
pub use crate::error::{Error, ErrorKind};
pub use crate::key::{EntryKind, IntoKey, Key, KeyPart};
pub use crate::observe::{BypassReason, Outcome, Outcomes, Status, observe};
pub use crate::policy::IntoTtl;
pub use crate::returns::Cacheable;
pub use crate::stats::{CounterSnapshot, Figures, Stats};
