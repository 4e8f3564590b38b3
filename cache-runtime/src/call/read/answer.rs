//! Answers a call from the store: looks up the entry, waits for other loads, or gets the permit to
//! load.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::answer_slot::{AnswerSlot, Slot};
use super::audit::audited_hit::{Audited, draw};
use super::call::Call;
use super::hit::{Fallback, Hit};
use super::load::{Load, LoadRole};
use super::lookup_loop::{Action, LookupLoop, UnleasedRole};
use crate::auditor::Draw;
use crate::call::observe::{BypassReason, StaleReason, Status};
use crate::call::returns::Returns;

/// The next step of the caller.
pub(super) enum Answer {
    /// Return the value in the slot.
    Found,
    /// Return the value in the slot, and load a new one in the background.
    Revalidate(Box<Load>),
    /// Run the body.
    Run(Box<Load>),
}

impl Call {
    /// Like [`answer`](Self::answer), for a body that can't outlive its caller, so that nothing can
    /// be loaded in the background.
    pub(super) async fn answer_or_load<R: Returns<S>, S>(self: Arc<Self>) -> Result<R, Box<Load>> {
        let mut slot = Slot::of::<R, S>();
        match Arc::clone(&self).asks(&mut slot).await {
            Err(load) => Err(load),
            Ok(()) => slot
                .returned()
                .ok_or_else(|| Load::new(self, LoadRole::Alone, None)),
        }
    }

