//! A small runtime of the cache's own, on one thread.
//!
//! Invalidations are delivered here, so that they outlive the runtime of whoever caused them; so are the
//! connection kept, leases given back and dead entries swept.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

/// How long the thread outlives the cache at most, for tasks that have something to finish. They are bounded
/// by themselves; this only ends one that hangs.
const GRACE: Duration = Duration::from_secs(4);

/// The runtime's handle. Dropping it ends every task, those to be finished after a while, and the thread.
#[derive(Debug)]
pub(crate) struct Background {
    handle: Handle,
    to_finish: mpsc::UnboundedSender<JoinHandle<()>>,
    closing: watch::Sender<bool>,
    /// Whether it is a thread of its own, on which nobody pauses the time.
    is_own: bool,
}

impl Background {
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (to_finish, finishing) = mpsc::unbounded_channel();
        // A thread owns the runtime because a runtime can't be dropped inside another one.
        std::thread::Builder::new()
            .name("cache-runtime".into())
            .spawn(move || runtime.block_on(finish(finishing)))?;
        Ok(Self {
            handle,
            to_finish,
            closing: watch::Sender::new(false),
            is_own: true,
        })
    }

    /// On the test's own runtime, whose time it may pause.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn here() -> Self {
        Self {
            handle: Handle::current(),
            to_finish: mpsc::unbounded_channel().0,
            closing: watch::Sender::new(false),
            is_own: false,
        }
    }

    #[cfg(feature = "redis")]
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(crate) fn is_own(&self) -> bool {
        self.is_own
    }

    /// How many tasks are alive.
    pub(crate) fn tasks(&self) -> u64 {
        self.handle.metrics().num_alive_tasks() as u64
    }

    /// Runs a task until it ends, or the cache is closed.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut closing = self.closing.subscribe();
        self.handle.spawn(async move {
            tokio::select! {
                () = task => {}
                _ = closing.wait_for(|closing| *closing) => {}
            }
        });
    }

    /// Ends the tasks that would go on for ever.
    pub(crate) fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Runs a task that ends by itself soon after the cache has gone, and is waited for then.
    pub(crate) fn spawn_to_finish(&self, task: impl Future<Output = ()> + Send + 'static) {
        // The receiver is there as long as the thread, which is there as long as this.
        let _ = self.to_finish.send(self.handle.spawn(task));
    }
}

/// How long after a task has panicked it is started again.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// How many times a task of any cache in this process has been started again.
static RESTARTS: AtomicU64 = AtomicU64::new(0);

/// How many times a task of a cache in this process has panicked and been started again.
pub(crate) fn restarts() -> u64 {
    RESTARTS.load(Ordering::Relaxed)
}

/// Runs a task, and again if it panics: a fault in one must not end what the cache depends on for good. Dropped, it ends
/// the task.
pub(crate) async fn supervised<F>(name: &'static str, make: impl Fn() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let mut task = JoinSet::new();
        task.spawn(make());
        match task.join_next().await {
            Some(Err(error)) if error.is_panic() => {
                RESTARTS.fetch_add(1, Ordering::Relaxed);
                tracing::error!(
                    task = name,
                    "a task of the cache has panicked and is started again"
                );
                tokio::time::sleep(RESTART_PAUSE).await;
            }
            _ => return,
        }
    }
}

/// Returns when the cache has gone, and has finished what it had begun.
async fn finish(mut tasks: mpsc::UnboundedReceiver<JoinHandle<()>>) {
    let mut unfinished = Vec::new();
    while let Some(task) = tasks.recv().await {
        unfinished.push(task);
    }
    let finished = async {
        for task in unfinished {
            // A task that panicked has said so.
            let _ = task.await;
        }
    };
    let _ = tokio::time::timeout(GRACE, finished).await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_is_started_again() {
        let starts = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&starts);
        supervised("test", move || {
            let start = counted.fetch_add(1, Ordering::SeqCst);
            async move { assert!(start == 2, "it panics twice") }
        })
        .await;
        assert_eq!(starts.load(Ordering::SeqCst), 3);
        assert!(restarts() >= 2);
    }
}
