//! The judge of `examples/chaos`, on histories with planted faults.

#[allow(dead_code, reason = "the example uses all of it")]
#[path = "../../examples/chaos/check.rs"]
mod check;
#[allow(dead_code, reason = "the example uses all of it")]
#[path = "../../examples/chaos/history.rs"]
mod history;
#[allow(dead_code, reason = "the example uses all of it")]
#[path = "../../examples/chaos/verdict.rs"]
mod verdict;

mod planted;
