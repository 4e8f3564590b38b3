//! The auditor's memory and decisions: suspects, a limit, findings.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::base::clock::{self, Instant, Millis};
use crate::base::nonce::random;
use crate::coalesce::single_flight::LoadResult;
use crate::protocol::entry::Stamp;
use crate::telemetry::audit::AuditFinding;

/// How many suspects are remembered.
const SUSPECTS: usize = 256;
/// How many findings are kept for the report.
pub(crate) const KEPT: usize = 32;
/// How many audits run at a time. If the database does not answer, no more callers than these wait
/// for it although their values are cached.
const AT_A_TIME: usize = 32;
/// The pause between two second looks at a suspect.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// A stale entry of one resource is logged once in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Identifies an entry: another load of the same value is another entry.
pub(crate) type Identity = (Stamp, Millis);

struct Suspect {
    identity: Identity,
    fresh: LoadResult,
    since: Instant,
    is_confirmed: bool,
    /// How many of its hits were drawn at random.
    drawn: u64,
    /// When a hit was last taken for the second look.
    asked: Option<Instant>,
}

/// The permission to audit one hit. It counts against `AT_A_TIME` until it is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Draw {
    /// Whether the hit was drawn at random. Otherwise it is a second look at a suspect, which says
    /// nothing about hits in general.
    pub(crate) is_random: bool,
    _place: Arc<OwnedSemaphorePermit>,
}

/// An entry that is no longer a suspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cleared {
    /// How many of its hits were drawn at random.
    pub(crate) drawn: u64,
    pub(crate) since: Instant,
}

/// The decision about an entry whose value differed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Suspicion {
    /// It differed for the first time.
    First,
    /// Its function has returned the same other value twice.
    Agreed {
        /// When that was the first time.
        since: Instant,
    },
    /// The other value is known, and waits for confirmation.
    Waiting,
    /// Its function returned another value than the last time.
    Unstable {
        /// How many of its hits were drawn at random.
        drawn: u64,
    },
}

/// The auditor of one cache.
pub(crate) struct Auditor {
    suspects: Mutex<HashMap<String, Suspect>>,
    has_suspects: AtomicBool,
    limit: Mutex<Limit>,
    places: Arc<Semaphore>,
    logged: Mutex<HashMap<Box<str>, Instant>>,
    kept: Mutex<VecDeque<AuditFinding>>,
}

impl fmt::Debug for Auditor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Auditor({} suspects)", self.suspects.lock().len())
    }
}

