//! The local tier of one cache.

use std::cell::{Cell, OnceCell};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::coarse_clock::{ClockReading, CoarseInstant};
use super::counters::{LocalCounters, LocalStats};
use super::entry::{Entry, ExpectedEntry, LocalHit, NewLocalEntry};
use super::flags::InvalidationFlags;
use super::freshness::{ConnectionId, FreshnessBound, HeartbeatId, NO_EPOCH};
use super::kept::{EntrySource, KeptEntry, KeptHit, ServableEntry};
use super::read_token::ReadToken;
use crate::base::entry_map::EntryMap;
use crate::base::nonce::{Nonce, hash128};
use crate::protocol::entry::Stamp;
use crate::store::EntryRef;

/// The local tier of one cache.
pub(crate) struct Local {
    entries: EntryMap<Entry>,
    flags: InvalidationFlags,
    freshness: FreshnessBound,
    /// Random for each tier, so that nobody outside can search for keys that collide.
    hash_key: [u8; 16],
    heartbeat: Duration,
    has_warned: AtomicBool,
    counters: LocalCounters,
    /// The weights of the entries that threads keep beside the table.
    kept: Arc<AtomicU64>,
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local")
            .field("entries", &self.entries.len())
            .field("bytes", &self.entries.weight())
            .finish_non_exhaustive()
    }
}

impl Local {
    /// Creates a tier of up to `max_bytes`. It serves nothing that may be older than
    /// `max_staleness`.
    pub(crate) fn new(max_bytes: u64, max_staleness: Duration) -> Self {
        Self {
            entries: EntryMap::new(max_bytes),
            flags: InvalidationFlags::default(),
            freshness: FreshnessBound::new(max_staleness),
            hash_key: Nonce::fresh().0.to_le_bytes(),
            heartbeat: max_staleness / 4,
            has_warned: AtomicBool::new(false),
            counters: LocalCounters::default(),
            kept: Arc::default(),
        }
    }

    #[inline]
    fn hash(&self, key: &[u8]) -> u128 {
        hash128(&self.hash_key, key)
    }

    /// Returns the entry under a key, if it may be served now.
    #[inline]
    pub(crate) fn find(&self, key: &str, expected: &ExpectedEntry<'_>) -> Option<LocalHit> {
        let now = ClockReading::now();
        #[cfg(cache_mutations)]
        let now = super::coarse_clock::told_by_a_task(now);
        // Checked first: without a connection there is no need for a lookup.
        let age = self.freshness.age_nanos(now)?;
        let (is_dead, ttl, value) = (Cell::new(false), Cell::new(None), OnceCell::new());
        self.entries.lookup(key.as_bytes(), |entry| {
            if !self.is_alive(entry) {
                is_dead.set(true);
            } else if entry.fits(expected, now.monotonic) {
                ttl.set(Some(entry.ttl(now.monotonic)));
                let _ = value.set(entry.value.clone());
            }
        });
        if is_dead.get() {
            self.drop_dead(key.as_bytes());
        }
        Some(LocalHit {
            ttl: ttl.get()?,
            value: value.into_inner().flatten(),
            age,
        })
    }

    /// Returns the entry under a key, for a thread to keep beside the table together with so many
    /// other bytes; `None` if it is large, or not the one that was asked for any more.
    pub(crate) fn kept(
        &self,
        key: &str,
        expected: &ExpectedEntry<'_>,
        beside: u64,
    ) -> Option<KeptEntry> {
        let entry = self.entries.get(key)?;
        if !entry.is_for(expected) {
            return None;
        }
        let serves = ServableEntry {
            value: entry.value.clone(),
            until: entry.until,
            fresh: entry.fresh,
            epoch: entry.epoch,
        };
        let flags = Arc::clone(&entry);
        KeptEntry::new(entry, &flags.flags, serves, beside, &self.kept)
    }

    /// Returns true if the entry was read in the current epoch and none of its keys has changed
    /// since.
    #[inline]
    fn is_alive(&self, entry: &Entry) -> bool {
        entry.epoch == self.freshness.epoch() && entry.is_valid()
    }

    /// Records the age of the last heartbeat at the `n`th hit, in nanoseconds.
    #[inline]
    pub(crate) fn note(&self, n: u64, age: u64) {
        self.counters.hit(n, age);
    }

    /// Takes the flags of a read that is about to be sent. Returns `None` if its value could not be
    /// stored here.
    pub(crate) fn read_token(&self, entry_ref: &EntryRef) -> Option<ReadToken> {
        let epoch = self.freshness.epoch();
        if epoch == NO_EPOCH {
            return None;
        }
        let deps = entry_ref.deps.iter().map(|dep| dep.key());
        let flags = std::iter::once(entry_ref.key.as_str())
            .chain(deps)
            .map(|key| self.flags.take(self.hash(key.as_bytes())))
            .collect();
        Some(ReadToken {
            flags,
            key: entry_ref.key.as_str().into(),
            epoch,
            at: CoarseInstant::now(),
        })
    }

    /// Whether no change of its keys was reported since its flags were taken.
    pub(crate) fn is_valid(&self, read_token: &ReadToken) -> bool {
        read_token.epoch == self.freshness.epoch()
            && read_token.flags.iter().all(|flag| flag.is_valid())
    }

    /// The entry under a key if it was loaded under this stamp, which is the stamp of the current
    /// generations. Then it may be served wherever an answer of the store may.
    pub(crate) fn find_under(
        &self,
        key: &str,
        expected: &ExpectedEntry<'_>,
        stamp: Stamp,
    ) -> Option<LocalHit> {
        let now = ClockReading::now();
        let (ttl, value) = (Cell::new(None), OnceCell::new());
        self.entries.lookup(key.as_bytes(), |entry| {
            if entry.is_under(stamp) && entry.fits(expected, now.monotonic) {
                ttl.set(Some(entry.ttl(now.monotonic)));
                let _ = value.set(entry.value.clone());
            }
        });
        Some(LocalHit {
            ttl: ttl.get()?,
            value: value.into_inner().flatten(),
            age: 0,
        })
    }

