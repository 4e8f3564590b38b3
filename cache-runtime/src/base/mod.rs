//! The lowest layer: plain helpers that know nothing of caching. It imports no other module.

pub(crate) mod background;
pub(crate) mod call_budget;
pub(crate) mod clock;
pub(crate) mod counters;
pub(crate) mod entry_map;
pub(crate) mod error;
pub(crate) mod join;
#[allow(
    dead_code,
    reason = "no technique has a switch in this selection of features"
)]
pub(crate) mod mutation;
pub(crate) mod nonce;
pub(crate) mod paused;
pub(crate) mod policy;
pub(crate) mod retry;
pub(crate) mod scope_flags;
pub(crate) mod span;
pub(crate) mod sync;
pub(crate) mod task_locals;
pub(crate) mod time;
pub(crate) mod unserved;
