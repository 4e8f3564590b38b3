//! Many callers, one load: single-flight within the process, a limit on loads while there is no
//! lease, and the tasks that keep a lease alive or give it back.

pub(crate) mod keep_alive;
pub(crate) mod load_gate;
pub(crate) mod maintenance;
pub(crate) mod single_flight;
pub(crate) mod waits;
