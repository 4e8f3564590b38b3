//! The state of a store's connection, for callers that wait for the next one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::base::clock::{self, Instant};

/// The state of a store's connection, which the store reports, and whether a caller waits for it,
/// which the store is told.
///
/// A store of your own creates one of these, returns clones of it from
/// [`Store::connection`](super::Store::connection), and calls [`established`](Self::established)
/// and [`failed`](Self::failed). Writes then wait a short while for a new connection, instead of
/// returning [`Pending`](crate::Acknowledgement::Pending) at once.
#[derive(Debug, Clone, Default)]
pub struct ConnectionWatch(Arc<WatchState>);

#[derive(Debug, Default)]
struct WatchState {
    status: watch::Sender<ConnectionStatus>,
    /// Whether invalidations wait for a connection. The store pauses for a shorter time then.
    is_wanted: watch::Sender<bool>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ConnectionStatus {
    /// The number of connections so far.
    pub(crate) number: u64,
    /// Since when there has certainly been no connection: an attempt to connect has failed, or the
    /// server did not answer on the last connection.
    pub(crate) failed: Option<Instant>,
}

impl ConnectionWatch {
    /// Reports a new connection that can be used.
    pub fn established(&self) {
        self.0.status.send_modify(|status| {
            status.number += 1;
            status.failed = None;
        });
    }

    /// Reports that there is no connection, and that none could be made. A lost connection is not a
    /// failure yet: the next one may be there in a millisecond.
    pub fn failed(&self) {
        let now = clock::now();
        self.0.status.send_if_modified(|status| {
            let is_news = status.failed.is_none();
            status.failed.get_or_insert(now);
            is_news
        });
    }

    /// Waits before the next attempt: for `usual`, or for at most `wanted` while invalidations
    /// wait.
    ///
    /// # Cancel safety
    /// It can be dropped at any time.
    pub async fn pause(&self, usual: Duration, wanted: Duration) {
        let began = clock::now();
        let mut wanted_now = self.0.is_wanted.subscribe();
        loop {
            let is_wanted = *wanted_now.borrow_and_update()
                && !crate::base::mutation::is_active("reconnect-pause-grows-while-pending");
            let pause = match is_wanted {
                true => usual.min(wanted),
                false => usual,
            };
            tokio::select! {
                () = crate::base::time::sleep_until(began + pause) => return,
                // The sender is in `self`.
                _ = wanted_now.changed() => {}
            }
        }
    }

    /// Sets whether invalidations wait.
    pub(crate) fn want(&self, is_wanted: bool) {
        self.0
            .is_wanted
            .send_if_modified(|wanted| std::mem::replace(wanted, is_wanted) != is_wanted);
    }

    pub(crate) fn status(&self) -> ConnectionStatus {
        *self.0.status.borrow()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<ConnectionStatus> {
        self.0.status.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_cut_short_once_something_waits() {
        let watch = ConnectionWatch::default();
        let began = clock::now();
        watch.pause(SECOND, SECOND / 10).await;
        assert_eq!(began.elapsed(), SECOND);

        let began = clock::now();
        let waits = async {
            crate::base::time::sleep(SECOND / 2).await;
            watch.want(true);
        };
        tokio::join!(watch.pause(SECOND, SECOND / 10), waits);
        assert_eq!(began.elapsed(), SECOND / 2, "what was to be waited is over");

        watch.want(false);
        let began = clock::now();
        let waits = async {
            crate::base::time::sleep(SECOND / 2).await;
            watch.want(true);
        };
        // A cluster has a connection to each node.
        let pause = || watch.pause(SECOND, SECOND / 10);
        tokio::join!(pause(), pause(), waits);
        assert_eq!(began.elapsed(), SECOND / 2, "all who wait hear of it");

        let began = clock::now();
        watch.pause(SECOND, SECOND / 10).await;
        assert_eq!(began.elapsed(), SECOND / 10);
        watch.want(false);
        watch.pause(SECOND, SECOND / 10).await;
        assert_eq!(began.elapsed(), SECOND / 10 + SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_failure_counts() {
        let watch = ConnectionWatch::default();
        let mut changes = watch.subscribe();
        let first = clock::now();
        watch.failed();
        tokio::time::advance(SECOND).await;
        watch.failed();
        assert_eq!(watch.status().failed, Some(first));
        changes.changed().await.expect("it is there");
        assert!(!changes.has_changed().expect("it is there"));
        watch.established();
        let status = watch.status();
        assert_eq!((status.number, status.failed), (1, None));
    }
}
