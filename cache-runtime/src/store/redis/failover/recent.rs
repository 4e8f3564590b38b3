//! Remembers recent invalidations, to repeat them when another server becomes the primary.
//!
//! A primary that has been replaced goes on taking writes until it learns of that, and a process
//! goes on using it. The new primary does not know the invalidations that were acknowledged in that
//! time, and other processes may have stored stale entries there. So the invalidations of the last
//! seconds are repeated at the new primary. A stale entry there lasts until this process learns of
//! the change, and not until its TTL ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::base::clock::{self, Instant};
use crate::protocol::generation::Dependency;
use crate::store::Invalidation;

/// How long an invalidation is remembered: longer than a replaced primary is used.
const KEPT: Duration = Duration::from_secs(5);
/// How many keys and generations are remembered. Beyond it, the whole namespace is invalidated
/// instead.
const MOST: usize = 20_000;

/// The recent invalidations.
#[derive(Debug, Default)]
pub(crate) struct RecentInvalidations(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    deletes: HashMap<String, Instant>,
    rotates: HashMap<Arc<Dependency>, Instant>,
    /// The number of keys at which old ones are removed.
    limit: usize,
    /// When there were too many of them, or everything was invalidated.
    overflowed: Option<Instant>,
    /// When the connection to the server that acknowledged them ended, or to a primary of a
    /// cluster. Invalidations that were recent then are kept until it is known who is the primary,
    /// and knows them.
    left: Option<Instant>,
}

impl Remembered {
    fn is_recent(&self, now: Instant) -> impl Fn(&Instant) -> bool + use<> {
        let now = self.left.unwrap_or(now);
        move |at| now.saturating_duration_since(*at) < KEPT
    }
}

/// The invalidations that have to be repeated.
#[derive(Debug)]
pub(crate) enum Repetition {
    Nothing,
    These(Invalidation),
    Everything,
}

impl Repetition {
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nothing, all) | (all, Self::Nothing) => all,
            (Self::These(mut these), Self::These(others)) => {
                these.extend(&others.without(&these));
                Self::These(these)
            }
            (Self::Everything, _) | (_, Self::Everything) => Self::Everything,
        }
    }
}

impl RecentInvalidations {
    /// Remembers an acknowledged invalidation.
    pub(crate) fn remember(&self, invalidation: &Invalidation) {
        let now = clock::now();
        let mut it = self.0.lock();
        let deletes = invalidation.deletes.iter().map(|key| (key.clone(), now));
        it.deletes.extend(deletes);
        let rotates = invalidation
            .rotates
            .iter()
            .map(|dep| (Arc::clone(dep), now));
        it.rotates.extend(rotates);
        if it.deletes.len() + it.rotates.len() <= it.limit.max(MOST / 20) {
            return;
        }
        let is_recent = it.is_recent(now);
        it.deletes.retain(|_, at| is_recent(at));
        it.rotates.retain(|_, at| is_recent(at));
        let left = it.deletes.len() + it.rotates.len();
        it.limit = (2 * left).min(MOST);
        if left > MOST {
            it.deletes = HashMap::new();
            it.rotates = HashMap::new();
            it.limit = 0;
            it.overflowed = Some(now);
        }
    }

    /// Remembers that the whole namespace was invalidated.
    pub(crate) fn remember_everything(&self) {
        self.0.lock().overflowed = Some(clock::now());
    }

    /// The connection to the server that acknowledged them has ended. From now on none is removed
    /// because of its age.
    pub(crate) fn left(&self) {
        self.0.lock().left.get_or_insert(clock::now());
    }

    /// The current server knows all of them.
    pub(crate) fn is_known(&self) {
        self.0.lock().left = None;
    }

    /// The invalidations that another server may not know.
    pub(crate) fn again(&self) -> Repetition {
        let it = self.0.lock();
        let is_recent = it.is_recent(clock::now());
        if it.overflowed.as_ref().is_some_and(&is_recent) {
            return Repetition::Everything;
        }
        let deletes = it.deletes.iter().filter(|(_, at)| is_recent(at));
        let rotates = it.rotates.iter().filter(|(_, at)| is_recent(at));
        let invalidation = Invalidation {
            deletes: deletes.map(|(key, _)| key.clone()).collect(),
            rotates: rotates.map(|(dep, _)| Arc::clone(dep)).collect(),
            ends: Vec::new(),
        };
        match invalidation.deletes.is_empty() && invalidation.rotates.is_empty() {
            true => Repetition::Nothing,
            false => Repetition::These(invalidation),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delete(key: &str) -> Invalidation {
        Invalidation {
            deletes: vec![key.to_owned()],
            ..Invalidation::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn recent_invalidations_are_repeated() {
        let recent = RecentInvalidations::default();
        assert!(matches!(recent.again(), Repetition::Nothing));
        recent.remember(&delete("users:1"));
        tokio::time::advance(KEPT / 2).await;
        recent.remember(&delete("users:2"));
        let Repetition::These(these) = recent.again() else {
            panic!("both are recent");
        };
        assert_eq!(these.deletes.len(), 2);
        tokio::time::advance(KEPT / 2).await;
        let Repetition::These(these) = recent.again() else {
            panic!("one is recent");
        };
        assert_eq!(these.deletes, ["users:2"]);
        for id in 0..=MOST {
            recent.remember(&delete(&id.to_string()));
        }
        assert!(matches!(recent.again(), Repetition::Everything));
        tokio::time::advance(KEPT).await;
        assert!(matches!(recent.again(), Repetition::Nothing));
        recent.remember_everything();
        assert!(matches!(recent.again(), Repetition::Everything));
    }

    /// However long it takes to connect to the next server.
    #[tokio::test(start_paused = true)]
    async fn recent_invalidations_at_a_left_server_are_repeated_at_the_next() {
        let recent = RecentInvalidations::default();
        recent.remember(&delete("users:1"));
        tokio::time::advance(KEPT / 2).await;
        recent.left();
        tokio::time::advance(KEPT * 2).await;
        recent.left();
        recent.remember(&delete("users:2"));
        let Repetition::These(these) = recent.again() else {
            panic!("both may be unknown there");
        };
        assert_eq!(these.deletes.len(), 2);
        recent.is_known();
        let Repetition::These(these) = recent.again() else {
            panic!("one is recent");
        };
        assert_eq!(these.deletes, ["users:2"]);
    }
}
