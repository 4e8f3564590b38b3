//! The state of the queue, as plain data without I/O.

mod acknowledgements;
mod closing;
mod direct;
mod direct_state;
mod lost;
mod outgoing;
mod refused;
mod request_number;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use self::direct_state::DirectState;
#[cfg(any(doc, test))]
pub(super) use self::direct_state::TAKEOVER;
pub(super) use self::lost::LostInvalidations;
pub(super) use self::outgoing::{OutgoingBatch, RefusedRequests, Requeued};
use self::refused::Refused;
pub(super) use self::request_number::RequestNumber;
use super::Acknowledgement;
use super::batch::{Batch, InvalidationRequest, Waiter, Waiters};
use super::reconnect::ReconnectWait;
use crate::base::clock::{self, Instant};
use crate::base::error::Error;
use crate::protocol::generation::Dependency;
use crate::store::{ConnectionStatus, EntryRef, Invalidation, Parts};

/// Due times are rounded up to this step, and batches that are due together are merged. That bounds
/// their number.
const DUE_STEP: Duration = Duration::from_millis(250);

/// The batches that are ready, in flight, and delayed.
///
/// Each request is in exactly one of them until the store has acknowledged it.
#[derive(Debug)]
pub(super) struct Queue {
    ready: Batch,
    in_flight: Option<Batch>,
    /// Whether the task of a caller sends the batch in flight.
    direct: DirectState,
    delayed: BTreeMap<Instant, Batch>,
    /// The start of the steps of `delayed`.
    origin: Instant,
    limit: usize,
    /// How long an intent stands unless it is renewed. Renewal stops when the write ends.
    intent: Duration,
    /// The number of requests so far. Each request gets the next number.
    entered: u64,
    /// The number of the last request whose invalidation the store has acknowledged, and of the
    /// last request whose intents it has acknowledged too.
    delivered: u64,
    announced: u64,
    /// How long callers wait while there is no connection.
    wait: ReconnectWait,
    /// Some caller was told `Pending`. Until everything is delivered, reads bypass what it
    /// concerns.
    is_degraded: bool,
    /// The requests that the store has refused, while it answers.
    refused: Refused,
    is_closed: bool,
    /// Whether the store has several servers, some of which may be away.
    is_split: bool,
    /// How many invalidations were lost.
    lost: usize,
    /// The lost dependencies that were logged already.
    reported: HashSet<Arc<Dependency>>,
}

impl Queue {
    pub(super) fn new(limit: usize, intent: Duration, origin: Instant) -> Self {
        Self {
            ready: Batch::default(),
            in_flight: None,
            direct: DirectState::default(),
            delayed: BTreeMap::new(),
            origin,
            limit,
            intent,
            entered: 0,
            delivered: 0,
            announced: 0,
            wait: ReconnectWait::default(),
            is_degraded: false,
            refused: Refused::default(),
            is_closed: false,
            is_split: false,
            lost: 0,
            reported: HashSet::new(),
        }
    }

    /// Sets whether the store has several servers.
    pub(super) fn set_split(&mut self, is_split: bool) {
        self.is_split = is_split;
    }

    /// Enqueues a request, or an invalidation of the whole namespace for `None`. Returns its
    /// number.
    ///
    /// # Errors
    /// The lost invalidation, if the queue is closed. The caller learns it because its
    /// acknowledgement is dropped.
    pub(super) fn enter(
        &mut self,
        request: Option<InvalidationRequest>,
        sender: oneshot::Sender<Acknowledgement>,
    ) -> Result<RequestNumber, LostInvalidations> {
        self.enter_among(request, sender, true)
    }

    /// As [`enter`](Self::enter). `has_others`: there may be other requests in its batch.
    fn enter_among(
        &mut self,
        request: Option<InvalidationRequest>,
        sender: oneshot::Sender<Acknowledgement>,
        has_others: bool,
    ) -> Result<RequestNumber, LostInvalidations> {
        if request.as_ref().is_some_and(InvalidationRequest::is_empty) {
            // An empty request is done at once. It must not wait behind batches that the store
            // refuses. The receiver may be gone.
            let _ = sender.send(Acknowledgement::Delivered);
            return Ok(RequestNumber {
                number: 0,
                announces: false,
            });
        }
        if self.is_closed {
            let batch = self.batch_of(request);
            return Err(self.lose(batch));
        }
        self.entered += 1;
        let request_number = RequestNumber {
            number: self.entered,
            announces: request
                .as_ref()
                .is_some_and(|request| !request.intents.is_empty()),
        };
        // A batch may be done but for what is refused, or for what another server has.
        let knows_none = crate::base::mutation::is_active("told-of-parts-once-one-was-refused")
            && self.refused.is_empty();
        let is_done_in_parts = self.is_split || has_others && !knows_none;
        let waiter = Waiter::new(sender, request.as_ref(), is_done_in_parts);
        if let Some(request) = &request {
            self.refused.entered(&request.deletes, &request.rotates);
        }
        self.ready.add(request, clock::now() + self.intent);
        self.ready.last = request_number.number;
        self.ready.since.get_or_insert_with(clock::now);
        if request_number.announces
            && !crate::base::mutation::is_active("acknowledged-before-it-is-announced")
        {
            self.ready.last_announcing = request_number.number;
            self.ready.announcers.push(waiter);
        } else {
            self.ready.waiters.push(waiter);
        }
        self.enforce_limit();
        Ok(request_number)
    }

