//! For tests: of stores, and of programs that use the cache.
//!
//! # Over a real Redis
//!
//! With Tokio's time paused (`#[tokio::test(start_paused = true)]`) the cache's budgets are those of real time: while Redis is
//! asked, paused time stands still, and what the test itself waits for is not moved on to either. `advance` moves the test's
//! timers, and not the times to live in Redis, which are the server's.
//!
//! Each `#[tokio::test]` has a runtime of its own, which ends with it. A process-wide cache lives on: with the usual
//! single-threaded runtimes its connection is driven by a thread of the cache. A connection that was made on a multi-threaded
//! runtime ends with that, and is made again at once by the cache's thread; calls in those few milliseconds run their functions.

mod cache;
mod contract;
mod faults;
#[doc(hidden)]
pub mod internals;

pub use self::cache::TestCache;
pub use self::contract::check_store;
pub use self::faults::Fault;