/// The limit on audits per second.
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
            places: Arc::new(Semaphore::new(AT_A_TIME)),
            logged: Mutex::default(),
            kept: Mutex::default(),
        }
    }

    /// Decides whether this hit is audited: because it is drawn at random, or as the second look at
    /// a suspect.
    pub(crate) fn draw(&self, threshold: u32, key: &str) -> Option<Draw> {
        let is_random = random() as u32 <= threshold;
        if !is_random && !self.wants_second_look(key) {
            return None;
        }
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        self.may_audit().then(|| Draw {
            is_random,
            _place: Arc::new(place),
        })
    }

    /// Whether this key is a suspect's, and no other caller is taking the second look.
    fn wants_second_look(&self, key: &str) -> bool {
        if !self.has_suspects.load(Ordering::Relaxed) {
            return false;
        }
        let mut suspects = self.suspects.lock();
        let Some(suspect) = suspects.get_mut(key).filter(|it| !it.is_confirmed) else {
            return false;
        };
        let now = clock::now();
        let is_due = |asked: Instant| now.saturating_duration_since(asked) >= AGAIN_AFTER;
        if !suspect.asked.is_none_or(is_due) {
            return false;
        }
        suspect.asked = Some(now);
        true
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

    /// The function's result when this entry's value last differed.
    pub(crate) fn value_before(&self, key: &str) -> Option<LoadResult> {
        let suspects = self.suspects.lock();
        suspects.get(key).map(|suspect| suspect.fresh.clone())
    }

    /// Records that the value of this entry differs from what its function has just returned.
    /// `is_random` says whether the hit was drawn at random.
    pub(crate) fn suspect(
        &self,
        key: &str,
        identity: Identity,
        fresh: LoadResult,
        is_as_before: Option<bool>,
        is_random: bool,
    ) -> Suspicion {
        let mut suspects = self.suspects.lock();
        if let Some(known) = suspects.get_mut(key)
            && known.identity == identity
        {
            known.drawn += u64::from(is_random);
            return match is_as_before {
                Some(true) if known.is_confirmed => Suspicion::Waiting,
                Some(true) => {
                    known.is_confirmed = true;
                    Suspicion::Agreed { since: known.since }
                }
                _ => {
                    let drawn = known.drawn;
                    self.remove(&mut suspects, key);
                    Suspicion::Unstable { drawn }
                }
            };
        }
        if suspects.len() >= SUSPECTS && !suspects.contains_key(key) {
            // A suspect that nobody reads again would stay for ever, and take a slot.
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
            drawn: u64::from(is_random),
            asked: None,
        };
        suspects.insert(key.to_owned(), suspect);
        self.has_suspects.store(true, Ordering::Relaxed);
        Suspicion::First
    }

    /// Whether this entry is a suspect.
    pub(crate) fn is_suspect(&self, key: &str, identity: Identity) -> bool {
        let suspects = self.suspects.lock();
        suspects.get(key).is_some_and(|it| it.identity == identity)
    }

    /// Removes a suspect, and returns what was known of it.
    pub(crate) fn clear(&self, key: &str) -> Option<Cleared> {
        if !self.has_suspects.load(Ordering::Relaxed) {
            return None;
        }
        self.remove(&mut self.suspects.lock(), key)
    }

    fn remove(&self, suspects: &mut HashMap<String, Suspect>, key: &str) -> Option<Cleared> {
        let removed = suspects.remove(key);
        self.has_suspects
            .store(!suspects.is_empty(), Ordering::Relaxed);
        removed.map(|Suspect { drawn, since, .. }| Cleared { drawn, since })
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
    pub(crate) fn keep(&self, finding: AuditFinding) {
        let mut kept = self.kept.lock();
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back(finding);
    }

    /// The most recent findings.
    pub(crate) fn kept(&self) -> Vec<AuditFinding> {
        self.kept.lock().iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_suspect_is_looked_at_once_more_and_agreed_on_once() {
        let auditor = Auditor::new(10);
        let identity = |n| (Stamp(0), Millis(n));
        let suspect = |n, as_before, is_random| {
            auditor.suspect("a", identity(n), LoadResult::Absence, as_before, is_random)
        };
        assert_eq!(suspect(1, None, true), Suspicion::First);
        let second = auditor.draw(0, "a").expect("the next hit is audited");
        assert!(!second.is_random);
        assert!(auditor.draw(0, "a").is_none(), "by one at a time");
        tokio::time::advance(AGAIN_AFTER).await;
        assert!(
            auditor.draw(0, "a").is_some(),
            "or by another, if it has gone"
        );
        let agreed = suspect(1, Some(true), false);
        assert!(matches!(agreed, Suspicion::Agreed { .. }));
        tokio::time::advance(AGAIN_AFTER).await;
        assert!(auditor.draw(0, "a").is_none(), "two looks are enough");
        assert_eq!(suspect(1, Some(true), true), Suspicion::Waiting);
        let cleared = auditor.clear("a").expect("it was one");
        assert_eq!(cleared.drawn, 2, "the second look was not drawn");
        assert_eq!(suspect(1, None, true), Suspicion::First);
        assert_eq!(
            suspect(2, Some(true), true),
            Suspicion::First,
            "another entry"
        );
        let unstable = suspect(2, Some(false), true);
        assert_eq!(unstable, Suspicion::Unstable { drawn: 2 });
        assert!(!auditor.is_suspect("a", identity(2)));
        assert!(!auditor.has_suspects.load(Ordering::Relaxed));
    }

    #[test]
    fn so_many_at_a_time() {
        let auditor = Auditor::new(1_000);
        let draws: Vec<_> = (0..AT_A_TIME)
            .map(|_| auditor.draw(u32::MAX, "a"))
            .collect();
        assert!(draws.iter().all(Option::is_some));
        assert!(auditor.draw(u32::MAX, "a").is_none());
        drop(draws);
        assert!(auditor.draw(u32::MAX, "a").is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn suspects_that_nobody_reads_again_make_room() {
        let auditor = Auditor::new(10);
        let identity = (Stamp(0), Millis(1));
        let suspect = |key: &str, is_as_before| {
            auditor.suspect(key, identity, LoadResult::Absence, is_as_before, true)
        };
        for n in 0..SUSPECTS + 44 {
            assert_eq!(suspect(&format!("k{n}"), None), Suspicion::First);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(auditor.suspects.lock().len(), SUSPECTS);
        assert!(!auditor.is_suspect("k0", identity), "the oldest has gone");
        let last = format!("k{}", SUSPECTS + 43);
        let again = suspect(&last, Some(true));
        assert!(matches!(again, Suspicion::Agreed { .. }), "{again:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_log_line_for_each_resource_and_minute() {
        let auditor = Auditor::new(10);
        assert!(auditor.may_log("users"));
        assert!(!auditor.may_log("users"));
        assert!(auditor.may_log("teams"), "another resource");
        tokio::time::advance(LOG_INTERVAL - Duration::from_millis(1)).await;
        assert!(!auditor.may_log("users"), "the minute is not over");
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(auditor.may_log("users"));
        assert!(!auditor.may_log("users"));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_so_many_a_second() {
        let auditor = Auditor::new(3);
        let count = || {
            (0..10)
                .filter(|_| auditor.draw(u32::MAX, "a").is_some())
                .count()
        };
        assert_eq!(count(), 3);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(count(), 3);
    }
}
