//! Sends the batches of one connection.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::OptionFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};

use super::super::mget::mget;
use super::WORKERS;
use super::plan::{BatchKeys, BatchPlan};
use super::reply::{BatchLookups, BatchReply};
use super::{BatchOutcome, Batcher, FEWEST_AT_ONCE, MOST_AT_ONCE, WAY_OF_ONE, others_first};
use crate::base::error::{Error, ErrorKind};
use crate::base::unserved::Unserved;
use crate::store::redis::connection::Connection;
use crate::store::redis::connection::errors::{is_forbidden, says_away};

/// The number of batches in flight on a connection with this round trip.
pub(crate) fn at_once(round_trip: Duration) -> usize {
    let ways = round_trip.as_nanos() / WAY_OF_ONE.as_nanos();
    let ways = usize::try_from(ways).unwrap_or(MOST_AT_ONCE);
    ways.clamp(FEWEST_AT_ONCE, MOST_AT_ONCE)
}

/// How a batch of this many reads has ended with an error.
pub(super) fn outcome_after(error: &Error, reads: usize) -> BatchOutcome {
    match error.kind() {
        // The answer has arrived, and says nothing about how much the server can send in time.
        _ if Unserved::of(error).is_some() || says_away(error) => BatchOutcome::Empty,
        ErrorKind::Unavailable => BatchOutcome::Unanswered { reads },
        _ => BatchOutcome::Empty,
    }
}

/// Sends queued batches. However it ends, no read goes on waiting for it.
pub(crate) struct Worker {
    connection: Arc<Connection>,
    /// The slots of its batches.
    slots: Range<usize>,
    budget: Duration,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.connection.abandon();
    }
}

impl Worker {
    /// Creates one of [`WORKERS`], on a connection with this round trip.
    pub(crate) fn new(
        connection: Arc<Connection>,
        number: usize,
        round_trip: Duration,
        budget: Duration,
    ) -> Self {
        Self {
            connection,
            slots: slots(number, round_trip),
            budget,
        }
    }

    pub(crate) async fn drive(self) {
        let batcher = self.connection.batcher();
        let slots = self.slots.clone();
        let send = |slot, plan| send_batch(&self.connection, batcher, self.budget, slot, plan);
        drive(batcher, slots, send).await;
    }
}

/// The slots of a worker, on a connection with this round trip.
pub(super) fn slots(number: usize, round_trip: Duration) -> Range<usize> {
    let each = at_once(round_trip) / WORKERS;
    number * each..(number + 1) * each
}

/// Sends queued batches in these slots, until the batcher is closed.
pub(super) async fn drive<S: Future<Output = ()>>(
    batcher: &Batcher,
    slots: Range<usize>,
    send: impl Fn(usize, BatchPlan) -> S,
) {
    // Returns the slot, which is free again.
    let run = |slot, plan| {
        let sent = send(slot, plan);
        async move {
            sent.await;
            // The callers are likely to read again. If the batch were retired by then, each read
            // would be sent alone.
            others_first().await;
            batcher.retire();
            slot
        }
    };
    let mut free: Vec<_> = slots.collect();
    let mut in_flight = FuturesUnordered::new();
    loop {
        let slot = free.last().copied();
        tokio::select! {
            biased;
            Some(slot) = in_flight.next() => free.push(slot),
            Some(next) = OptionFuture::from(slot.map(|slot| batcher.next_batch(slot))) => {
                let (Some(plan), Some(slot)) = (next, free.pop()) else {
                    return;
                };
                in_flight.push(run(slot, plan));
            }
        }
    }
}

/// Sends a batch, and answers its requests.
async fn send_batch(
    connection: &Connection,
    batcher: &Batcher,
    budget: Duration,
    slot: usize,
    plan: BatchPlan,
) {
    if batcher.is_abandoned(slot) {
        batcher.complete(slot, &BatchOutcome::Empty);
        return;
    }
    match ask(connection, budget, &plan).await {
        Ok(BatchLookups {
            outcome,
            mut lookups,
            ..
        }) => {
            if batcher.serve_first_half(slot, &mut lookups) {
                batcher.others_send().await;
            }
            batcher.complete(slot, &outcome).serve(lookups.into_iter());
        }
        Err(error) => {
            let waiters = batcher.complete(slot, &outcome_after(&error, plan.len()));
            // One key caused the error, and perhaps not this read's.
            match is_forbidden(&error) {
                true => waiters.repeat(),
                false => waiters.fail(&error),
            }
        }
    }
}

/// Reads the keys of a batch.
async fn ask<'p>(
    connection: &Connection,
    budget: Duration,
    plan: &'p BatchPlan,
) -> Result<BatchLookups<'p>, Error> {
    let batch_keys = plan.batch_keys(BatchKeys::default());
    let values = mget(connection, budget, plan.keys_of(&batch_keys)).await?;
    let values = connection.counted(values, batch_keys.len())?;
    let answer = BatchReply::of(connection, plan, batch_keys, values)?.lookups();
    if let Some(key) = answer.misplaced {
        connection.check_sync(key, budget).await?;
    }
    Ok(answer)
}
