//! The batches that the queue hands out for delivery.

use super::request_number::RequestNumber;
use crate::base::clock::Instant;
use crate::invalidation::batch::{Batch, Waiters};
use crate::store::{Intent, Invalidation, Parts};

/// A batch to send now.
#[derive(Debug)]
pub(in crate::invalidation) struct OutgoingBatch {
    /// Whether there is more than intents.
    pub(in crate::invalidation) invalidates: bool,
    pub(in crate::invalidation) whole_namespace: bool,
    /// The parts of the store in which the whole namespace has to be invalidated.
    pub(in crate::invalidation) parts: Parts,
    /// Without the parts that were refused last time.
    pub(in crate::invalidation) invalidation: Invalidation,
    /// The parts that were refused last time, and those that may not be replaced before them.
    pub(in crate::invalidation) refused: Invalidation,
    pub(in crate::invalidation) refused_requests: RefusedRequests,
    pub(in crate::invalidation) intents: Vec<Intent>,
    /// The spans of the writes that wait for it.
    pub(in crate::invalidation) spans: Vec<tracing::Span>,
}

/// How requests are treated that the store refused last time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::invalidation) enum RefusedRequests {
    /// They are sent behind the others.
    Send,
    /// They go on waiting.
    Skip,
}

/// The result of putting a batch back because there is no connection.
#[derive(Debug)]
pub(in crate::invalidation) struct Requeued {
    /// The callers to be told `Pending`, once reads can see that they must bypass.
    pub(in crate::invalidation) pending: Waiters,
    /// Until when the other callers wait for a connection.
    pub(in crate::invalidation) until: Option<Instant>,
}

/// A request in the queue, and what the task of its caller is to send, if it is to send anything.
pub(in crate::invalidation) type EnteredToSend = (RequestNumber, Option<(u64, OutgoingBatch)>);

/// The result of a delivery by a caller's task.
#[derive(Debug)]
pub(in crate::invalidation) struct DirectDone {
    pub(in crate::invalidation) batch: Batch,
    /// Whether the worker has waited for it.
    pub(in crate::invalidation) wakes: bool,
}
