//! What the tests of annotated functions share: a cache of their own, and calls whose outcome is
//! known.

use std::future::Future;
use std::panic::Location;

use cache_runtime::{Cache, CacheConfig, Status, observe};

pub(crate) async fn cache() -> Cache {
    Cache::new(CacheConfig::default().local_mb(4)).await
}

/// Runs one cached call whose function has to run, and whose value is kept; the key, and what it
/// returned.
#[track_caller]
pub(crate) fn miss<T>(call: impl Future<Output = T>) -> impl Future<Output = (String, T)> {
    let (caller, call) = (Location::caller(), Box::pin(call));
    async move {
        let (key, status, value) = outcome(call).await;
        let stored = Status::Miss {
            stored: true,
            joined: false,
        };
        assert_eq!(status, stored, "{key} at {caller}");
        (key, value)
    }
}

/// Runs one cached call that has to be answered by the cache.
#[track_caller]
pub(crate) fn hit<T>(call: impl Future<Output = T>) -> impl Future<Output = (String, T)> {
    let (caller, call) = (Location::caller(), Box::pin(call));
    async move {
        let (key, status, value) = outcome(call).await;
        assert!(
            matches!(status, Status::Hit { .. }),
            "{status:?} of {key} at {caller}"
        );
        (key, value)
    }
}

/// How the cache answered a call, and what it returned.
pub(crate) async fn status<T>(call: impl Future<Output = T>) -> (Status, T) {
    let (_, status, value) = outcome(Box::pin(call)).await;
    (status, value)
}

async fn outcome<T>(call: impl Future<Output = T>) -> (String, Status, T) {
    let (value, outcomes) = observe(call).await;
    // Calls within the call come before it.
    let outcome = outcomes.last().expect("a cached call has an outcome");
    (outcome.key.clone(), outcome.status, value)
}

/// A key `users:<op>:<hash>` without the hash.
pub(crate) fn op_of(key: &str) -> &str {
    let (op, hash) = key.rsplit_once(':').expect("a derived key has parts");
    assert!(
        hash.len() == 32 && hash.bytes().all(|b| b.is_ascii_hexdigit()),
        "{key}"
    );
    op
}
