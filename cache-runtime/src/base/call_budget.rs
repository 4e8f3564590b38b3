//! What a call may spend on the store.

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::Either;

use crate::base::clock::{self, Instant};
use crate::base::error::Error;

/// One command budget for all that a call asks of the store, so that a miss, which takes several commands, is not
/// delayed several times as long as a hit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallBudget {
    budget: Duration,
    left: Duration,
    /// Since when a command is running that has not been counted.
    running: Option<Instant>,
}

impl CallBudget {
    pub(crate) fn new(budget: Duration) -> Self {
        Self {
            budget,
            left: budget,
            running: None,
        }
    }

    /// Waits for an answer for as long as is left. What is asked is sent in any case.
    pub(crate) fn spend<T, F>(
        &mut self,
        ask: F,
    ) -> impl Future<Output = Result<T, Error>> + use<'_, T, F>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.spend_running(ask).inspect(|_| self.stop())
    }

    /// The same for one who may be done with the answer: its time runs on until [`stop`](Self::stop), and who is done spares
    /// the second look at the clock, which is dear beside a hit.
    // No `async fn`: that would hold `ask` three times over, and a place for a timer that most calls don't need. Those who
    // wait for an answer are many at times.
    pub(crate) fn spend_running<T, F>(
        &mut self,
        ask: F,
    ) -> impl Future<Output = Result<T, Error>> + use<T, F>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.stop();
        self.running = Some(clock::now());
        if self.left == self.budget {
            // The store ends this by itself.
            return Either::Left(ask);
        }
        let budget = self.budget;
        let within = tokio::time::timeout(self.left, ask).map(move |answer| {
            answer.unwrap_or_else(|_| {
                let budget = budget.as_millis();
                let text = format!("the call has spent its budget of {budget} ms");
                Err(Error::unavailable(text))
            })
        });
        Either::Right(Box::pin(within))
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
        let mut call_budget = CallBudget::new(100 * MS);
        assert!(call_budget.spend(answer_after(60 * MS)).await.is_ok());
        assert!(call_budget.spend(answer_after(60 * MS)).await.is_err());
        assert!(call_budget.spend(answer_after(60 * MS)).await.is_err());
        assert!(call_budget.spend(async { Ok(()) }).await.is_ok());
        // Tokio's timers count in milliseconds.
        assert!(began.elapsed() <= 102 * MS, "{:?}", began.elapsed());

        call_budget.renew();
        assert!(call_budget.spend(answer_after(60 * MS)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_that_runs_on_is_counted_when_it_is_stopped() {
        let mut call_budget = CallBudget::new(100 * MS);
        let running = call_budget.spend_running(answer_after(60 * MS));
        assert!(running.await.is_ok());
        assert_eq!(call_budget.left(), 100 * MS);
        call_budget.stop();
        assert_eq!(call_budget.left(), 40 * MS);
        tokio::time::sleep(60 * MS).await;
        call_budget.stop();
        assert_eq!(call_budget.left(), 40 * MS);
        assert!(call_budget.spend(answer_after(60 * MS)).await.is_err());
    }
}
