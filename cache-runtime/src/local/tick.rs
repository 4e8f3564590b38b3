//! The time by which local copies are judged, in nanoseconds.

use std::time::Duration;

#[cfg(any(target_os = "linux", target_os = "android"))]
use rustix::time::{ClockId, clock_gettime};

/// What the kernel's coarse clock may lag behind: a tick, which is 10 ms where it is longest.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// A point in time that only this process knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tick(pub(super) u64);

impl Tick {
    pub(super) fn after(self, time: Duration) -> Self {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }

    pub(super) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Now, from the kernel, and not from a task that would be late itself: after a pause of the process it is right
    /// at once. The coarse clock costs a fifth of the exact one.
    pub(super) fn now() -> Self {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            let now = clock_gettime(ClockId::MonotonicCoarse);
            // It is never negative.
            Self(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
        }
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        {
            use std::sync::OnceLock;
            use std::time::Instant;

            static START: OnceLock<Instant> = OnceLock::new();
            Self(0).after(START.get_or_init(Instant::now).elapsed())
        }
    }
}
