//! Synchronization types under one name. `tests/schedules` compiles the files that use this module
//! with model types in their place, and tries the possible interleavings.

pub(crate) use std::sync::{OnceLock, atomic};

pub(crate) use parking_lot::Mutex;
pub(crate) use tokio::sync::Notify;
pub(crate) use tokio::time;
