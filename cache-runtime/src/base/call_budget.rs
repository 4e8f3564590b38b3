//! The time that one call may spend on the store.

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::Either;

use crate::base::clock::{self, Instant};
use crate::base::error::Error;

/// One command budget for all commands of a call. A miss takes several commands, and is delayed no
/// longer than a hit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallBudget {
    budget: Duration,
    left: Duration,
    /// When the running command began, if its time has not been counted yet.
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

    /// Waits for an answer for as long as the budget lasts. The request is sent in any case.
    pub(crate) fn spend<T, F>(
        &mut self,
        ask: F,
    ) -> impl Future<Output = Result<T, Error>> + use<'_, T, F>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.spend_running(clock::now(), ask)
            .inspect(|_| self.stop())
    }

    /// Like [`spend`](Self::spend), but for a command that began then, and the time runs on until
    /// [`stop`](Self::stop). A caller that needs no more commands skips two clock readings, which
    /// are expensive compared with a hit.
    // Not an `async fn`: its future would hold `ask` three times, and a timer that most calls don't
    // need. Many calls may wait at the same time, so the size matters.
    pub(crate) fn spend_running<T, F>(
        &mut self,
        began: Instant,
        ask: F,
    ) -> impl Future<Output = Result<T, Error>> + use<T, F>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.stop();
        self.running = Some(began);
        if self.left == self.budget {
            // The store has this same limit and ends the command itself.
            return Either::Left(ask);
        }
        let budget = self.budget;
        let within = crate::base::time::timeout(self.left, ask).map(move |answer| {
            answer.unwrap_or_else(|_| {
                let budget = budget.as_millis();
                let text = format!("the command budget of the call is spent: {budget} ms");
                Err(Error::unavailable(text))
            })
        });
        Either::Right(Box::pin(within))
    }

    /// Subtracts the time that the running command has taken.
    pub(crate) fn stop(&mut self) {
        if let Some(began) = self.running.take() {
            self.left = self.left.saturating_sub(began.elapsed());
        }
    }

    pub(crate) fn left(&self) -> Duration {
        self.left
    }

    /// Restores the full budget, for a caller that waits for another one: that wait has its own
    /// limit.
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
        crate::base::time::sleep(time).await;
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
        let running = call_budget.spend_running(clock::now(), answer_after(60 * MS));
        assert!(running.await.is_ok());
        assert_eq!(call_budget.left(), 100 * MS);
        call_budget.stop();
        assert_eq!(call_budget.left(), 40 * MS);
        crate::base::time::sleep(60 * MS).await;
        call_budget.stop();
        assert_eq!(call_budget.left(), 40 * MS);
        assert!(call_budget.spend(answer_after(60 * MS)).await.is_err());
    }
}
