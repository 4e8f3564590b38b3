//! What operators have switched off for all processes: a key with one name a line.
//!
//! It is read when a connection is made, and with each question for the server's health, so every
//! process knows of a change within a second and nothing else is sent for it.

use std::collections::BTreeSet;

use redis::aio::MultiplexedConnection;
use tokio::sync::watch;

/// A longer list was not written by this framework.
const LONGEST: usize = 1 << 16;

/// The list as it was last read.
#[derive(Debug)]
pub(super) struct SwitchList {
    key: String,
    off: watch::Sender<BTreeSet<String>>,
}

impl SwitchList {
    pub(super) fn new(namespace: &str) -> Self {
        Self {
            key: format!("{namespace}@off"),
            off: watch::Sender::new(BTreeSet::new()),
        }
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<BTreeSet<String>> {
        self.off.subscribe()
    }

    pub(super) async fn read(&self, connection: &mut MultiplexedConnection) {
        // A value of another kind is an error, and leaves the switches as they are.
        let read = redis::cmd("GET")
            .arg(&self.key)
            .query_async::<Option<String>>(connection)
            .await;
        if let Ok(list) = read {
            self.learn(list.as_deref().unwrap_or_default());
        }
    }

    /// Takes over a list.
    pub(super) fn learn(&self, list: &str) {
        if list.len() > LONGEST {
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
