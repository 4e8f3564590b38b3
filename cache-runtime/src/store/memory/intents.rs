//! The announced writes of the store in memory, by the keys that they are about to change.

use std::collections::HashMap;

use parking_lot::RwLock;

use crate::base::clock::Millis;
use crate::base::nonce::Nonce;
use crate::protocol::messages::Intent;

/// The intents on one key, and until when each of them lasts.
type IntentList = Vec<(Nonce, Millis)>;

/// The number of keys with intents at which expired ones are first searched for. The next search is
/// at twice the number that was left, so that it costs little per intent.
pub(super) const FIRST_SWEEP: usize = 64;

/// Intents by key of an entity or generation.
pub(super) struct IntentTable(RwLock<Table>);

struct Table {
    by_key: HashMap<Box<str>, IntentList>,
    /// The number of keys at which expired intents are searched for.
    sweep_at: usize,
}

impl Default for IntentTable {
    fn default() -> Self {
        Self(RwLock::new(Table {
            by_key: HashMap::new(),
            sweep_at: FIRST_SWEEP,
        }))
    }
}

impl IntentTable {
    pub(super) fn is_empty(&self) -> bool {
        self.0.read().by_key.is_empty()
    }

    /// The number of keys with intents.
    #[cfg(test)]
    pub(super) fn keys(&self) -> usize {
        self.0.read().by_key.len()
    }

    /// The last deadline of the intents on these keys.
    pub(super) fn last_deadline<'k>(
        &self,
        keys: impl IntoIterator<Item = &'k str>,
    ) -> Option<Millis> {
        let intents = &self.0.read().by_key;
        if intents.is_empty() {
            return None;
        }
        let standing = keys
            .into_iter()
            .filter_map(|key| intents.get(key))
            .flatten();
        standing.map(|(_, deadline)| *deadline).max()
    }

    /// Whether one of the intents on this key has expired.
    pub(super) fn has_expired(&self, key: &str, now: Millis) -> bool {
        let intents = &self.0.read().by_key;
        intents
            .get(key)
            .is_some_and(|standing| standing.iter().any(|(_, deadline)| *deadline <= now))
    }

    /// Adds an intent, or extends it; returns the keys that did not have it. Now and then all
    /// expired ones are removed: perhaps nobody reads their keys again. `expired` is called with
    /// their keys.
    pub(super) fn announce<'i>(
        &self,
        intent: &'i Intent,
        now: Millis,
        expired: impl Fn(&str),
    ) -> Vec<&'i str> {
        let deadline = now.after(intent.length);
        let rows = intent.rows.iter().map(|row| row.key.as_str());
        let keys = rows.chain(intent.deps.iter().map(|dep| dep.key()));
        let mut table = self.0.write();
        if table.by_key.len() >= table.sweep_at {
            table.sweep(now, expired);
        }
        let mut added = Vec::new();
        for key in keys {
            let standing = table.by_key.entry(key.into()).or_default();
            match standing
                .iter_mut()
                .find(|(token, _)| *token == intent.token)
            {
                Some((_, known)) => *known = deadline,
                None => {
                    standing.push((intent.token, deadline));
                    added.push(key);
                }
            }
        }
        added
    }

    /// Ends intents on these keys.
    pub(super) fn end<'k>(
        &self,
        keys: impl IntoIterator<Item = &'k str>,
        is_over: impl Fn(Nonce, Millis) -> bool,
    ) {
        let intents = &mut self.0.write().by_key;
        for key in keys {
            let Some(standing) = intents.get_mut(key) else {
                continue;
            };
            standing.retain(|(token, deadline)| !is_over(*token, *deadline));
            if standing.is_empty() {
                intents.remove(key);
            }
        }
    }
}

impl Table {
    fn sweep(&mut self, now: Millis, expired: impl Fn(&str)) {
        self.by_key.retain(|key, standing| {
            if standing.iter().any(|(_, deadline)| *deadline <= now) {
                expired(key);
                standing.retain(|(_, deadline)| *deadline > now);
            }
            !standing.is_empty()
        });
        self.sweep_at = FIRST_SWEEP.max(2 * self.by_key.len());
    }
}
