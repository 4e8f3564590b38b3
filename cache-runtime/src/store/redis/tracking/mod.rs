//! Receives the server's reports of key changes (`CLIENT TRACKING`).
//!
//! Reads are tracked on the connection that they use, in the default mode: the server remembers
//! which keys were read, and pushes the name of a key that changes. The client handles push
//! messages in order, by a call in the task that reads the connection. Answers are passed to the
//! tasks that wait for them, and may be handled at any time after that.

pub(crate) mod heartbeat;
pub(crate) mod key_watchers;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value};
use tokio::sync::Notify;

use super::slots::untagged;
use crate::base::nonce::Nonce;
use crate::local::{ConnectionId, HeartbeatId, Local};

/// The parts that the trackers of all connections share.
#[derive(Clone)]
pub(super) struct Tracking {
    local: Arc<Local>,
    /// The prefix of the heartbeats' keys, which nobody else uses; a number follows.
    heartbeats: Arc<str>,
    /// Notified when a connection has come into use.
    opened: Arc<Notify>,
    /// Whether it belongs to one primary of a cluster.
    is_node: bool,
}

impl Tracking {
    pub(super) fn new(local: Arc<Local>, namespace: &str) -> Self {
        Self {
            local,
            heartbeats: format!("{namespace}@beat:{}:", Nonce::fresh()).into(),
            opened: Arc::default(),
            is_node: false,
        }
    }

    /// The same for one primary of a cluster.
    pub(super) fn of_node(&self) -> Self {
        Self {
            opened: Arc::default(),
            is_node: true,
            ..self.clone()
        }
    }

    pub(super) fn local(&self) -> &Arc<Local> {
        &self.local
    }

    /// Returns once a connection has come into use since the last call.
    pub(super) async fn opened(&self) {
        self.opened.notified().await;
    }

    /// The tracker of a connection that is about to be made.
    pub(super) fn tracker(&self) -> Tracker {
        Tracker {
            connection_id: self.local.announce(),
            tracking: self.clone(),
            is_on: AtomicBool::new(false),
            last_pushed: AtomicU64::new(0),
            slots: Mutex::default(),
        }
    }
}

/// Passes key changes from one connection to the local tier.
pub(super) struct Tracker {
    tracking: Tracking,
    pub(super) connection_id: ConnectionId,
    /// Whether the server has agreed to track.
    is_on: AtomicBool,
    /// The last heartbeat that was pushed; only for a node of a cluster.
    last_pushed: AtomicU64,
    /// The slots and the epoch at the last heartbeat; only for a node of a cluster.
    slots: Mutex<Option<String>>,
}

impl Tracker {
    pub(super) fn local(&self) -> &Local {
        &self.tracking.local
    }

    /// Whether the server tracks what is read.
    pub(super) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Acquire)
    }

    pub(super) fn is_node(&self) -> bool {
        self.tracking.is_node
    }

    /// The key of a heartbeat; on a node of a cluster it is in one of the node's slots.
    pub(super) fn key(&self, heartbeat: HeartbeatId, tag: Option<&str>) -> String {
        let heartbeats = &self.tracking.heartbeats;
        match tag {
            Some(tag) => format!("{heartbeats}{heartbeat}{{{tag}}}"),
            None => format!("{heartbeats}{heartbeat}"),
        }
    }

    /// Whether this heartbeat was pushed.
    pub(super) fn was_pushed(&self, heartbeat: HeartbeatId) -> bool {
        self.last_pushed.load(Ordering::Acquire) >= heartbeat
    }

    /// Stores the slots of a node. If they or its epoch have changed, all local entries are
    /// dropped: a slot has left, and its new owner reports its changes, or it has left and come
    /// back.
    pub(super) fn has_slots(&self, slots: String) {
        if crate::base::mutation::is_active("heartbeat-ignores-slots") {
            return;
        }
        let mut known = self.slots.lock();
        if known.as_ref() != Some(&slots) {
            *known = Some(slots);
            self.local().forget_all();
        }
    }

    /// Asks the server to track reads. If it refuses, every read is sent to it, as without a local
    /// tier.
    pub(super) async fn start(
        &self,
        multiplexed: &mut MultiplexedConnection,
    ) -> Result<(), RedisError> {
        let started = track(multiplexed).await;
        match &started {
            Ok(()) => self.is_on.store(true, Ordering::Release),
            Err(error) => self.local().warn(error),
        }
        started
    }

    /// Reports that the server can't track reads.
    pub(super) fn refuse(&self, why: &str) {
        self.local().warn(why);
    }

    /// Reads use the connection from now on. For a node this also counts if it does not track: then
    /// no local entry is served.
    pub(super) fn open(&self) {
        match self.is_node() {
            true => self.local().open_beside(self.connection_id),
            false if self.is_on() => self.local().open(self.connection_id),
            false => {}
        }
    }

    /// The connection is in use, and heartbeats can be sent over it.
    pub(super) fn is_ready(&self) {
        self.tracking.opened.notify_one();
    }

    /// The connection is no longer used.
    pub(super) fn lost(&self) {
        self.local().close(self.connection_id);
    }

    /// Handles a push message: the names of changed keys, or none for all keys.
    pub(super) fn pushed(&self, data: &[Value]) {
        match data {
            [Value::Array(keys)] => {
                for key in keys {
                    if let Value::BulkString(key) = key {
                        self.changed(key);
                    }
                }
            }
            _ if crate::base::mutation::is_active("flush-not-heard") => {}
            _ => self.local().pushed_all(),
        }
    }

    fn changed(&self, key: &[u8]) {
        let heartbeat = key.strip_prefix(self.tracking.heartbeats.as_bytes());
        match heartbeat.and_then(number) {
            Some(heartbeat) if self.is_node() => {
                self.last_pushed.store(heartbeat, Ordering::Release)
            }
            Some(heartbeat) => self.local().returned(self.connection_id, heartbeat),
            None => {
                self.local().pushed(key);
                if self.is_node()
                    && let Some(plain) = untagged(key)
                {
                    self.local().forget([plain.as_str()]);
                }
            }
        }
    }
}

/// The number at the end of a heartbeat's key, before a hash tag.
fn number(heartbeat: &[u8]) -> Option<HeartbeatId> {
    let heartbeat = std::str::from_utf8(heartbeat).ok()?;
    let (number, _) = heartbeat.split_once('{').unwrap_or((heartbeat, ""));
    number.parse().ok()
}

pub(super) async fn track(multiplexed: &mut MultiplexedConnection) -> Result<(), RedisError> {
    let mut tracking = redis::cmd("CLIENT");
    tracking
        .arg("TRACKING")
        .arg("ON")
        .query_async(multiplexed)
        .await
}
