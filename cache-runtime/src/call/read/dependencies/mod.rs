//! The dependencies of an entry besides its own resource: named by the attribute, or by the load.

pub(crate) mod deps;
pub(crate) mod known;
pub(crate) mod learnt;
