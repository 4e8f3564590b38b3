//! Heartbeats: proof that the server still reports what changes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::link::Link;
use super::supervisor::Links;
use super::tracking::{Tracker, Tracking, track};
use crate::base::error::Error;
use crate::local::Beat;

/// How long the key of a heartbeat lies in Redis. One that comes back later covers nothing.
const BEAT_TTL_MS: u64 = 1_000;

impl Tracker {
    /// Sends a heartbeat: a key is read, so that it is tracked, and then written, so that it is pushed. Returns it if
    /// the server has done so.
    async fn beat(&self, link: &Link, budget: Duration) -> Option<Beat> {
        let beat = self.local().beat(self.session)?;
        let key = format!("{}{beat}", self.tracking.beats);
        let mut both = redis::pipe();
        both.get(&key).ignore();
        both.cmd("SET")
            .arg(&key)
            .arg("1")
            .arg("PX")
            .arg(BEAT_TTL_MS)
            .ignore();
        match link
            .ask(budget, async |it| both.query_async(it).await)
            .await
        {
            Ok(()) => {
                if crate::base::mutation::is_active("heartbeat-by-answer") {
                    self.local().returned(self.session, beat);
                }
                Some(beat)
            }
            Err(error) => {
                if error.kind() == crate::ErrorKind::Store {
                    self.local().warn(error);
                }
                None
            }
        }
    }

    /// Whether this heartbeat, which the server has answered, was not pushed: then it tracks nothing, whoever told it so.
    fn is_deaf(&self, answered: Option<Beat>) -> bool {
        answered.is_some_and(|beat| self.local().is_missing(self.session, beat))
    }

    /// Begins anew. What was read meanwhile is not tracked, and so it is forgotten.
    async fn restart(&self, link: &Link, budget: Duration) -> Result<(), Error> {
        self.lost();
        let tracked = link.ask(budget, async |it| track(it).await).await;
        if tracked.is_ok() {
            self.open();
        }
        tracked
    }
}

/// Sends heartbeats for as long as there is a connection that tracks.
pub(super) async fn keep_beating(
    links: Arc<Links>,
    tracking: Tracking,
    budget: Duration,
    mut closing: watch::Receiver<bool>,
) {
    let local = tracking.local();
    // The last heartbeat that was answered, and how many in a row were not pushed.
    let (mut answered, mut unheard) = (None, 0u32);
    loop {
        tokio::select! {
            () = tokio::time::sleep(local.heartbeat()) => {}
            // The first one covers what is read from now on.
            () = local.opened() => answered = None,
            _ = closing.wait_for(|closing| *closing) => return,
        }
        let Ok(link) = links.current() else {
            answered = None;
            continue;
        };
        let Some(tracker) = link.tracker().filter(|it| it.is_on()) else {
            continue;
        };
        if tracker.is_deaf(answered) {
            unheard += 1;
            if unheard > 1 {
                local.warn("its heartbeats do not come back");
            }
        } else if local.is_open(tracker.session) {
            unheard = if answered.is_some() { 0 } else { unheard };
            answered = tracker.beat(&link, budget).await;
            continue;
        }
        answered = None;
        // Where it fails, the next round tries again.
        let _ = tracker.restart(&link, budget).await;
    }
}
