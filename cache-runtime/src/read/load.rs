//! A caller who runs the body: what it does for others, and what it has in place of what fails.
//!
//! Nothing here is copied for each annotated function: what depends on types depends on the return type alone.

use std::pin::Pin;
use std::sync::Arc;

use super::permit::{Package, Permit};
use super::reader::Fallback;
use super::{Call, Unless};
use crate::enclosing::Frame;
use crate::flight::Landed;
use crate::lane::Run;
use crate::observe::StaleReason;
use crate::observe::Status;
use crate::returns::{Loaded, Returns};
use crate::store::Filled;
use crate::watch::{Step, Watch};

/// What a caller who runs the body does for others.
#[derive(Debug)]
pub(super) enum Part {
    /// Stores what it returns.
    Leader(Permit),
    /// Hands it to those who wait.
    Runner(Run),
    /// Nothing.
    Alone,
}

/// A call whose body runs.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) call: Arc<Call>,
    part: Part,
    /// What there is to return if the body fails or is slow.
    pub(super) fallback: Option<Box<Fallback>>,
    /// Renews the lease, at a third of its length.
    watch: Watch,
}

impl Load {
    /// On the heap: it is moved often, and most calls are over without one.
    pub(super) fn new(call: Arc<Call>, part: Part, fallback: Option<Box<Fallback>>) -> Box<Self> {
        let renewal = match &part {
            Part::Leader(permit) => Some(permit.renewal()),
            Part::Runner(_) | Part::Alone => None,
        };
        let frame = Frame::load(&call.cache, [call.probe.key.clone()]);
        Box::new(Self {
            call,
            part,
            fallback,
            watch: Watch::new(frame, renewal),
        })
    }

    /// What is done while the body runs.
    pub(super) fn watch(&mut self) -> &mut Watch {
        &mut self.watch
    }

    /// Stores what the body has returned, and says what to return for it.
    pub(super) fn over<R, S, U>(
        self: Box<Self>,
        returned: R,
        unless: U,
    ) -> Pin<Box<impl Future<Output = R>>>
    where
        R: Returns<S>,
        U: Unless<R::Value>,
    {
        let landing = self.land(&returned, unless);
        Box::pin(async move { landing.over().await.returns(returned) })
    }

    /// Hands what was returned to those who wait, and packs it to be stored: before anything is awaited, so that `R` need
    /// not be shared between threads.
    pub(super) fn land<R: Returns<S>, S>(
        self: Box<Self>,
        returned: &R,
        unless: impl Unless<R::Value>,
    ) -> Landing {
        let package = match &self.part {
            Part::Leader(permit) => {
                permit.pilot.land(|| landed(returned));
                self.call.pack(returned, unless)
            }
            Part::Runner(run) => {
                run.land(|| landed(returned));
                None
            }
            Part::Alone => None,
        };
        let has_failed = matches!(returned.loaded(), Loaded::Failed);
        Landing {
            load: self,
            package,
            has_failed,
        }
    }
}

/// A body that has returned.
#[derive(Debug)]
pub(super) struct Landing {
    load: Box<Load>,
    package: Option<Package>,
    has_failed: bool,
}

impl Landing {
    /// Stores what there is to store.
    pub(super) fn over(self) -> Step<Over> {
        Box::pin(self.store())
    }

    async fn store(self) -> Over {
        let Load {
            call,
            part,
            fallback,
            watch,
        } = *self.load;
        drop(watch);
        let leads = match part {
            Part::Leader(permit) => Some(permit),
            Part::Runner(_) | Part::Alone => None,
        };
        let status = match (leads, self.package) {
            (Some(permit), Some(package)) => {
                Some(permit.fill(&call, package).await == Some(Filled::Stored))
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

/// A call that is over but for what it returns.
#[derive(Debug)]
pub(super) struct Over {
    call: Arc<Call>,
    /// What there is to say of a call that had a lease.
    pub(super) status: Option<Status>,
    /// What is returned in place of an error, if it decodes.
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

/// What a return value is to those who waited for it.
pub(super) fn landed<R: Returns<S>, S>(returned: &R) -> Option<Landed> {
    match returned.loaded() {
        Loaded::Value(_) => returned.share().map(|value| Landed::Value(value)),
        Loaded::Absent => Some(Landed::Absence),
        Loaded::Failed => Some(Landed::Failure),
    }
}
