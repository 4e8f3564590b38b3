//! The server's clock, as far as it can be known.
//!
//! Memcached tells the time in whole seconds. Each answer bounds the difference between its clock
//! and this process's monotonic one to a second; an estimate that leaves the bounds is moved to the
//! nearest one. So all processes agree within about a second, whatever their own clocks say.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Instant;

use crate::base::clock::Millis;

/// The value of the difference until the first answer.
const UNKNOWN: i64 = i64::MIN;

#[derive(Debug)]
pub(super) struct ServerClock {
    start: Instant,
    /// The server's time at `start`, in milliseconds.
    offset: AtomicI64,
    /// The latest time that was returned. It never goes back while the server is the same.
    told: AtomicU64,
}

impl Default for ServerClock {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            offset: AtomicI64::new(UNKNOWN),
            told: AtomicU64::new(0),
        }
    }
}

impl ServerClock {
    /// Notes an answer: its command was sent at `sent`, it arrived at `came`, and named this
    /// second.
    pub(super) fn learn(&self, seconds: u64, sent: Instant, came: Instant) {
        let millis = i64::try_from(seconds.saturating_mul(1_000)).unwrap_or(i64::MAX / 2);
        let earliest = millis - self.since_start(came);
        let latest = millis + 1_000 - self.since_start(sent);
        let known = self.offset.load(Ordering::Relaxed);
        let offset = match known {
            UNKNOWN => earliest,
            known => known.clamp(earliest, latest.max(earliest)),
        };
        self.offset.store(offset, Ordering::Relaxed);
    }

    /// Another server is used from now on. Its clock may be behind, and then the time would stand
    /// still until the clock had caught up.
    pub(super) fn begins_anew(&self) {
        self.told.store(0, Ordering::Relaxed);
    }

    pub(super) fn now(&self) -> Millis {
        let offset = match self.offset.load(Ordering::Relaxed) {
            UNKNOWN => 0,
            offset => offset,
        };
        let now = offset + self.since_start(Instant::now());
        let now = u64::try_from(now).unwrap_or(0);
        Millis(self.told.fetch_max(now, Ordering::Relaxed).max(now))
    }

    fn since_start(&self, at: Instant) -> i64 {
        let millis = at.saturating_duration_since(self.start).as_millis();
        i64::try_from(millis).unwrap_or(i64::MAX / 4)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn answers_narrow_the_estimate_and_time_never_goes_back() {
        let clock = ServerClock::default();
        let at = |millis| clock.start + Duration::from_millis(millis);
        clock.learn(1_700_000_000, at(0), at(0));
        let first = clock.now();
        assert!(first >= Millis(1_700_000_000_000));
        // The next second is told after 300 ms, so the first answer was 700 ms into its second.
        clock.learn(1_700_000_001, at(300), at(300));
        assert_eq!(clock.offset.load(Ordering::Relaxed), 1_700_000_000_700);
        // An answer within the bounds changes nothing.
        clock.learn(1_700_000_001, at(1_200), at(1_200));
        assert_eq!(clock.offset.load(Ordering::Relaxed), 1_700_000_000_700);
        let later = clock.now();
        clock.learn(1_600_000_000, at(1_300), at(1_300));
        assert!(later > first && clock.now() >= later);
        // Another server, ten years behind.
        clock.begins_anew();
        assert!(clock.now() < Millis(1_600_000_002_000));
    }
}
