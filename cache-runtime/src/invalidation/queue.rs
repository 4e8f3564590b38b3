//! The state of the queue, as plain data without I/O.

mod direct_state;
mod lost;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use self::direct_state::DirectState;
#[cfg(any(doc, test))]
pub(super) use self::direct_state::TAKEOVER;
pub(super) use self::lost::LostInvalidations;
use super::Acknowledgement;
use super::batch::{Batch, InvalidationRequest, Waiter, Waiters};
use super::reconnect::ReconnectWait;
use crate::base::clock::{self, Instant, Millis};
use crate::base::nonce::Nonce;
use crate::protocol::generation::Dep;
use crate::store::{ConnectionStatus, Intent, Invalidation, Parts, Probe};

/// Due times are rounded up to this step, and batches that are due together are merged. That bounds
/// their number.
const DUE_STEP: Duration = Duration::from_millis(250);

/// A batch to send now.
#[derive(Debug)]
pub(super) struct OutgoingBatch {
    /// Whether there is more than intents.
    pub(super) invalidates: bool,
    pub(super) whole_namespace: bool,
    /// The parts of the store in which the whole namespace has to be invalidated.
    pub(super) parts: Parts,
    pub(super) invalidation: Invalidation,
    pub(super) intents: Vec<Intent>,
    /// The spans of the writes that wait for it.
    pub(super) spans: Vec<tracing::Span>,
}

/// The result of putting a batch back because there is no connection.
#[derive(Debug)]
pub(super) struct Requeued {
    /// The callers to be told `Pending`, once reads can see that they must bypass.
    pub(super) pending: Waiters,
    /// Until when the other callers wait for a connection.
    pub(super) until: Option<Instant>,
}

/// A request in the queue, and what the task of its caller is to send, if it is to send anything.
pub(super) type EnteredToSend = (RequestNumber, Option<(u64, OutgoingBatch)>);

/// What the task of a caller has delivered.
#[derive(Debug)]
pub(super) struct DirectDone {
    pub(super) batch: Batch,
    /// Whether the worker has waited for it.
    pub(super) wakes: bool,
}

/// Identifies the request that a caller waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RequestNumber {
    number: u64,
    announces: bool,
}

