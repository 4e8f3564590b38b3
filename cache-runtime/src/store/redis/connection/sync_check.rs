//! Whether the answers on a connection belong to their commands.
//!
//! An answer may hold an entry that was stored under another key. Either somebody has copied or
//! renamed the entry in Redis, or the connection returns the answers of other commands. To tell
//! which, `ECHO` with a random text is sent over the same connection (`echo.rs`). Answers come in
//! the order of their commands. So if the text comes back in its turn, the answers before it
//! belonged to their commands too, and the entry is a dead one. Another answer, or none in time,
//! closes the connection.
//!
//! Until then all answers are held back. One `ECHO` is in flight at a time, and it answers for all
//! entries that were found before it was sent. So thousands of renamed entries cost some round
//! trips, and no connection.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;

use crate::base::error::Error;

/// The checks of one connection.
#[derive(Debug, Default)]
pub(crate) struct SyncCheck {
    /// How many entries of other keys were found.
    found: AtomicU64,
    /// How many of them were found before the last check that succeeded was sent.
    proven: AtomicU64,
    is_over: AtomicBool,
    /// Wakes the task that checks.
    wanted: Notify,
    /// Wakes those who wait for the result.
    done: Notify,
}

impl SyncCheck {
    /// Asks for a check; returns the number to wait for.
    pub(crate) fn doubt(&self) -> u64 {
        let found = self.found.fetch_add(1, Ordering::AcqRel) + 1;
        self.wanted.notify_one();
        found
    }

    /// The number that is to be proven now, if an answer may belong to another command.
    #[inline]
    fn doubted(&self) -> Option<u64> {
        let found = self.found.load(Ordering::Acquire);
        (found > self.proven.load(Ordering::Acquire)).then_some(found)
    }

    /// Returns once a check is needed.
    pub(crate) async fn wanted(&self) -> u64 {
        loop {
            if let Some(found) = self.doubted() {
                return found;
            }
            self.wanted.notified().await;
        }
    }

    pub(crate) fn succeeded(&self, found: u64) {
        self.proven.fetch_max(found, Ordering::AcqRel);
        self.done.notify_waiters();
    }

    /// The connection was closed.
    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::Release);
        self.done.notify_waiters();
    }

    /// Waits for the result of a check. `false` if the connection was closed before.
    async fn result(&self, found: u64) -> bool {
        loop {
            // Created first, so that a notification after the checks is not lost.
            let done = self.done.notified();
            if self.proven.load(Ordering::Acquire) >= found {
                return true;
            }
            if self.is_over.load(Ordering::Acquire) {
                return false;
            }
            done.await;
        }
    }

    /// Returns at once, unless it is doubtful whether answers belong to their commands. Then it
    /// waits until that is known.
    ///
    /// # Errors
    /// If the connection was closed because of it.
    #[inline]
    pub(crate) async fn in_sync(&self) -> Result<(), Error> {
        match self.doubted() {
            None => Ok(()),
            Some(_) if crate::base::mutation::is_active("doubtful-answers-served") => Ok(()),
            // Boxed, so that the future of a command does not hold memory for it.
            Some(found) => Box::pin(self.proven(found)).await,
        }
    }

    /// Waits for a check that was sent after this many entries were found.
    ///
    /// # Errors
    /// If the connection was closed before.
    pub(crate) async fn proven(&self, found: u64) -> Result<(), Error> {
        match self.result(found).await {
            true => Ok(()),
            false => Err(Error::unavailable(
                "Redis answered with an entry of another key",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_check_counts_for_what_was_found_before_it_was_sent() {
        let check = SyncCheck::default();
        assert_eq!(check.doubted(), None);
        let first = check.doubt();
        let sent = check.doubted().expect("doubted");
        let later = check.doubt();
        let (mut of_first, mut of_later) = (pin!(check.result(first)), pin!(check.result(later)));
        assert!(poll(of_first.as_mut()).is_pending() && poll(of_later.as_mut()).is_pending());
        check.succeeded(sent);
        assert_eq!(poll(of_first.as_mut()), Poll::Ready(true));
        assert!(poll(of_later.as_mut()).is_pending());
        assert_eq!(poll(pin!(check.wanted())), Poll::Ready(later));
        check.end();
        assert_eq!(poll(of_later.as_mut()), Poll::Ready(false));
        assert_eq!(poll(pin!(check.result(first))), Poll::Ready(true));
    }
}
