//! The only place that asks what time it is.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) use tokio::time::Instant;

/// A point in a store's own time, in milliseconds since the Unix epoch.
///
/// For Redis that is the server's clock, so the clocks of the application's processes don't matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// This point moved later.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(duration.as_millis().try_into().unwrap_or(u64::MAX)),
        )
    }

    /// How long after `earlier` this is; zero if it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Tokio's clock, so that tests can pause and advance it.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The process's wall clock, moved forward by [`now`] alone: it never jumps when the system's time is set.
pub(crate) fn wall() -> Millis {
    static START: OnceLock<(Instant, Millis)> = OnceLock::new();
    let (start, at_start) = START.get_or_init(|| {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        (now(), Millis(0).after(since_epoch))
    });
    at_start.after(now().saturating_duration_since(*start))
}

/// What a remote clock reads, from one reading of it: its offset to [`wall`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct RemoteClock {
    ahead_ms: i64,
}

impl RemoteClock {
    #[cfg_attr(
        not(feature = "redis"),
        expect(dead_code, reason = "only Redis has a clock of its own")
    )]
    pub(crate) fn from_reading(remote: Millis) -> Self {
        Self {
            ahead_ms: remote.0.cast_signed().wrapping_sub(wall().0.cast_signed()),
        }
    }

    #[cfg_attr(
        not(feature = "redis"),
        expect(dead_code, reason = "only Redis has a clock of its own")
    )]
    pub(crate) fn now(self) -> Millis {
        Millis(wall().0.saturating_add_signed(self.ahead_ms))
    }
}
