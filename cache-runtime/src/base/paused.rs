//! Keeps Tokio's paused time still while real work goes on.
//!
//! With time paused (`#[tokio::test(start_paused = true)]`), Tokio moves the clock to the next
//! timer as soon as no task of the runtime is ready. It does not know that another thread is about
//! to deliver an answer, so the command's budget would be over at once. Tokio does not move the
//! clock while a blocking task of the runtime runs, so this module holds one.

use std::sync::mpsc;
use std::time::{Duration, Instant};

/// While this lives, paused time does not move on by itself.
#[derive(Debug)]
pub(crate) struct PauseGuard(
    #[expect(dead_code, reason = "its end is what counts")] Option<mpsc::Sender<()>>,
);

impl PauseGuard {
    /// Holds the time until this is dropped, but no longer than `limit`. Where time is not paused,
    /// it costs two clock readings.
    pub(crate) fn for_at_most(limit: Duration) -> Self {
        Self::from(Instant::now(), tokio::time::Instant::now(), limit)
    }

    /// The same from two readings of the clocks that were just taken, the system's first.
    pub(crate) fn from(system: Instant, tokio: tokio::time::Instant, limit: Duration) -> Self {
        if !is_paused(system, tokio.into_std())
            || crate::base::mutation::is_active("paused-time-moves-on")
        {
            return Self(None);
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return Self(None);
        };
        let (sender, ended) = mpsc::channel::<()>();
        // The task's result is not needed.
        drop(runtime.spawn_blocking(move || ended.recv_timeout(limit)));
        Self(Some(sender))
    }
}

/// Whether Tokio's time differs from the system's. Tokio has no way to ask. Where time is not
/// paused, both clocks agree to the nanosecond.
fn is_paused(before: Instant, tokio: Instant) -> bool {
    tokio < before || (tokio.duration_since(before) > BETWEEN && Instant::now() < tokio)
}

/// Readings in a row are not further apart, unless the thread is interrupted. Then a third one
/// tells whether Tokio's clock is ahead.
const BETWEEN: Duration = Duration::from_micros(1);

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[tokio::test(start_paused = true)]
    async fn time_stands_still_while_it_is_held() {
        assert!(is_paused(
            Instant::now(),
            tokio::time::Instant::now().into_std()
        ));
        let began = tokio::time::Instant::now();
        let (answer, answered) = tokio::sync::oneshot::channel();
        let (go, gone) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            let _ = gone.recv_timeout(Duration::from_millis(50));
            let _ = answer.send(());
        });
        let held = PauseGuard::for_at_most(HOUR);
        let answered = tokio::time::timeout(HOUR, answered).await;
        assert!(answered.is_ok_and(|answer| answer.is_ok()));
        assert_eq!(began.elapsed(), Duration::ZERO);
        drop((held, go));
        tokio::time::sleep(HOUR).await;
        assert_eq!(began.elapsed(), HOUR, "and moves on again");
    }

    #[tokio::test(start_paused = true)]
    async fn time_moves_on_when_the_limit_is_over() {
        let _held = PauseGuard::for_at_most(Duration::from_millis(10));
        tokio::time::sleep(HOUR).await;
    }

    #[tokio::test]
    async fn time_that_is_not_paused_is_the_systems() {
        for _ in 0..1_000 {
            let before = Instant::now();
            assert!(!is_paused(before, tokio::time::Instant::now().into_std()));
        }
    }
}
