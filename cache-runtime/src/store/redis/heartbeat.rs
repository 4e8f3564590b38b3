//! Heartbeats: proof that the server still reports what changes.

use std::sync::Arc;
use std::time::Duration;

use redis::{RedisError, Value};
use tokio::sync::watch;

use super::health::is_elsewhere;
use super::link::Link;
use super::slots::{own_slots, tag};
use super::supervisor::Links;
use super::tracking::{Tracker, Tracking, track};
use crate::base::error::Error;
use crate::local::Beat;

/// The TTL of a heartbeat's key in Redis. A heartbeat that returns later proves nothing.
const BEAT_TTL_MS: u64 = 1_000;

impl Tracker {
    /// Sends a heartbeat: reads a key, so that it is tracked, and then writes it, so that a push
    /// message is sent. Returns the heartbeat if the server has done so.
    ///
    /// A node of a cluster is also asked for its slots, since its push messages prove nothing for
    /// slots that have left it. The push message is handled before the answer: both arrive over one
    /// connection, in this order.
    async fn beat(&self, link: &Link, budget: Duration) -> Option<Beat> {
        let beat = self.local().beat(self.session)?;
        let mut commands = redis::pipe();
        commands.ignore_errors();
        let own = link.health.key();
        let is_pushed = !self.is_node() || own.is_some();
        if is_pushed {
            let own = own.filter(|_| self.is_node());
            let key = self.key(beat, own.as_deref().and_then(|own| tag(own)));
            commands.get(&key);
            let set = commands.cmd("SET").arg(&key).arg("1");
            set.arg("PX").arg(BEAT_TTL_MS);
        }
        if self.is_node() {
            commands.cmd("CLUSTER").arg("NODES");
        }
        let answers: Result<Vec<Result<Value, RedisError>>, _> = link
            .ask(budget, async |it| commands.query_async(it).await)
            .await;
        let mut answers = answers.ok()?;
        if self.is_node() {
            let nodes = redis::from_redis_value::<String>(answers.pop()?.ok()?);
            // A node that is no longer a primary proves nothing.
            self.has_slots(own_slots(&nodes.ok()?)?);
        }
        if let Some(error) = answers.into_iter().find_map(Result::err) {
            // If its slot has moved to another node, the next heartbeat uses another key.
            if !is_elsewhere(&error) {
                let error = link.failed(error);
                if error.kind() == crate::ErrorKind::Store {
                    self.local().warn(error);
                }
            }
            return None;
        }
        let is_returned = match self.is_node() {
            true => !is_pushed || self.has_heard(beat),
            false => crate::base::mutation::is_active("heartbeat-by-answer"),
        };
        if is_returned {
            self.local().returned(self.session, beat);
        }
        Some(beat)
    }

    /// Whether a heartbeat that the server has answered was not pushed. Then the server does not
    /// track the connection.
    fn is_deaf(&self, answered: Option<Beat>) -> bool {
        answered.is_some_and(|beat| self.local().is_missing(self.session, beat))
    }

    /// Turns tracking on again. Reads made meanwhile were not tracked, so all local entries are
    /// dropped.
    async fn restart(&self, link: &Link, budget: Duration) -> Result<(), Error> {
        match self.is_node() {
            // The connection stays in use. Without a heartbeat of it no local entry is served.
            true => link.state.opens(),
            false => self.lost(),
        }
        let tracked = link.ask(budget, async |it| track(it).await).await;
        if tracked.is_ok() {
            link.state.opens();
        }
        tracked
    }
}

/// Sends heartbeats as long as there is a tracked connection.
pub(super) async fn keep_beating(
    links: Arc<Links>,
    tracking: Tracking,
    budget: Duration,
    mut closing: watch::Receiver<bool>,
) {
    let local = tracking.local();
    // The last answered heartbeat, and how many in a row were not pushed.
    let (mut answered, mut unheard) = (None, 0u32);
    loop {
        tokio::select! {
            () = tokio::time::sleep(local.heartbeat()) => {}
            // The first heartbeat covers reads that start from now on.
            () = tracking.opened() => answered = None,
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
        // If it fails, the next round tries again.
        let _ = tracker.restart(&link, budget).await;
    }
}
