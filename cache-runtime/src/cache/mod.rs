//! The cache as a program uses it: starting, stopping, and manual operations.

mod entries;
mod handle;
mod invalidations;
mod process;
mod requests;
mod scoped;

pub use self::entries::{Lease, Lookup};
pub use self::handle::Cache;
pub(crate) use self::process::process;
pub use self::process::{cache, init};
