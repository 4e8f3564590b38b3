//! What was invalidated a moment ago, to be done again where another server takes over.
//!
//! A primary that has been replaced goes on taking writes until it has heard of that, and so does a process that uses it. What
//! it acknowledged then is unknown to the new primary, at which others may have stored what was to be invalidated. So what was
//! acknowledged within the last seconds is invalidated again at the new one: a stale entry there lasts for as long as it takes to
//! hear of the change, and not until its time to live ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::base::clock::{self, Instant};
use crate::protocol::generation::Dep;
use crate::store::Invalidation;

/// How long an invalidation is remembered: longer than a replaced primary is used.
const KEPT: Duration = Duration::from_secs(5);
/// How many keys and generations are remembered; past that it is all of the namespace.
const MOST: usize = 20_000;

/// What was invalidated of late.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    kills: HashMap<String, Instant>,
    bumps: HashMap<Arc<Dep>, Instant>,
    /// How many there may be before the old ones are forgotten.
    limit: usize,
    /// When there were too many, or all was invalidated.
    overflowed: Option<Instant>,
    /// When the server was left that acknowledged it: what was recent then is recent until the next one knows of it.
    left: Option<Instant>,
}

impl Remembered {
    fn is_recent(&self, now: Instant) -> impl Fn(&Instant) -> bool + use<> {
        let now = self.left.unwrap_or(now);
        move |at| now.saturating_duration_since(*at) < KEPT
    }
}

/// What is to be done again.
#[derive(Debug)]
pub(super) enum Again {
    Nothing,
    These(Invalidation),
    Everything,
}

impl Recent {
    /// This was acknowledged.
    pub(super) fn remember(&self, invalidation: &Invalidation) {
        let now = clock::now();
        let mut it = self.0.lock();
        let kills = invalidation.kills.iter().map(|key| (key.clone(), now));
        it.kills.extend(kills);
        let bumps = invalidation.bumps.iter().map(|dep| (Arc::clone(dep), now));
        it.bumps.extend(bumps);
        if it.kills.len() + it.bumps.len() <= it.limit.max(MOST / 20) {
            return;
        }
        let is_recent = it.is_recent(now);
        it.kills.retain(|_, at| is_recent(at));
        it.bumps.retain(|_, at| is_recent(at));
        let left = it.kills.len() + it.bumps.len();
        it.limit = (2 * left).min(MOST);
        if left > MOST {
            it.kills = HashMap::new();
            it.bumps = HashMap::new();
            it.limit = 0;
            it.overflowed = Some(now);
        }
    }

    /// All of the namespace was.
    pub(super) fn remember_everything(&self) {
        self.0.lock().overflowed = Some(clock::now());
    }

    /// The connection to the server that acknowledged it is over. From now on nothing is forgotten for its age.
    pub(super) fn left(&self) {
        self.0.lock().left.get_or_insert(clock::now());
    }

    /// The server in use knows of all of it.
    pub(super) fn is_known(&self) {
        self.0.lock().left = None;
    }

    /// What another server may not know.
    pub(super) fn again(&self) -> Again {
        let it = self.0.lock();
        let is_recent = it.is_recent(clock::now());
        if it.overflowed.as_ref().is_some_and(&is_recent) {
            return Again::Everything;
        }
        let kills = it.kills.iter().filter(|(_, at)| is_recent(at));
        let bumps = it.bumps.iter().filter(|(_, at)| is_recent(at));
        let invalidation = Invalidation {
            kills: kills.map(|(key, _)| key.clone()).collect(),
            bumps: bumps.map(|(dep, _)| Arc::clone(dep)).collect(),
            withdraws: Vec::new(),
        };
        match invalidation.kills.is_empty() && invalidation.bumps.is_empty() {
            true => Again::Nothing,
            false => Again::These(invalidation),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kill(key: &str) -> Invalidation {
        Invalidation {
            kills: vec![key.to_owned()],
            ..Invalidation::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_recent_is_done_again() {
        let recent = Recent::default();
        assert!(matches!(recent.again(), Again::Nothing));
        recent.remember(&kill("users:1"));
        tokio::time::advance(KEPT / 2).await;
        recent.remember(&kill("users:2"));
        let Again::These(these) = recent.again() else {
            panic!("both are recent");
        };
        assert_eq!(these.kills.len(), 2);
        tokio::time::advance(KEPT / 2).await;
        let Again::These(these) = recent.again() else {
            panic!("one is recent");
        };
        assert_eq!(these.kills, ["users:2"]);
        for id in 0..=MOST {
            recent.remember(&kill(&id.to_string()));
        }
        assert!(matches!(recent.again(), Again::Everything));
        tokio::time::advance(KEPT).await;
        assert!(matches!(recent.again(), Again::Nothing));
        recent.remember_everything();
        assert!(matches!(recent.again(), Again::Everything));
    }

    /// However long it takes to connect to the next server.
    #[tokio::test(start_paused = true)]
    async fn what_was_recent_when_a_server_was_left_is_done_again_at_the_next() {
        let recent = Recent::default();
        recent.remember(&kill("users:1"));
        tokio::time::advance(KEPT / 2).await;
        recent.left();
        tokio::time::advance(KEPT * 2).await;
        recent.left();
        recent.remember(&kill("users:2"));
        let Again::These(these) = recent.again() else {
            panic!("both may be unknown there");
        };
        assert_eq!(these.kills.len(), 2);
        recent.is_known();
        let Again::These(these) = recent.again() else {
            panic!("one is recent");
        };
        assert_eq!(these.kills, ["users:2"]);
    }
}
