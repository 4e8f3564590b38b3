//! The entries that threads keep beside the store in memory, to find them again without it.
//!
//! Such an entry has a flag of its own, like an entry of the local tier, and the flags of its
//! generations. A change of the entry in the table sets its flag, and so does an invalidation of a
//! key that has no entry there any more.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::MemoryStore;
use crate::base::clock::Millis;
use crate::base::mutation;
use crate::local::{
    AnyValue, ClockReading, CoarseInstant, EntrySource, FreshnessBound, KeptEntry, KeptHit,
    ServableEntry,
};
use crate::protocol::entry::Header;
use crate::protocol::generation::Dependency;
use crate::protocol::messages::{Payload, ScanFilter};

/// The rounding of times in milliseconds, by which an entry would be served too long.
const ROUNDING: Duration = Duration::from_millis(1);

/// The store in memory, as threads that keep entries see it.
pub(crate) struct InMemory<'a> {
    store: &'a MemoryStore,
    /// The time until which entries may be served, if the store follows the database's outbox.
    freshness: Option<&'a FreshnessBound>,
}

impl MemoryStore {
    /// The weight of the entries that threads hold in memory of their own. Most are in the table,
    /// too.
    pub(crate) fn front_bytes(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }

    /// Ends the entries that threads keep under this key. Called after each change of the entry in
    /// the table, so a thread that takes the flag later finds the change there.
    pub(super) fn end_kept(&self, key: &str) {
        if !mutation::is_active("kept-in-memory-not-ended") {
            self.flags.invalidate(self.hash(key));
        }
    }

    /// Ends all entries that threads keep, after a walk over the table. The walk does not see
    /// entries that were evicted. After a sweep this is not needed, since it removes only dead
    /// entries.
    pub(super) fn end_all_kept(&self, filter: &ScanFilter) {
        if filter.stored_before.is_none() && !mutation::is_active("walk-spares-what-is-kept") {
            self.epoch.fetch_add(1, Ordering::Release);
        }
    }
}

impl<'a> InMemory<'a> {
    pub(crate) fn new(store: &'a MemoryStore, freshness: Option<&'a FreshnessBound>) -> Self {
        Self { store, freshness }
    }

    /// The current time, by the clock that the process reads at the lowest cost. In tests it is the
    /// store's own, which they may pause.
    #[inline]
    fn instant(&self, now: CoarseInstant) -> CoarseInstant {
        if cfg!(any(test, feature = "testing")) {
            return CoarseInstant(self.store.now().0 * 1_000_000);
        }
        now
    }

    /// Returns the entry under a key with these dependencies, for a thread to keep together with so
    /// many other bytes. `serves` tells its value, and for how long it may be served and is fresh.
    pub(crate) fn kept(
        &self,
        key: &str,
        deps: &[Arc<Dependency>],
        beside: u64,
        serves: impl FnOnce(&Header, &Payload, Millis) -> Option<(Option<AnyValue>, [Duration; 2])>,
    ) -> Option<KeptEntry> {
        let store = self.store;
        // Taken before the entry is looked up, as for a read: a later change sets it.
        let epoch = store.epoch.load(Ordering::Acquire);
        let own = store.flags.take(store.hash(key));
        let stored = store.entries.get(key)?;
        let under = stored.under.clone().filter(|_| stored.is_under(deps))?;
        let now = self.instant(CoarseInstant::now());
        let (value, lasts) = serves(&stored.header.get(), &stored.payload, store.now_or_later())?;
        let [until, fresh] = lasts.map(|time| now.after(time.saturating_sub(ROUNDING)));
        let flags: Vec<_> = [own]
            .into_iter()
            .chain(under.flags.iter().cloned())
            .collect();
        let serves = ServableEntry {
            value,
            until,
            fresh,
            epoch,
        };
        KeptEntry::new(stored, &flags, serves, beside, &store.kept)
    }
}

impl EntrySource for InMemory<'_> {
    #[inline(always)]
    fn again<'k>(&self, kept: &'k KeptEntry, now: &mut ClockReading) -> Option<KeptHit<'k>> {
        now.go_on();
        if let Some(freshness) = self.freshness {
            freshness.age_nanos(*now)?;
        }
        let is_alive = kept.is_alive(self.store.epoch.load(Ordering::Acquire));
        if !is_alive && !mutation::is_active("thread-cache-not-checked") {
            return None;
        }
        kept.again(self.instant(now.monotonic), 0)
    }

    #[inline(never)]
    fn is_current(&self, kept: &KeptEntry) -> bool {
        let is_it = std::cell::Cell::new(false);
        self.store.entries.lookup(kept.key().as_bytes(), |stored| {
            is_it.set(kept.is_of(stored));
        });
        is_it.get()
    }
}
