//! An entry that a thread keeps beside the table that it was found in.
//!
//! Both tables of this process have such entries: the local tier, and the store in memory. They
//! decide by the same rule: an entry ends with its invalidation flags, with its epoch, and with
//! time. So a thread need not ask the table again.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::coarse_clock::{ClockReading, CoarseInstant};
use super::entry::AnyValue;
use super::flags::InvalidationFlag;
use crate::base::entry_map;

/// The heaviest entry that a thread may keep, in bytes.
pub(crate) const MOST_KEPT: u64 = 8 << 10;

/// An entry as its table has it.
type Original = Arc<dyn entry_map::Entry + Send + Sync>;

/// A table whose entries threads keep.
pub(crate) trait EntrySource {
    /// Returns an entry that was found before, if it may be served now. The rules are those of the
    /// table, without a lookup in it. `now` is the time that the thread has read last.
    fn again<'k>(&self, kept: &'k KeptEntry, now: &mut ClockReading) -> Option<KeptHit<'k>>;

    /// Whether the table has this very entry. If so, the table counts it as used.
    fn is_current(&self, kept: &KeptEntry) -> bool;
}

/// The parts of an entry that a hit needs.
pub(crate) struct ServableEntry {
    /// `None` caches the absence of a value.
    pub(crate) value: Option<AnyValue>,
    /// When it may no longer be served.
    pub(crate) until: CoarseInstant,
    /// When the value stops being fresh.
    pub(crate) fresh: CoarseInstant,
    pub(crate) epoch: u64,
}

/// An entry that a thread keeps beside the table, where its weight is counted.
///
/// The fields of the entry that a hit reads are copied here, and come first. So they are in one
/// cache line with the data that the thread keeps beside the entry.
#[repr(C)]
pub(crate) struct KeptEntry {
    value: Option<AnyValue>,
    until: CoarseInstant,
    epoch: u64,
    /// The flags of its key and of its resource; `more` has the others.
    first: [Arc<InvalidationFlag>; 2],
    more: Box<[Arc<InvalidationFlag>]>,
    fresh: CoarseInstant,
    original: Original,
    /// With all that the thread keeps with it.
    weight: u64,
    /// The total weight of all entries that are kept in this way.
    kept: Arc<AtomicU64>,
}

/// An entry that a thread has kept, and that may be served again.
pub(crate) struct KeptHit<'a> {
    kept: &'a KeptEntry,
    now: CoarseInstant,
    /// Age of the last heartbeat, in nanoseconds.
    pub(crate) age: u64,
}

impl KeptHit<'_> {
    /// `None` caches the absence of a value.
    #[inline]
    pub(crate) fn value(&self) -> Option<AnyValue> {
        self.kept.value.clone()
    }

    /// How long the value stays fresh.
    pub(crate) fn ttl(&self) -> Duration {
        self.kept.fresh.since(self.now)
    }
}

impl KeptEntry {
    /// `flags` are those of its key and of what it depends on. `beside` is what the thread keeps
    /// with the entry, in bytes. `None` for an entry without flags, which there is not, and for one
    /// that is too heavy.
    pub(crate) fn new(
        original: Original,
        flags: &[Arc<InvalidationFlag>],
        serves: ServableEntry,
        beside: u64,
        kept: &Arc<AtomicU64>,
    ) -> Option<Self> {
        if original.weight() > MOST_KEPT {
            return None;
        }
        let (first, more) = match flags {
            [first, second, more @ ..] => ([first, second], more),
            [only] => ([only; 2], &[][..]),
            [] => return None,
        };
        let weight = original.weight() + beside;
        kept.fetch_add(weight, Ordering::Relaxed);
        Some(Self {
            value: serves.value,
            until: serves.until,
            epoch: serves.epoch,
            first: first.map(Arc::clone),
            more: more.into(),
            fresh: serves.fresh,
            original,
            weight,
            kept: Arc::clone(kept),
        })
    }

    /// In bytes.
    pub(crate) fn weight(&self) -> u64 {
        self.weight
    }

    pub(crate) fn key(&self) -> &str {
        self.original.key()
    }

    /// Whether this is the entry that was kept.
    pub(crate) fn is_of<E>(&self, entry: &Arc<E>) -> bool {
        std::ptr::addr_eq(Arc::as_ptr(&self.original), Arc::as_ptr(entry))
    }

    /// Whether it has more flags than those in its first cache line.
    pub(crate) fn has_more(&self) -> bool {
        !self.more.is_empty()
    }

    /// Whether none of its keys has changed since the read was sent, and it is of this epoch.
    #[inline]
    pub(crate) fn is_alive(&self, epoch: u64) -> bool {
        let [key, resource] = &self.first;
        self.epoch == epoch && key.is_valid() && resource.is_valid()
    }

    /// The same of the flags that are not in its first cache line.
    #[inline]
    pub(crate) fn is_rest_alive(&self) -> bool {
        self.more.iter().all(|flag| flag.is_valid())
    }

    /// Shows the entry as one that may be served, unless it has expired.
    #[inline]
    pub(crate) fn again(&self, now: CoarseInstant, age: u64) -> Option<KeptHit<'_>> {
        (now < self.until).then_some(KeptHit {
            kept: self,
            now,
            age,
        })
    }
}

impl Drop for KeptEntry {
    fn drop(&mut self) {
        self.kept.fetch_sub(self.weight, Ordering::Relaxed);
    }
}

impl fmt::Debug for KeptEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeptEntry").field(&self.key()).finish()
    }
}
