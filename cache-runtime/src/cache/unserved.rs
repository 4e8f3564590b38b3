//! The reads that were kept from the cache because it was not certain who has the data.

use crate::call::observe::BypassReason;
use crate::registry::Registry;
use crate::stats::UnservedStats;

/// Those of all functions; `None` if there were none.
pub(super) fn unserved(registry: &Registry) -> Option<UnservedStats> {
    let mut sum = UnservedStats::default();
    for resource in registry.all() {
        for stats in resource.functions() {
            let count = |reason| stats.bypasses[reason as usize].get();
            sum.fenced += count(BypassReason::Fenced);
            sum.unconfirmed += count(BypassReason::Unconfirmed);
        }
    }
    (sum != UnservedStats::default()).then_some(sum)
}
