//! Invalidation flags: whether a key has changed since a read of it was sent.
//!
//! A reader takes the flags of all its keys *before* it sends the read, and stores them in the
//! local entry. A change of a key sets its flag. So the order in which a push and the answer before
//! it are handled does not matter: the entry holds a flag that is set, and is not served.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use crate::base::sync::atomic::{AtomicBool, Ordering, fence};
use crate::base::sync::{Mutex, Notify, OnceLock};

const SHARDS: usize = 16;
/// A shard with fewer flags than this is not searched for unused ones.
const FEW: usize = 256;

/// The flag of one key, from the first read of the key to its next change.
#[derive(Debug, Default)]
pub(crate) struct Cell {
    ended: AtomicBool,
    /// Created by the first waiter.
    word: OnceLock<Box<Notify>>,
}

impl Cell {
    /// Returns true while the key has not changed.
    #[inline]
    pub(crate) fn is_quiet(&self) -> bool {
        !self.ended.load(Ordering::Acquire)
    }

    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        // Pairs with the fence in `ended`: either this sees the waiter, or the waiter sees the
        // flag.
        fence(Ordering::SeqCst);
        if let Some(word) = self.word.get() {
            word.notify_waiters();
        }
    }

    /// Returns once the key has changed.
    pub(super) async fn ended(&self) {
        let word = self.word.get_or_init(Box::default);
        let mut notified = std::pin::pin!(word.notified());
        notified.as_mut().enable();
        fence(Ordering::SeqCst);
        if self.is_quiet() {
            notified.await;
        }
    }
}

/// Uses the key as its own hash, since the keys are hashes already.
#[derive(Debug, Clone, Default)]
pub(super) struct Unhashed(u64);

impl Hasher for Unhashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u128(&mut self, hash: u128) {
        // The low bits choose the shard.
        self.0 = (hash >> 64) as u64;
    }
}

pub(super) type ByHash = BuildHasherDefault<Unhashed>;

#[derive(Default)]
struct Shard {
    cells: HashMap<u128, Arc<Cell>, ByHash>,
    /// How many flags the shard may hold before the unused ones are dropped.
    limit: usize,
}

/// The flags of all keys that are being read or belong to a local entry.
pub(crate) struct Cells {
    shards: [Mutex<Shard>; SHARDS],
}

impl Default for Cells {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
        }
    }
}

impl Cells {
    fn shard(&self, hash: u128) -> &Mutex<Shard> {
        &self.shards[hash as usize % SHARDS]
    }

    /// Returns the key's flag. Must be called before the read of the key is sent.
    pub(crate) fn take(&self, hash: u128) -> Arc<Cell> {
        let mut shard = self.shard(hash).lock();
        if shard.cells.len() >= shard.limit.max(FEW) {
            // A flag that only this map holds belongs to no read and no entry.
            shard.cells.retain(|_, cell| Arc::strong_count(cell) > 1);
            shard.limit = shard.cells.len() * 2;
        }
        match shard.cells.entry(hash) {
            MapEntry::Occupied(cell) => Arc::clone(cell.get()),
            MapEntry::Vacant(place) => Arc::clone(place.insert(Arc::default())),
        }
    }

    /// Sets the flag of a key that has changed. Returns whether anybody held the flag.
    pub(crate) fn end(&self, hash: u128) -> bool {
        let Some(cell) = self.shard(hash).lock().cells.remove(&hash) else {
            return false;
        };
        cell.end();
        Arc::strong_count(&cell) > 1
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock().cells.len())
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn word_ends_what_was_taken_before_it() {
        let cells = Cells::default();
        let (before, other) = (cells.take(1), cells.take(2));
        assert!(Arc::ptr_eq(&before, &cells.take(1)));
        assert!(cells.end(1));
        assert!(!cells.end(1), "nobody has asked since");
        assert!(!before.is_quiet());
        assert!(other.is_quiet() && cells.take(1).is_quiet());
    }

    #[test]
    fn cells_that_nobody_holds_are_dropped() {
        let cells = Cells::default();
        let held = cells.take(0);
        for hash in 0..(10 * SHARDS * FEW) as u128 {
            drop(cells.take(hash));
        }
        assert!(cells.len() <= SHARDS * FEW, "{}", cells.len());
        assert!(cells.end(0) && !held.is_quiet(), "what is held stays");
    }

    #[tokio::test(start_paused = true)]
    async fn word_wakes_those_who_wait() {
        let cells = Cells::default();
        let cell = cells.take(1);
        let waiter = tokio::spawn({
            let cell = Arc::clone(&cell);
            async move { cell.ended().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        cells.end(1);
        let limit = Duration::from_secs(1);
        let woken = tokio::time::timeout(limit, waiter).await;
        woken.expect("woken").expect("no panic");
        cell.ended().await;
    }
}
