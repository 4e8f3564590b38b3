//! The reads that operators have switched off for all processes: a key with one name per line.
//!
//! It is read when a connection is made, and with each health check. So every process learns of a
//! change within a second, at no extra cost.
//!
//! Once reads have been switched off, the key stays, even if everything is on again: then it is
//! empty. So a missing key was lost in a flush, a restart or a failover, and a process that
//! remembers the list writes it back. Reads stay off until an operator switches them on.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use redis::aio::MultiplexedConnection;
use tokio::sync::watch;

/// A longer list is not read, since each process reads it each second, and not written.
const LONGEST: usize = 1 << 16;

/// The same, as an argument of the script that writes the list.
pub(super) fn longest() -> Vec<u8> {
    match crate::base::mutation::is_active("long-list-of-switches-written") {
        true => usize::MAX,
        false => LONGEST,
    }
    .to_string()
    .into_bytes()
}

/// The list as it was last read.
#[derive(Debug)]
pub(super) struct SwitchList {
    key: String,
    off: watch::Sender<BTreeSet<String>>,
    /// Whether the log says already that the list is too long.
    is_long: AtomicBool,
}

impl SwitchList {
    pub(super) fn new(namespace: &str) -> Self {
        Self {
            key: format!("{namespace}@off"),
            off: watch::Sender::new(BTreeSet::new()),
            is_long: AtomicBool::new(false),
        }
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<BTreeSet<String>> {
        self.off.subscribe()
    }

    /// The list as it was last read.
    pub(super) fn known(&self) -> String {
        let names: Vec<String> = self.off.borrow().iter().cloned().collect();
        names.join("\n")
    }

    pub(super) async fn read(&self, multiplexed: &mut MultiplexedConnection) {
        // One byte more than the longest list. The value may be another program's, and so large
        // that its transfer would hold up all other commands.
        let mut read = redis::cmd("GETRANGE");
        read.arg(&self.key).arg(0).arg(LONGEST);
        if crate::base::mutation::is_active("switches-read-at-any-length") {
            read = redis::cmd("GET");
            read.arg(&self.key);
        }
        // A value of another type is an error, and leaves the switches unchanged.
        match read.query_async::<Vec<u8>>(multiplexed).await {
            Ok(list) if !list.is_empty() => self.learn(&String::from_utf8_lossy(&list)),
            Ok(_) => self.read_empty(multiplexed).await,
            Err(_) => {}
        }
    }

    /// There is no list, or an empty one, which is told apart only if it matters.
    async fn read_empty(&self, multiplexed: &mut MultiplexedConnection) {
        if self.off.borrow().is_empty() {
            return self.learn("");
        }
        let mut get = redis::cmd("GET");
        let read = get
            .arg(&self.key)
            .query_async::<Option<String>>(multiplexed);
        match read.await {
            Ok(Some(list)) => self.learn(&list),
            Ok(None) => self.write_back(multiplexed).await,
            Err(_) => {}
        }
    }

    /// The key is missing. Writes the list back, unless it is empty or another process was faster.
    async fn write_back(&self, multiplexed: &mut MultiplexedConnection) {
        let names = self.known();
        if names.is_empty() || crate::base::mutation::is_active("switches-lost-with-their-key") {
            return self.learn("");
        }
        let mut set = redis::cmd("SET");
        set.arg(&self.key).arg(names).arg("NX");
        // If Redis refuses it, the reads stay off in this process, and the next check tries again.
        let _ = set.query_async::<Option<String>>(multiplexed).await;
    }

    /// Takes over a list.
    pub(super) fn learn(&self, list: &str) {
        let is_long = list.len() > LONGEST;
        let is_known = self.is_long.swap(is_long, Ordering::Relaxed);
        if is_long {
            if !is_known {
                let (key, limit) = (&self.key, LONGEST);
                tracing::error!(
                    key,
                    limit,
                    "the list of switched-off reads is too long, so it is not used"
                );
            }
            return;
        }
        let names: BTreeSet<String> = list.lines().map(str::to_owned).collect();
        self.off.send_if_modified(|off| {
            let is_news = *off != names;
            if is_news {
                *off = names;
            }
            is_news
        });
    }
}
