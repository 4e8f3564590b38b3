//! Removes dead entries in the background, before their TTL ends. Correctness does not need it: it
//! keeps the keys in order for people who look with `redis-cli`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::base::clock::{self, Millis};
use crate::store::{ScanFilter, Store, glob_literal};
use crate::telemetry::Telemetry;

/// At most one round in this time, whatever the number of requests.
const INTERVAL: Duration = Duration::from_secs(1);
/// A store with more keys than this is not swept: its dead entries expire by their TTL.
const LIMIT: u64 = 1_000_000;

/// The most resources that wait for a sweep, since the names may come from outside. Dead entries of
/// the others expire by their TTL.
const MAX_SCOPES: usize = 256;

/// Requests for sweeps, coalesced per resource.
#[derive(Debug, Default)]
pub(super) struct Sweeper {
    requested: Mutex<HashMap<Scope, SweepRequest>>,
    wake: Notify,
    telemetry: Arc<Telemetry>,
}

/// A resource. `None` is the whole namespace.
type Scope = Option<Box<str>>;

#[derive(Debug, Clone, Copy)]
struct SweepRequest {
    derived_only: bool,
    /// Entries stored before this time are dead.
    before: Millis,
}

impl Sweeper {
    pub(super) fn new(telemetry: Arc<Telemetry>) -> Self {
        Self {
            telemetry,
            ..Self::default()
        }
    }

    pub(super) fn request(&self, scopes: impl IntoIterator<Item = (Scope, bool)>, before: Millis) {
        let mut any = false;
        {
            let mut requested = self.requested.lock();
            for (scope, derived_only) in scopes {
                any = true;
                let request = SweepRequest {
                    derived_only,
                    before,
                };
                add(&mut requested, scope, request);
            }
        }
        if any {
            self.wake.notify_one();
        }
    }

    /// Runs the requested sweeps, for ever.
    pub(super) async fn run(self: Arc<Self>, store: Arc<dyn Store>, namespace: String) {
        let namespace = glob_literal(&namespace);
        loop {
            self.wake.notified().await;
            let next_round = clock::now() + INTERVAL;
            let mut requested = std::mem::take(&mut *self.requested.lock());
            if !store.lists_keys() {
                requested.clear();
            }
            for (
                scope,
                SweepRequest {
                    derived_only,
                    before,
                },
            ) in requested
            {
                let pattern = match &scope {
                    Some(resource) => format!("{namespace}{resource}:*"),
                    None => format!("{namespace}*"),
                };
                let filter = ScanFilter {
                    pattern,
                    derived_only,
                    stored_before: Some(before),
                    unless_larger_than: Some(LIMIT),
                    is_low_priority: true,
                };
                let began = clock::now();
                let removed = store.remove_matching(&filter).await;
                let stats = &self.telemetry.invalidations;
                stats.sweeps.record_duration(began.elapsed());
                stats.swept.add(removed.as_ref().copied().unwrap_or(0));
                if let Err(error) = removed {
                    tracing::debug!(pattern = filter.pattern, %error, "a sweep was not finished");
                }
                // A store in this process may not yield at all, and this thread also delivers
                // invalidations.
                tokio::task::yield_now().await;
            }
            crate::base::time::sleep_until(next_round).await;
        }
    }
}

fn add(requested: &mut HashMap<Scope, SweepRequest>, scope: Scope, new: SweepRequest) {
    let is_full = requested.len() >= MAX_SCOPES && scope.is_some();
    match requested.entry(scope) {
        // An entity that was stored between a full sweep and a later derived-only one may be
        // removed although it is live. That costs one miss.
        Entry::Occupied(mut known) => {
            let known = known.get_mut();
            known.derived_only &= new.derived_only;
            known.before = known.before.max(new.before);
        }
        Entry::Vacant(_) if is_full => {}
        Entry::Vacant(place) => {
            place.insert(new);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_end_are_not_kept() {
        let sweeper = Sweeper::default();
        let names = (0..10_000).map(|n| (Some(n.to_string().into()), true));
        sweeper.request(names, Millis(1));
        // A resource that waits already and the namespace are accepted even when the list is full.
        sweeper.request([(Some("0".into()), false), (None, false)], Millis(2));
        let requested = sweeper.requested.lock();
        assert_eq!(requested.len(), MAX_SCOPES + 1);
        assert!(!requested[&Some("0".into())].derived_only);
    }
}
