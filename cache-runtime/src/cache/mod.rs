//! The cache as a program uses it: starting, stopping, and manual operations.

mod entries;
mod functions;
mod handle;
mod inherited;
mod invalidations;
mod loader;
mod process;
mod requests;
mod scoped;
mod switches;
mod unserved;

pub use self::entries::{Lease, Lookup};
pub use self::functions::{FunctionStats, Latency};
pub use self::handle::Cache;
pub use self::inherited::{inherit, inherit_blocking};
pub use self::loader::Loader;
pub(crate) use self::process::process;
pub use self::process::{cache, init};
pub use self::switches::SwitchedOff;
