//! A small runtime of the cache's own, on one thread.
//!
//! Invalidations are delivered here, so that they outlive the runtime of whoever caused them; so are the
//! connection kept, leases given back and dead entries swept.

use std::future::Future;
use std::io;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// The runtime's handle. Dropping it ends the thread and every task on it.
#[derive(Debug)]
pub(crate) struct Background {
    handle: Handle,
    _alive: oneshot::Sender<()>,
}

impl Background {
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (alive, gone) = oneshot::channel();
        // A thread owns the runtime because a runtime can't be dropped inside another one.
        std::thread::Builder::new()
            .name("cache-runtime".into())
            .spawn(move || {
                // The sender is never used: an error says that it was dropped.
                let _ = runtime.block_on(gone);
            })?;
        Ok(Self {
            handle,
            _alive: alive,
        })
    }

    /// On the test's own runtime, whose time it may pause.
    #[cfg(test)]
    pub(crate) fn here() -> Self {
        Self {
            handle: Handle::current(),
            _alive: oneshot::channel().0,
        }
    }

    #[cfg(feature = "redis")]
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.handle.spawn(task);
    }
}
