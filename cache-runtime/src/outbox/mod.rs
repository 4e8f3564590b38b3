//! The database invalidates: rows that commit with the data, and a relay that delivers them.
//!
//! An invalidation that a program sends after its commit is lost if the program dies in between. A
//! writer that knows nothing of the cache (psql, a migration, another service) sends none. So a row
//! in an *outbox* table records what has changed. It is written in the transaction that changes the
//! data, by [triggers](triggers()) or [by hand](Outbox), so either both are committed or neither
//! is. The *relay* in each process reads the row and invalidates.
//!
//! - With Redis, any process takes the rows, invalidates in Redis, and deletes them when Redis has
//!   acknowledged.
//! - Without Redis, each process reads all rows, up to the database's snapshot, and so keeps its
//!   own memory coherent with the other processes. It serves nothing if it has not heard from the
//!   database for [`local_max_staleness`](crate::CacheConfig::local_max_staleness).
//!
//! ```no_run
//! use cache_runtime::CacheConfig;
//! use cache_runtime::outbox::{self, OutboxConfig, table};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // Once, in a migration:
//! let tables = [table("users").resource("users").id("id"), table("memberships").tag("team:{team_id}")];
//! let triggers = outbox::triggers(&cache_runtime::catalog(), tables)?;
//! println!("{}\n{}", outbox::migration(outbox::DEFAULT_TABLE)?, triggers);
//!
//! // In each process:
//! let outbox = OutboxConfig::postgres("postgres://app@localhost/shop")?;
//! let cache = cache_runtime::init(CacheConfig::from_env()?.outbox(outbox)).await;
//! # Ok(()) }
//! ```
//!
//! The technique is the transactional outbox
//! (<https://microservices.io/patterns/data/transactional-outbox.html>); the chapter "The database
//! invalidates" of the book has the promises, the cost and how to remove it.

mod bulk;
mod checked_table;
mod coverage;
mod delivery;
#[cfg(feature = "outbox-sqlite")]
mod file_coverage;
mod followed;
mod install;
mod migration;
mod relay;
mod row;
#[cfg(feature = "outbox-sqlite")]
mod row_triggers;
mod session;
mod shared;
#[cfg(feature = "outbox-sqlite")]
pub mod sqlite;
mod statement;
mod table;
mod trigger_notes;
mod triggers;
mod walk;
mod write;

pub use self::install::{Status, install, remove, reset, status};
pub use self::migration::{VERSION, migration, removal};
pub(crate) use self::session::start as start_relay;
pub use self::table::{Columns, Table, table};
pub use self::triggers::{Triggers, triggers};
pub use self::write::{Outbox, OutboxConnection};
pub(crate) use self::write::{covers, write_collected};
pub use crate::config::outbox::{DEFAULT_TABLE, OutboxConfig};
