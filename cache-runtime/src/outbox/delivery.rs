//! Delivers what rows mean.

use super::relay::DELIVERY_TIMEOUT;
use super::row::Meaning;
use crate::base::clock;
use crate::engine::Handle;
use crate::invalidation::{Acknowledgement, InvalidationRequest};

/// Invalidates what rows mean; returns whether the store has acknowledged all of it. Anything else
/// stays in the queue too, so that this process does not read it meanwhile.
pub(super) async fn deliver(cache: &Handle, meaning: Meaning) -> bool {
    let Meaning {
        request,
        everything,
        ..
    } = meaning;
    let everything = everything.then(|| cache.invalidations.enqueue_namespace());
    let request =
        (!InvalidationRequest::is_empty(&request)).then(|| cache.invalidations.enqueue(request));
    let until = clock::now() + DELIVERY_TIMEOUT;
    for pending_ack in everything.into_iter().chain(request) {
        let left = until.saturating_duration_since(clock::now());
        if pending_ack.acknowledged(left).await != Acknowledgement::Delivered {
            return false;
        }
    }
    true
}
