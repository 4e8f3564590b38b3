//! The circuit breaker: when a store that does not answer is no longer asked, and when it is tried again.
//!
//! ```text
//! closed ──5 commands in a row unanswered, or the connection lost──▶ open ──pause──▶ half-open ──answered──▶ closed
//!                                                                     ▲                 │
//!                                                                     └──pause doubles──┘
//! ```
//!
//! While it is open because the server answers reads and refuses writes, it says `reads-only`, and the server is tried
//! every half second.
//!
//! The pattern is Michael Nygard's (*Release It!*, 2007). Here no caller is the probe: the connection is tried by the
//! cache's own task, and calls cost nothing until that has succeeded.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Instant;
use crate::store::Circuit;

/// So many commands in a row without an answer open the circuit.
pub(crate) const FAILURES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// The state of one store's circuit. It is changed by the task that keeps the connection and read by anyone.
#[derive(Debug)]
pub(crate) struct Breaker(Mutex<State>);

#[derive(Debug)]
struct State {
    circuit: Circuit,
    /// Since when it is closed, or was the last time.
    closed: Option<Instant>,
    pause: Duration,
    /// Whether the server answers, and refuses writes.
    reads_only: bool,
}

impl Default for Breaker {
    /// A store is tried before it is used.
    fn default() -> Self {
        Self(Mutex::new(State {
            circuit: Circuit::HalfOpen,
            closed: None,
            pause: FIRST_PAUSE,
            reads_only: false,
        }))
    }
}

impl Breaker {
    pub(crate) fn circuit(&self) -> Circuit {
        let state = self.0.lock();
        match state.circuit {
            Circuit::Open | Circuit::HalfOpen if state.reads_only => Circuit::ReadsOnly,
            circuit => circuit,
        }
    }

    /// Whether what is about to open the circuit is that the server refuses writes.
    pub(crate) fn set_reads_only(&self, reads_only: bool) {
        self.0.lock().reads_only = reads_only;
    }

    /// The store is about to be tried.
    pub(crate) fn probe(&self) {
        self.0.lock().circuit = Circuit::HalfOpen;
    }

    /// It answered.
    pub(crate) fn close(&self, now: Instant) {
        let mut state = self.0.lock();
        state.circuit = Circuit::Closed;
        state.reads_only = false;
        state.closed = Some(now);
    }

    /// It failed, tried or used; returns how long to wait before it is tried again.
    ///
    /// A store that had been working for a while is tried at once: most outages are a restart, which is over already.
    pub(crate) fn open(&self, now: Instant) -> Duration {
        let mut state = self.0.lock();
        let was = std::mem::replace(&mut state.circuit, Circuit::Open);
        let worked = state
            .closed
            .is_some_and(|since| now.saturating_duration_since(since) > FIRST_PAUSE);
        if was == Circuit::Closed && worked {
            state.pause = FIRST_PAUSE;
            return Duration::ZERO;
        }
        if state.reads_only {
            // It answers at once, so that to ask costs little; and who wrote meanwhile waits for it.
            return FIRST_PAUSE;
        }
        let pause = state.pause;
        state.pause = (pause * 2).min(LAST_PAUSE);
        pause
    }
}

/// Counts commands without an answer.
#[derive(Debug, Default)]
pub(crate) struct Failures(AtomicU32);

impl Failures {
    pub(crate) fn answered(&self) {
        // Read first: all who use a connection share this, and hardly ever is there anything to write.
        if self.0.load(Ordering::Relaxed) != 0 {
            self.0.store(0, Ordering::Relaxed);
        }
    }

    /// Whether that was one too many.
    pub(crate) fn unanswered(&self) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn what_had_worked_is_tried_at_once_and_then_less_and_less_often() {
        let breaker = Breaker::default();
        assert_eq!(breaker.circuit(), Circuit::HalfOpen);
        breaker.close(Instant::now());
        tokio::time::advance(SECOND).await;

        assert_eq!(breaker.open(Instant::now()), Duration::ZERO);
        assert_eq!(breaker.circuit(), Circuit::Open);
        let pauses: Vec<_> = (0..6)
            .map(|_| {
                breaker.probe();
                breaker.open(Instant::now()).as_millis()
            })
            .collect();
        assert_eq!(pauses, [500, 1000, 2000, 4000, 5000, 5000]);
        assert_eq!(breaker.circuit(), Circuit::Open);

        breaker.probe();
        assert_eq!(breaker.circuit(), Circuit::HalfOpen);
        breaker.close(Instant::now());
        assert_eq!(breaker.circuit(), Circuit::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_as_soon_as_it_works_is_not_tried_without_pause() {
        let breaker = Breaker::default();
        let mut pauses = Vec::new();
        for _ in 0..3 {
            breaker.close(Instant::now());
            tokio::time::advance(SECOND / 10).await;
            pauses.push(breaker.open(Instant::now()).as_millis());
        }
        assert_eq!(pauses, [500, 1000, 2000]);
    }

    #[test]
    fn five_in_a_row_are_too_many() {
        let failures = Failures::default();
        for _ in 0..2 {
            for _ in 1..FAILURES {
                assert!(!failures.unanswered());
            }
            failures.answered();
        }
        for _ in 1..FAILURES {
            assert!(!failures.unanswered());
        }
        assert!(failures.unanswered());
    }
}
