//! The queue of invalidations: nothing that was enqueued is forgotten before the store has acknowledged it.
//!
//! To enqueue is synchronous, so a guard can do it while it is dropped. What waits is merged; what the store
//! did not take is tried again until it does, and meanwhile this process does not read what it concerns. The
//! queue ends with the cache: [`shutdown`](crate::Cache::shutdown) waits for the writes that are running, and
//! tries for a bounded time to deliver what is left. What is lost then is counted and named in the log.

mod acknowledgement;
mod batch;
mod clearing;
mod handle;
#[cfg(feature = "outbox-postgres")]
pub(crate) mod outbox;
mod owed;
mod persist;
mod queue;
mod reconnect;
mod shared;
mod sweep;
#[cfg(test)]
mod tests;
mod worker;

pub use self::acknowledgement::Acknowledgement;
pub(crate) use self::batch::{Order, Sweep};
pub(crate) use self::handle::{ACK_TIMEOUT, Delivery, Receipt, Running};
