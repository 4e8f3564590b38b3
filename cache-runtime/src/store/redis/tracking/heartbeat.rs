//! Heartbeats: proof that the server still reports what changes.

use std::sync::Arc;
use std::time::Duration;

use redis::{RedisError, Value};
use tokio::sync::watch;

use super::super::connection::Connection;
use super::super::connection::connections::Connections;
use super::super::connection::health::is_elsewhere;
use super::super::slots::{own_slots, tag};
use super::{Tracker, Tracking, track};
use crate::base::error::Error;
use crate::base::unserved::Unserved;
use crate::local::HeartbeatId;

/// The TTL of a heartbeat's key in Redis. A heartbeat that returns later proves nothing.
const HEARTBEAT_TTL_MS: u64 = 1_000;

impl Tracker {
    /// Sends a heartbeat: reads a key, so that it is tracked, and then writes it, so that a push
    /// message is sent. Returns the heartbeat if the server has done so.
    ///
    /// A node of a cluster is also asked for its slots, since its push messages prove nothing for
    /// slots that have left it. The push message is handled before the answer: both arrive over one
    /// connection, in this order.
    async fn send_heartbeat(
        &self,
        connection: &Connection,
        budget: Duration,
    ) -> Option<HeartbeatId> {
        let heartbeat = self.local().start_heartbeat(self.connection_id)?;
        let mut commands = redis::pipe();
        commands.ignore_errors();
        let own = connection.health.key();
        let is_pushed = !self.is_node() || own.is_some();
        if is_pushed {
            let own = own.filter(|_| self.is_node());
            let key = self.key(heartbeat, own.as_deref().and_then(|own| tag(own)));
            commands.get(&key);
            let set = commands.cmd("SET").arg(&key).arg("1");
            set.arg("PX").arg(HEARTBEAT_TTL_MS);
        }
        if self.is_node() {
            commands.cmd("CLUSTER").arg("NODES");
        }
        let answers: Result<Vec<Result<Value, RedisError>>, _> = connection
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
                let error = connection.failed(error);
                // A full server is logged as such.
                let is_told = Unserved::of(&error) == Some(Unserved::Full);
                if error.kind() == crate::ErrorKind::Store && !is_told {
                    self.local().warn(error);
                }
            }
            return None;
        }
        let is_returned = match self.is_node() {
            true => !is_pushed || self.was_pushed(heartbeat),
            false => crate::base::mutation::is_active("heartbeat-by-answer"),
        };
        if is_returned {
            self.local().returned(self.connection_id, heartbeat);
        }
        Some(heartbeat)
    }

    /// Whether a heartbeat that the server has answered was not pushed. Then the server does not
    /// track the connection.
    fn has_lost_tracking(&self, answered: Option<HeartbeatId>) -> bool {
        answered.is_some_and(|heartbeat| self.local().is_missing(self.connection_id, heartbeat))
    }

    /// Turns tracking on again. Reads made meanwhile were not tracked, so all local entries are
    /// dropped.
    async fn restart(&self, connection: &Connection, budget: Duration) -> Result<(), Error> {
        match self.is_node() {
            // The connection stays in use. Without a heartbeat of it no local entry is served.
            true => connection.state.opens(),
            false => self.lost(),
        }
        let tracked = connection.ask(budget, async |it| track(it).await).await;
        if tracked.is_ok() {
            connection.state.opens();
        }
        tracked
    }
}

/// Sends heartbeats as long as there is a tracked connection.
pub(crate) async fn send_heartbeats(
    connections: Arc<Connections>,
    tracking: Tracking,
    budget: Duration,
    mut closing: watch::Receiver<bool>,
) {
    let local = tracking.local();
    // The last answered heartbeat, and how many in a row were not pushed.
    let (mut answered, mut unheard) = (None, 0u32);
    loop {
        tokio::select! {
            () = crate::base::time::sleep(local.heartbeat()) => {}
            // The first heartbeat covers reads that start from now on.
            () = tracking.opened() => answered = None,
            _ = closing.wait_for(|closing| *closing) => return,
        }
        let Ok(connection) = connections.current() else {
            answered = None;
            continue;
        };
        if !connection.is_confirmed() {
            // A former primary still answers, and reports nothing of what changes at the new one.
            answered = None;
            continue;
        }
        let Some(tracker) = connection.tracker().filter(|it| it.is_on()) else {
            continue;
        };
        if tracker.has_lost_tracking(answered) {
            unheard += 1;
            if unheard > 1 {
                local.warn("its heartbeats do not come back");
            }
        } else if local.is_open(tracker.connection_id) {
            unheard = if answered.is_some() { 0 } else { unheard };
            answered = tracker.send_heartbeat(&connection, budget).await;
            continue;
        }
        answered = None;
        // If it fails, the next round tries again.
        let _ = tracker.restart(&connection, budget).await;
    }
}
