//! A connection to a server that answers late, wrongly or never, as far as the batcher uses one.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use shuttle::future::yield_now;
use shuttle::rand::{Rng, thread_rng};

use super::reads::batcher::Batcher;
use crate::base::clock::Millis;
use crate::base::error::{Error, ErrorKind};
use crate::base::nonce::Nonce;
use crate::base::sync::atomic::{AtomicU64, Ordering};
use crate::base::sync::time;
use crate::protocol::generation::{Generation, StampBase};
use crate::store::{EntryRef, Found, LookupReply, Stamp};

/// How commands are answered.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Answers {
    InTime,
    /// Some are refused, and some come after the budget.
    Late,
    /// Some are refused, and some never come.
    Never,
}

pub(super) struct Connection {
    batcher: Batcher,
    answers: Answers,
    server: Nonce,
    /// Counts the writes. It is also the server's time: a read says when it was answered.
    version: AtomicU64,
    pub(super) clock: Clock,
    pub(super) read_sockets: ReadSockets,
}

impl Connection {
    pub(super) fn new(answers: Answers) -> Self {
        Self {
            batcher: Batcher::default(),
            answers,
            server: Nonce(1),
            version: AtomicU64::new(0),
            clock: Clock,
            read_sockets: ReadSockets,
        }
    }

    pub(super) fn write(&self) {
        self.version.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn version(&self) -> Millis {
        Millis(self.version.load(Ordering::SeqCst))
    }

    pub(super) fn batcher(&self) -> &Batcher {
        &self.batcher
    }

    pub(super) fn identity(&self) -> Nonce {
        self.server
    }

    /// Shuttle has no time that could be paused.
    pub(super) fn is_driven_apart(&self) -> bool {
        false
    }

    pub(super) fn set_aside(&self) -> SetAside {
        SetAside
    }

    pub(super) fn check_confirmed(&self) -> Result<(), Error> {
        Ok(())
    }

    pub(super) async fn check_sync(&self, _: &str, _: Duration) -> Result<(), Error> {
        Ok(())
    }

    pub(super) fn abandon(&self) {
        self.batcher.end();
    }

    pub(super) fn counted<T>(&self, answers: Vec<T>, asked: usize) -> Result<Vec<T>, Error> {
        assert_eq!(answers.len(), asked);
        Ok(answers)
    }
}

/// Unused: each value has the time at which it was read.
pub(super) struct Clock;

impl Clock {
    pub(super) fn now(&self) -> Millis {
        Millis(0)
    }
}

/// There is no connection that only reads.
pub(super) struct ReadSockets;

impl ReadSockets {
    pub(super) fn using<T>(
        &self,
        _: impl FnOnce(&Batcher) -> Option<T>,
        _: impl FnOnce(Infallible, Infallible, Infallible),
    ) -> Option<T> {
        None
    }
}

pub(super) fn connect(_: &Arc<Connection>, runtime: Infallible, _: Infallible, _: Infallible) {
    match runtime {}
}

/// No key is set aside.
pub(super) struct SetAside;

impl SetAside {
    pub(super) fn concerns(&self, _: &EntryRef) -> bool {
        false
    }
}

/// The value of a key: when it was read.
#[derive(Clone)]
pub(super) struct Value(Millis);

pub(super) async fn mget(
    connection: &Connection,
    budget: Duration,
    keys: impl Iterator<Item = &str>,
) -> Result<Vec<Value>, Error> {
    let keys = keys.count();
    let steps = match connection.answers {
        // With fewer steps, the one order in which a wake-up is lost is found sooner.
        Answers::Never => 0,
        Answers::InTime | Answers::Late => thread_rng().gen_range(0..3),
    };
    for _ in 0..steps {
        yield_now().await;
    }
    if connection.answers != Answers::InTime {
        match thread_rng().gen_range(0..6) {
            0 => return Err(Error::new(ErrorKind::Store, "refused")),
            1 => return Err(Error::unavailable("away")),
            2 if connection.answers == Answers::Late => time::sleep(budget * 2).await,
            3.. if connection.answers == Answers::Never => std::future::pending().await,
            _ => {}
        }
    }
    let version = connection.version();
    yield_now().await;
    Ok(vec![Value(version); keys])
}

/// The values in the answer to a command.
pub(super) trait Values {
    fn len(&self) -> usize;
    fn get(&self, at: usize) -> Option<&[u8]>;
    fn take(&mut self, at: usize) -> StoredValue;
}

/// So large that soon not all queued reads fit into one batch.
static LARGE: [u8; 4 << 20] = [0; 4 << 20];

impl Values for Vec<Value> {
    fn len(&self) -> usize {
        self.len()
    }

    fn get(&self, at: usize) -> Option<&[u8]> {
        (at < self.len()).then_some(&LARGE)
    }

    fn take(&mut self, at: usize) -> StoredValue {
        StoredValue(self[at].clone())
    }
}

/// No error says so.
pub(super) fn says_away(_: &Error) -> bool {
    false
}

/// Whether each read of the batch is repeated alone.
pub(super) fn is_forbidden(error: &Error) -> bool {
    error.kind() == ErrorKind::Store
}

/// The generation in every key that has one.
pub(super) const GENERATION: Generation = Generation {
    nonce: Nonce(1),
    intents_until: None,
};

pub(super) struct GenerationSet(StampBase);

impl GenerationSet {
    pub(super) fn of(server: Nonce, generations: impl IntoIterator<Item = Generation>) -> Self {
        let nonces = generations.into_iter().map(|it| it.nonce);
        Self(StampBase::of(server, nonces))
    }

    pub(super) fn of_all<'v>(
        server: Nonce,
        values: impl Iterator<Item = Option<&'v [u8]>>,
    ) -> Option<Self> {
        Some(Self::of(server, values.map(|_| GENERATION)))
    }

    pub(super) fn stamp(&self, key: &str) -> Stamp {
        self.0.stamp(key)
    }

    pub(super) fn is_misplaced(&self, _: &LookupReply) -> bool {
        false
    }
}

#[derive(Clone)]
pub(super) struct StoredValue(Value);

impl StoredValue {
    pub(super) fn lookup(
        self,
        key: &str,
        generation_set: &GenerationSet,
        _: Millis,
    ) -> LookupReply {
        let Value(read_at) = self.0;
        LookupReply {
            found: Found::Nothing,
            stamp: generation_set.stamp(key),
            intents_until: None,
            now: read_at,
        }
    }
}
