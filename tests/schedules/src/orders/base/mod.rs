//! The runtime's lowest layer, with stand-ins for what is not tried.

#[path = "../../../../../cache-runtime/src/base/error.rs"]
#[allow(dead_code, reason = "not all of it is tried")]
pub mod error;
#[path = "../../../../../cache-runtime/src/base/mutation.rs"]
pub mod mutation;

pub use crate::stand_ins::{clock, nonce};
pub(crate) use crate::sync;
