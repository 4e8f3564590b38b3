//! What is tried of the runtime's `coalesce`.

#[path = "../../../../../cache-runtime/src/coalesce/load_gate/mod.rs"]
#[allow(dead_code, reason = "not all of it is tried")]
pub mod load_gate;
#[path = "../../../../../cache-runtime/src/coalesce/single_flight.rs"]
#[allow(dead_code, reason = "not all of it is tried")]
pub mod single_flight;
