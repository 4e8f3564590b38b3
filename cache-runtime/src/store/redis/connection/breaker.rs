//! The circuit breaker: decides when a store that does not answer is no longer asked, and when it
//! is tried again.
//!
//! ```text
//! closed ──5 commands in a row unanswered, or the connection lost──▶ open ──pause──▶ half-open ──answered──▶ closed
//!                                                                     ▲                 │
//!                                                                     └──pause doubles──┘
//! ```
//!
//! While the server answers reads and refuses writes, the state is `reads-only` instead of `open`,
//! and the server is tried every half second. It is tried as often while the user has not all
//! permissions that are needed.
//!
//! If a connection is lost that had lasted for a while, a new one is made at once. While
//! invalidations wait the pauses are short, since other processes may serve stale data until they
//! are delivered.
//!
//! The pattern is Michael Nygard's (*Release It!*, 2007). Here no caller's command tests the store:
//! the supervisor does that, and calls don't wait until it has succeeded.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::base::clock::Instant;
use crate::store::Circuit;

/// This many commands in a row without an answer open the circuit.
pub(crate) const FAILURES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// The shorter pauses while invalidations wait.
const FIRST_SHORT_PAUSE: Duration = Duration::from_millis(5);
const LAST_SHORT_PAUSE: Duration = Duration::from_millis(100);
/// A connection that is lost sooner than this is not replaced at once. Otherwise connections that
/// fail right away would be made without end.
const SHORT_LIVED: Duration = Duration::from_millis(50);

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It was closed, by the server or on the network.
    Lost,
    /// The runtime that drove it has ended. The cache's own runtime drives the next one.
    Abandoned,
    /// The host name now leads to other servers.
    Moved,
    /// It was closed by us: the server does not answer, or not correctly.
    GivenUp,
    /// The server answers, and refuses writes.
    RefusesWrites,
    /// It could not be made: the server answers, and the user may not run a command that is needed.
    NotPermitted,
    /// It could not be made.
    Failed,
}

/// The pause before the store is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pause {
    pub(crate) usual: Duration,
    /// The longest pause while invalidations wait.
    pub(crate) wanted: Duration,
}

/// The state of one store's circuit. The supervisor changes it; anyone may read it.
#[derive(Debug)]
pub(crate) struct Breaker {
    state: Mutex<State>,
    /// How often it has opened. It may close again before its state is read.
    openings: AtomicU64,
}

#[derive(Debug)]
struct State {
    circuit: Circuit,
    /// When it was closed the last time.
    closed: Option<Instant>,
    pause: Duration,
    /// Whether the server answers, and refuses writes.
    reads_only: bool,
    short_pause: Duration,
}

impl Default for Breaker {
    /// A store is tested before it is used.
    fn default() -> Self {
        let state = State {
            circuit: Circuit::HalfOpen,
            closed: None,
            pause: FIRST_PAUSE,
            reads_only: false,
            short_pause: FIRST_SHORT_PAUSE,
        };
        Self {
            state: Mutex::new(state),
            openings: AtomicU64::new(0),
        }
    }
}

impl Breaker {
    pub(crate) fn circuit(&self) -> Circuit {
        let state = self.state.lock();
        match state.circuit {
            Circuit::Open | Circuit::HalfOpen if state.reads_only => Circuit::ReadsOnly,
            circuit => circuit,
        }
    }

    pub(crate) fn openings(&self) -> u64 {
        self.openings.load(Ordering::Relaxed)
    }

    /// The store is about to be tried.
    pub(crate) fn probe(&self) {
        self.state.lock().circuit = Circuit::HalfOpen;
    }

    /// It answered.
    pub(crate) fn close(&self, now: Instant) {
        let mut state = self.state.lock();
        state.circuit = Circuit::Closed;
        state.reads_only = false;
        state.closed = Some(now);
    }

