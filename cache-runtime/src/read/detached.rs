//! Loads that may outlive the call that began them.

use std::pin::Pin;
use std::sync::Arc;

use super::{Call, Fallback, LoadFailed, LoadSlow, Part, Unless, permit};
use crate::observe::Status;
use crate::returns::{Loaded, Returns};
use crate::scope;

impl Fallback {
    /// Whether this is to be returned in place of what was loaded.
    pub(super) fn replaces<R: Returns<S>, S>(&self, returned: &R) -> bool {
        self.covers_errors && matches!(returned.loaded(), Loaded::Failed)
    }
}

/// Runs the body, and stores what it returns; that comes with what there is to say of the call.
pub(super) async fn load<R, S, U>(
    call: Arc<Call>,
    part: Part,
    body: impl Future<Output = R>,
    unless: U,
) -> (R, Option<Status>)
where
    R: Returns<S>,
    U: Unless<R::Value>,
{
    // As where the caller waits for it; a task of its own would not know.
    let returned = permit::renewing(part.permits(), scope::strict(body)).await;
    let status = call.conclude(part, &returned, unless).await;
    (returned, status)
}

/// Waits for a load, or serves the fallback and lets the load go on.
pub(super) async fn race<R, S, F>(call: &Call, load: F, fallback: Option<Box<Fallback>>) -> R
where
    R: Returns<S> + Send + 'static,
    F: Future<Output = (R, Option<Status>)> + Send + 'static,
{
    let mut load: Pin<Box<F>> = Box::pin(load);
    let limit = call.grace.timeout.filter(|_| fallback.is_some());
    let loaded = match limit {
        Some(limit) => tokio::time::timeout(limit, &mut load).await.ok(),
        None => Some((&mut load).await),
    };
    let instead = match &loaded {
        None => fallback.and_then(|it| call.fall_back(*it, LoadSlow)),
        Some((returned, _)) => fallback
            .filter(|it| it.replaces(returned))
            .and_then(|it| call.fall_back(*it, LoadFailed)),
    };
    match (instead, loaded) {
        (Some(instead), Some(_)) => instead,
        (Some(instead), None) => {
            tokio::spawn(load);
            instead
        }
        (None, loaded) => {
            let (returned, status) = match loaded {
                Some(loaded) => loaded,
                // The fallback does not decode.
                None => load.await,
            };
            call.said(status);
            returned
        }
    }
}
