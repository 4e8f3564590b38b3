//! Dead entries leave by their time to live; a sweep makes them leave sooner, because people look.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::base::clock::{self, Millis};
use crate::store::{Matching, Store, glob_literal};

/// No more than one round in this time, however much is requested.
const INTERVAL: Duration = Duration::from_secs(1);
/// A store with more keys than this is not swept: its dead entries leave by their time to live.
const LIMIT: u64 = 1_000_000;

/// No more resources than this wait for a sweep, since a name may come from outside. Dead entries of the others
/// leave by their time to live.
const MAX_SCOPES: usize = 256;

/// Requests for sweeps, coalesced per resource.
#[derive(Debug, Default)]
pub(super) struct Sweeper {
    requested: Mutex<HashMap<Scope, Request>>,
    wake: Notify,
}

/// A resource, or with `None` the namespace.
type Scope = Option<Box<str>>;

#[derive(Debug, Clone, Copy)]
struct Request {
    derived_only: bool,
    /// Entries stored earlier are dead.
    before: Millis,
}

impl Sweeper {
    pub(super) fn request(&self, scopes: impl IntoIterator<Item = (Scope, bool)>, before: Millis) {
        let mut any = false;
        {
            let mut requested = self.requested.lock();
            for (scope, derived_only) in scopes {
                any = true;
                let request = Request {
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

    /// Sweeps what is requested, for ever.
    pub(super) async fn run(self: Arc<Self>, store: Arc<dyn Store>, namespace: String) {
        let namespace = glob_literal(&namespace);
        loop {
            self.wake.notified().await;
            let next_round = clock::now() + INTERVAL;
            let requested = std::mem::take(&mut *self.requested.lock());
            for (
                scope,
                Request {
                    derived_only,
                    before,
                },
            ) in requested
            {
                let pattern = match &scope {
                    Some(resource) => format!("{namespace}{resource}:*"),
                    None => format!("{namespace}*"),
                };
                let matching = Matching {
                    pattern,
                    derived_only,
                    stored_before: Some(before),
                    unless_larger_than: Some(LIMIT),
                    is_leisurely: true,
                };
                if let Err(error) = store.remove_matching(&matching).await {
                    tracing::debug!(
                        "the sweep of `{}` was not finished: {error}",
                        matching.pattern
                    );
                }
                // A store in this process may not have paused at all, and this thread delivers as well.
                tokio::task::yield_now().await;
            }
            tokio::time::sleep_until(next_round).await;
        }
    }
}

fn add(requested: &mut HashMap<Scope, Request>, scope: Scope, new: Request) {
    let is_full = requested.len() >= MAX_SCOPES && scope.is_some();
    match requested.entry(scope) {
        // An entity that was stored between a whole sweep and a later derived one may be swept although it is
        // alive. That costs one miss.
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
        // One that waits already, and the namespace, find room all the same.
        sweeper.request([(Some("0".into()), false), (None, false)], Millis(2));
        let requested = sweeper.requested.lock();
        assert_eq!(requested.len(), MAX_SCOPES + 1);
        assert!(!requested[&Some("0".into())].derived_only);
    }
}
