//! The operations of the protocol, as a trait that any backend can implement.
//!
//! A store keeps entries (a [`Header`] and a payload) and generations, and compares and replaces
//! them atomically within each operation. It makes no decisions: the caller decides what a stamp
//! means, who waits and who loads.

mod backend;
mod connection;
mod diagnostics;
#[cfg(any(feature = "redis", feature = "memcached"))]
mod farewell;
#[cfg(any(feature = "redis", feature = "memcached"))]
mod fullness;
mod key_change;
#[cfg(feature = "memcached")]
mod memcached;
mod memory;
#[cfg(feature = "redis")]
mod redis;
#[cfg(all(test, cache_shuttle))]
#[path = "redis/under_shuttle.rs"]
mod redis;

pub use self::backend::Store;
pub(crate) use self::connection::ConnectionStatus;
pub use self::connection::ConnectionWatch;
pub use self::diagnostics::{DiagnosticsRequest, ServerDiagnostics};
pub use self::key_change::KeyChange;
#[cfg(feature = "memcached")]
pub use self::memcached::MemcachedStore;
pub(crate) use self::memory::InMemory;
pub use self::memory::MemoryStore;
#[cfg(feature = "redis")]
pub use self::redis::RedisStore;
#[cfg(all(feature = "redis", feature = "testing"))]
pub(crate) use self::redis::given as given_names;
#[cfg(any(feature = "redis", feature = "memcached"))]
pub(crate) use self::{farewell::farewell, fullness::Fullness};
pub use crate::base::clock::Millis;
pub use crate::base::nonce::Nonce;
pub use crate::protocol::circuit::Circuit;
pub use crate::protocol::codec_id::CodecId;
pub use crate::protocol::entry::{Content, Header, Stamp};
pub use crate::protocol::fingerprint::Fingerprint;
pub use crate::protocol::generation::{Dependency, Generation, StampBase};
pub(crate) use crate::protocol::glob::literal as glob_literal;
pub use crate::protocol::messages::{
    EntryRef, Expected, Fill, Filled, Found, Intent, IntentReply, IntentRow, Invalidated,
    Invalidation, LeaseReply, LeaseRequest, LookupReply, NamespaceInvalidated, NodeInfo, OnEntry,
    PartlyInvalidated, Parts, Payload, Representation, ScanFilter, ServerInfo, StoreUsage,
};
