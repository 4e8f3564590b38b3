//! Entries that were returned for another key than their own.
//!
//! Either the connection returns answers of other commands, or somebody has copied or renamed the
//! entry in Redis. In the first case the connection is replaced. In the second case replacing would
//! never end: so if the next connection returns the same entry under the same key, it counts as a
//! dead entry.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::base::nonce::hash128;
use crate::protocol::entry::Stamp;

/// How many are remembered. Forgetting one costs one more connection.
const REMEMBERED: usize = 256;

/// The most recent ones, by key and stamp.
#[derive(Debug, Default)]
pub(super) struct Misplaced(Mutex<VecDeque<(u128, Stamp)>>);

impl Misplaced {
    /// Whether this entry has not been seen under this key before.
    pub(super) fn is_news(&self, key: &str, stamp: Stamp) -> bool {
        let seen = (hash128(&[0; 16], key.as_bytes()), stamp);
        let mut known = self.0.lock();
        if known.contains(&seen) {
            return false;
        }
        if known.len() == REMEMBERED {
            known.pop_front();
        }
        known.push_back(seen);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_news_once_and_they_are_bounded() {
        let misplaced = Misplaced::default();
        assert!(misplaced.is_news("users:1", Stamp(7)));
        assert!(!misplaced.is_news("users:1", Stamp(7)));
        assert!(misplaced.is_news("users:2", Stamp(7)));
        assert!(misplaced.is_news("users:1", Stamp(8)));
        for stamp in 0..2 * REMEMBERED as u128 {
            misplaced.is_news("users:3", Stamp(stamp));
        }
        assert_eq!(misplaced.0.lock().len(), REMEMBERED);
    }
}
