//! What goes over the wire and what it means: entries, generations, stamps, payloads, type shapes.
//! Plain data and pure functions; nothing here does I/O.

pub(crate) mod codec;
pub(crate) mod entry;
pub(crate) mod generation;
pub(crate) mod schema;
