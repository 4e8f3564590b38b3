//! All that generated code may name. Nothing here is for people, and none of it follows semantic versioning.

pub use crate::engine::Handle;
pub use crate::read::{Read, ReadPlan};
pub use crate::registry::Site;
pub use crate::returns::Shape;
pub use crate::write::{Write, WritePlan};

/// The process-wide cache, if it is on: one atomic load.
#[must_use]
pub fn global() -> Option<Handle> {
    crate::cache::process_handle()
}

/// The cache that an attribute names, if it is on.
#[must_use]
pub fn own(cache: &impl AsRef<crate::Cache>) -> Option<Handle> {
    cache.as_ref().handle()
}