    /// The same for a value of any type. Compiled once, so it is a `dyn Future`.
    pub(super) fn asks<'s>(
        self: Arc<Self>,
        slot: &'s mut (dyn AnswerSlot + 's),
    ) -> BoxFuture<'s, Result<(), Box<Load>>> {
        Box::pin(async move {
            let answered = match self.answer(slot).await {
                Answer::Found | Answer::Revalidate(_) => Ok(()),
                Answer::Run(mut load) => match load.instead_of_waiting(slot) {
                    true => Ok(()),
                    false => {
                        // Boxed, so that a call that waits for a load does not hold memory for it.
                        match Box::pin(load.enter(slot)).await {
                            true => Ok(()),
                            false => Err(load),
                        }
                    }
                },
            };
            if answered.is_ok() {
                self.remember(|| slot.for_request(&self));
            }
            answered
        })
    }

    /// The same without what follows it, for a body that may outlive its caller.
    pub(super) fn answer_any<'s>(
        self: Arc<Self>,
        slot: &'s mut (dyn AnswerSlot + 's),
    ) -> BoxFuture<'s, Answer> {
        Box::pin(async move { self.answer(slot).await })
    }

    /// The hit, if it is to be audited.
    fn to_audit(&self, slot: &dyn AnswerSlot) -> Option<Audited> {
        let draw = self.draw()?;
        let cached = slot.share()?;
        Some(Audited { cached, draw })
    }

    /// Whether a hit of this call is to be checked; asked once.
    pub(super) fn draw(&self) -> Option<Draw> {
        // An entry that is kept here only can't be looked at again in the store.
        let role = self.audit.filter(|_| !self.is_kept_here_only())?;
        draw(&self.cache, role, &self.own.key)
    }

    /// Serves the value of an entry that may have expired, and reports and counts the hit. Returns
    /// false if it does not decode.
    pub(super) fn serve(&self, hit: &Hit, reason: StaleReason, slot: &mut dyn AnswerSlot) -> bool {
        if !slot.restore(hit) {
            self.doubts();
            return false;
        }
        self.answered(match hit.past.is_zero() {
            true => Status::Hit { ttl: hit.ttl },
            false => Status::Stale {
                past: hit.past,
                reason,
            },
        });
        true
    }

    /// Serves an expired entry instead of a new value. Returns false if it does not decode.
    pub(super) fn fall_back(
        &self,
        fallback: &Fallback,
        reason: StaleReason,
        slot: &mut dyn AnswerSlot,
    ) -> bool {
        let is_served = self.serve(&fallback.hit, reason, slot);
        if !is_served {
            self.resource.counters.errors.add_one();
        }
        is_served
    }

    /// Looks up the entry, waits for other loads, or gets the permit to load.
    async fn answer(self: &Arc<Self>, slot: &mut dyn AnswerSlot) -> Answer {
        if self.is_kept_here_only() {
            return Box::pin(Arc::clone(self).answer_in_process(slot)).await;
        }
        if let Some(hit) = &self.audited {
            let hit = Audited::clone(hit);
            return Answer::Run(Load::audited(Arc::clone(self), hit));
        }
        // To look at a type for the first time takes a while, which is not the store's.
        let (fingerprint, was_known) = self.find_fingerprint_of(slot.value_type());
        if was_known {
            self.timing.asks_at_once();
        }
        let mut lookup_loop = LookupLoop::new(self, fingerprint);
        let bypass = loop {
            match lookup_loop.next().await {
                Action::Hit(hit) => {
                    if !slot.restore(&hit) {
                        lookup_loop.reject(hit.header);
                        continue;
                    }
                    if let Some(read_token) = lookup_loop.read_token() {
                        self.keep(&hit, slot.value_type().id, slot.keep(), read_token);
                    }
                    self.answered(Status::Hit { ttl: hit.ttl });
                    lookup_loop.found(&hit, || slot.share());
                    drop(lookup_loop);
                    return match self.to_audit(slot) {
                        Some(hit) => Answer::Run(Load::audited(Arc::clone(self), hit)),
                        None => Answer::Found,
                    };
                }
                Action::Stale(hit, reason) => match self.serve(&hit, reason, slot) {
                    true => return Answer::Found,
                    false => lookup_loop.reject(hit.header),
                },
                Action::Revalidate(both) => {
                    let (hit, permit) = *both;
                    let is_served = self.serve(&hit, StaleReason::Revalidating, slot);
                    let load = Load::new(Arc::clone(self), LoadRole::Leader(permit), None);
                    return match is_served {
                        true => {
                            self.resource.counters.refreshes.add_one();
                            Answer::Revalidate(load)
                        }
                        // The old value does not decode, so the caller loads.
                        false => Answer::Run(load),
                    };
                }
                Action::Joined(load_result) => match slot.arrived(load_result) {
                    true => {
                        self.answered(Status::Miss {
                            stored: false,
                            joined: true,
                        });
                        return Answer::Found;
                    }
                    false => break BypassReason::OtherType,
                },
                Action::Lead(permit) => {
                    let (role, fallback) = (LoadRole::Leader(permit), lookup_loop.fallback());
                    return Answer::Run(Load::new(Arc::clone(self), role, fallback));
                }
                Action::Bypass(reason) => break reason,
            }
        };
        // Boxed, so that callers that wait for a load don't hold memory for it.
        Box::pin(self.pass_by(bypass, &mut lookup_loop, slot)).await
    }

    /// Answers a call that stores nothing: with an expired entry, with another caller's value, or
    /// by its own load.
    async fn pass_by(
        self: &Arc<Self>,
        bypass: BypassReason,
        lookup_loop: &mut LookupLoop<'_>,
        slot: &mut dyn AnswerSlot,
    ) -> Answer {
        if let Some((hit, reason)) = lookup_loop.instead(bypass)
            && self.serve(&hit, reason, slot)
        {
            return Answer::Found;
        }
        let fallback = lookup_loop.fallback();
        self.answered(Status::Bypass(bypass));
        let role = match lookup_loop.queue(bypass).await {
            UnleasedRole::Run(run) => LoadRole::Runner(run),
            UnleasedRole::Joined(load_result) => match slot.arrived(load_result) {
                true => return Answer::Found,
                false => LoadRole::Alone,
            },
            UnleasedRole::Alone => LoadRole::Alone,
        };
        let load = Load::new(Arc::clone(self), role, fallback);
        Answer::Run(match bypass {
            BypassReason::WaitLimit => load.looks_up_again(),
            _ => load,
        })
    }
}
