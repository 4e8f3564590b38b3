//! The only module that reads a clock.

use std::sync::OnceLock;
#[cfg(feature = "redis")]
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) use tokio::time::Instant;

/// A point in a store's own time, in milliseconds since the Unix epoch.
///
/// For Redis this is the server's clock, so the clocks of the application's processes don't matter.
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

    /// How long after `earlier` this is; zero if it is not later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// How wrong this process may be about the store's clock. Between answers, the time is estimated
/// from the last answer, which may have been on its way for a second.
pub(crate) const CLOCK_ERROR: Duration = Duration::from_secs(2);

/// Tokio's clock, so that tests can pause and advance it.
#[cfg(not(all(test, cache_shuttle)))]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[cfg(all(test, cache_shuttle))]
pub(crate) use super::sync::time::now;

/// The system's clock, for times that another runtime compares with its own: a test may have paused
/// Tokio's time on one of the two.
#[cfg(all(feature = "redis", not(all(test, cache_shuttle))))]
pub(crate) fn system() -> std::time::Instant {
    std::time::Instant::now()
}

#[cfg(all(test, cache_shuttle))]
pub(crate) fn system() -> std::time::Instant {
    now().into_std()
}

/// Runs it, and returns how long that took in nanoseconds, by the system's clock.
pub(crate) fn timed<T>(run: impl FnOnce() -> T) -> (T, u64) {
    let began = std::time::Instant::now();
    let done = run();
    let took = began.elapsed().as_nanos();
    (done, u64::try_from(took).unwrap_or(u64::MAX))
}

/// Returns at that time; never for `None`.
pub(crate) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => crate::base::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The process's wall clock, moved forward by [`now`] alone: it never jumps when the system's time
/// is set.
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

/// Like [`wall`], but by the system's monotonic clock, which tests can't pause.
#[cfg(feature = "redis")]
fn real_wall() -> Millis {
    use std::time::Instant;
    static START: OnceLock<(Instant, Millis)> = OnceLock::new();
    let (start, at_start) = START.get_or_init(|| (Instant::now(), wall()));
    at_start.after(start.elapsed())
}

/// A cheap [`wall`] that may be up to [`TICK`] late, but never early. In tests it is [`wall`]
/// itself, which they may pause.
pub(crate) fn wall_or_later() -> Millis {
    if cfg!(any(test, feature = "testing")) {
        return wall();
    }
    static START: OnceLock<(u64, Millis)> = OnceLock::new();
    let now = coarse_nanos();
    let (start, at_start) = START.get_or_init(|| (now, wall()));
    at_start.after(Duration::from_nanos(now.saturating_sub(*start)) + TICK)
}

/// The most that the kernel's coarse clock lags behind: one tick, at most 10 ms.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// Nanoseconds since some point known only to this process, by the kernel's coarse clock, which
/// costs a tenth of the exact one. The kernel keeps it, not a task of this process that could be
/// late itself: it is right at once after the process was paused. It stands still while the machine
/// sleeps.
#[inline]
pub(crate) fn coarse_nanos() -> u64 {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        coarse(rustix::time::ClockId::MonotonicCoarse)
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        static START: OnceLock<std::time::Instant> = OnceLock::new();
        let elapsed = START.get_or_init(std::time::Instant::now).elapsed();
        u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Like [`coarse_nanos`], but by the wall clock. It goes on while the machine sleeps, and may be
/// set to any time.
#[inline]
pub(crate) fn coarse_wall_nanos() -> u64 {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        coarse(rustix::time::ClockId::RealtimeCoarse)
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        u64::try_from(since_epoch.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[inline]
fn coarse(clock: rustix::time::ClockId) -> u64 {
    let now = rustix::time::clock_gettime(clock);
    // The clock is never before 1970, so neither part is negative.
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// A remote clock, estimated from its last reading. It keeps the offset to [`real_wall`], since the
/// remote clock goes on while a test pauses Tokio's time.
#[cfg(feature = "redis")]
#[derive(Debug)]
pub(crate) struct RemoteClock {
    ahead_ms: AtomicI64,
}

#[cfg(feature = "redis")]
impl RemoteClock {
    pub(crate) fn from_reading(remote: Millis) -> Self {
        Self {
            ahead_ms: AtomicI64::new(ahead_ms(remote)),
        }
    }

    /// Takes a new reading: clocks are set, drift apart, and stand still while a machine sleeps.
    pub(crate) fn read(&self, remote: Millis) {
        self.ahead_ms.store(ahead_ms(remote), Ordering::Relaxed);
    }

    pub(crate) fn now(&self) -> Millis {
        self.here_to(real_wall())
    }

    /// Converts a time of this process to the remote clock.
    pub(crate) fn here_to(&self, at: Millis) -> Millis {
        let ahead_ms = self.ahead_ms.load(Ordering::Relaxed);
        Millis(at.0.saturating_add_signed(ahead_ms))
    }

    /// Converts a time of the remote clock to this process's.
    pub(crate) fn to_here(&self, at: Millis) -> Millis {
        let ahead_ms = self.ahead_ms.load(Ordering::Relaxed);
        Millis(at.0.saturating_add_signed(ahead_ms.saturating_neg()))
    }
}

#[cfg(feature = "redis")]
fn ahead_ms(remote: Millis) -> i64 {
    remote
        .0
        .cast_signed()
        .wrapping_sub(real_wall().0.cast_signed())
}

#[cfg(all(test, feature = "redis"))]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_remote_clock_goes_on_from_its_last_reading() {
        let hour = |n: u64| Millis(n * 3_600_000);
        let clock = RemoteClock::from_reading(hour(5));
        // The remote clock is not paused, so it has not moved.
        tokio::time::advance(Duration::from_secs(3_600)).await;
        for set in [hour(5), hour(9), hour(1)] {
            clock.read(set);
            let now = clock.now();
            assert!(
                set <= now && now < set.after(Duration::from_secs(60)),
                "{now:?}"
            );
        }
    }
}
