//! Many callers, one load: single-flight within the process, a limit on loads while there is no
//! lease, which load waits for which, and the tasks that give leases back.

pub(crate) mod bulkhead;
pub(crate) mod load_gate;
pub(crate) mod maintenance;
pub(crate) mod single_flight;
pub(crate) mod waits;
