//! For tests: of stores, and of programs that use the cache.

mod cache;
mod contract;
mod faults;
#[doc(hidden)]
pub mod internals;

pub use self::cache::TestCache;
pub(crate) use self::cache::in_scope;
pub use self::contract::check_store;
pub use self::faults::Fault;