    /// The store failed, while it was tested or used. Returns the pause before the next test.
    ///
    /// A store that had worked for a while is tested at once: most outages are a restart, which is
    /// over already, or the loss of this one connection.
    pub(crate) fn open(&self, now: Instant, end: End) -> Pause {
        let mut state = self.state.lock();
        let was = std::mem::replace(&mut state.circuit, Circuit::Open);
        if was == Circuit::Closed && !matches!(end, End::Abandoned | End::Moved) {
            self.openings.fetch_add(1, Ordering::Relaxed);
        }
        let worked = match was {
            Circuit::Closed => state
                .closed
                .map(|since| now.saturating_duration_since(since)),
            _ => None,
        };
        let worked_for = |time: Duration| worked.is_some_and(|worked| worked > time);
        if worked_for(FIRST_PAUSE) {
            state.pause = FIRST_PAUSE;
        }
        if worked_for(SHORT_LIVED) {
            state.short_pause = FIRST_SHORT_PAUSE;
        }
        let is_tried_at_once = match end {
            End::Lost
                if crate::base::mutation::is_active("reconnect-pause-grows-while-pending") =>
            {
                worked_for(FIRST_PAUSE)
            }
            End::Lost => worked_for(SHORT_LIVED),
            End::Abandoned | End::Moved => true,
            End::GivenUp => worked_for(FIRST_PAUSE),
            End::RefusesWrites | End::NotPermitted | End::Failed => false,
        };
        state.reads_only = end == End::RefusesWrites;
        let is_refused = end == End::NotPermitted
            && !crate::base::mutation::is_active("missing-permissions-are-outages");
        if state.reads_only || is_refused {
            // The server answers at once, so a test costs little.
            return Pause {
                usual: FIRST_PAUSE,
                wanted: LAST_SHORT_PAUSE,
            };
        }
        if is_tried_at_once {
            return Pause {
                usual: Duration::ZERO,
                wanted: Duration::ZERO,
            };
        }
        let (usual, short) = (state.pause, state.short_pause);
        state.pause = (usual * 2).min(LAST_PAUSE);
        state.short_pause = (short * 2).min(LAST_SHORT_PAUSE);
        Pause {
            usual,
            wanted: match end {
                // Each test would cost the reads that start then their whole budget.
                End::GivenUp => LAST_SHORT_PAUSE,
                End::Lost
                | End::Abandoned
                | End::Moved
                | End::RefusesWrites
                | End::NotPermitted
                | End::Failed => short,
            },
        }
    }
}

/// Counts commands in a row without an answer.
#[derive(Debug, Default)]
pub(crate) struct Failures(AtomicU32);

impl Failures {
    pub(crate) fn answered(&self) {
        // Read first: all users of a connection share this memory, and it rarely has to be written.
        if self.0.load(Ordering::Relaxed) != 0 {
            self.0.store(0, Ordering::Relaxed);
        }
    }

    /// Counts one; returns whether that opens the circuit.
    pub(crate) fn unanswered(&self) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock;

    const SECOND: Duration = Duration::from_secs(1);

    fn pause(usual: u64, wanted: u64) -> Pause {
        let [usual, wanted] = [usual, wanted].map(Duration::from_millis);
        Pause { usual, wanted }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_connection_is_retried_at_once_then_ever_less_often() {
        for end in [End::Lost, End::GivenUp] {
            let breaker = Breaker::default();
            assert_eq!(breaker.circuit(), Circuit::HalfOpen);
            breaker.close(Instant::now());
            tokio::time::advance(SECOND).await;

            assert_eq!(breaker.openings(), 0);
            assert_eq!(breaker.open(Instant::now(), end), pause(0, 0));
            assert_eq!(breaker.circuit(), Circuit::Open);
            let pauses: Vec<_> = (0..7)
                .map(|_| {
                    breaker.probe();
                    breaker.open(Instant::now(), End::Failed)
                })
                .collect();
            let expected = [
                (500, 5),
                (1000, 10),
                (2000, 20),
                (4000, 40),
                (5000, 80),
                (5000, 100),
                (5000, 100),
            ];
            assert_eq!(pauses, expected.map(|(usual, wanted)| pause(usual, wanted)));
            assert_eq!(breaker.circuit(), Circuit::Open);

            breaker.probe();
            assert_eq!(breaker.circuit(), Circuit::HalfOpen);
            breaker.close(Instant::now());
            assert_eq!(breaker.circuit(), Circuit::Closed);
            assert_eq!(
                breaker.openings(),
                1,
                "attempts that fail open nothing more"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_fails_at_once_is_not_retried_without_pause() {
        let lost = [pause(500, 5), pause(1000, 10), pause(2000, 20)];
        let given_up = [pause(500, 100), pause(1000, 100), pause(2000, 100)];
        for (end, lasts, expected) in [
            (End::Lost, SECOND / 50, lost),
            (End::GivenUp, SECOND / 10, given_up),
        ] {
            let breaker = Breaker::default();
            let mut pauses = Vec::new();
            for _ in 0..3 {
                breaker.close(Instant::now());
                tokio::time::advance(lasts).await;
                pauses.push(breaker.open(Instant::now(), end));
            }
            assert_eq!(pauses, expected, "{end:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_reset_repeatedly_is_tried_at_once_each_time() {
        let breaker = Breaker::default();
        for _ in 0..10 {
            breaker.close(Instant::now());
            tokio::time::advance(SECOND / 3).await;
            assert_eq!(breaker.open(Instant::now(), End::Lost), pause(0, 0));
        }
    }

    #[test]
    fn a_server_that_answers_and_refuses_is_tried_every_half_second() {
        for (end, circuit) in [
            (End::RefusesWrites, Circuit::ReadsOnly),
            (End::NotPermitted, Circuit::Open),
        ] {
            let breaker = Breaker::default();
            for _ in 0..9 {
                assert_eq!(breaker.open(clock::now(), end), pause(500, 100));
                assert_eq!(breaker.circuit(), circuit);
            }
        }
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
