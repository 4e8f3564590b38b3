//! What the server says of changes (`CLIENT TRACKING`), and that it still says so.
//!
//! Reads are tracked on the connection they go over, in the default mode: the server remembers which keys were read, and
//! pushes the name of one that changes. The client handles pushes in their order, by a call in the task that reads the
//! connection; answers are handed to the tasks that wait for them, and so are handled at any time after that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value};
use tokio::sync::watch;

use super::link::{Link, Links};
use crate::base::error::Error;
use crate::base::nonce::Nonce;
use crate::local::{Beat, Local, Session};

/// How long the key of a heartbeat lies in Redis. One that comes back later covers nothing.
const BEAT_TTL_MS: u64 = 1_000;

/// What each connection's tracker is made of.
#[derive(Clone)]
pub(super) struct Tracking {
    local: Arc<Local>,
    /// How the names of the heartbeats' keys begin, which nobody else uses; a number follows.
    beats: Arc<str>,
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
    tracking: Tracking,
    session: Session,
    /// Whether the server has agreed.
    is_on: AtomicBool,
}

impl Tracker {
    fn local(&self) -> &Local {
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

async fn track(connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
    let mut tracking = redis::cmd("CLIENT");
    tracking
        .arg("TRACKING")
        .arg("ON")
        .query_async(connection)
        .await
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
