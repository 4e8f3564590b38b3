//! Asks the store again after a lost connection, for as long as the reconnect wait says.

use super::handle::Delivery;
use super::reconnect::{ACK_TIMEOUT, changed, is_away, is_lost, number_of};
use crate::base::clock;
use crate::base::error::Error;

/// One question to the store, asked by somebody who waits for the answer himself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt {
    /// How many connections there had been.
    number: u64,
}

impl Delivery {
    /// To be called before the store is asked.
    pub(crate) fn attempt(&self) -> Attempt {
        Attempt {
            number: number_of(self.connection.as_ref()),
        }
    }

    /// Says whether to ask again: the connection was lost over which the store was asked, and there is another. Waits for
    /// that one as long as an invalidation would.
    ///
    /// # Cancel safety
    /// It can be dropped at any time.
    pub(crate) async fn reconnected(&self, attempt: Attempt, error: &Error) -> bool {
        let Some(connection) = &self.connection else {
            return false;
        };
        let number = attempt.number;
        if !is_away(error) || !is_lost(&*self.store, Some(connection), number) {
            return false;
        }
        let mut changes = Some(connection.subscribe());
        let _held = self.shared.hold(ACK_TIMEOUT);
        loop {
            let status = connection.status();
            let now = clock::now();
            let until = self
                .shared
                .change(|queue| queue.wait_until(now, Some(status)));
            let Some(until) = until else {
                return false;
            };
            if status.number != number {
                return true;
            }
            tokio::select! {
                () = changed(&mut changes) => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    /// Asks the store, and again from the beginning if the connection is lost meanwhile.
    ///
    /// # Errors
    /// What the store said the last time.
    pub(crate) async fn persist<T, F>(&self, mut ask: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        loop {
            let attempt = self.attempt();
            match ask().await {
                Err(error) if self.reconnected(attempt, &error).await => {}
                answer => return answer,
            }
        }
    }
}
