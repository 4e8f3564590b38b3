//! Repeats a request after a lost connection, for as long as the reconnect wait allows.

use super::handle::InvalidationQueue;
use super::reconnect::{RECONNECT_WAIT, changed, is_away, is_lost, number_of};
use crate::base::clock;
use crate::base::error::Error;

/// One request to the store, whose caller waits for the answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt {
    /// How many connections there had been when it was sent.
    number: u64,
}

impl InvalidationQueue {
    /// Must be called before the request is sent.
    pub(crate) fn attempt(&self) -> Attempt {
        Attempt {
            number: number_of(self.connection.as_ref()),
        }
    }

    /// Returns true if the request should be repeated: its connection was lost, and there is a new
    /// one. Waits for the new connection as long as an invalidation would.
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
        let _held = self.shared.hold(RECONNECT_WAIT);
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
                () = crate::base::time::sleep_until(until) => {}
            }
        }
    }

    /// Sends a request to the store, and repeats it from the start if the connection is lost
    /// meanwhile.
    ///
    /// # Errors
    /// The error of the last attempt.
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
