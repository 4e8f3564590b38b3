//! One cached call: `Key → Lookup → Action → Loaded → Outcome`.
//!
//! Read from the top down: generated code starts a [`Read`] (`entry_point.rs`). `plan.rs` makes its
//! key. `local_answer.rs` answers from the process (`again.rs`, `local_lookup.rs`). `answer.rs` asks
//! the store, as `lookup_loop.rs` decides step by step. `load.rs` runs the body and stores its
//! result (`pack.rs`, `permit.rs`). `bypass.rs` has the reasons not to use the cache at all.
//! `batch/` does the same for many ids.

mod answer;
mod answer_slot;
mod answering;
mod audit;
mod batch;
mod blocking;
mod bypass;
mod call;
mod context;
mod dependencies;
mod detached;
mod entry_point;
mod hit;
mod in_place;
mod in_process;
mod load;
mod local;
mod local_answer;
mod lookup_loop;
mod new_entry;
mod pack;
mod permit;
mod plan;
mod prepared;
mod read_options;
mod report;
mod returnable;
mod returned_value;
mod store_filter;
#[cfg(test)]
mod tests;
mod timing;

pub use self::audit::audit_report::{AuditReport, AuditStats};
pub use self::batch::Batch;
pub(crate) use self::call::Call;
pub use self::context::LoadContext;
pub(crate) use self::dependencies::deps::{all_deps, tag_dep};
pub(crate) use self::dependencies::known::any_tag;
pub use self::entry_point::Read;
pub(crate) use self::hit::Hit;
pub(crate) use self::lookup_loop::{Action, LookupLoop};
pub(crate) use self::new_entry::NewEntry;
pub(crate) use self::permit::Permit;
pub use self::plan::ReadPlan;
pub(crate) use self::store_filter::StoreFilter;
