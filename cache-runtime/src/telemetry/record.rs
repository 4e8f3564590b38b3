//! Everything that one cache measures and reports.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::RwLock;

use super::events::EventBus;
use super::histogram::Histogram;
use super::server::StoreServer;
use super::switches::Switches;
use crate::base::clock::{self, Instant};
use crate::base::counters::Counter;

/// The most resources whose last invalidation is remembered.
const MOST_NOTED: usize = 1_024;

/// The measurements of one cache besides the counters of its resources and functions.
#[derive(Debug, Default)]
pub(crate) struct Telemetry {
    pub(crate) events: EventBus,
    pub(crate) switches: Switches,
    pub(crate) invalidations: InvalidationStats,
    /// The store's server.
    pub(crate) server: StoreServer,
    /// How often the circuit breaker was seen to open.
    pub(crate) circuit_opened: Counter,
    /// When each resource was last invalidated by this process; kept once something is audited.
    last_invalidations: RwLock<Option<HashMap<Box<str>, Instant>>>,
}

impl Telemetry {
    /// Those of a cache over a store at this server.
    pub(crate) fn of(server: StoreServer) -> Self {
        Self {
            server,
            ..Self::default()
        }
    }

    /// Records from now on when resources are invalidated.
    pub(crate) fn note_invalidations(&self) {
        if self.last_invalidations.read().is_none() {
            self.last_invalidations.write().get_or_insert_default();
        }
    }

    /// These resources are being invalidated.
    pub(crate) fn invalidating<'r>(&self, resources: impl IntoIterator<Item = &'r str>) {
        if self.last_invalidations.read().is_none() {
            return;
        }
        if let Some(last) = &mut *self.last_invalidations.write() {
            let now = clock::now();
            for resource in resources {
                // Names may come from outside.
                if last.len() < MOST_NOTED || last.contains_key(resource) {
                    last.insert(resource.into(), now);
                }
            }
        }
    }

    /// How long ago this process last invalidated something of the resource.
    pub(crate) fn last_invalidation(&self, resource: &str) -> Option<Duration> {
        let last = self.last_invalidations.read();
        last.as_ref()?.get(resource).map(Instant::elapsed)
    }
}

/// The counters of invalidations.
#[derive(Debug, Default)]
pub(crate) struct InvalidationStats {
    /// The time from the call to the store's acknowledgement, of those that a caller waited for.
    pub(crate) acknowledged: Histogram,
    /// Those whose caller went on before the store had them.
    pub(crate) pending: Counter,
    /// Those that the store never got.
    pub(crate) lost: Counter,
    /// Dead entries removed in the background.
    pub(crate) swept: Counter,
    /// How long the walks over the keys took that removed them.
    pub(crate) sweeps: Histogram,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_from_outside_do_not_pile_up() {
        let telemetry = Telemetry::default();
        telemetry.note_invalidations();
        telemetry.invalidating(["users"]);
        let names: Vec<String> = (0..2 * MOST_NOTED).map(|n| format!("name-{n}")).collect();
        telemetry.invalidating(names.iter().map(String::as_str));
        telemetry.invalidating(["users"]);
        let noted = telemetry.last_invalidations.read();
        assert_eq!(noted.as_ref().map(HashMap::len), Some(MOST_NOTED));
        drop(noted);
        assert!(telemetry.last_invalidation("users").is_some());
    }
}
