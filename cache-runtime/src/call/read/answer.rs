//! Answers a call from the store: looks up the entry, waits for other loads, or gets the permit to
//! load.

use std::pin::Pin;
use std::sync::Arc;

use super::audit::audited;
use super::audit::audited_hit::{Audited, draw};
use super::call::{Call, arrived, load_result};
use super::load::{Load, LoadRole};
use super::lookup_loop::{Action, LookupLoop, UnleasedRole};
use crate::auditor::Draw;
use crate::call::observe::{BypassReason, StaleReason, Status};
use crate::call::returns::Returns;

/// The next step of the caller.
pub(super) enum Answer<R> {
    /// Return this value.
    Found(R),
    /// Return this value, and load a new one in the background.
    Revalidate(R, Box<Load>),
    /// Run the body.
    Run(Box<Load>),
}

impl Call {
    /// Like [`answer`](Self::answer), for a body that can't outlive its caller, so that nothing can
    /// be loaded in the background.
    // Boxed, because most calls are answered without it, and its size would be moved about with
    // every call.
    pub(super) fn answer_or_load<R: Returns<S>, S>(
        self: Arc<Self>,
    ) -> Pin<Box<impl Future<Output = Result<R, Box<Load>>>>> {
        Box::pin(async move {
            let call = Arc::clone(&self);
            let answered = match self.answer().await {
                Answer::Found(value) | Answer::Revalidate(value, _) => Ok(value),
                Answer::Run(mut load) => match load.instead_of_waiting() {
                    Some(value) => Ok(value),
                    None => {
                        // Boxed, so that a call that waits for a load does not hold memory for it.
                        Box::pin(load.enter()).await.ok_or(load)
                    }
                },
            };
            if let Ok(value) = &answered {
                call.remember(value);
            }
            answered
        })
    }

    /// The hit, if it is to be audited.
    fn to_audit<R: Returns<S>, S>(&self, value: &R) -> Option<Audited> {
        self.draw().and_then(|draw| audited(value, draw))
    }

    /// Whether a hit of this call is to be checked; asked once.
    pub(super) fn draw(&self) -> Option<Draw> {
        // An entry that is kept here only can't be looked at again in the store.
        let role = self.audit.filter(|_| !self.is_kept_here_only())?;
        draw(&self.cache, role, &self.own.key)
    }

    /// Looks up the entry, waits for other loads, or gets the permit to load.
    pub(super) async fn answer<R: Returns<S>, S>(self: Arc<Self>) -> Answer<R> {
        if self.is_kept_here_only() {
            return Box::pin(self.answer_in_process()).await;
        }
        if let Some(hit) = &self.audited {
            let hit = Audited::clone(hit);
            return Answer::Run(Load::audited(self, hit));
        }
        // To look at a type for the first time takes a while, which is not the store's.
        let (fingerprint, was_known) = self.find_fingerprint::<R::Value>();
        if was_known {
            self.timing.asks_at_once();
        }
        let mut lookup_loop = LookupLoop::new(&self, fingerprint);
        let bypass = loop {
            match lookup_loop.next().await {
                Action::Hit(hit) => match self.serve_and_keep(&hit, lookup_loop.read_token()) {
                    Some(value) => {
                        lookup_loop.found(&hit, || load_result(&value));
                        drop(lookup_loop);
                        return match self.to_audit(&value) {
                            Some(hit) => Answer::Run(Load::audited(self, hit)),
                            None => Answer::Found(value),
                        };
                    }
                    None => lookup_loop.reject(hit.header),
                },
                Action::Stale(hit, reason) => match self.serve(&hit, reason) {
                    Some(value) => return Answer::Found(value),
                    None => lookup_loop.reject(hit.header),
                },
                Action::Revalidate(both) => {
                    let (hit, permit) = *both;
                    let value = self.serve(&hit, StaleReason::Revalidating);
                    let load = Load::new(Arc::clone(&self), LoadRole::Leader(permit), None);
                    return match value {
                        Some(value) => {
                            self.resource.counters.refreshes.add_one();
                            Answer::Revalidate(value, load)
                        }
                        // The old value does not decode, so the caller loads.
                        None => Answer::Run(load),
                    };
                }
                Action::Joined(load_result) => match arrived(load_result) {
                    Some(value) => {
                        self.answered(Status::Miss {
                            stored: false,
                            joined: true,
                        });
                        return Answer::Found(value);
                    }
                    None => break BypassReason::OtherType,
                },
                Action::Lead(permit) => {
                    let (role, fallback) = (LoadRole::Leader(permit), lookup_loop.fallback());
                    return Answer::Run(Load::new(Arc::clone(&self), role, fallback));
                }
                Action::Bypass(reason) => break reason,
            }
        };
        if let Some((hit, reason)) = lookup_loop.instead(bypass)
            && let Some(value) = self.serve(&hit, reason)
        {
            return Answer::Found(value);
        }
        let fallback = lookup_loop.fallback();
        self.answered(Status::Bypass(bypass));
        // Boxed, so that callers that wait for a load don't hold memory for it.
        let role = match Box::pin(lookup_loop.queue(bypass)).await {
            UnleasedRole::Run(run) => LoadRole::Runner(run),
            UnleasedRole::Joined(load_result) => match arrived(load_result) {
                Some(value) => return Answer::Found(value),
                None => LoadRole::Alone,
            },
            UnleasedRole::Alone => LoadRole::Alone,
        };
        let load = Load::new(Arc::clone(&self), role, fallback);
        Answer::Run(match bypass {
            BypassReason::WaitLimit => load.looks_again(),
            _ => load,
        })
    }
}
