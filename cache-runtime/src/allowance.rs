//! What a call may spend on the store.

use std::time::Duration;

use crate::clock::{self, Instant};
use crate::error::Error;

/// One command budget for all that a call asks of the store, so that a miss, which takes several commands, is not
/// delayed several times as long as a hit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance {
    budget: Duration,
    left: Duration,
    /// Since when a command is running that has not been counted.
    running: Option<Instant>,
}

impl Allowance {
    pub(crate) fn new(budget: Duration) -> Self {
        Self {
            budget,
            left: budget,
            running: None,
        }
    }

    /// Waits for an answer for as long as is left. What is asked is sent in any case.
    pub(crate) async fn spend<T>(
        &mut self,
        ask: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let answer = self.spend_running(ask).await;
        self.stop();
        answer
    }

    /// The same for one who may be done with the answer: its time runs on until [`stop`](Self::stop), and who is done spares
    /// the second look at the clock, which is dear beside a hit.
    pub(crate) async fn spend_running<T>(
        &mut self,
        ask: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        self.stop();
        self.running = Some(clock::now());
        if self.left == self.budget {
            // The store ends this by itself.
            ask.await
        } else {
            // On the heap: a hit is over before it, and is not to carry it about.
            match Box::pin(tokio::time::timeout(self.left, ask)).await {
                Ok(answer) => answer,
                Err(_) => Err(Error::unavailable(format!(
                    "the call has spent its budget of {} ms",
                    self.budget.as_millis()
                ))),
            }
        }
    }

    /// Counts what the running command has taken.
    pub(crate) fn stop(&mut self) {
        if let Some(began) = self.running.take() {
            self.left = self.left.saturating_sub(began.elapsed());
        }
    }

    pub(crate) fn left(&self) -> Duration {
        self.left
    }

    /// Begins anew, for one who waits for somebody else: that has a limit of its own.
    pub(crate) fn renew(&mut self) {
        self.running = None;
        self.left = self.budget;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    async fn answer_after(time: Duration) -> Result<(), Error> {
        tokio::time::sleep(time).await;
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn several_commands_share_one_budget() {
        let began = clock::now();
        let mut allowance = Allowance::new(100 * MS);
        assert!(allowance.spend(answer_after(60 * MS)).await.is_ok());
        assert!(allowance.spend(answer_after(60 * MS)).await.is_err());
        assert!(allowance.spend(answer_after(60 * MS)).await.is_err());
        assert!(allowance.spend(async { Ok(()) }).await.is_ok());
        // Tokio's timers count in milliseconds.
        assert!(began.elapsed() <= 102 * MS, "{:?}", began.elapsed());

        allowance.renew();
        assert!(allowance.spend(answer_after(60 * MS)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_that_runs_on_is_counted_when_it_is_stopped() {
        let mut allowance = Allowance::new(100 * MS);
        let running = allowance.spend_running(answer_after(60 * MS));
        assert!(running.await.is_ok());
        assert_eq!(allowance.left(), 100 * MS);
        allowance.stop();
        assert_eq!(allowance.left(), 40 * MS);
        tokio::time::sleep(60 * MS).await;
        allowance.stop();
        assert_eq!(allowance.left(), 40 * MS);
        assert!(allowance.spend(answer_after(60 * MS)).await.is_err());
    }
}
