//! The durations of a call's steps, and the counters of its outcome.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::base::clock::{self, Instant};
use crate::base::mutation;
use crate::call::observe::Status;
use crate::telemetry::function::FunctionCounters;
use crate::telemetry::micros;

/// The durations of a call's steps, in microseconds; 0 for steps that did not take place.
#[derive(Debug)]
pub(super) struct Timing {
    pub(super) began: Instant,
    /// When the store was last asked, counted from the start of the call.
    pub(super) asked: AtomicU32,
    pub(super) lookup: AtomicU32,
    pub(super) load: AtomicU32,
    pub(super) fill: AtomicU32,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            began: clock::now(),
            asked: AtomicU32::new(0),
            lookup: AtomicU32::new(0),
            load: AtomicU32::new(0),
            fill: AtomicU32::new(0),
        }
    }
}

/// In place of a time: the store is asked as soon as the call has begun.
const AT_ONCE: u32 = u32::MAX;

impl Timing {
    /// The first lookup follows at once, so it begins with the call, which spares two readings of
    /// the clock. Not for a call that waits before its lookup, as an id of a batch does.
    pub(super) fn asks_at_once(&self) {
        self.asked.store(AT_ONCE, Ordering::Relaxed);
    }

    /// When the lookup that is next begins.
    pub(super) fn begins_lookup(&self) -> Instant {
        match self.asked.load(Ordering::Relaxed) {
            AT_ONCE => self.began,
            _ => clock::now(),
        }
    }
}

/// One lookup in this many is timed. Reading the clock twice takes as long as half a lookup.
const DRAWN: u8 = 64;

thread_local! {
    static LOOKUPS: Cell<u8> = const { Cell::new(0) };
}

/// Whether this lookup in the process is to be timed.
#[inline]
pub(super) fn is_drawn() -> bool {
    let lookups = LOOKUPS.get();
    LOOKUPS.set(lookups.wrapping_add(1));
    lookups.is_multiple_of(DRAWN)
}

/// The same for a lookup among the entries that the thread was last served, the `n`th. They are
/// counted apart: a call that looks there and then in the table would always draw the same of the
/// two.
#[inline]
pub(super) fn is_drawn_in_thread_cache(n: u8) -> bool {
    n.is_multiple_of(DRAWN) && !mutation::is_active("thread-cache-not-timed")
}

pub(super) fn note(step: &AtomicU32, took: Duration) {
    let micros = u32::try_from(micros(took)).unwrap_or(u32::MAX);
    step.store(micros.max(1), Ordering::Relaxed);
}

pub(super) fn noted(step: &AtomicU32) -> Option<u32> {
    Some(step.load(Ordering::Relaxed)).filter(|micros| *micros > 0)
}

/// Counts the outcome, except a hit, which is counted when it is served.
pub(super) fn count(function: &FunctionCounters, status: Status) {
    match status {
        Status::Hit { .. } => {}
        Status::Stale { reason, .. } => {
            if let Some(counter) = function.stale.get(reason as usize) {
                counter.add_one();
            }
        }
        Status::Miss { joined: true, .. } => function.joined.add_one(),
        Status::Miss { stored: true, .. } => function.stored.add_one(),
        Status::Miss { stored: false, .. } => function.not_stored.add_one(),
        Status::Bypass(reason) => {
            if let Some(counter) = function.bypasses.get(reason as usize) {
                counter.add_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn only_a_lookup_that_follows_at_once_begins_with_the_call() {
        let timing = Timing::default();
        crate::base::time::sleep(SECOND).await;
        assert_eq!(timing.begins_lookup() - timing.began, SECOND, "of a batch");
        timing.asks_at_once();
        assert_eq!(timing.begins_lookup(), timing.began);
        note(&timing.asked, Duration::ZERO);
        assert_eq!(timing.begins_lookup() - timing.began, SECOND, "the second");
    }
}
