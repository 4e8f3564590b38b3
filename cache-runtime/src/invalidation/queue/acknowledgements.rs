//! The store's answers to the batch in flight.

use std::collections::HashMap;

use super::Queue;
use super::refused::Refused;
use super::request_number::RequestNumber;
use crate::base::clock::Millis;
use crate::base::nonce::Nonce;
use crate::invalidation::Acknowledgement;
use crate::invalidation::batch::{Batch, Waiters};
use crate::store::{Invalidation, Parts};

impl Queue {
    /// Handles the acknowledgement of the batch in flight, except for its intents. Returns the
    /// acknowledged part, for the sweep.
    pub(in crate::invalidation) fn acknowledge(&mut self) -> Batch {
        let Some(batch) = &mut self.in_flight else {
            return Batch::default();
        };
        self.wait.reset();
        self.refused = Refused::default();
        let mut done = batch.take_invalidation();
        self.delivered = self.delivered.max(done.last);
        tell_delivered(&mut done.waiters);
        self.settle();
        done
    }

    /// Handles a partial acknowledgement: the rest keeps waiting. So keys that a server refuses, or
    /// that lie on one that is away, don't hold up others. Returns the sweeps of what is done.
    pub(in crate::invalidation) fn acknowledge_part(
        &mut self,
        done: &Invalidation,
    ) -> HashMap<Box<str>, bool> {
        self.refused.forget(done);
        let Some(batch) = &mut self.in_flight else {
            return HashMap::new();
        };
        let (mut waiters, sweeps) = batch.remove(done);
        tell_delivered(&mut waiters);
        sweeps
    }

    /// Handles a partial acknowledgement of an invalidation of the whole namespace: these parts of
    /// the store keep waiting, so that the others are not invalidated again with each attempt.
    /// Returns when the first part was done, in the store's time.
    pub(in crate::invalidation) fn acknowledge_parts(
        &mut self,
        undone: Parts,
        began: Option<Millis>,
    ) -> Option<Millis> {
        let batch = self.in_flight.as_mut()?;
        batch.keep_parts(undone, began)
    }

    /// Handles the acknowledgement of one intent.
    pub(in crate::invalidation) fn acknowledge_intent(&mut self, token: Nonce) {
        if let Some(batch) = &mut self.in_flight
            && let Some(place) = batch.place_of(token)
        {
            batch.intents.remove(place);
            self.wait.reset();
        }
        self.settle();
    }

    /// The store refused this intent: move it behind the others, so that they are tried first.
    pub(in crate::invalidation) fn defer_intent(&mut self, token: Nonce) {
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

    /// Puts back the rest of the batch in flight, which the store has refused, or has not answered
    /// (`is_away`). Returns the callers to be told `Pending`, once reads can see that they must
    /// bypass.
    #[must_use]
    pub(in crate::invalidation) fn take_back(&mut self, is_away: bool) -> Waiters {
        self.is_degraded = true;
        match is_away || crate::base::mutation::is_active("refusal-taken-for-an-outage") {
            true => self.wait.give_up(),
            false => self.wait.reset(),
        }
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
    pub(in crate::invalidation) fn stop_waiting(
        &mut self,
        request_number: RequestNumber,
    ) -> Acknowledgement {
        let is_announced = !request_number.announces || request_number.number <= self.announced;
        if request_number.number <= self.delivered && is_announced {
            return Acknowledgement::Delivered;
        }
        self.is_degraded = true;
        Acknowledgement::Pending
    }
}

fn tell_delivered(waiters: &mut Waiters) {
    for waiter in waiters.drain(..) {
        // The receiver may be gone.
        waiter.tell(Acknowledgement::Delivered);
    }
}
