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
pub(crate) struct InvalidationFlag {
    invalidated: AtomicBool,
    /// Created by the first waiter.
    notify: OnceLock<Box<Notify>>,
}

impl InvalidationFlag {
    /// Returns true while the key has not changed.
    #[inline]
    pub(crate) fn is_valid(&self) -> bool {
        !self.invalidated.load(Ordering::Acquire)
    }

    pub(crate) fn invalidate(&self) {
        self.invalidated.store(true, Ordering::Release);
        // Pairs with the fence in `invalidated`: either this sees the waiter, or the waiter sees
        // the flag.
        fence(Ordering::SeqCst);
        if let Some(notify) = self.notify.get() {
            notify.notify_waiters();
        }
    }

    /// Returns once the key has changed.
    pub(super) async fn invalidated(&self) {
        let notify = self.notify.get_or_init(Box::default);
        let mut notified = std::pin::pin!(notify.notified());
        notified.as_mut().enable();
        fence(Ordering::SeqCst);
        if self.is_valid() {
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
    flags: HashMap<u128, Arc<InvalidationFlag>, ByHash>,
    /// How many flags the shard may hold before the unused ones are dropped.
    limit: usize,
}

/// The flags of all keys that are being read or belong to a local entry.
pub(crate) struct InvalidationFlags {
    shards: [Mutex<Shard>; SHARDS],
}

impl Default for InvalidationFlags {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
        }
    }
}

impl InvalidationFlags {
    fn shard(&self, hash: u128) -> &Mutex<Shard> {
        &self.shards[hash as usize % SHARDS]
    }

    /// Returns the key's flag. Must be called before the read of the key is sent.
    pub(crate) fn take(&self, hash: u128) -> Arc<InvalidationFlag> {
        let mut shard = self.shard(hash).lock();
        if shard.flags.len() >= shard.limit.max(FEW) {
            // A flag that only this map holds belongs to no read and no entry.
            shard.flags.retain(|_, flag| Arc::strong_count(flag) > 1);
            shard.limit = shard.flags.len() * 2;
        }
        match shard.flags.entry(hash) {
            MapEntry::Occupied(flag) => Arc::clone(flag.get()),
            MapEntry::Vacant(place) => Arc::clone(place.insert(Arc::default())),
        }
    }

    /// Sets the flag of a key that has changed. Returns whether anybody held the flag.
    pub(crate) fn invalidate(&self, hash: u128) -> bool {
        let Some(flag) = self.shard(hash).lock().flags.remove(&hash) else {
            return false;
        };
        flag.invalidate();
        Arc::strong_count(&flag) > 1
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock().flags.len())
            .sum()
    }
}

#[cfg(all(test, cache_loom))]
mod schedules;
#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn word_ends_what_was_taken_before_it() {
        let flags = InvalidationFlags::default();
        let (before, other) = (flags.take(1), flags.take(2));
        assert!(Arc::ptr_eq(&before, &flags.take(1)));
        assert!(flags.invalidate(1));
        assert!(!flags.invalidate(1), "nobody has asked since");
        assert!(!before.is_valid());
        assert!(other.is_valid() && flags.take(1).is_valid());
    }

    #[test]
    fn cells_that_nobody_holds_are_dropped() {
        let flags = InvalidationFlags::default();
        let held = flags.take(0);
        for hash in 0..(10 * SHARDS * FEW) as u128 {
            drop(flags.take(hash));
        }
        assert!(flags.len() <= SHARDS * FEW, "{}", flags.len());
        assert!(
            flags.invalidate(0) && !held.is_valid(),
            "what is held stays"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn word_wakes_those_who_wait() {
        let flags = InvalidationFlags::default();
        let flag = flags.take(1);
        let waiter = tokio::spawn({
            let flag = Arc::clone(&flag);
            async move { flag.invalidated().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        flags.invalidate(1);
        let limit = Duration::from_secs(1);
        let woken = crate::base::time::timeout(limit, waiter).await;
        woken.expect("woken").expect("no panic");
        flag.invalidated().await;
    }
}
