//! A server that is replaced by another one: Sentinel, and what an acknowledgement has to wait for.

pub(crate) mod attempts;
pub(crate) mod confirmation;
pub(crate) mod fence;
pub(crate) mod recent;
pub(crate) mod replaced_beside;
pub(crate) mod replay;
pub(crate) mod sentinel;
