//! One annotated call, step by step, as generated code starts it.

pub(crate) mod ambient;
pub(crate) mod blocking;
pub(crate) mod each;
pub(crate) mod enclosing;
pub(crate) mod keep_alive;
pub(crate) mod log;
pub(crate) mod memo;
pub(crate) mod observe;
pub(crate) mod read;
pub(crate) mod returns;
pub(crate) mod scope;
pub(crate) mod tag;
pub(crate) mod transaction;
pub(crate) mod write;
