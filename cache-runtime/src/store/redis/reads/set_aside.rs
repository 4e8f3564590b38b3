//! Keys that are read alone, after their length has been checked.
//!
//! A value of another program may be very large. If its transfer takes longer than the time limit
//! of a command, all commands behind it get no answer. So a key whose value was larger than the
//! cache stores is not read while its value is that large. After a command without an answer, the
//! length of each of its keys is checked before it is read again.
//!
//! The server, or a proxy, may also end the connection instead of sending a value, for instance if
//! it is larger than `client-output-buffer-limit` allows. So after a connection was lost with a
//! read in flight, each of its keys is read in a command of its own first. If that ends the next
//! connection as well, and the one after that, the key is not read for a while.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::base::clock::{self, Instant};
use crate::base::nonce::hash128;
use crate::store::EntryRef;

/// How long a key is remembered after it was last seen to be too large, or to be in a command
/// without an answer.
const REMEMBERED: Duration = Duration::from_secs(600);
/// How many are remembered of each kind. Forgetting one costs the transfer of its value.
const MOST: usize = 1024;

/// So many connections in a row have to end while a key is read alone, before it is not read.
const LOSSES: u32 = 2;
/// For how long it is not read then. It doubles with each further loss.
const FIRST_HOLD: Duration = Duration::from_secs(10);

/// The keys of a store that are set aside.
#[derive(Debug, Default)]
pub(crate) struct SetAside {
    /// Their number, so that a read usually needs no lock.
    count: AtomicUsize,
    keys: Mutex<SetAsideKeys>,
}

#[derive(Debug, Default)]
struct SetAsideKeys {
    /// Apart from the suspects: an outage adds many suspects at once, which must not evict known
    /// keys.
    oversized: RecentKeys,
    suspects: RecentKeys,
    /// Those of reads with which a connection was lost.
    doubtful: RecentKeys,
    /// Those with which connections were lost that carried nothing else.
    ending: HashMap<u128, Losses>,
}

/// The connections that were lost while a key was read alone.
#[derive(Debug, Clone, Copy)]
struct Losses {
    /// The last of them.
    connection: u64,
    count: u32,
    /// The key is not read before this time.
    until: Instant,
}

/// The latest keys, by hash, and until when each is remembered.
#[derive(Debug, Default)]
struct RecentKeys {
    until: HashMap<u128, Instant>,
    /// In the order of their times. An element is outdated if `until` has no time, or a later one,
    /// for its key.
    order: VecDeque<(u128, Instant)>,
}

impl SetAside {
    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Whether a read asks for a key that is set aside.
    pub(crate) fn concerns(&self, entry_ref: &EntryRef) -> bool {
        let deps = entry_ref.deps.iter().map(|dep| dep.key());
        self.has_any(std::iter::once(entry_ref.key.as_str()).chain(deps))
    }

    /// Whether any of these keys is set aside.
    pub(crate) fn has_any<'k>(&self, mut asked: impl Iterator<Item = &'k str>) -> bool {
        if self.is_empty() || crate::base::mutation::is_active("oversized-not-set-aside") {
            return false;
        }
        self.change(|keys| asked.any(|key| keys.hold(hash(key))))
    }

    /// The keys among these that are set aside.
    pub(crate) fn among<'k>(&self, asked: impl Iterator<Item = &'k str>) -> Vec<&'k str> {
        if self.is_empty() || crate::base::mutation::is_active("oversized-not-set-aside") {
            return Vec::new();
        }
        self.change(|keys| asked.filter(|key| keys.hold(hash(key))).collect())
    }

    /// Adds the keys of a command that got no answer.
    pub(crate) fn suspect<'k>(&self, asked: impl Iterator<Item = &'k str>) {
        self.change(|keys| {
            for key in asked {
                let key = hash(key);
                if !keys.hold(key) {
                    keys.suspects.remember(key);
                }
            }
        });
    }

    /// Adds the keys of a read with which the connection was lost.
    pub(crate) fn were_lost<'k>(&self, asked: impl Iterator<Item = &'k str>) {
        self.change(|keys| asked.for_each(|key| keys.doubtful.remember(hash(key))));
    }

    /// Whether the key has to be read alone first.
    pub(crate) fn is_doubtful(&self, key: &str) -> bool {
        self.change(|keys| keys.doubtful.until.contains_key(&hash(key)))
    }

    /// Notes that the connection of this number was lost while the key was read alone. Returns for
    /// how long the key is not read now, if this is new.
    pub(crate) fn has_ended(&self, key: &str, connection: u64) -> Option<Duration> {
        self.change(|keys| {
            let (key, now) = (hash(key), clock::now());
            keys.doubtful.remember(key);
            let losses = keys.ending.entry(key).or_insert(Losses {
                connection: 0,
                count: 0,
                until: now,
            });
            // Several callers may have read it over the same one.
            if losses.count > 0 && losses.connection == connection {
                return None;
            }
            losses.connection = connection;
            losses.count += 1;
            let further = losses.count.checked_sub(LOSSES)?;
            let hold = FIRST_HOLD.saturating_mul(1 << further.min(16));
            let hold = hold.min(REMEMBERED / 2);
            losses.until = now + hold;
            Some(hold)
        })
    }

    /// Whether the key must not be read now: connections end when it is.
    pub(crate) fn is_held(&self, key: &str) -> bool {
        self.change(|keys| {
            let losses = keys.ending.get(&hash(key));
            losses.is_some_and(|losses| losses.count >= LOSSES && clock::now() < losses.until)
                && !crate::base::mutation::is_active("ending-keys-read-on")
        })
    }

    /// Notes that the key was read alone, and was answered.
    pub(crate) fn is_harmless(&self, key: &str) {
        self.change(|keys| {
            let key = hash(key);
            keys.doubtful.forget(key);
            keys.ending.remove(&key);
        });
    }

    /// Adds a key whose value is too large.
    pub(crate) fn is_oversized(&self, key: &str) {
        self.change(|keys| {
            let key = hash(key);
            keys.suspects.forget(key);
            keys.oversized.remember(key);
        });
    }

    /// Removes a key whose value is not too large.
    pub(crate) fn is_ordinary(&self, key: &str) {
        self.change(|keys| {
            let key = hash(key);
            keys.suspects.forget(key);
            keys.oversized.forget(key);
        });
    }

    /// Expired keys are removed first, so that some time after an outage reads need no lock again.
    fn change<T>(&self, change: impl FnOnce(&mut SetAsideKeys) -> T) -> T {
        let mut keys = self.keys.lock();
        let now = clock::now();
        keys.oversized.forget_old(now);
        keys.suspects.forget_old(now);
        keys.doubtful.forget_old(now);
        let SetAsideKeys {
            doubtful, ending, ..
        } = &mut *keys;
        if ending.len() > doubtful.until.len() {
            ending.retain(|key, _| doubtful.until.contains_key(key));
        }
        let changed = change(&mut keys);
        let count = keys.oversized.until.len() + keys.suspects.until.len();
        let count = count + keys.doubtful.until.len();
        self.count.store(count, Ordering::Relaxed);
        changed
    }
}

