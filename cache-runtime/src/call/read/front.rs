//! The entries that a thread was last served, in memory of its own: the *front*.
//!
//! A lookup in the table costs a hash of the key and two writes to a lock that all threads share,
//! and before that the checks that the function may use the key. If the same function gets the same
//! entry again, none of this is needed. Whether the entry may be served is not decided here:
//! [`Local::again`] applies the rules of the table to the entry itself.
//!
//! A front is direct-mapped: each slot holds the last entry that was found twice in a row there. So
//! a program that reads far more entries than there are slots rarely writes to it.

use std::any::TypeId;

use crate::local::{KeptEntry, Local};
use crate::registry::Known;

/// A power of two. The slots themselves take 64 kB per thread that has hits.
const PLACES: usize = 4096;
/// The most bytes of entries that one front holds, as the local tier weighs them. Beyond that, it
/// starts empty again.
const MOST_BYTES: u64 = 4 << 20;
/// One hit in this many goes to the table, which would otherwise evict the entry as unused.
const TO_THE_TABLE: u32 = 32;

/// The entries that a thread was last served.
#[derive(Debug, Default)]
pub(super) struct Front {
    /// Empty before the first hit.
    places: Vec<Place>,
    bytes: u64,
}

#[derive(Debug, Default)]
struct Place {
    /// The hash of the last key that was looked up in the table from this slot.
    last: u64,
    held: Option<Box<Held>>,
}

/// An entry, and the calls that may be served it.
#[derive(Debug)]
struct Held {
    caller: Caller,
    entry: KeptEntry,
    uses: u32,
}

/// The identity of a call besides its key.
#[derive(Debug)]
pub(super) struct Caller {
    /// The address of the data about the function in one cache, for one resource.
    pub(super) known: usize,
    pub(super) instance: Option<TypeId>,
    /// A hash of the types that tell instances of the function apart.
    pub(super) types: u64,
    /// The attribute's version.
    pub(super) version: u32,
    /// Identifies the form of the id.
    pub(super) form: u64,
}

impl Front {
    /// The entry under a key that this thread was served before, for the same function.
    #[inline]
    pub(super) fn find(
        &mut self,
        known: &Known,
        key: &str,
        is_it: impl FnOnce(&Caller) -> bool,
    ) -> Option<&KeptEntry> {
        let place = self.places.get_mut(index(hash(known, key)))?;
        let held = place.held.as_mut()?;
        if !is_it(&held.caller) || held.entry.key() != key {
            return None;
        }
        held.uses = held.uses.wrapping_add(1);
        (!held.uses.is_multiple_of(TO_THE_TABLE)).then_some(&held.entry)
    }

    /// Notes that the table has an entry under this key. The entry is kept the second time.
    pub(super) fn note(&mut self, local: &Local, known: &Known, caller: Caller, key: &str) {
        let hash = hash(known, key);
        if self.places.is_empty() {
            self.places.resize_with(PLACES, Place::default);
        }
        let Some(place) = self.places.get_mut(index(hash)) else {
            return;
        };
        if std::mem::replace(&mut place.last, hash) != hash {
            return;
        }
        let Some(entry) = local.kept(key) else {
            return;
        };
        let freed = place.held.as_ref().map_or(0, |held| held.entry.weight());
        self.bytes = self.bytes + entry.weight() - freed;
        place.held = Some(Box::new(Held {
            caller,
            entry,
            uses: 0,
        }));
        if self.bytes > MOST_BYTES {
            *self = Self::default();
        }
    }
}

/// Ids, and hashes of arguments, are at the end of a key.
#[inline]
fn hash(known: &Known, key: &str) -> u64 {
    let bytes = key.as_bytes();
    let end = match bytes.last_chunk::<8>() {
        Some(end) => u64::from_le_bytes(*end),
        None => bytes
            .iter()
            .fold(0, |end, byte| (end << 8) | u64::from(*byte)),
    };
    // The golden ratio, by which the highest bits depend on all others (Knuth, TAOCP 6.4).
    (end ^ std::ptr::from_ref(known).addr() as u64 ^ bytes.len() as u64)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[inline]
fn index(hash: u64) -> usize {
    (hash >> (u64::BITS - PLACES.trailing_zeros())) as usize
}
