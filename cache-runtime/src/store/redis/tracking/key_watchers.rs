//! Notifies readers that wait for another process's load of changes to single keys.
//!
//! Without a local tier the server tracks only the keys that it is told to (`CLIENT TRACKING ON
//! OPTIN`), so that other reads take no memory there. If the server refuses that, nobody is
//! notified, and waiting readers poll.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value};
use tokio::sync::oneshot;

use crate::store::KeyChange;

/// Below this number of keys, keys without a waiting reader are not removed.
const FEW: usize = 256;

/// The waiting readers, by key. They are notified by dropping their sender.
#[derive(Default)]
pub(crate) struct KeyWatchers {
    by_key: Mutex<ByKey>,
    /// Whether the server tracks the keys that it is told to.
    opts_in: AtomicBool,
}

#[derive(Default)]
struct ByKey {
    senders: HashMap<Vec<u8>, Vec<oneshot::Sender<()>>>,
    /// The number of keys at which keys without a waiting reader are removed.
    limit: usize,
}

impl KeyWatchers {
    /// Turns tracking of single keys on.
    pub(crate) async fn start(&self, multiplexed: &mut MultiplexedConnection) {
        let mut tracking = redis::cmd("CLIENT");
        tracking.arg("TRACKING").arg("ON").arg("OPTIN");
        let agreed = tracking.query_async::<Value>(multiplexed).await;
        self.opts_in.store(agreed.is_ok(), Ordering::Release);
    }

    pub(crate) fn opts_in(&self) -> bool {
        self.opts_in.load(Ordering::Acquire)
    }

    /// Has to be called before the server is told to track the key.
    pub(crate) fn watch_key(&self, key: &str) -> KeyChange {
        let (sender, word) = oneshot::channel();
        let mut by_key = self.by_key.lock();
        if by_key.senders.len() >= by_key.limit.max(FEW) {
            by_key.senders.retain(|_, senders| {
                senders.retain(|sender| !sender.is_closed());
                !senders.is_empty()
            });
            by_key.limit = by_key.senders.len() * 2;
        }
        let senders = by_key.senders.entry(key.into()).or_default();
        if senders.len() == senders.capacity() {
            senders.retain(|sender| !sender.is_closed());
        }
        senders.push(sender);
        KeyChange::new(async {
            // Nothing is ever sent; the sender is dropped.
            let _ = word.await;
        })
    }

    /// Tells the server to track a key. If the server refuses, it is not asked any more.
    pub(crate) async fn track(
        &self,
        multiplexed: &mut MultiplexedConnection,
        key: &str,
        opts_in: bool,
    ) -> Result<(), RedisError> {
        let mut both = redis::pipe();
        if opts_in {
            both.cmd("CLIENT").arg("CACHING").arg("YES");
        }
        both.exists(key).ignore_errors();
        let answers: Vec<Result<Value, RedisError>> = both.query_async(multiplexed).await?;
        let mut answers = answers.into_iter();
        if opts_in && let Some(Err(error)) = answers.next() {
            if is_refused(&error) {
                self.opts_in.store(false, Ordering::Release);
            }
            return Err(error);
        }
        // A missing permission for this key says nothing about others.
        answers.next().transpose().map(drop)
    }

    /// Handles a push message: the names of changed keys, or none for all keys.
    pub(crate) fn pushed(&self, data: &[Value]) {
        let [Value::Array(keys)] = data else {
            return self.notify_all();
        };
        let mut by_key = self.by_key.lock();
        for key in keys {
            if let Value::BulkString(key) = key {
                by_key.senders.remove(key);
            }
        }
    }

    /// Notifies everyone, since no message will come any more.
    pub(crate) fn notify_all(&self) {
        self.by_key.lock().senders.clear();
    }
}

/// Whether the server will refuse it again, and not only for a moment, as while it loads its data.
fn is_refused(error: &RedisError) -> bool {
    use redis::{ErrorKind, ServerErrorKind};

    matches!(
        error.kind(),
        ErrorKind::Server(ServerErrorKind::NoPerm | ServerErrorKind::ResponseError)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn push(key: &str) -> [Value; 1] {
        [Value::Array(vec![Value::BulkString(key.into())])]
    }

    #[tokio::test]
    async fn word_reaches_those_who_wait_for_that_key() {
        let key_watchers = KeyWatchers::default();
        let [mut one, mut two, mut other] = ["a", "a", "b"].map(|key| key_watchers.watch_key(key));
        key_watchers.pushed(&push("a"));
        one.changed().await;
        two.changed().await;
        assert!(other.changed().now_or_never().is_none());
        key_watchers.pushed(&[Value::Nil]);
        other.changed().await;
    }

    #[test]
    fn those_who_wait_no_longer_for_one_key_are_forgotten() {
        let key_watchers = KeyWatchers::default();
        let _held = key_watchers.watch_key("key");
        for _ in 0..10_000 {
            drop(key_watchers.watch_key("key"));
        }
        assert!(key_watchers.by_key.lock().senders[&b"key"[..]].len() <= 8);
    }

    #[test]
    fn those_who_wait_no_longer_are_forgotten() {
        let key_watchers = KeyWatchers::default();
        let held = key_watchers.watch_key("held");
        for n in 0..10 * FEW {
            drop(key_watchers.watch_key(&n.to_string()));
        }
        assert!(key_watchers.by_key.lock().senders.len() <= FEW);
        assert!(
            key_watchers
                .by_key
                .lock()
                .senders
                .contains_key(&b"held"[..])
        );
        drop(held);
    }
}
