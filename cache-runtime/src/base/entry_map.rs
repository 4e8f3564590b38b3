//! Local entries by the text of their key. The map is bounded by bytes, and entries are read in
//! place.
//!
//! Cloning the `Arc` costs two contended writes. Together with the clone of the value, that is half
//! the time of a hit, so the map shows an entry in place instead.

use std::cell::Cell;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::{DefaultHashBuilder, Equivalent, Lifecycle, OptionsBuilder, Weighter, sync};

/// A shard admits no entry larger than its share of the room. With few shards, large values fit.
const SHARD_BYTES: u64 = 8 << 20;
const MAX_SHARDS: u64 = 64;
/// The assumed weight of an entry when room is set aside, and the most entries to set room aside
/// for. The map grows past that.
const USUAL_ENTRY: u64 = 1024;
const MAX_ESTIMATE: u64 = 1 << 16;

/// An entry that the map can hold.
pub(crate) trait Entry {
    /// The text of its key.
    fn key(&self) -> &str;

    /// The bytes that it takes.
    fn weight(&self) -> u64;
}

/// Entries by their keys.
pub(crate) struct EntryMap<E> {
    entries: sync::Cache<KeyedEntry<E>, (), ByBytes, DefaultHashBuilder, CountsEvictions>,
    evictions: Arc<AtomicU64>,
}

/// An entry, which is its own key.
struct KeyedEntry<E>(Arc<E>);

impl<E> Clone for KeyedEntry<E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<E: Entry> Hash for KeyedEntry<E> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.0.key().as_bytes());
    }
}

impl<E: Entry> PartialEq for KeyedEntry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.0.key() == other.0.key()
    }
}

impl<E: Entry> Eq for KeyedEntry<E> {}

/// A lookup: finds the entry of this key, if it satisfies the predicate.
struct Query<'k, F> {
    key: &'k [u8],
    predicate: F,
}

impl<F> Hash for Query<'_, F> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.key);
    }
}

impl<E: Entry, F: Fn(&Arc<E>) -> bool> Equivalent<KeyedEntry<E>> for Query<'_, F> {
    #[inline]
    fn equivalent(&self, entry: &KeyedEntry<E>) -> bool {
        entry.0.key().as_bytes() == self.key && (self.predicate)(&entry.0)
    }
}

#[derive(Clone)]
struct ByBytes;

impl<E: Entry> Weighter<KeyedEntry<E>, ()> for ByBytes {
    fn weight(&self, entry: &KeyedEntry<E>, (): &()) -> u64 {
        entry.0.weight()
    }
}

/// Counts the entries that had to make room.
#[derive(Clone, Default)]
struct CountsEvictions(Arc<AtomicU64>);

impl<E> Lifecycle<KeyedEntry<E>, ()> for CountsEvictions {
    type RequestState = ();

    // It is not called for what is replaced or removed.
    fn before_evict(&self, (): &mut (), _: &KeyedEntry<E>, (): &mut ()) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl<E: Entry> EntryMap<E> {
    /// A map that holds up to `max_bytes`.
    pub(crate) fn new(max_bytes: u64) -> Self {
        let shards = (max_bytes / SHARD_BYTES).clamp(1, MAX_SHARDS);
        let estimate = (max_bytes / USUAL_ENTRY).clamp(64, MAX_ESTIMATE);
        let options = OptionsBuilder::new()
            .shards(shards as usize)
            .weight_capacity(max_bytes)
            .estimated_items_capacity(estimate as usize)
            .build();
        let hasher = DefaultHashBuilder::default();
        let evictions = Arc::default();
        let counts = CountsEvictions(Arc::clone(&evictions));
        let entries = match options {
            Ok(options) => sync::Cache::with_options(options, ByBytes, hasher, counts),
            // Can't happen: both required options are set above.
            Err(_) => sync::Cache::with(64, max_bytes, ByBytes, hasher, counts),
        };
        Self { entries, evictions }
    }

    /// Shows the entry under a key in place; returns whether there is one. Writers of the same
    /// shard wait for `see`, so it has to be short and must not use the map.
    #[inline]
    pub(crate) fn lookup(&self, key: &[u8], see: impl Fn(&Arc<E>)) -> bool {
        // `quick_cache` returns clones of entries, but compares keys in place. So the comparison of
        // keys is where an entry can be read without a clone.
        let predicate = |entry: &Arc<E>| {
            see(entry);
            true
        };
        self.entries.get(&Query { key, predicate }).is_some()
    }

    pub(crate) fn get(&self, key: &str) -> Option<Arc<E>> {
        let seen = Cell::new(None);
        self.lookup(key.as_bytes(), |entry| seen.set(Some(Arc::clone(entry))));
        seen.take()
    }

    pub(crate) fn insert(&self, entry: Arc<E>) {
        self.entries.insert(KeyedEntry(entry), ());
    }

    /// Removes the entry under a key if it satisfies the predicate; returns whether it did.
    pub(crate) fn remove_if(&self, key: &[u8], predicate: impl Fn(&Arc<E>) -> bool) -> bool {
        self.entries.remove(&Query { key, predicate }).is_some()
    }

    /// All entries, one after the other. Concurrent changes may be seen or not.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Arc<E>> {
        self.entries.iter().map(|(entry, ())| entry.0)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn weight(&self) -> u64 {
        self.entries.weight()
    }

    /// How many entries had to make room for others.
    pub(crate) fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    /// The most an entry may weigh: half the room of a shard. A larger one would evict most of the
    /// shard, so callers don't insert it.
    pub(crate) fn max_entry_weight(&self) -> u64 {
        self.entries.shard_capacity() / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Text(&'static str, u32);

    impl Entry for Text {
        fn key(&self) -> &str {
            self.0
        }

        fn weight(&self) -> u64 {
            1
        }
    }

    #[test]
    fn an_entry_is_found_by_its_key_and_replaced_whole() {
        let map = EntryMap::new(1 << 10);
        for value in [1, 2] {
            map.insert(Arc::new(Text("a", value)));
            let seen = Cell::new(None);
            assert!(map.lookup(b"a", |entry| {
                seen.set(Some((entry.1, Arc::strong_count(entry))));
            }));
            assert_eq!(seen.get(), Some((value, 1)), "looked at where it lies");
        }
        assert!(map.get("b").is_none());
        assert_eq!((map.len(), map.weight(), map.evictions()), (1, 1, 0));
    }

    #[test]
    fn only_an_entry_that_will_do_is_removed() {
        let map = EntryMap::new(1 << 10);
        map.insert(Arc::new(Text("a", 1)));
        assert!(!map.remove_if(b"a", |entry| entry.1 == 2));
        assert!(!map.remove_if(b"b", |_| true));
        assert!(map.get("a").is_some());
        assert!(map.remove_if(b"a", |entry| entry.1 == 1));
        assert!(map.get("a").is_none());
    }
}
