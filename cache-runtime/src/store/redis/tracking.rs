//! What the server says of changes (`CLIENT TRACKING`), and that it still says so.
//!
//! Reads are tracked on the connection they go over, in the default mode: the server remembers which keys were read, and
//! pushes the name of one that changes. The client handles pushes in their order, by a call in the task that reads the
//! connection; answers are handed to the tasks that wait for them, and so are handled at any time after that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value};

use crate::base::nonce::Nonce;
use crate::local::{Local, Session};

/// What each connection's tracker is made of.
#[derive(Clone)]
pub(super) struct Tracking {
    pub(super) local: Arc<Local>,
    /// How the names of the heartbeats' keys begin, which nobody else uses; a number follows.
    pub(super) beats: Arc<str>,
}

impl Tracking {
    pub(super) fn new(local: Arc<Local>, namespace: &str) -> Self {
        Self {
            local,
            beats: format!("{namespace}@beat:{}:", Nonce::fresh()).into(),
        }
    }

    pub(super) fn local(&self) -> &Arc<Local> {
        &self.local
    }

    /// For a connection that is about to be made.
    pub(super) fn tracker(&self) -> Tracker {
        Tracker {
            session: self.local.announce(),
            tracking: self.clone(),
            is_on: AtomicBool::new(false),
        }
    }
}

/// What the local tier learns over one connection.
pub(super) struct Tracker {
    pub(super) tracking: Tracking,
    pub(super) session: Session,
    /// Whether the server has agreed.
    is_on: AtomicBool,
}

impl Tracker {
    pub(super) fn local(&self) -> &Local {
        &self.tracking.local
    }

    /// Whether the server tracks what is read.
    pub(super) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Acquire)
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

    /// Reads go over the connection from now on.
    pub(super) fn open(&self) {
        if self.is_on() {
            self.local().open(self.session);
        }
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
        match beat.and_then(|beat| std::str::from_utf8(beat).ok()?.parse().ok()) {
            Some(beat) => self.local().returned(self.session, beat),
            None => self.local().pushed(key),
        }
    }
}

pub(super) async fn track(connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
    let mut tracking = redis::cmd("CLIENT");
    tracking
        .arg("TRACKING")
        .arg("ON")
        .query_async(connection)
        .await
}
