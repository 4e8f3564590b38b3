//! One annotated call: what generated code starts, step by step.

pub(crate) mod enclosing;
pub(crate) mod keep_alive;
pub(crate) mod observe;
pub(crate) mod read;
pub(crate) mod returns;
pub(crate) mod scope;
pub(crate) mod transaction;
pub(crate) mod write;
