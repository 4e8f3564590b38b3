//! What tasks and threads share, by one name: `tests/schedules` compiles the files that use it with other types in their
//! place, and tries the orders in which what they do may happen.

pub(crate) use std::sync::{OnceLock, atomic};

pub(crate) use parking_lot::Mutex;
pub(crate) use tokio::sync::Notify;
pub(crate) use tokio::time;
