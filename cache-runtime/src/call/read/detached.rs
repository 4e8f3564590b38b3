//! Loads that may outlive the call that started them.

use std::pin::{Pin, pin};
use std::sync::Arc;

use super::StoreFilter;
use super::answer_slot::{Slot, answer};
use super::load::Load;
use crate::base::background::detach;
use crate::call::keep_alive::KeptAlive;
use crate::call::observe::{StaleReason, Status};
use crate::call::returns::{Loaded, Returns};

/// Runs the body and stores its result. Returns the result with the status to report.
pub(super) async fn load<R, S, U>(
    mut load: Box<Load>,
    body: impl Future<Output = R>,
    unless: U,
) -> (R, Option<Status>)
where
    R: Returns<S>,
    U: StoreFilter<R::Value>,
{
    let mut slot = Slot::of::<R, S>();
    if load.enter_boxed(&mut slot).await
        && let Some(value) = slot.returned()
    {
        return (value, None);
    }
    let watched = KeptAlive {
        body: pin!(body),
        keep_alive: load.keep_alive(),
    };
    let returned = watched.await;
    let over = load.completes(&returned, unless).await;
    // The hit that an audit was to check is still good if its body has failed.
    match over.cached.and_then(answer) {
        Some(hit) => (hit, None),
        None => (returned, over.status),
    }
}

/// Waits for a load, unless there is an entry to return in place of waiting for a permit.
pub(super) async fn load_or_wait<R, S, U, F>(
    mut load: Box<Load>,
    body: impl FnOnce() -> F,
    unless: U,
) -> R
where
    R: Returns<S> + Send + 'static,
    S: 'static,
    U: StoreFilter<R::Value> + Send + 'static,
    F: Future<Output = R> + Send + 'static,
{
    let mut slot = Slot::of::<R, S>();
    if load.instead_of_waiting(&mut slot)
        && let Some(value) = slot.returned()
    {
        return value;
    }
    race(load, body(), unless).await
}

/// Waits for a load. If it fails or is slow, serves the fallback; a slow load goes on in the
/// background.
async fn race<R, S, U, F>(mut begun: Box<Load>, body: F, unless: U) -> R
where
    R: Returns<S> + Send + 'static,
    S: 'static,
    U: StoreFilter<R::Value> + Send + 'static,
    F: Future<Output = R> + Send + 'static,
{
    let call = Arc::clone(&begun.call);
    let fallback = begun.fallback.take();
    // The value of an audited hit is known, so its caller need not wait for a slow load either.
    let hit = begun.hit();
    let has_other = fallback.is_some() || hit.is_some();
    let limit = call.stale_policy.timeout.filter(|_| has_other);
    let mut load: Pin<Box<_>> = Box::pin(load(begun, body, unless));
    let loaded = match limit {
        Some(limit) => crate::base::time::timeout(limit, &mut load).await.ok(),
        None => Some((&mut load).await),
    };
    let (fallback, reason) = match &loaded {
        None => (fallback, StaleReason::LoadSlow),
        Some((returned, _)) => {
            let has_failed = matches!(returned.loaded(), Loaded::Failed);
            let fallback = fallback.filter(|it| has_failed && it.covers_errors);
            (fallback, StaleReason::LoadFailed)
        }
    };
    let instead = fallback.and_then(|it| {
        let mut slot = Slot::of::<R, S>();
        let is_served = call.fall_back(&it, reason, &mut slot);
        is_served.then(|| slot.returned()).flatten()
    });
    match (instead, loaded) {
        (Some(instead), Some(_)) => instead,
        (Some(instead), None) => {
            detach(load);
            instead
        }
        (None, loaded) => {
            if loaded.is_none()
                && let Some(hit) = hit.and_then(answer)
            {
                detach(load);
                return hit;
            }
            let (returned, status) = match loaded {
                Some(loaded) => loaded,
                // The fallback does not decode, so wait for the load.
                None => load.await,
            };
            call.said(status);
            returned
        }
    }
}
