//! How long a server may be used after it was named the primary: by the Sentinels, or in a cluster
//! by the other primaries.
//!
//! A failover does not stop the former primary: behind Sentinels it may go on answering reads and
//! taking writes for ten seconds, in a cluster for its node timeout. A process that has not learnt
//! of the failover would be served entries that were invalidated at the new primary. So the answer
//! holds for [`VALID`] only, counted from the question. After that the process reads the source,
//! and nothing that it invalidates is acknowledged, until the server is named again. A process that
//! finds a new primary waits for longer than that before it uses it (see
//! `sentinel::former_primaries_left` and `fence`). This is a lease as of Gray and Cheriton,
//! "Leases: An Efficient Fault-Tolerant Mechanism for Distributed File Cache Consistency" (SOSP
//! 1989).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::base::clock;
use crate::base::error::Error;
use crate::base::unserved::Unserved;

/// How long an answer holds: longer than a round of questions takes, and the pause before it. Also
/// how long after the last answer of the majority of Sentinels the connection is closed.
pub(crate) const VALID: Duration = Duration::from_secs(2);

/// The pause between two rounds of questions; in a cluster, the time from the beginning of one to
/// that of the next. With rounds that take as long as they may, answers still come before the last
/// one has lost its validity.
pub(crate) const INTERVAL: Duration = Duration::from_millis(750);

/// The same after a round that has confirmed nothing.
pub(crate) const RETRY: Duration = Duration::from_millis(250);

/// How long an answer may take.
pub(crate) const ANSWER_BUDGET: Duration = Duration::from_millis(500);

/// When a server was last named, or the slots of all servers of a cluster.
///
/// By the kernel's clocks, which are right at once after the process was stopped, and which a test
/// that pauses Tokio's time does not stop.
#[derive(Debug)]
pub(crate) struct Confirmation {
    monotonic: AtomicU64,
    /// One clock stands still while the machine sleeps, the other goes on.
    wall: AtomicU64,
}

/// A moment by both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    monotonic: u64,
    wall: u64,
}

impl Asked {
    pub(crate) fn now() -> Self {
        Self {
            monotonic: clock::coarse_nanos(),
            wall: clock::coarse_wall_nanos(),
        }
    }
}

impl Default for Confirmation {
    /// For a server that needs no confirmation.
    fn default() -> Self {
        Self {
            monotonic: AtomicU64::new(u64::MAX),
            wall: AtomicU64::new(u64::MAX),
        }
    }
}

impl Confirmation {
    /// For servers that may not be used before they are named.
    pub(crate) const fn awaited() -> Self {
        Self {
            monotonic: AtomicU64::new(0),
            wall: AtomicU64::new(0),
        }
    }

    /// The server is named. The question was asked at this moment.
    pub(crate) fn confirm(&self, asked: Asked) {
        self.monotonic.store(asked.monotonic, Ordering::Release);
        self.wall.store(asked.wall, Ordering::Release);
    }

    /// # Errors
    /// If the server may not be used now.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self.is_valid() {
            true => Ok(()),
            false => Err(Unserved::Unconfirmed.into()),
        }
    }

    /// Whether the server may be used now.
    pub(crate) fn is_valid(&self) -> bool {
        let monotonic = self.monotonic.load(Ordering::Acquire);
        if monotonic == u64::MAX || crate::base::mutation::is_active("named-for-ever") {
            return true;
        }
        let valid = VALID.as_nanos() as u64;
        let is_recent = |now: u64, asked: u64| now.saturating_sub(asked) < valid;
        let now = Asked::now();
        is_recent(now.monotonic, monotonic)
            && is_recent(now.wall, self.wall.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_holds_for_a_while() {
        let confirmation = Confirmation::default();
        assert!(confirmation.is_valid(), "nobody has to name it");
        assert!(!Confirmation::awaited().is_valid());
        let now = Asked::now();
        confirmation.confirm(now);
        assert!(confirmation.is_valid());
        let before = |nanos: u64| nanos - VALID.as_nanos() as u64;
        confirmation.confirm(Asked {
            monotonic: before(now.monotonic),
            ..now
        });
        assert!(!confirmation.is_valid(), "the process was stopped");
        confirmation.confirm(Asked {
            wall: before(now.wall),
            ..now
        });
        assert!(!confirmation.is_valid(), "the machine was asleep");
    }
}
