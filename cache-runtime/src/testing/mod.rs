//! For tests: of stores, and of programs that use the cache.

mod contract;

pub use self::contract::check_store;
