//! How long a server may be used after the Sentinels have named it the primary.
//!
//! A failover does not stop the former primary: for ten seconds it may go on answering reads and
//! taking writes. A process that has not learnt of the failover would be served entries that were
//! invalidated at the new primary. So what the Sentinels say holds for [`VALID`] only, counted from
//! the question. After that the process reads the source, and nothing that it invalidates is
//! acknowledged, until they name the server again. A process that finds a new primary waits for
//! longer than that before it uses it (see `sentinel::former_primaries_left`). This is a lease as
//! of Gray and Cheriton, "Leases: An Efficient Fault-Tolerant Mechanism for Distributed File Cache
//! Consistency" (SOSP 1989).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::base::clock;

/// How long an answer holds: longer than a round of questions takes. Also by which time the
/// majority of the Sentinels has to answer again.
pub(super) const VALID: Duration = Duration::from_secs(2);

/// When the Sentinels last named a server.
///
/// By the kernel's clocks, which are right at once after the process was stopped, and which a test
/// that pauses Tokio's time does not stop.
#[derive(Debug)]
pub(super) struct Confirmation {
    monotonic: AtomicU64,
    /// One clock stands still while the machine sleeps, the other goes on.
    wall: AtomicU64,
}

/// A moment by both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    monotonic: u64,
    wall: u64,
}

impl Asked {
    pub(super) fn now() -> Self {
        Self {
            monotonic: clock::coarse_nanos(),
            wall: clock::coarse_wall_nanos(),
        }
    }
}

impl Default for Confirmation {
    /// For a server that nobody has to name.
    fn default() -> Self {
        Self {
            monotonic: AtomicU64::new(u64::MAX),
            wall: AtomicU64::new(u64::MAX),
        }
    }
}

impl Confirmation {
    /// The Sentinels name the server. They were asked at this moment.
    pub(super) fn confirm(&self, asked: Asked) {
        self.monotonic.store(asked.monotonic, Ordering::Release);
        self.wall.store(asked.wall, Ordering::Release);
    }

    /// Whether the server may be used now.
    pub(super) fn is_valid(&self) -> bool {
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