impl SetAsideKeys {
    fn hold(&self, key: u128) -> bool {
        [&self.oversized, &self.suspects, &self.doubtful]
            .iter()
            .any(|keys| keys.until.contains_key(&key))
    }
}

impl RecentKeys {
    fn remember(&mut self, key: u128) {
        let now = clock::now();
        // Each read of an oversized key reports it; its time is extended when half of it is over.
        if let Some(until) = self.until.get(&key)
            && *until > now + REMEMBERED / 2
        {
            return;
        }
        let until = now + REMEMBERED;
        self.until.insert(key, until);
        self.order.push_back((key, until));
        // A key that is removed and added again leaves more than one element.
        while self.until.len() > MOST || self.order.len() > 2 * MOST {
            self.forget_first();
        }
    }

    fn forget(&mut self, key: u128) {
        self.until.remove(&key);
    }

    fn forget_old(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(_, until)| *until <= now) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((key, until)) = self.order.pop_front()
            && self.until.get(&key) == Some(&until)
        {
            self.until.remove(&key);
        }
    }
}

fn hash(key: &str) -> u128 {
    hash128(&[0; 16], key.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(aside: &SetAside, key: &str) -> bool {
        !aside.among([key].into_iter()).is_empty()
    }

    #[tokio::test(start_paused = true)]
    async fn suspects_push_out_no_key_that_is_known_to_be_oversized() {
        let aside = SetAside::default();
        assert!(!holds(&aside, "users:1"));
        aside.suspect(["users:1", "users:2"].into_iter());
        assert!(holds(&aside, "users:1") && holds(&aside, "users:2"));
        aside.is_ordinary("users:2");
        aside.is_oversized("users:1");
        assert!(holds(&aside, "users:1") && !holds(&aside, "users:2"));

        let many: Vec<String> = (0..2 * MOST).map(|id| format!("teams:{id}")).collect();
        aside.suspect(many.iter().map(String::as_str));
        assert!(holds(&aside, "users:1"));
        assert!(!holds(&aside, "teams:0") && holds(&aside, many.last().expect("many")));

        for _ in 0..10 {
            for key in &many {
                aside.is_ordinary(key);
                aside.suspect([key.as_str()].into_iter());
            }
        }
        assert!(aside.keys.lock().suspects.order.len() <= 2 * MOST);

        // Each new report extends the time.
        tokio::time::advance(REMEMBERED / 2).await;
        (0..100).for_each(|_| aside.is_oversized("users:1"));
        assert_eq!(aside.keys.lock().oversized.order.len(), 2);
        tokio::time::advance(REMEMBERED / 2).await;
        assert!(holds(&aside, "users:1") && !holds(&aside, "teams:1500"));

        // Expired keys are removed even if no new key is added.
        tokio::time::advance(REMEMBERED).await;
        assert!(!holds(&aside, "users:1"));
        assert!(aside.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_ends_connections_is_held_for_longer_each_time() {
        let aside = SetAside::default();
        let (big, small) = ("users:1", "@gen:users");
        aside.were_lost([big, small].into_iter());
        assert!(holds(&aside, big) && aside.is_doubtful(big));
        aside.is_harmless(small);
        assert!(!holds(&aside, small) && !aside.is_doubtful(small));

        // The second one may be a coincidence, and several callers may have read over it.
        assert_eq!(aside.has_ended(big, 1), None);
        assert_eq!(aside.has_ended(big, 1), None);
        assert!(!aside.is_held(big));
        assert_eq!(aside.has_ended(big, 2), Some(FIRST_HOLD));
        assert!(aside.is_held(big));
        tokio::time::advance(FIRST_HOLD).await;
        assert!(!aside.is_held(big) && aside.is_doubtful(big));
        assert_eq!(aside.has_ended(big, 3), Some(FIRST_HOLD * 2));
        assert!(aside.is_held(big));
        for number in 4..100 {
            let hold = aside.has_ended(big, number).expect("held");
            assert!(hold <= REMEMBERED / 2);
            tokio::time::advance(hold).await;
        }
        assert!(aside.is_doubtful(big));

        aside.is_harmless(big);
        assert!(aside.is_empty() && !aside.is_held(big));
        assert_eq!(aside.has_ended(big, 1), None);
        tokio::time::advance(REMEMBERED).await;
        assert!(!holds(&aside, big));
        assert!(aside.keys.lock().ending.is_empty());
    }
}
