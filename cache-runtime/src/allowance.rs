//! What a call may spend on the store.

use std::time::Duration;

use crate::clock;
use crate::error::Error;

/// One command budget for all that a call asks of the store, so that a miss, which takes several commands, is not
/// delayed several times as long as a hit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance {
    budget: Duration,
    left: Duration,
}

impl Allowance {
    pub(crate) fn new(budget: Duration) -> Self {
        Self {
            budget,
            left: budget,
        }
    }

    /// Waits for an answer for as long as is left. What is asked is sent in any case.
    pub(crate) async fn spend<T>(
        &mut self,
        ask: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let began = clock::now();
        let answer = if self.left == self.budget {
            // The store ends this by itself.
            ask.await
        } else {
            match tokio::time::timeout(self.left, ask).await {
                Ok(answer) => answer,
                Err(_) => Err(Error::unavailable(format!(
                    "the call has spent its budget of {} ms",
                    self.budget.as_millis()
                ))),
            }
        };
        self.left = self.left.saturating_sub(began.elapsed());
        answer
    }

    pub(crate) fn left(&self) -> Duration {
        self.left
    }

    /// Begins anew, for one who waits for somebody else: that has a limit of its own.
    pub(crate) fn renew(&mut self) {
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
}
