//! Batches that the task of a caller sends, in place of the worker.

use tokio::sync::oneshot;

use super::Queue;
use super::lost::LostInvalidations;
use super::outgoing::{DirectDone, EnteredToSend};
use crate::base::clock::Instant;
use crate::invalidation::Acknowledgement;
use crate::invalidation::batch::{InvalidationRequest, Waiters};

impl Queue {
    /// Enqueues a request whose caller waits. If nothing else waits, the caller's task is to send
    /// it.
    ///
    /// # Errors
    /// As [`enter`](Self::enter).
    pub(in crate::invalidation) fn enter_to_send(
        &mut self,
        request: InvalidationRequest,
        sender: oneshot::Sender<Acknowledgement>,
        now: Instant,
    ) -> Result<EnteredToSend, LostInvalidations> {
        // An intent is announced by the worker, which tries each of them apart.
        let is_alone = request.intents.is_empty()
            && self.ready.is_empty()
            && self.in_flight.is_none()
            && !self.is_degraded
            && self.next_due().is_none_or(|due| now < due);
        let request_number = self.enter_among(Some(request), sender, !is_alone)?;
        if !is_alone || self.ready.everything.is_some() {
            return Ok((request_number, None));
        }
        let outgoing = self.send(now);
        let outgoing = outgoing.map(|outgoing| (self.direct.begin(now), outgoing));
        Ok((request_number, outgoing))
    }

    /// Whether the batch in flight is the one of this number, which a caller's task sends.
    pub(in crate::invalidation) fn is_direct(&self, number: u64) -> bool {
        self.direct.is(number)
    }

    /// The store has taken what a caller's task has sent. `None` if the worker has taken it over.
    pub(in crate::invalidation) fn acknowledge_direct(
        &mut self,
        number: u64,
    ) -> Option<DirectDone> {
        let wakes = self.direct.end(number)? || !self.ready.is_empty();
        let batch = self.acknowledge();
        Some(DirectDone { batch, wakes })
    }

    /// The store has not taken what a caller's task has sent. As [`take_back`](Self::take_back).
    #[must_use]
    pub(in crate::invalidation) fn take_back_direct(
        &mut self,
        number: u64,
        is_away: bool,
    ) -> Option<Waiters> {
        self.direct.end(number)?;
        Some(self.take_back(is_away))
    }

    /// The worker is to send it. Returns whether it has not begun to.
    pub(in crate::invalidation) fn hand_back(&mut self, number: u64) -> bool {
        self.direct.end(number).is_some()
    }
}
