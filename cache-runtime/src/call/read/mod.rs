//! One cached call: `Key → Lookup → Action → Loaded → Outcome`.
//!
//! Read from the top down: generated code starts a [`Read`] (`entry_point.rs`). `plan.rs` makes its
//! key. `again.rs` and `keyed_call.rs` answer from the process (`local_lookup.rs`). `answer.rs`
//! asks the store, as `lookup_loop.rs` decides step by step. `load.rs` runs the body and stores its
//! result (`pack.rs`, `permit.rs`). `batch.rs` does the same for many ids.

mod again;
mod answer;
mod answering;
mod audit;
mod audit_report;
mod audited;
mod batch;
mod batch_lookup;
mod blocking;
mod call;
mod context;
mod deps;
mod detached;
mod entry_point;
mod hit;
mod in_process;
mod keyed_call;
mod known;
mod learnt;
mod load;
mod local_entries;
mod local_lookup;
mod local_options;
mod lookup_loop;
mod new_entry;
mod pack;
mod permit;
mod plan;
mod prepared;
mod read_options;
mod report;
mod shown;
mod steps;
mod store_filter;
#[cfg(test)]
mod tests;
mod thread_cache;
mod timing;

pub use self::audit_report::{AuditFigures, AuditReport};
pub use self::batch::Batch;
pub(crate) use self::call::{Call, value_of};
pub use self::context::LoadContext;
pub(crate) use self::deps::{all_deps, tag_dep};
pub use self::entry_point::Read;
pub(crate) use self::hit::Hit;
pub(crate) use self::known::any_tag;
pub(crate) use self::lookup_loop::{Action, LookupLoop};
pub(crate) use self::permit::Permit;
pub use self::plan::ReadPlan;
pub(crate) use self::store_filter::StoreFilter;
