//! A small runtime that belongs to the cache, on one thread.
//!
//! Invalidations are sent from here, so they outlive the runtime of their caller. The same thread
//! keeps the connection, returns leases and sweeps dead entries.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

/// How long the thread may outlive the cache, for tasks that still have something to finish. Those
/// tasks have limits of their own; this limit ends one that hangs.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(4);

/// A task as one type: Tokio's part of a task, about a hundred functions, is compiled once for each
/// type that is spawned.
type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The runtime's handle. Dropping it ends every task and the thread. Tasks that have something to
/// finish get up to [`SHUTDOWN_LIMIT`].
#[derive(Debug)]
pub(crate) struct Background {
    handle: Handle,
    to_finish: mpsc::UnboundedSender<JoinHandle<()>>,
    closing: watch::Sender<bool>,
    /// Whether the runtime has its own thread, where no test pauses Tokio's time.
    is_own: bool,
}

impl Background {
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (to_finish, finishing) = mpsc::unbounded_channel();
        // The thread owns the runtime, because a runtime can't be dropped inside another one.
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

    /// Uses the test's own runtime, whose time the test may pause.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn here() -> Self {
        Self {
            handle: Handle::current(),
            to_finish: mpsc::unbounded_channel().0,
            closing: watch::Sender::new(false),
            is_own: false,
        }
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(crate) fn is_own(&self) -> bool {
        self.is_own
    }

    /// The number of tasks that are alive.
    pub(crate) fn tasks(&self) -> u64 {
        self.handle.metrics().num_alive_tasks() as u64
    }

    /// Runs a task until it ends or the cache is closed.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_boxed(Box::pin(task));
    }

    fn spawn_boxed(&self, task: Task) {
        let mut closing = self.closing.subscribe();
        self.handle.spawn(async move {
            tokio::select! {
                () = task => {}
                _ = closing.wait_for(|closing| *closing) => {}
            }
        });
    }

    /// Ends the tasks that would otherwise run for ever.
    pub(crate) fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Runs a task that ends by itself soon after the cache is dropped. The thread waits for it.
    pub(crate) fn spawn_to_finish(&self, task: impl Future<Output = ()> + Send + 'static) {
        let task: Task = Box::pin(task);
        // The receiver lives as long as the thread, and the thread as long as `self`.
        let _ = self.to_finish.send(self.handle.spawn(task));
    }
}

/// Runs a task on the current runtime, or a thread of its own, until it ends by itself. What it returns is dropped.
pub(crate) fn detach(task: impl Future<Output: Send> + Send + 'static) {
    super::time::spawn(Box::pin(async move { drop(task.await) }));
}

/// How long to wait before a task that panicked is started again.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// How often a task of any cache in this process has been started again after a panic.
static RESTARTS: AtomicU64 = AtomicU64::new(0);

/// How often a task of any cache in this process has been started again after a panic.
pub(crate) fn restarts() -> u64 {
    RESTARTS.load(Ordering::Relaxed)
}

/// Runs a task, and starts it again if it panics: one fault must not stop a task that the cache
/// depends on. Dropping this future ends the task.
pub(crate) fn supervised<F>(
    name: &'static str,
    make: impl Fn() -> F + Send + 'static,
) -> impl Future<Output = ()> + Send + 'static
where
    F: Future<Output = ()> + Send + 'static,
{
    supervised_boxed(name, Box::new(move || Box::pin(make())))
}

async fn supervised_boxed(name: &'static str, make: Box<dyn Fn() -> Task + Send>) {
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

/// Returns once the cache is dropped and the tasks that it started have finished.
async fn finish(mut tasks: mpsc::UnboundedReceiver<JoinHandle<()>>) {
    let mut unfinished = Vec::new();
    while let Some(task) = tasks.recv().await {
        unfinished.push(task);
    }
    let finished = async {
        for task in unfinished {
            // A panic has been reported by the panic hook already.
            let _ = task.await;
        }
    };
    let _ = tokio::time::timeout(SHUTDOWN_LIMIT, finished).await;
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
