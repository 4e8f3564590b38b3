//! What the auditor remembers and decides: suspects, a limit, findings.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::base::clock::{self, Instant, Millis};
use crate::coalesce::single_flight::LoadResult;
use crate::protocol::entry::Stamp;
use crate::telemetry::audit::Finding;

/// How many suspects are remembered.
const SUSPECTS: usize = 256;
/// How many findings are kept for the report.
pub(crate) const KEPT: usize = 32;
/// A stale entry of one resource is logged once in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Which entry it is: another load of the same value is another one.
pub(crate) type Identity = (Stamp, Millis);

struct Suspect {
    identity: Identity,
    fresh: LoadResult,
    since: Instant,
    is_confirmed: bool,
}

/// What is thought of an entry whose value differed once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Suspicion {
    /// It did for the first time.
    First,
    /// Its function has returned the same other value twice.
    Agreed {
        /// When it did the first time.
        since: Instant,
    },
    /// That is known, and waits to be confirmed.
    Waiting,
    /// Its function returned another value than the last time.
    Unstable,
}

/// The auditor of one cache.
pub(crate) struct Auditor {
    suspects: Mutex<HashMap<String, Suspect>>,
    has_suspects: AtomicBool,
    limit: Mutex<Limit>,
    logged: Mutex<HashMap<Box<str>, Instant>>,
    kept: Mutex<VecDeque<Finding>>,
}

impl fmt::Debug for Auditor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Auditor({} suspects)", self.suspects.lock().len())
    }
}

/// So many audits in a second at most.
struct Limit {
    per_second: u32,
    left: u32,
    since: Instant,
}

impl Auditor {
    pub(crate) fn new(per_second: u32) -> Self {
        Self {
            suspects: Mutex::default(),
            has_suspects: AtomicBool::new(false),
            limit: Mutex::new(Limit {
                per_second,
                left: per_second,
                since: clock::now(),
            }),
            logged: Mutex::default(),
            kept: Mutex::default(),
        }
    }

    /// Whether this hit is to be audited: one of so many, or one on a suspect.
    pub(crate) fn wants(&self, threshold: u32, key: &str) -> bool {
        let is_drawn = fastrand::u32(..) <= threshold || self.is_suspect(key);
        is_drawn && self.may_audit()
    }

    fn is_suspect(&self, key: &str) -> bool {
        self.has_suspects.load(Ordering::Relaxed) && self.suspects.lock().contains_key(key)
    }

    fn may_audit(&self) -> bool {
        let mut limit = self.limit.lock();
        let now = clock::now();
        if now.saturating_duration_since(limit.since) >= Duration::from_secs(1) {
            limit.since = now;
            limit.left = limit.per_second;
        }
        let may = limit.left > 0;
        limit.left -= u32::from(may);
        may
    }

    /// What the function returned the last time that this entry's value differed.
    pub(crate) fn value_before(&self, key: &str) -> Option<LoadResult> {
        let suspects = self.suspects.lock();
        suspects.get(key).map(|suspect| suspect.fresh.clone())
    }

    /// The value of this entry differs from what its function has just returned.
    pub(crate) fn suspect(
        &self,
        key: &str,
        identity: Identity,
        fresh: LoadResult,
        is_as_before: Option<bool>,
    ) -> Suspicion {
        let mut suspects = self.suspects.lock();
        if let Some(known) = suspects.get_mut(key)
            && known.identity == identity
        {
            return match is_as_before {
                Some(true) if known.is_confirmed => Suspicion::Waiting,
                Some(true) => {
                    known.is_confirmed = true;
                    Suspicion::Agreed { since: known.since }
                }
                _ => {
                    suspects.remove(key);
                    Suspicion::Unstable
                }
            };
        }
        if suspects.len() >= SUSPECTS && !suspects.contains_key(key) {
            // One that nobody reads again would stay for ever, and all places would be taken.
            let oldest = suspects.iter().min_by_key(|(_, suspect)| suspect.since);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                suspects.remove(&oldest);
            }
        }
        let suspect = Suspect {
            identity,
            fresh,
            since: clock::now(),
            is_confirmed: false,
        };
        suspects.insert(key.to_owned(), suspect);
        self.has_suspects.store(true, Ordering::Relaxed);
        Suspicion::First
    }

    /// The entry is no suspect any more.
    pub(crate) fn clear(&self, key: &str) {
        if self.has_suspects.load(Ordering::Relaxed) {
            let mut suspects = self.suspects.lock();
            suspects.remove(key);
            self.has_suspects
                .store(!suspects.is_empty(), Ordering::Relaxed);
        }
    }

    /// Whether a stale entry of this resource may be logged now.
    pub(crate) fn may_log(&self, resource: &str) -> bool {
        let (mut logged, now) = (self.logged.lock(), clock::now());
        let last = logged.get(resource);
        let may = last.is_none_or(|last| now.saturating_duration_since(*last) >= LOG_INTERVAL);
        if may {
            logged.insert(resource.into(), now);
        }
        may
    }

    /// Keeps a finding for the report.
    pub(crate) fn keep(&self, finding: Finding) {
        let mut kept = self.kept.lock();
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back(finding);
    }

    /// The last findings.
    pub(crate) fn kept(&self) -> Vec<Finding> {
        self.kept.lock().iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspect_is_agreed_on_once_and_cleared_by_another_entry() {
        let auditor = Auditor::new(10);
        let identity = |n| (Stamp(0), Millis(n));
        let fresh = || LoadResult::Absence;
        assert_eq!(
            auditor.suspect("a", identity(1), fresh(), None),
            Suspicion::First
        );
        assert!(auditor.wants(0, "a"), "the next hit is audited");
        let second = auditor.suspect("a", identity(1), fresh(), Some(true));
        assert!(matches!(second, Suspicion::Agreed { .. }));
        let third = auditor.suspect("a", identity(1), fresh(), Some(true));
        assert_eq!(third, Suspicion::Waiting);
        let other = auditor.suspect("a", identity(2), fresh(), Some(true));
        assert_eq!(other, Suspicion::First, "another entry, from the beginning");
        let unstable = auditor.suspect("a", identity(2), fresh(), Some(false));
        assert_eq!(unstable, Suspicion::Unstable);
        assert!(!auditor.is_suspect("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn suspects_that_nobody_reads_again_make_room() {
        let auditor = Auditor::new(10);
        let identity = (Stamp(0), Millis(1));
        let suspect = |key: &str, is_as_before| {
            auditor.suspect(key, identity, LoadResult::Absence, is_as_before)
        };
        for n in 0..SUSPECTS + 44 {
            assert_eq!(suspect(&format!("k{n}"), None), Suspicion::First);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(auditor.suspects.lock().len(), SUSPECTS);
        assert!(!auditor.is_suspect("k0"), "the oldest has gone");
        let last = format!("k{}", SUSPECTS + 43);
        let again = suspect(&last, Some(true));
        assert!(matches!(again, Suspicion::Agreed { .. }), "{again:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_so_many_a_second() {
        let auditor = Auditor::new(3);
        let count = || (0..10).filter(|_| auditor.wants(u32::MAX, "a")).count();
        assert_eq!(count(), 3);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(count(), 3);
    }
}