    /// Stores the value of a read as a local entry, unless one of its keys has changed meanwhile.
    /// Returns whether it was stored.
    pub(crate) fn keep(&self, read_token: ReadToken, new: NewLocalEntry) -> bool {
        if !self.is_valid(&read_token) {
            self.counters.poisoned.add_one();
            return false;
        }
        // A change that is reported from here on sets the flags of the stored entry.
        let Some(entry) = Entry::new(read_token, new) else {
            return false;
        };
        self.entries.insert(Arc::new(entry));
        self.counters.kept.add_one();
        true
    }

    /// Drops the entries of these keys. This process changed them, and Redis has acknowledged it.
    pub(crate) fn forget<'k>(&self, keys: impl IntoIterator<Item = &'k str>) {
        for key in keys {
            if crate::base::mutation::is_active("own-write-spares-reads-in-flight") {
                self.entries.remove_if(key.as_bytes(), |_| true);
            } else {
                self.end(key.as_bytes());
            }
        }
    }

    /// Handles a push: the key has changed.
    pub(crate) fn pushed(&self, key: &[u8]) {
        self.counters.pushes.add_one();
        self.end(key);
    }

    fn end(&self, key: &[u8]) {
        if self.flags.invalidate(self.hash(key)) {
            self.drop_dead(key);
        }
    }

    /// Frees the memory now. An entry that was stored in its place meanwhile stays.
    fn drop_dead(&self, key: &[u8]) {
        self.entries.remove_if(key, |entry| !self.is_alive(entry));
    }

    /// Handles a push without keys: every key may have changed.
    pub(crate) fn pushed_all(&self) {
        self.counters.pushes.add_one();
        self.freshness.forget();
    }

    /// Drops all entries: from now on another connection reports the changes of some keys.
    #[cfg(feature = "redis")]
    pub(crate) fn forget_all(&self) {
        self.freshness.forget();
    }

    /// Registers a connection that is being made.
    pub(crate) fn announce(&self) -> ConnectionId {
        self.freshness.announce()
    }

    /// Starts to use a connection that tracks what is read over it.
    pub(crate) fn open(&self, connection_id: ConnectionId) {
        self.freshness.open(connection_id);
    }

    /// The same for one connection of several: a cluster has one to each primary.
    #[cfg(any(test, feature = "redis"))]
    pub(crate) fn open_beside(&self, connection_id: ConnectionId) {
        self.freshness.open_beside(connection_id);
    }

    /// Handles the loss of a connection.
    pub(crate) fn close(&self, connection_id: ConnectionId) {
        self.freshness.close(connection_id);
    }

    pub(crate) fn is_open(&self, connection_id: ConnectionId) -> bool {
        self.freshness.is_open(connection_id)
    }

    /// The interval between heartbeats.
    pub(crate) fn heartbeat(&self) -> Duration {
        self.heartbeat
    }

    /// Records that a heartbeat is about to be sent.
    pub(crate) fn start_heartbeat(&self, connection_id: ConnectionId) -> Option<HeartbeatId> {
        self.freshness
            .start_heartbeat(connection_id, ClockReading::now())
    }

    /// Records that a heartbeat has returned.
    pub(crate) fn returned(&self, connection_id: ConnectionId, heartbeat: HeartbeatId) {
        self.freshness.returned(connection_id, heartbeat);
    }

    /// Returns true if the heartbeat was sent and has not returned.
    pub(crate) fn is_missing(&self, connection_id: ConnectionId, heartbeat: HeartbeatId) -> bool {
        self.freshness.is_missing(connection_id, heartbeat)
    }

    /// Warns once that the server lacks what the tier needs.
    pub(crate) fn warn(&self, why: impl fmt::Display) {
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                reason = %why,
                "Redis does not report key changes; the local tier is off and every read asks Redis"
            );
        }
    }

    /// How often all entries were dropped.
    pub(crate) fn flushes(&self) -> u64 {
        self.freshness.epochs()
    }

    /// The weight of the entries that threads keep beside the table.
    pub(crate) fn front_bytes(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }

    /// The statistics without the hits, which are counted per resource.
    pub(crate) fn stats(&self) -> LocalStats {
        let age = self.freshness.age(ClockReading::now());
        LocalStats {
            serving: age.is_some(),
            heartbeat_age_ms: age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            evictions: self.entries.evictions(),
            entries: self.entries.len() as u64,
            bytes: self.entries.weight(),
            front_bytes: self.front_bytes(),
            epochs: self.freshness.epochs(),
            ..self.counters.snapshot()
        }
    }
}

impl EntrySource for Local {
    #[inline(always)]
    fn again<'k>(&self, kept: &'k KeptEntry, now: &mut ClockReading) -> Option<KeptHit<'k>> {
        now.go_on();
        let now = *now;
        #[cfg(cache_mutations)]
        let now = super::coarse_clock::told_by_a_task(now);
        let age = self.freshness.age_nanos(now)?;
        let is_alive = kept.is_alive(self.freshness.epoch());
        if !is_alive && !crate::base::mutation::is_active("thread-cache-not-checked") {
            return None;
        }
        kept.again(now.monotonic, age)
    }

    #[inline(never)]
    fn is_current(&self, kept: &KeptEntry) -> bool {
        let is_it = Cell::new(false);
        self.entries.lookup(kept.key().as_bytes(), |entry| {
            is_it.set(kept.is_of(entry));
        });
        is_it.get()
    }
}
