//! Keys that are read by themselves, after a look at how long their value is.
//!
//! A value of another program may be so large that its transfer keeps the connection busy for longer than commands may
//! take, and everybody behind it gets no answer. So a key whose value was larger than any of ours is read no more while it
//! is that large; and each key of a command that had no answer is asked for its length before it is read again.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::{self, Instant};
use crate::nonce::hash128;
use crate::store::Probe;

/// How long a key is remembered after it was last seen to be too large, or to be in a command without an answer.
const REMEMBERED: Duration = Duration::from_secs(600);
/// How many are remembered of each kind. Forgetting one costs the transfer of its value.
const MOST: usize = 1024;

/// The keys of a store that are set aside.
#[derive(Debug, Default)]
pub(super) struct SetAside {
    /// How many there are, to spare reads the lock.
    count: AtomicUsize,
    keys: Mutex<Keys>,
}

#[derive(Debug, Default)]
struct Keys {
    /// An outage adds many suspects at once, and they are not to push out what is known.
    oversized: VecDeque<(u128, Instant)>,
    suspects: VecDeque<(u128, Instant)>,
}

impl SetAside {
    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Whether a read asks for a key that is set aside.
    pub(super) fn concerns(&self, probe: &Probe) -> bool {
        if self.is_empty() || crate::mutation::is_active("oversized-not-set-aside") {
            return false;
        }
        let keys = self.keys.lock();
        std::iter::once(probe.key.as_str())
            .chain(probe.deps.iter().map(|dep| dep.key()))
            .any(|key| keys.hold(hash(key)))
    }

    /// Those among these keys that are set aside.
    pub(super) fn among<'k>(&self, asked: impl Iterator<Item = &'k str>) -> Vec<&'k str> {
        if self.is_empty() || crate::mutation::is_active("oversized-not-set-aside") {
            return Vec::new();
        }
        let keys = self.keys.lock();
        asked.filter(|key| keys.hold(hash(key))).collect()
    }

    /// These were in a command that had no answer.
    pub(super) fn suspect<'k>(&self, asked: impl Iterator<Item = &'k str>) {
        self.change(|keys| {
            for key in asked {
                let key = hash(key);
                if !keys.hold(key) {
                    remember(&mut keys.suspects, key);
                }
            }
        });
    }

    /// The value under this key is larger than any of ours.
    pub(super) fn is_oversized(&self, key: &str) {
        self.change(|keys| {
            keys.forget(hash(key));
            remember(&mut keys.oversized, hash(key));
        });
    }

    /// It is not.
    pub(super) fn is_ordinary(&self, key: &str) {
        self.change(|keys| keys.forget(hash(key)));
    }

    fn change(&self, change: impl FnOnce(&mut Keys)) {
        let mut keys = self.keys.lock();
        keys.forget_old();
        change(&mut keys);
        let count = keys.oversized.len() + keys.suspects.len();
        self.count.store(count, Ordering::Relaxed);
    }
}

impl Keys {
    fn hold(&self, key: u128) -> bool {
        let all = self.oversized.iter().chain(&self.suspects);
        all.into_iter().any(|(known, _)| *known == key)
    }

    fn forget(&mut self, key: u128) {
        for keys in [&mut self.oversized, &mut self.suspects] {
            keys.retain(|(known, _)| *known != key);
        }
    }

    fn forget_old(&mut self) {
        let now = clock::now();
        for keys in [&mut self.oversized, &mut self.suspects] {
            while keys.front().is_some_and(|(_, until)| *until <= now) {
                keys.pop_front();
            }
        }
    }
}

fn remember(keys: &mut VecDeque<(u128, Instant)>, key: u128) {
    if keys.len() == MOST {
        keys.pop_front();
    }
    keys.push_back((key, clock::now() + REMEMBERED));
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

        tokio::time::advance(REMEMBERED).await;
        aside.is_ordinary("nothing");
        assert!(aside.is_empty());
    }
}