impl RequestNumber {
    /// The number of a request that was never enqueued.
    pub(super) const NEVER: Self = Self {
        number: u64::MAX,
        announces: false,
    };
}

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
    is_closed: bool,
    /// Whether the store may complete a batch in parts.
    is_split: bool,
    /// How many invalidations were lost.
    lost: usize,
    /// The lost dependencies that were logged already.
    reported: HashSet<Arc<Dep>>,
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
            is_closed: false,
            is_split: false,
            lost: 0,
            reported: HashSet::new(),
        }
    }

    /// Sets whether the store may complete a batch in parts.
    pub(super) fn set_split(&mut self, is_split: bool) {
        self.is_split = is_split;
    }

    /// Enqueues a request, or an invalidation of the whole namespace for `None`. Returns its
    /// number.
    ///
    /// # Errors
    /// The lost invalidation, if the queue is closed. The caller learns it because its receipt is
    /// dropped.
    pub(super) fn enter(
        &mut self,
        request: Option<InvalidationRequest>,
        sender: oneshot::Sender<Acknowledgement>,
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
        let waiter = Waiter::new(sender, request.as_ref(), self.is_split);
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

    /// Enqueues a request whose caller waits. If nothing else waits, the caller's task is to send it.
    ///
    /// # Errors
    /// As [`enter`](Self::enter).
    pub(super) fn enter_to_send(
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
        let request_number = self.enter(Some(request), sender)?;
        if !is_alone || self.ready.everything.is_some() {
            return Ok((request_number, None));
        }
        let outgoing = self.send(now);
        let outgoing = outgoing.map(|outgoing| (self.direct.begin(now), outgoing));
        Ok((request_number, outgoing))
    }

    /// Whether the batch in flight is the one of this number, which a caller's task sends.
    pub(super) fn is_direct(&self, number: u64) -> bool {
        self.direct.is(number)
    }

    /// The store has taken what a caller's task has sent. `None` if the worker has taken it over.
    pub(super) fn acknowledge_direct(&mut self, number: u64) -> Option<DirectDone> {
        let wakes = self.direct.end(number)? || !self.ready.is_empty();
        let batch = self.acknowledge();
        Some(DirectDone { batch, wakes })
    }

    /// The store has refused what a caller's task has sent. As [`take_back`](Self::take_back).
    #[must_use]
    pub(super) fn take_back_direct(&mut self, number: u64) -> Option<Waiters> {
        self.direct.end(number)?;
        Some(self.take_back())
    }

    /// The worker is to send it. Returns whether it has not begun to.
    pub(super) fn hand_back(&mut self, number: u64) -> bool {
        self.direct.end(number).is_some()
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

    fn waiting(&self) -> usize {
        self.ready.len() + self.delayed.values().map(Batch::len).sum::<usize>()
    }

    /// Past the limit, everything becomes an invalidation of the whole namespace: one now, one at
    /// each time at which a delayed batch is due, and one at the time at which the dropped intents
    /// would have ended.
    fn enforce_limit(&mut self) {
        if self.waiting() <= self.limit {
            return;
        }
        let now = clock::now();
        self.ready.forget_ended(now);
        if self.waiting() <= self.limit {
            return;
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

    /// Puts everything that is ready in flight. Returns `None` if there is nothing, or while the task
    /// of a caller sends a batch.
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
        let invalidation = Invalidation {
            kills: batch.kills.iter().cloned().collect(),
            bumps: batch.bumps_in_order(),
            withdraws: batch.withdraws.keys().copied().collect(),
        };
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
            intents,
            spans,
        })
    }

    /// Handles the acknowledgement of the batch in flight, except for its intents. Returns the
    /// acknowledged part, for the sweep.
    pub(super) fn acknowledge(&mut self) -> Batch {
        let Some(batch) = &mut self.in_flight else {
            return Batch::default();
        };
        self.wait.reset();
        let mut done = batch.take_invalidation();
        self.delivered = self.delivered.max(done.last);
        tell_delivered(&mut done.waiters);
        self.settle();
        done
    }

    /// Handles a partial acknowledgement: `undone` keeps waiting, the rest is done. So keys on one
    /// server of a store don't hold up keys on the others.
    pub(super) fn acknowledge_but(&mut self, undone: &Invalidation) {
        let Some(batch) = &mut self.in_flight else {
            return;
        };
        let mut done = batch.keep(undone);
        tell_delivered(&mut done);
    }

    /// Handles a partial acknowledgement of an invalidation of the whole namespace: these parts of
    /// the store keep waiting, so that the others are not invalidated again with each attempt.
    /// Returns when the first part was done, in the store's time.
    pub(super) fn acknowledge_parts(
        &mut self,
        undone: Parts,
        began: Option<Millis>,
    ) -> Option<Millis> {
        let batch = self.in_flight.as_mut()?;
        batch.keep_parts(undone, began)
    }

    /// Handles the acknowledgement of one intent.
    pub(super) fn acknowledge_intent(&mut self, token: Nonce) {
        if let Some(batch) = &mut self.in_flight
            && let Some(place) = batch.place_of(token)
        {
            batch.intents.remove(place);
            self.wait.reset();
        }
        self.settle();
    }

    /// The store refused this intent: move it behind the others, so that they are tried first.
    pub(super) fn defer_intent(&mut self, token: Nonce) {
        if let Some(batch) = &mut self.in_flight
            && let Some(place) = batch.place_of(token)
        {
            let intent = batch.intents.remove(place);
            batch.intents.push(intent);
        }
    }

    fn settle(&mut self) {
        if let Some(mut done) = self.in_flight.take_if(|batch| batch.is_empty()) {
            self.announced = self.announced.max(done.last_announcing);
            tell_delivered(&mut done.announcers);
        }
        self.is_degraded &= self.in_flight.is_some() || !self.ready.is_empty();
    }

    /// Returns true while a batch is in flight that the worker sends.
    pub(super) fn is_sending(&self) -> bool {
        self.in_flight.is_some() && !self.direct.is_some()
    }

    /// Puts back the rest of the batch in flight, which the store refused. Returns the callers to
    /// be told `Pending`, once reads can see that they must bypass.
    #[must_use]
    pub(super) fn take_back(&mut self) -> Waiters {
        self.is_degraded = true;
        self.wait.give_up();
        self.direct.forget();
        let Some(mut batch) = self.in_flight.take() else {
            return Waiters::new();
        };
        let waiters = batch.take_waiters();
        self.ready.merge(batch);
        self.enforce_limit();
        waiters
    }

    /// Handles a caller whose time is up. Returns the acknowledgement it gets.
    pub(super) fn stop_waiting(&mut self, request_number: RequestNumber) -> Acknowledgement {
        let is_announced = !request_number.announces || request_number.number <= self.announced;
        if request_number.number <= self.delivered && is_announced {
            return Acknowledgement::Delivered;
        }
        self.is_degraded = true;
        Acknowledgement::Pending
    }

    /// Makes all delayed batches ready, because the queue is about to close.
    pub(super) fn flush_delayed(&mut self) {
        for (_, batch) in std::mem::take(&mut self.delayed) {
            self.ready.merge(batch);
        }
    }

    /// Closes the queue if it is empty. Returns whether it is closed.
    pub(super) fn close_if_done(&mut self) -> bool {
        let is_done = self.ready.is_empty() && self.in_flight.is_none() && self.delayed.is_empty();
        self.is_closed |= is_done;
        self.is_closed
    }

    /// Closes the queue and drops the receipts, which tells their callers. Returns the lost
    /// invalidations.
    pub(super) fn close(&mut self) -> LostInvalidations {
        self.is_closed = true;
        self.flush_delayed();
        let mut left = std::mem::take(&mut self.ready);
        self.direct.forget();
        if let Some(interrupted) = self.in_flight.take() {
            left.merge(interrupted);
        }
        self.lose(left)
    }

    fn lose(&mut self, batch: Batch) -> LostInvalidations {
        let count = batch.len();
        self.lost += count;
        if batch.everything.is_some() {
            return LostInvalidations {
                names: vec!["the whole namespace".into()],
                count,
            };
        }
        let (deps, mut keys) = batch.names();
        if deps.is_empty() {
            keys.sort_unstable();
            keys.dedup();
            return LostInvalidations { names: keys, count };
        }
        let mut names = Vec::new();
        for dep in deps {
            if self.reported.insert(Arc::clone(&dep)) {
                names.push(dep.key().to_owned());
            }
        }
        LostInvalidations { names, count }
    }

    pub(super) fn is_degraded(&self) -> bool {
        self.is_degraded
    }

    /// Returns true if an unacknowledged invalidation concerns this entry. `part_of` is the part of
    /// the store that holds a generation.
    pub(super) fn concerns(&self, probe: &Probe, part_of: impl Fn(&Dep) -> u16) -> bool {
        self.ready.concerns(probe, &part_of)
            || self
                .in_flight
                .as_ref()
                .is_some_and(|batch| batch.concerns(probe, &part_of))
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

fn tell_delivered(waiters: &mut Waiters) {
    for waiter in waiters.drain(..) {
        // The receiver may be gone.
        waiter.tell(Acknowledgement::Delivered);
    }
}

#[cfg(test)]
mod tests;
