//! The queue of invalidations. Each one stays in the queue until the store has acknowledged it.
//!
//! Enqueuing is synchronous, so that a guard can do it in its `Drop`. Waiting invalidations are
//! merged. A failed one is retried until it succeeds, and until then this process bypasses the
//! cache for the entries it concerns. The queue ends with the cache:
//! [`shutdown`](crate::Cache::shutdown) waits for the running writes and delivers the rest within a
//! time limit. Invalidations that are lost then are counted and named in the log.

mod acknowledgement;
mod batch;
mod clearing;
mod direct;
mod guard;
mod handle;
#[cfg(feature = "outbox-postgres")]
pub(crate) mod outbox;
mod persist;
mod queue;
mod reconnect;
mod report;
mod shared;
mod sweep;
#[cfg(test)]
mod tests;
mod worker;

pub use self::acknowledgement::Acknowledgement;
pub(crate) use self::batch::{InvalidationRequest, Sweep};
pub(crate) use self::handle::{ACK_TIMEOUT, InvalidationQueue, PendingAck, Running};
