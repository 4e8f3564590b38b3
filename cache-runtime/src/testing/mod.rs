//! Test support, for stores and for programs that use the cache.
//!
//! # Over a real Redis
//!
//! With Tokio's time paused (`#[tokio::test(start_paused = true)]`), the cache's budgets count real
//! time. While a request to Redis runs, paused time stands still, and so do the test's own timers.
//! `advance` moves the test's timers, but not the times to live in Redis, which follow the server's
//! clock.
//!
//! Each `#[tokio::test]` has its own runtime, which ends with it. A process-wide cache lives on.
//! With the usual single-threaded runtimes, a thread of the cache drives its connection. A
//! connection made on a multi-threaded runtime ends with that runtime, and the cache's thread makes
//! a new one at once. Calls in those few milliseconds run their functions.

mod cache;
mod contract;
mod faults;
#[doc(hidden)]
pub mod internals;

pub use self::cache::TestCache;
pub use self::contract::check_store;
pub use self::faults::Fault;
