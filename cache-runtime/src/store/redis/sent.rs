//! When a command was sent, and how long its answer may take.

use std::time::{Duration, Instant};

use crate::base::clock;
use crate::base::paused::PauseGuard;

/// A command that is sent now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    /// By the system's clock: the caller may have paused Tokio's time.
    pub(super) at: Instant,
    pub(super) budget: Duration,
}

impl Sent {
    pub(super) fn now(budget: Duration) -> Self {
        Self {
            at: Instant::now(),
            budget,
        }
    }

    /// Holds a caller's paused time while other threads do what it waits for: they send a batch, or
    /// ask nodes for their slots. `now` was read right after `at`.
    pub(super) fn held(self, now: clock::Instant) -> Option<PauseGuard> {
        let is_held = !crate::base::mutation::is_active("paused-time-moves-on-in-batches");
        is_held.then(|| PauseGuard::from(self.at, now, self.budget))
    }

    /// Whether a good part of the budget is over.
    pub(super) fn is_late(self) -> bool {
        self.at.elapsed() >= self.budget / 2
    }
}
