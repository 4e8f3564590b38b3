//! Tasks of tests.

use std::pin::Pin;

use tokio::task::JoinHandle;

/// Spawns a task, as `tokio::spawn` does, and as one type: Tokio's part of a task, about a hundred
/// functions, is compiled once for each type that is spawned, and most tests have one of their own.
pub fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    let task: Pin<Box<dyn Future<Output = T> + Send>> = Box::pin(task);
    tokio::spawn(task)
}
