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

/// How long the key of a heartbeat lies in Redis. One that comes back later covers nothing.
const BEAT_TTL_MS: u64 = 1_000;

impl Tracker {
    /// Sends a heartbeat: a key is read, so that it is tracked, and then written, so that it is pushed. Returns it if
    /// the server has done so.
    ///
    /// To a node of a cluster it is one question more, which slots it has. What it pushes proves nothing for those that have
    /// left. Its push has been handled before its answer is: both come over one connection, in this order.
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
            // One that is no primary any more proves nothing.
            self.has_slots(own_slots(&nodes.ok()?)?);
        }
        if let Some(error) = answers.into_iter().find_map(Result::err) {
            // Where its slot has moved on it gets another key.
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

    /// Whether this heartbeat, which the server has answered, was not pushed: then it tracks nothing, whoever told it so.
    fn is_deaf(&self, answered: Option<Beat>) -> bool {
        answered.is_some_and(|beat| self.local().is_missing(self.session, beat))
    }

    /// Begins anew. What was read meanwhile is not tracked, and so it is forgotten.
    async fn restart(&self, link: &Link, budget: Duration) -> Result<(), Error> {
        match self.is_node() {
            // It stays in use, and without a heartbeat of it nothing is served.
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
        // Where it fails, the next round tries again.
        let _ = tracker.restart(&link, budget).await;
    }
}