    /// When the worker has something to do without being woken.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let takeover = self.direct.takeover();
        self.next_due().into_iter().chain(takeover).min()
    }

    /// Whether something is ready, and no caller waits for it.
    pub(super) fn waits_for_nobody(&self) -> bool {
        !self.ready.is_empty() && self.ready.waiters.is_empty() && self.ready.announcers.is_empty()
    }

    /// Enqueues a request for later, or an invalidation of the whole namespace for `None`.
    ///
    /// # Errors
    /// The lost invalidation, if the queue is closed.
    pub(super) fn enter_at(
        &mut self,
        due: Instant,
        request: impl Into<Option<InvalidationRequest>>,
    ) -> Result<(), LostInvalidations> {
        let request = request.into();
        if self.is_closed {
            let batch = self.batch_of(request);
            return Err(self.lose(batch));
        }
        let batch = self.batch_of(request);
        self.put(due, batch);
        self.enforce_limit();
        Ok(())
    }

    fn batch_of(&self, request: Option<InvalidationRequest>) -> Batch {
        Batch::of(request, clock::now() + self.intent)
    }

    /// Adds a batch to those for later.
    fn put(&mut self, due: Instant, batch: Batch) {
        let steps = due
            .saturating_duration_since(self.origin)
            .as_millis()
            .div_ceil(DUE_STEP.as_millis());
        let due = u32::try_from(steps)
            .ok()
            .and_then(|steps| self.origin.checked_add(DUE_STEP * steps));
        // A time too far away to be represented: repeat it now. Early is safe, never is not.
        match due {
            Some(due) => self.delayed.entry(due).or_default().merge(batch),
            None => self.ready.merge(batch),
        }
    }

    fn is_over_limit(&self) -> bool {
        self.waiting() > self.limit || self.refused.len() > self.limit.saturating_mul(2)
    }

    fn waiting(&self) -> usize {
        self.ready.len() + self.delayed.values().map(Batch::len).sum::<usize>()
    }

    /// Past the limit, everything becomes an invalidation of the whole namespace: one now, one at
    /// each time at which a delayed batch is due, and one at the time at which the dropped intents
    /// would have ended.
    fn enforce_limit(&mut self) {
        if !self.is_over_limit() {
            return;
        }
        let now = clock::now();
        self.ready.forget_ended(now);
        if !self.is_over_limit() {
            return;
        }
        // The invalidation of everything stands for them. What is left of it may be refused again
        // and again, while others come.
        if self.refused.len() > self.limit
            && !crate::base::mutation::is_active("refusals-not-bounded")
        {
            self.refused = Refused::default();
        }
        let mut longest = self.ready.collapse();
        // Each batch keeps its time: an early repetition must not wait for the last.
        for batch in self.delayed.values_mut() {
            longest = longest.max(batch.collapse());
        }
        if let Some(longest) = longest {
            let everything = self.batch_of(None);
            self.put(now + longest, everything);
        }
        if self.waiting() <= self.limit {
            return;
        }
        // Still too many steps. The last one covers all requests so far, so it is enough.
        if let Some(last) = std::mem::take(&mut self.delayed).pop_last() {
            self.delayed.extend([last]);
        }
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.delayed.first_key_value().map(|(due, _)| *due)
    }

    /// Makes ready the batches that are due, and the one in flight if its delivery was interrupted.
    fn gather(&mut self, now: Instant) {
        while self.next_due().is_some_and(|due| due <= now)
            && let Some((due, mut batch)) = self.delayed.pop_first()
        {
            batch.since = Some(due);
            let rotates = batch.rotates.iter().chain(&batch.rows);
            self.refused.entered(&batch.deletes, rotates);
            self.ready.merge(batch);
        }
        if self.direct.is_awaited(now) {
            return;
        }
        if let Some(interrupted) = self.in_flight.take() {
            self.ready.merge(interrupted);
        }
    }

    /// Puts the batch that was in flight back and keeps everything ready, because the store can't
    /// be reached. Returns `None` if nothing is ready. `connection` is the state of the store's
    /// connection.
    #[must_use]
    pub(super) fn requeue(
        &mut self,
        now: Instant,
        connection: Option<ConnectionStatus>,
    ) -> Option<Requeued> {
        self.gather(now);
        self.enforce_limit();
        if self.ready.is_empty() {
            return None;
        }
        let until = self.wait_until(now, connection);
        let pending = match until {
            Some(_) => Waiters::new(),
            None => {
                self.is_degraded = true;
                if crate::base::mutation::is_active("not-retried") {
                    std::mem::take(&mut self.ready).take_waiters()
                } else {
                    self.ready.take_waiters()
                }
            }
        };
        Some(Requeued { pending, until })
    }

    /// Puts the batch that was in flight back, and returns until when its callers wait for a
    /// connection. Does nothing if they don't wait.
    pub(super) fn put_back(
        &mut self,
        now: Instant,
        connection: Option<ConnectionStatus>,
    ) -> Option<Instant> {
        let until = self.wait_until(now, connection)?;
        self.gather(now);
        self.enforce_limit();
        Some(until)
    }

    /// Returns until when a caller that needs a connection waits for it, or `None` if it doesn't
    /// wait.
    pub(super) fn wait_until(
        &mut self,
        now: Instant,
        connection: Option<ConnectionStatus>,
    ) -> Option<Instant> {
        self.wait.until(now, connection)
    }

    /// The store has answered: the next lost connection is waited for again.
    pub(super) fn answered(&mut self) {
        self.wait.reset();
    }

    /// Puts everything that is ready in flight. Returns `None` if there is nothing, or while the
    /// task of a caller sends a batch.
    pub(super) fn send(&mut self, now: Instant) -> Option<OutgoingBatch> {
        self.gather(now);
        if self.in_flight.is_some() {
            return None;
        }
        self.ready.forget_ended(now);
        self.ready.seal();
        let batch = std::mem::take(&mut self.ready);
        if batch.is_empty() {
            return None;
        }
        let mut invalidation = Invalidation {
            deletes: batch.deletes.iter().cloned().collect(),
            rotates: batch.rotates_in_order(),
            ends: batch.ends.keys().copied().collect(),
        };
        let refused = self.refused.taken_out_of(&mut invalidation);
        let intents = batch.intents.clone();
        let spans = batch.spans.clone();
        let invalidates = batch.invalidates();
        let parts = batch.everything.as_ref().map(|it| it.parts.clone());
        self.in_flight = Some(batch);
        Some(OutgoingBatch {
            invalidates,
            whole_namespace: parts.is_some(),
            parts: parts.unwrap_or_else(|| Parts::Only(BTreeSet::new())),
            invalidation,
            refused,
            refused_requests: RefusedRequests::Send,
            intents,
            spans,
        })
    }

    /// Returns true while a batch is in flight that the worker sends.
    pub(super) fn is_sending(&self) -> bool {
        self.in_flight.is_some() && !self.direct.is_some()
    }

    /// The store has answered, and has refused this part of what was sent.
    pub(super) fn refuse(&mut self, sent: &Invalidation, undone: &Invalidation, error: &Error) {
        self.refused.record(sent, undone, error);
        // These have come while it was on its way.
        if !crate::base::mutation::is_active("refused-rows-end-alone") {
            let rotates = self.ready.rotates.iter().chain(&self.ready.rows);
            self.refused.entered(&self.ready.deletes, rotates);
        }
    }

    /// The generations that have to be replaced once more when something that was refused is done.
    pub(super) fn replaced_meanwhile(&self) -> Vec<Arc<Dependency>> {
        self.refused.replaced()
    }

    /// Returns true if the store has refused to invalidate something that a request names.
    pub(super) fn refuses(&self, request: &InvalidationRequest) -> bool {
        self.refused.names_any_of(request)
    }

    /// The last refusal, as an error for who is not sent now.
    pub(super) fn refusal(&self) -> Error {
        self.refused.error()
    }

    pub(super) fn is_degraded(&self) -> bool {
        self.is_degraded
    }

    /// Returns true if an unacknowledged invalidation concerns this entry. `part_of` is the part of
    /// the store that holds a generation.
    pub(super) fn concerns(
        &self,
        entry_ref: &EntryRef,
        part_of: impl Fn(&Dependency) -> u16,
    ) -> bool {
        self.ready.concerns(entry_ref, &part_of)
            || self
                .in_flight
                .as_ref()
                .is_some_and(|batch| batch.concerns(entry_ref, &part_of))
    }

    /// Returns names for a log message: the resources whose invalidations are waiting.
    pub(super) fn waiting_of(&self) -> Vec<String> {
        if self.ready.everything.is_some() {
            return vec!["everything".to_owned()];
        }
        let resources = self.ready.sweeps.keys();
        let mut names: Vec<String> = resources.map(|name| format!("`{name}`")).collect();
        if names.is_empty() && !self.ready.is_empty() {
            names.push("single entries, tags or announced writes".to_owned());
        }
        names.sort_unstable();
        names
    }

    /// Returns since when the oldest invalidation has waited. Delayed ones are not counted.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let waiting = self.in_flight.iter().chain([&self.ready]);
        let waiting = waiting.filter(|batch| !batch.is_empty());
        waiting.filter_map(|batch| batch.since).min()
    }

    /// Returns how many invalidations the store has not acknowledged, with the lost ones and
    /// without the delayed ones.
    pub(super) fn len(&self) -> usize {
        self.ready.len() + self.in_flight.as_ref().map_or(0, Batch::len) + self.lost
    }
}

#[cfg(test)]
mod tests;
