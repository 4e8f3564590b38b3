//! The statuses of the ids of a batch, and their report.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::super::Call;
use super::super::hit::Hit;
use super::batch_lookup::Tier;
use crate::base::mutation;
use crate::call::log;
use crate::call::observe::{self, Outcome, StaleReason, Status};
use crate::protocol::cacheable::Cacheable;

/// The entries that are served in place of the error of a load: those that were to be loaded anew
/// before their end, or have expired less than `stale_if_error` ago. `None` if an id has none.
pub(super) fn serve_instead<V: Cacheable, K: Clone>(
    calls: &[(K, Call)],
    instead: &[Option<Box<Hit>>],
    statuses: &mut [(Status, Tier)],
) -> Option<Vec<(K, Arc<V>)>> {
    if mutation::is_active("batches-fail-though-entries-are-left") {
        return None;
    }
    let (mut served, mut stale) = (Vec::new(), Vec::new());
    for (place, (((id, _), hit), (status, _))) in
        calls.iter().zip(instead).zip(&*statuses).enumerate()
    {
        if matches!(status, Status::Hit { .. }) {
            continue;
        }
        let hit = hit.as_ref()?;
        if !hit.is_absence() {
            served.push((id.clone(), hit.value::<V>()?));
        }
        stale.push((place, hit));
    }
    for (place, hit) in stale {
        if let Some((status, _)) = statuses.get_mut(place) {
            *status = match hit.past.is_zero() {
                true => Status::Hit { ttl: hit.ttl },
                false => Status::Stale {
                    past: hit.past,
                    reason: StaleReason::LoadFailed,
                },
            };
        }
    }
    Some(served)
}

/// Notes in the statuses which misses were stored.
pub(super) fn mark_stored<K>(
    calls: &[(K, Call)],
    stored: &[&Call],
    statuses: &mut [(Status, Tier)],
) {
    let stored: HashSet<&str> = stored.iter().map(|call| &*call.own.key).collect();
    for ((_, call), (status, _)) in calls.iter().zip(statuses) {
        if let Status::Miss {
            stored: is_stored, ..
        } = status
        {
            *is_stored = stored.contains(&*call.own.key);
        }
    }
}

/// Counts each id, and reports one outcome for all of them. A miss comes first, and among misses
/// one that was not stored, because `stored` must hold for every id.
pub(super) fn report<K>(calls: &[(K, Call)], statuses: &[(Status, Tier)]) {
    /// A longer list would make the header too long to read, and for some proxies to send.
    const SHOWN: usize = 8;
    const SHOWN_BYTES: usize = 512;

    for ((_, call), (status, tier)) in calls.iter().zip(statuses) {
        if *tier == Tier::Store {
            call.count(*status);
        }
    }
    let (Some((_, first)), Some(best)) = (calls.first(), statuses.first()) else {
        return;
    };
    let is_miss = |(status, _): &&(Status, Tier)| matches!(status, Status::Miss { .. });
    let is_unstored =
        |(status, _): &&(Status, Tier)| matches!(status, Status::Miss { stored: false, .. });
    let is_hit = |(status, _): &&(Status, Tier)| matches!(status, Status::Hit { .. });
    let (status, tier) = statuses
        .iter()
        .find(is_unstored)
        .or_else(|| statuses.iter().find(is_miss))
        .or_else(|| statuses.iter().find(|status| !is_hit(status)))
        .or_else(|| statuses.iter().find(|(_, tier)| *tier == Tier::Store))
        .unwrap_or(best);
    let status = match status {
        // All are hits: as long as the first of them lasts.
        Status::Hit { .. } => {
            let ttls = statuses.iter().filter_map(|(status, _)| match status {
                Status::Hit { ttl } => Some(*ttl),
                _ => None,
            });
            let ttl = ttls.min().unwrap_or(Duration::MAX);
            &Status::Hit { ttl }
        }
        other => other,
    };
    let key = || {
        let mut keys = String::new();
        for (place, (_, call)) in calls.iter().enumerate() {
            let key = call.own.key.as_str();
            let is_long = keys.len() + key.len() >= SHOWN_BYTES
                && !mutation::is_active("keys-of-batches-of-any-length");
            if place > 0 {
                if place == SHOWN || is_long {
                    keys.push_str(" ..");
                    break;
                }
                keys.push(' ');
            }
            keys.push_str(key);
        }
        keys
    };
    if log::is_on() {
        let tier = match tier {
            Tier::Local => "local",
            Tier::Store => first.cache.store.name(),
        };
        first.log_as(&key(), tier, *status);
    }
    observe::record(|| Outcome {
        key: key(),
        resource: first.resource.name.to_string(),
        store: match tier {
            Tier::Local => "local",
            Tier::Store => first.cache.store.name(),
        },
        status: *status,
    });
}
