//! A caller that runs the body: what it does for other callers, and what it returns if the body
//! fails.
//!
//! This code is not compiled for each annotated function. What depends on types depends only on the
//! return type.

use std::pin::Pin;
use std::sync::Arc;

use super::hit::Fallback;
use super::new_entry::NewEntry;
use super::permit::Permit;
use super::{Call, Unless};
use crate::call::enclosing::Frame;
use crate::call::keep_alive::{KeepAlive, Step};
use crate::call::observe::{StaleReason, Status};
use crate::call::returns::{Loaded, Returns};
use crate::coalesce::load_gate::Run;
use crate::coalesce::single_flight::LoadResult;
use crate::store::Filled;

/// What a caller that runs the body does for others.
#[derive(Debug)]
pub(super) enum LoadRole {
    /// Stores the value.
    Leader(Permit),
    /// Hands the value to its waiters.
    Runner(Run),
    /// Nothing.
    Alone,
}

/// A call whose body runs.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) call: Arc<Call>,
    part: LoadRole,
    /// The entry to return if the body fails or is slow.
    pub(super) fallback: Option<Box<Fallback>>,
    /// Renews the lease at a third of its length.
    keep_alive: KeepAlive,
}

impl Load {
    /// Boxed, because it is moved often, and most calls need none.
    pub(super) fn new(
        call: Arc<Call>,
        part: LoadRole,
        fallback: Option<Box<Fallback>>,
    ) -> Box<Self> {
        let renewal = match &part {
            LoadRole::Leader(permit) => Some(permit.renewal()),
            LoadRole::Runner(_) | LoadRole::Alone => None,
        };
        let frame = Frame::load(&call.cache, [call.probe.key.clone()]);
        Box::new(Self {
            call,
            part,
            fallback,
            keep_alive: KeepAlive::new(frame, renewal),
        })
    }

    /// Returns what renews the lease while the body runs.
    pub(super) fn keep_alive(&mut self) -> &mut KeepAlive {
        &mut self.keep_alive
    }

    /// Stores the result of the body, and returns the value for the caller.
    pub(super) fn over<R, S, U>(
        self: Box<Self>,
        returned: R,
        unless: U,
    ) -> Pin<Box<impl Future<Output = R>>>
    where
        R: Returns<S>,
        U: Unless<R::Value>,
    {
        let completion = self.complete(&returned, unless);
        Box::pin(async move { completion.over().await.returns(returned) })
    }

    /// Hands the value to the waiters, and prepares it for the store. It does so before any await,
    /// so that `R` need not be `Sync`.
    pub(super) fn complete<R: Returns<S>, S>(
        self: Box<Self>,
        returned: &R,
        unless: impl Unless<R::Value>,
    ) -> Completion {
        let new_entry = match &self.part {
            LoadRole::Leader(permit) => {
                permit.leader.complete(|| load_result(returned));
                self.call.pack(returned, unless)
            }
            LoadRole::Runner(run) => {
                run.complete(|| load_result(returned));
                None
            }
            LoadRole::Alone => None,
        };
        let has_failed = matches!(returned.loaded(), Loaded::Failed);
        Completion {
            load: self,
            new_entry,
            has_failed,
        }
    }
}

/// A body that has returned.
#[derive(Debug)]
pub(super) struct Completion {
    load: Box<Load>,
    new_entry: Option<NewEntry>,
    has_failed: bool,
}

impl Completion {
    /// Stores the value, if there is one.
    pub(super) fn over(self) -> Step<Over> {
        Box::pin(self.store())
    }

    async fn store(self) -> Over {
        let Load {
            call,
            part,
            fallback,
            keep_alive,
        } = *self.load;
        drop(keep_alive);
        let leads = match part {
            LoadRole::Leader(permit) => Some(permit),
            LoadRole::Runner(_) | LoadRole::Alone => None,
        };
        let status = match (leads, self.new_entry) {
            (Some(permit), Some(new_entry)) => {
                Some(permit.fill(&call, new_entry).await == Some(Filled::Stored))
            }
            (Some(_), None) => Some(false),
            (None, _) => None,
        };
        Over {
            call,
            status: status.map(|stored| Status::Miss {
                stored,
                joined: false,
            }),
            fallback: fallback.filter(|it| self.has_failed && it.covers_errors),
        }
    }
}

/// A call that has ended, except for the value to return.
#[derive(Debug)]
pub(super) struct Over {
    call: Arc<Call>,
    /// The status to report, for a call that had a lease.
    pub(super) status: Option<Status>,
    /// The entry to return instead of an error, if it decodes.
    fallback: Option<Box<Fallback>>,
}

impl Over {
    pub(super) fn returns<R: Returns<S>, S>(self, returned: R) -> R {
        if let Some(fallback) = self.fallback
            && let Some(instead) = self.call.fall_back(*fallback, StaleReason::LoadFailed)
        {
            return instead;
        }
        self.call.said(self.status);
        returned
    }
}

/// Returns the result for the callers that waited for it.
pub(super) fn load_result<R: Returns<S>, S>(returned: &R) -> Option<LoadResult> {
    match returned.loaded() {
        Loaded::Value(_) => returned.share().map(|value| LoadResult::Value(value)),
        Loaded::Absent => Some(LoadResult::Absence),
        Loaded::Failed => Some(LoadResult::Failure),
    }
}
