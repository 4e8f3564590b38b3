//! What the server says of changes (`CLIENT TRACKING`), and that it still says so.
//!
//! Reads are tracked on the connection they go over, in the default mode: the server remembers which keys were read, and
//! pushes the name of one that changes. The client handles pushes in their order, by a call in the task that reads the
//! connection; answers are handed to the tasks that wait for them, and so are handled at any time after that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value};
use tokio::sync::Notify;

use super::slots::untagged;
use crate::base::nonce::Nonce;
use crate::local::{Beat, Local, Session};

/// What each connection's tracker is made of.
#[derive(Clone)]
pub(super) struct Tracking {
    local: Arc<Local>,
    /// How the names of the heartbeats' keys begin, which nobody else uses; a number follows.
    beats: Arc<str>,
    /// Told when a connection has come into use.
    opened: Arc<Notify>,
    /// Whether it is of one primary of a cluster, among others.
    is_node: bool,
}

impl Tracking {
    pub(super) fn new(local: Arc<Local>, namespace: &str) -> Self {
        Self {
            local,
            beats: format!("{namespace}@beat:{}:", Nonce::fresh()).into(),
            opened: Arc::default(),
            is_node: false,
        }
    }

    /// That of one primary of a cluster.
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

    /// For a connection that is about to be made.
    pub(super) fn tracker(&self) -> Tracker {
        Tracker {
            session: self.local.announce(),
            tracking: self.clone(),
            is_on: AtomicBool::new(false),
            heard: AtomicU64::new(0),
            slots: Mutex::default(),
        }
    }
}

/// What the local tier learns over one connection.
pub(super) struct Tracker {
    tracking: Tracking,
    pub(super) session: Session,
    /// Whether the server has agreed.
    is_on: AtomicBool,
    /// Of a node of a cluster: the last heartbeat that was pushed.
    heard: AtomicU64,
    /// Of a node of a cluster: the slots that it had at the last heartbeat, with its epoch.
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

    /// The key of a heartbeat: in a slot of the node, where there are several.
    pub(super) fn key(&self, beat: Beat, tag: Option<&str>) -> String {
        let beats = &self.tracking.beats;
        match tag {
            Some(tag) => format!("{beats}{beat}{{{tag}}}"),
            None => format!("{beats}{beat}"),
        }
    }

    /// Whether this heartbeat was pushed.
    pub(super) fn has_heard(&self, beat: Beat) -> bool {
        self.heard.load(Ordering::Acquire) >= beat
    }

    /// Takes over which slots a node has. Where they are other ones than before, or its epoch is, everything is dropped: a
    /// slot has left, and whoever has it now reports its changes, or it has left and come back.
    pub(super) fn has_slots(&self, slots: String) {
        if crate::base::mutation::is_active("beat-ignores-slots") {
            return;
        }
        let mut known = self.slots.lock();
        if known.as_ref() != Some(&slots) {
            *known = Some(slots);
            self.local().forget_all();
        }
    }

    /// Asks the server to track what is read. Where it refuses, every read goes to it, as without a local tier.
    pub(super) async fn start(&self, connection: &mut MultiplexedConnection) {
        match track(connection).await {
            Ok(()) => self.is_on.store(true, Ordering::Release),
            Err(error) => self.local().warn(error),
        }
    }

    /// The server can't track what is read.
    pub(super) fn refuse(&self, why: &str) {
        self.local().warn(why);
    }

    /// Reads go over the connection from now on. One to a node counts also where it does not track: nothing is served then.
    pub(super) fn open(&self) {
        match self.is_node() {
            true => self.local().open_beside(self.session),
            false if self.is_on() => self.local().open(self.session),
            false => {}
        }
    }

    /// The connection is in use, and heartbeats can be sent over it.
    pub(super) fn is_ready(&self) {
        self.tracking.opened.notify_one();
    }

    /// The connection is not used any more.
    pub(super) fn lost(&self) {
        self.local().close(self.session);
    }

    /// A push: names of keys that have changed, or nothing for all of them.
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
        let beat = key.strip_prefix(self.tracking.beats.as_bytes());
        match beat.and_then(number) {
            Some(beat) if self.is_node() => self.heard.store(beat, Ordering::Release),
            Some(beat) => self.local().returned(self.session, beat),
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

/// The number that a heartbeat's key ends with, but for a hash tag.
fn number(beat: &[u8]) -> Option<Beat> {
    let beat = std::str::from_utf8(beat).ok()?;
    let (number, _) = beat.split_once('{').unwrap_or((beat, ""));
    number.parse().ok()
}

pub(super) async fn track(connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
    let mut tracking = redis::cmd("CLIENT");
    tracking
        .arg("TRACKING")
        .arg("ON")
        .query_async(connection)
        .await
}
