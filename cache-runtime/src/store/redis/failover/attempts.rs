//! The attempts to repeat recent invalidations at a new primary.

use crate::base::clock::Instant;
use crate::base::error::{Error, ErrorKind};
use crate::base::mutation;
use crate::base::retry::Retry;

/// When the next attempt is made, and whether operators know why.
#[derive(Default)]
pub(crate) struct Attempts {
    retry: Option<Retry>,
    is_told: bool,
}

impl Attempts {
    /// When to try again; `None` after a success.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.retry.map(|retry| retry.at)
    }

    /// An attempt that began then has failed. A server that is away may be back at any time, and
    /// asking for it costs nothing. One that refuses goes on refusing until somebody permits it, so
    /// the pauses grow, and the reason is logged once. The attempts go on: once it is permitted,
    /// what is out of date there has to end.
    pub(crate) fn failed(&mut self, began: Instant, error: &Error) {
        let is_away = error.kind() == ErrorKind::Unavailable;
        let known = self
            .retry
            .filter(|_| !is_away && !mutation::is_active("refused-repetitions-without-pause"));
        self.retry = Some(Retry::after(known, began, is_away));
        if is_away || std::mem::replace(&mut self.is_told, true) {
            return;
        }
        tracing::warn!(
            %error,
            "the new primary refuses invalidations that the former one had acknowledged, so entries \
             there may be out of date; they are tried again until it takes them"
        );
    }

    /// Everything has arrived.
    pub(crate) fn succeeded(&mut self) {
        if std::mem::take(self).is_told {
            tracing::info!("the new primary has taken the invalidations that it had refused");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::clock;

    /// The pauses in milliseconds.
    async fn pauses(error: &Error) -> Vec<u128> {
        let mut attempts = Attempts::default();
        let mut pauses = Vec::new();
        for _ in 0..6 {
            let began = clock::now();
            attempts.failed(began, error);
            let next = attempts.next().expect("it goes on");
            pauses.push(next.saturating_duration_since(began).as_millis());
            clock::sleep_until(Some(next)).await;
        }
        pauses
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_is_tried_ever_less_often() {
        let refused = Error::new(ErrorKind::Store, "NOPERM no permissions");
        assert_eq!(pauses(&refused).await, [100, 200, 400, 800, 1000, 1000]);
        let away = Error::unavailable("away");
        assert_eq!(pauses(&away).await, [100; 6]);
    }

    /// A retry takes as long as it takes to send many keys one by one.
    #[tokio::test(start_paused = true)]
    async fn long_retries_take_a_small_part_of_the_time() {
        let mut attempts = Attempts::default();
        let began = clock::now();
        tokio::time::advance(Duration::from_secs(2)).await;
        attempts.failed(
            began,
            &Error::new(ErrorKind::Store, "NOPERM no permissions"),
        );
        let pause = attempts.next().map(|next| next - clock::now());
        assert_eq!(pause, Some(Duration::from_secs(20)));
    }
}
