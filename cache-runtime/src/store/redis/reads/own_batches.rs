//! Sends the batches of reads of single-threaded runtimes, each on its runtime.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;

use super::super::connection::Connection;
use super::batcher::{BatchOutcome, Batcher, WORKERS, drive, send_batch, slots};

/// Lets runtimes send their batches over their own connections, while this connection is in use:
/// without it nobody watches whether the server is still the primary.
pub(crate) fn allow(connection: &Arc<Connection>, budget: Duration) {
    let round_trip = connection.round_trip;
    let main = Arc::downgrade(connection);
    let driver = move |batcher: Arc<Batcher>| {
        let main = main.clone();
        async move {
            let (batcher, main) = (&*batcher, &main);
            let send = |slot, plan| async move {
                match main.upgrade().filter(|main| main.is_usable()) {
                    Some(main) => send_batch(&main, batcher, budget, slot, plan).await,
                    None => batcher.complete(slot, &BatchOutcome::Empty).repeat(),
                }
            };
            let workers =
                (0..WORKERS).map(|number| drive(batcher, slots(number, round_trip), &send));
            join_all(workers).await;
        }
        .boxed()
    };
    connection.runtimes.batches_by(Arc::new(driver));
}
