//! Answers a call from the store: looks, waits for others, or gets the permit to load.

use std::pin::Pin;
use std::sync::Arc;

use super::call::{Call, arrived};
use super::load::{self, Load, LoadRole};
use super::reader::{Action, Queued, Reader};
use crate::call::observe::{BypassReason, StaleReason, Status};
use crate::call::returns::Returns;

/// What the cache has to say to a call.
pub(super) enum Answer<R> {
    /// Return this.
    Found(R),
    /// Return this, and load a new one in the background.
    Revalidate(R, Box<Load>),
    /// Run the body.
    Run(Box<Load>),
}

impl Call {
    /// As [`answer`](Self::answer), for a body that does not outlive its caller: there is nothing to load a new one with in the
    /// background.
    // On the heap: most calls are over without it, and all would be moved about with a place for it.
    pub(super) fn answer_or_load<R: Returns<S>, S>(
        self: Arc<Self>,
    ) -> Pin<Box<impl Future<Output = Result<R, Box<Load>>>>> {
        Box::pin(async move {
            match self.answer().await {
                Answer::Found(value) | Answer::Revalidate(value, _) => Ok(value),
                Answer::Run(load) => Err(load),
            }
        })
    }

    /// Looks, waits for others, or gets the permit to load.
    pub(super) async fn answer<R: Returns<S>, S>(self: Arc<Self>) -> Answer<R> {
        let mut reader = Reader::new(&self, self.fingerprint::<R::Value>());
        let bypass = loop {
            match reader.next().await {
                Action::Hit(hit) => match self.serve_and_keep(&hit, reader.read_token()) {
                    Some(value) => {
                        reader.found(&hit, || load::load_result(&value));
                        return Answer::Found(value);
                    }
                    None => reader.reject(hit.header),
                },
                Action::Stale(hit, reason) => match self.serve(&hit, reason) {
                    Some(value) => return Answer::Found(value),
                    None => reader.reject(hit.header),
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
                        // It is there to be loaded, and nothing else.
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
                    let (part, fallback) = (LoadRole::Leader(permit), reader.fallback());
                    return Answer::Run(Load::new(Arc::clone(&self), part, fallback));
                }
                Action::Bypass(reason) => break reason,
            }
        };
        if let Some((hit, reason)) = reader.instead(bypass)
            && let Some(value) = self.serve(&hit, reason)
        {
            return Answer::Found(value);
        }
        let fallback = reader.fallback();
        self.answered(Status::Bypass(bypass));
        // Apart, since those who wait for a load are not to hold a place for it.
        let part = match Box::pin(reader.queue(bypass)).await {
            Queued::Run(run) => LoadRole::Runner(run),
            Queued::Joined(load_result) => match arrived(load_result) {
                Some(value) => return Answer::Found(value),
                None => LoadRole::Alone,
            },
            Queued::Alone => LoadRole::Alone,
        };
        Answer::Run(Load::new(Arc::clone(&self), part, fallback))
    }
}
