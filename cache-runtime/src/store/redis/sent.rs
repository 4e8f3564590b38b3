//! When a command was sent, and how long its answer may take.

use std::time::{Duration, Instant};

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

    /// The same command once more, in the time that is left.
    pub(super) fn again(self) -> Self {
        let at = Instant::now();
        let budget = self.budget.saturating_sub(at.duration_since(self.at));
        Self { at, budget }
    }

    /// Whether a good part of the budget is over.
    pub(super) fn is_late(self) -> bool {
        self.at.elapsed() >= self.budget / 2
    }
}
