//! The wire format and its meaning: entries, generations, stamps, payloads, type shapes. Plain data
//! and pure functions; nothing here does I/O.

pub(crate) mod cacheable;
pub(crate) mod circuit;
pub(crate) mod codec;
pub(crate) mod codec_id;
pub(crate) mod contents;
pub(crate) mod entry;
mod error_value;
pub(crate) mod fingerprint;
pub(crate) mod generation;
pub(crate) mod glob;
pub(crate) mod messages;
pub(crate) mod packable;
pub(crate) mod schema;
