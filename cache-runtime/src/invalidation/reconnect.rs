//! How long the callers that wait for an acknowledgement wait for a new connection.

use std::time::Duration;

use tokio::sync::watch;

use crate::base::clock::Instant;
use crate::base::error::{Error, ErrorKind};
use crate::protocol::circuit::Circuit;
use crate::store::{ConnectionStatus, ConnectionWatch, Store};

/// The longest wait. It is less than a call may spend on the store, and much longer than connecting
/// takes.
pub(super) const RECONNECT_WAIT: Duration = Duration::from_millis(80);

/// The wait after a failed attempt to connect. A server that refuses connections won't be back in a
/// moment.
pub(super) const WAIT_WHEN_REFUSED: Duration = Duration::from_millis(10);

/// A lost connection is usually replaced within milliseconds, unless the server is away. Only time
/// tells the two cases apart. Each outage costs that wait once: later callers don't wait, until an
/// invalidation has been delivered.
#[derive(Debug, Default)]
pub(super) struct ReconnectWait {
    /// When the first caller began to wait.
    since: Option<Instant>,
    is_over: bool,
}

impl ReconnectWait {
    /// Returns until when to wait, or `None` if the caller gets `Pending` now. There is no wait for
    /// a store that does not report the state of its connection.
    pub(super) fn until(
        &mut self,
        now: Instant,
        status: Option<ConnectionStatus>,
    ) -> Option<Instant> {
        let status = status?;
        if self.is_over || crate::base::mutation::is_active("pending-at-once-after-a-blip") {
            return None;
        }
        let longest = *self.since.get_or_insert(now) + RECONNECT_WAIT;
        let refused = status.failed.map(|failed| failed + WAIT_WHEN_REFUSED);
        let until = refused.map_or(longest, |refused| refused.min(longest));
        self.is_over = until <= now;
        (!self.is_over).then_some(until)
    }

    /// A caller got `Pending`: nobody waits until the next delivery.
    pub(super) fn give_up(&mut self) {
        self.is_over = true;
    }

    /// The store has answered: the next lost connection is waited for again.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

pub(super) fn is_away(error: &Error) -> bool {
    error.kind() == ErrorKind::Unavailable
}

/// Returns how many connections there have been.
pub(super) fn number_of(connection: Option<&ConnectionWatch>) -> u64 {
    connection.map_or(0, |connection| connection.status().number)
}

/// Returns true if the connection with this number is lost.
pub(super) fn is_lost(
    store: &dyn Store,
    connection: Option<&ConnectionWatch>,
    number: u64,
) -> bool {
    connection.is_some_and(|connection| {
        connection.status().number != number || store.circuit() != Circuit::Closed
    })
}

/// Returns once the state of the connection has changed since the last call.
pub(super) async fn changed(connection: &mut Option<watch::Receiver<ConnectionStatus>>) {
    if let Some(connection) = connection
        && connection.changed().await.is_ok()
    {
        return;
    }
    // This store does not report its connection. The worker's timer retries instead.
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock;

    const MS: Duration = Duration::from_millis(1);

    fn status(failed: Option<Instant>) -> Option<ConnectionStatus> {
        Some(ConnectionStatus { number: 1, failed })
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_connection_is_waited_for_once_in_an_outage() {
        let mut wait = ReconnectWait::default();
        let lost = clock::now();
        assert_eq!(wait.until(lost, status(None)), Some(lost + RECONNECT_WAIT));
        let last = lost + RECONNECT_WAIT - MS;
        assert_eq!(wait.until(last, status(None)), Some(lost + RECONNECT_WAIT));
        assert_eq!(wait.until(lost + RECONNECT_WAIT, status(None)), None);
        assert_eq!(wait.until(lost + RECONNECT_WAIT, status(None)), None);
        wait.reset();
        let again = lost + 2 * RECONNECT_WAIT;
        assert_eq!(
            wait.until(again, status(None)),
            Some(again + RECONNECT_WAIT)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_refuses_connections_is_hardly_waited_for() {
        let mut wait = ReconnectWait::default();
        let lost = clock::now();
        assert_eq!(wait.until(lost, status(None)), Some(lost + RECONNECT_WAIT));
        let refused = lost + 3 * MS;
        let until = refused + WAIT_WHEN_REFUSED;
        assert_eq!(wait.until(refused, status(Some(refused))), Some(until));
        assert_eq!(wait.until(until, status(Some(refused))), None);
        assert_eq!(wait.until(until, status(None)), None, "for good");

        let mut late = ReconnectWait::default();
        assert_eq!(late.until(until, status(Some(refused))), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_without_connection_watch_is_not_waited_for() {
        assert_eq!(ReconnectWait::default().until(clock::now(), None), None);
    }
}
