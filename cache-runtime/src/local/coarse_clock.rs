//! The clocks that decide how long a local entry may be served, in nanoseconds.

use std::time::Duration;

use crate::base::clock;

/// A point in time on a clock of this process. Other processes can't compare it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct CoarseInstant(pub(crate) u64);

impl CoarseInstant {
    pub(crate) fn after(self, time: Duration) -> Self {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }

    #[inline]
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    #[inline]
    pub(crate) fn now() -> Self {
        Self(clock::coarse_nanos())
    }
}

/// The current time on two clocks. The freshness bound has passed when either clock says so.
///
/// The first clock stands still while the machine sleeps, and the second can be set back.
/// `CLOCK_BOOTTIME` does neither, but it has no coarse form: it takes 21 ns, these take 3 ns each.
/// The difference is a fifth of a hit.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ClockReading {
    pub(crate) monotonic: CoarseInstant,
    pub(crate) wall: CoarseInstant,
}

impl ClockReading {
    #[inline]
    pub(crate) fn now() -> Self {
        Self {
            monotonic: CoarseInstant::now(),
            wall: CoarseInstant(clock::coarse_wall_nanos()),
        }
    }

    /// Becomes the current time. The second clock is read only if the first one has moved: the
    /// kernel writes both at each tick, and when it wakes up or its time is set. So what is read
    /// here is late by a tick at most, as the freshness bound allows, and 3 ns are saved.
    #[inline]
    pub(crate) fn go_on(&mut self) {
        self.go_on_to(CoarseInstant::now(), || {
            CoarseInstant(clock::coarse_wall_nanos())
        });
    }

    #[inline(always)]
    fn go_on_to(&mut self, monotonic: CoarseInstant, wall: impl FnOnce() -> CoarseInstant) {
        if monotonic != self.monotonic {
            self.wall = wall();
        }
        self.monotonic = monotonic;
    }
}

/// For a mutation: the time that a task has noted last, which stands still while the process is
/// paused.
#[cfg(cache_mutations)]
pub(super) fn told_by_a_task(now: ClockReading) -> ClockReading {
    static NOTED: parking_lot::Mutex<Option<ClockReading>> = parking_lot::Mutex::new(None);
    if !crate::base::mutation::is_active("time-from-a-task") {
        return now;
    }
    let noted = *NOTED.lock();
    noted.unwrap_or_else(|| {
        *NOTED.lock() = Some(now);
        tokio::spawn(async {
            loop {
                crate::base::time::sleep(clock::TICK).await;
                *NOTED.lock() = Some(ClockReading::now());
            }
        });
        now
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_clock_is_read_whenever_the_first_has_moved() {
        let mut now = ClockReading::default();
        for (monotonic, wall, read) in [
            (1, 10, 10),
            (1, 11, 10),
            (2, 12, 12),
            (2, 99, 12),
            (3, 9, 9),
        ] {
            now.go_on_to(CoarseInstant(monotonic), || CoarseInstant(wall));
            assert_eq!(
                (now.monotonic, now.wall),
                (CoarseInstant(monotonic), CoarseInstant(read))
            );
        }
    }

    #[test]
    fn time_goes_on_as_if_it_was_read_anew() {
        let mut now = ClockReading::default();
        for _ in 0..3 {
            let before = ClockReading::now();
            now.go_on();
            let after = ClockReading::now();
            assert!(before.monotonic <= now.monotonic && now.monotonic <= after.monotonic);
            // An hour, in case somebody sets the clock meanwhile.
            assert!(
                now.wall.since(after.wall) + after.wall.since(now.wall) < Duration::from_hours(1)
            );
        }
    }
}
