//! Word of single keys, for those who wait for another process's load.
//!
//! A connection without copies has the server track what it is told to and nothing else (`CLIENT TRACKING ON OPTIN`), so
//! that usual reads are remembered nowhere. Where that is refused nobody is told, and those who wait look from time to time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value};
use tokio::sync::oneshot;

use crate::store::Word;

/// With fewer keys than this, those are not looked for that nobody waits for any more.
const FEW: usize = 256;

/// Those who wait for word, by key. Word is that their sender is dropped.
#[derive(Default)]
pub(super) struct Listeners {
    by_key: Mutex<ByKey>,
    /// Whether the server tracks what it is told to.
    opts_in: AtomicBool,
}

#[derive(Default)]
struct ByKey {
    senders: HashMap<Vec<u8>, Vec<oneshot::Sender<()>>>,
    /// How many there may be before those that nobody waits for are dropped.
    limit: usize,
}

impl Listeners {
    /// Asks the server to track what it is told to.
    pub(super) async fn start(&self, connection: &mut MultiplexedConnection) {
        let mut tracking = redis::cmd("CLIENT");
        tracking.arg("TRACKING").arg("ON").arg("OPTIN");
        let agreed = tracking.query_async::<Value>(connection).await;
        self.opts_in.store(agreed.is_ok(), Ordering::Release);
    }

    pub(super) fn opts_in(&self) -> bool {
        self.opts_in.load(Ordering::Acquire)
    }

    /// To be asked for before the server is told to track the key.
    pub(super) fn listen(&self, key: &str) -> Word {
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
        Word::new(async {
            // Nothing is ever sent.
            let _ = word.await;
        })
    }

    /// Tells the server to track a key. Where it refuses to be told, it is not told any more.
    pub(super) async fn track(
        &self,
        connection: &mut MultiplexedConnection,
        key: &str,
        opts_in: bool,
    ) -> Result<(), RedisError> {
        let mut both = redis::pipe();
        if opts_in {
            both.cmd("CLIENT").arg("CACHING").arg("YES");
        }
        both.exists(key).ignore_errors();
        let answers: Vec<Result<Value, RedisError>> = both.query_async(connection).await?;
        let mut answers = answers.into_iter();
        if opts_in && let Some(Err(error)) = answers.next() {
            if is_refused(&error) {
                self.opts_in.store(false, Ordering::Release);
            }
            return Err(error);
        }
        // That this key may not be read says nothing of others.
        answers.next().transpose().map(drop)
    }

    /// A push: names of keys that have changed, or nothing for all of them.
    pub(super) fn pushed(&self, data: &[Value]) {
        let [Value::Array(keys)] = data else {
            return self.tell_all();
        };
        let mut by_key = self.by_key.lock();
        for key in keys {
            if let Value::BulkString(key) = key {
                by_key.senders.remove(key);
            }
        }
    }

    /// Nobody is to wait for what will not come.
    pub(super) fn tell_all(&self) {
        self.by_key.lock().senders.clear();
    }
}

/// Whether the server will refuse it again, and not for a moment, as while it loads its data.
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
        let listeners = Listeners::default();
        let [mut one, mut two, mut other] = ["a", "a", "b"].map(|key| listeners.listen(key));
        listeners.pushed(&push("a"));
        one.heard().await;
        two.heard().await;
        assert!(other.heard().now_or_never().is_none());
        listeners.pushed(&[Value::Nil]);
        other.heard().await;
    }

    #[test]
    fn those_who_wait_no_longer_for_one_key_are_forgotten() {
        let listeners = Listeners::default();
        let _held = listeners.listen("key");
        for _ in 0..10_000 {
            drop(listeners.listen("key"));
        }
        assert!(listeners.by_key.lock().senders[&b"key"[..]].len() <= 8);
    }

    #[test]
    fn those_who_wait_no_longer_are_forgotten() {
        let listeners = Listeners::default();
        let held = listeners.listen("held");
        for n in 0..10 * FEW {
            drop(listeners.listen(&n.to_string()));
        }
        assert!(listeners.by_key.lock().senders.len() <= FEW);
        assert!(listeners.by_key.lock().senders.contains_key(&b"held"[..]));
        drop(held);
    }
}
