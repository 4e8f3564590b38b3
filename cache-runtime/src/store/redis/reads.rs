//! Reads: an entry and its generations in one round trip, and what the answer means.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::future::BoxFuture;
pub(super) use redis::Value;

use super::batcher::{DirectRead, ReadPath, read_path};
use super::link::{Link, unanswered};
use super::{INTENTS, READ_LIMIT, RedisStore, millis, miscounted, scripts};
use crate::base::clock::{Instant, Millis};
use crate::base::error::{Error, ErrorKind};
use crate::base::nonce::Nonce;
use crate::protocol::entry::{Content, Header};
use crate::protocol::generation::{Dep, Generation, StampBase, last_deadline};
use crate::store::{Found, Look, Payload, Probe};

impl RedisStore {
    /// Reads one entry: with a command of its own while few are on their way, else in a batch. Which of them is
    /// decided here and now, so that a read in a batch is a small future.
    pub(super) fn look_at<'l>(&'l self, probe: &'l Probe) -> BoxFuture<'l, Result<Look, Error>> {
        match self.links.using(|link| read_path(link, probe)) {
            Ok(ReadPath::Direct(alone)) => {
                Box::pin(async move { self.look_alone(alone.link(), probe).await })
            }
            Ok(ReadPath::Batched(answer, since)) => Box::pin(async move {
                let answer = answer
                    .await
                    .unwrap_or_else(|_| Err(unanswered(self.budget)));
                // Over before anything else is waited for: what comes would have to hold it.
                if let Some(look) = answer? {
                    return Ok(look);
                }
                Box::pin(self.look_again(since, probe)).await
            }),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    /// In the time that is left.
    async fn look_again(&self, since: Instant, probe: &Probe) -> Result<Look, Error> {
        let alone = self.links.using(DirectRead::on)?;
        let look = self.look_alone(alone.link(), probe);
        let rest = self.budget.saturating_sub(since.elapsed());
        match tokio::time::timeout(rest, look).await {
            Ok(look) => look,
            Err(_) => Err(unanswered(self.budget)),
        }
    }

    async fn look_alone(&self, link: &Link, probe: &Probe) -> Result<Look, Error> {
        let mut looks = self.look_over(link, std::slice::from_ref(probe)).await?;
        looks.pop().ok_or_else(miscounted)
    }

    /// Reads entries, and the generations that all of them depend on, with one command.
    pub(super) async fn look_at_all(&self, probes: &[Probe]) -> Result<Vec<Look>, Error> {
        let link = self.links.current()?;
        self.look_over(&link, probes).await
    }

    async fn look_over(&self, link: &Link, probes: &[Probe]) -> Result<Vec<Look>, Error> {
        let Some(Probe { deps, .. }) = probes.first() else {
            return Ok(Vec::new());
        };
        debug_assert!(probes.iter().all(|probe| probe.deps == *deps));
        let keys = probes.iter().map(|probe| probe.key.as_str());
        let keys = keys.chain(deps.iter().map(|dep| dep.key()));
        let mut values = mget_checked(link, self.budget, keys).await?;
        if values.len() != probes.len() + deps.len() {
            return Err(link.answers_amiss(miscounted()));
        }
        let generations = values.split_off(probes.len());
        let generations = self.generations(link, deps, &generations).await?;
        let standing = GenerationSet::of(link.server, generations);
        let now = link.clock.now();
        let looks = values.into_iter().zip(probes).map(|(value, probe)| {
            let look = StoredValue::of(value).look(&probe.key, &standing, link, now);
            look.ok_or_else(|| Error::unavailable("Redis answered with an entry of another key"))
        });
        looks.collect()
    }

    /// The generations as they are in `values`, those that are missing or are none made.
    async fn generations(
        &self,
        link: &Link,
        deps: &[Arc<Dep>],
        values: &[Value],
    ) -> Result<Vec<Generation>, Error> {
        if let Some(generations) = values.iter().map(generation).collect() {
            return Ok(generations);
        }
        // A hit has no part in it, and is not to carry it about.
        Box::pin(self.ensure(link, deps)).await
    }

    /// The generations, those that are missing made.
    async fn ensure(&self, link: &Link, deps: &[Arc<Dep>]) -> Result<Vec<Generation>, Error> {
        // What was there is read again with what is made: one answer, at one time.
        let ttl = millis(self.default_generation_ttl);
        let nonces = deps.iter().map(|_| Nonce::fresh().to_string().into_bytes());
        let keys = deps.iter().map(|dep| dep.key());
        let values: Vec<Value> = self
            .script(
                link,
                &scripts::ENSURE,
                keys,
                std::iter::once(ttl).chain(nonces),
            )
            .await?;
        values
            .iter()
            .map(generation)
            .collect::<Option<Vec<_>>>()
            .filter(|generations| generations.len() == deps.len())
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::Foreign,
                    "a generation's key holds something else",
                )
            })
    }
}

/// Asks for the values under these keys.
pub(super) async fn mget(
    link: &Link,
    budget: Duration,
    keys: impl Iterator<Item = &str> + Clone,
) -> Result<Vec<Value>, Error> {
    let mut mget = redis::cmd("MGET");
    for key in keys.clone() {
        mget.arg(key);
    }
    let mut unanswered = Unanswered {
        link,
        keys: keys.clone(),
        sent: std::time::Instant::now(),
        budget,
        is_over: false,
    };
    let answer = link.ask(budget, async |connection| {
        match connection.send_packed_command(&mget).await? {
            Value::Array(values) => Ok(values),
            other => other.extract_error().map(|_| Vec::new()),
        }
    });
    let answer = answer.await;
    unanswered.is_over = !matches!(&answer, Err(error) if error.kind() == ErrorKind::Unavailable);
    let values = answer?;
    for (key, value) in keys.zip(&values) {
        if text(value).is_some_and(|bytes| bytes.len() > READ_LIMIT) {
            link.set_aside().is_oversized(key);
        }
    }
    Ok(values)
}

/// Dropped without an answer after a good part of the budget, it leaves the keys as suspects: the value of one of them may be
/// what has taken so long.
struct Unanswered<'l, 'k, K: Iterator<Item = &'k str> + Clone> {
    link: &'l Link,
    keys: K,
    /// By the clock of the system: the caller may have Tokio's time paused.
    sent: std::time::Instant,
    budget: Duration,
    is_over: bool,
}

impl<'k, K: Iterator<Item = &'k str> + Clone> Drop for Unanswered<'_, 'k, K> {
    fn drop(&mut self) {
        if !self.is_over && self.sent.elapsed() >= self.budget / 2 {
            self.link.set_aside().suspect(self.keys.clone());
        }
    }
}

/// The same as [`mget`], but for the keys that are set aside: those are asked for their length first, and what is larger than
/// anything of ours stays where it is.
async fn mget_checked(
    link: &Link,
    budget: Duration,
    keys: impl Iterator<Item = &str> + Clone,
) -> Result<Vec<Value>, Error> {
    let aside = link.set_aside().among(keys.clone());
    match aside.is_empty() {
        true => mget(link, budget, keys).await,
        // A hit has no part in it, and is not to carry it about.
        false => Box::pin(mget_aside(link, budget, keys, aside)).await,
    }
}

/// Some of the keys are set aside.
async fn mget_aside<'k>(
    link: &Link,
    budget: Duration,
    keys: impl Iterator<Item = &'k str> + Clone,
    aside: Vec<&'k str>,
) -> Result<Vec<Value>, Error> {
    // The byte behind the longest that is ours. A length would need one permission more.
    let mut lengths = redis::pipe();
    for key in &aside {
        let command = lengths.cmd("GETRANGE").arg(key);
        command.arg(READ_LIMIT).arg(READ_LIMIT);
    }
    lengths.ignore_errors();
    let answers: Vec<Value> = link
        .ask(budget, async |connection| {
            lengths.query_async(connection).await
        })
        .await?;
    if answers.len() != aside.len() {
        return Err(link.answers_amiss(miscounted()));
    }
    let mut oversized = Vec::new();
    for (key, answer) in aside.into_iter().zip(&answers) {
        if text(answer).is_some_and(|byte| !byte.is_empty()) {
            link.set_aside().is_oversized(key);
            oversized.push(key);
        } else {
            link.set_aside().is_ordinary(key);
        }
    }
    let rest = keys.clone().filter(|key| !oversized.contains(key));
    let values = match rest.clone().next() {
        Some(_) => mget(link, budget, rest.clone()).await?,
        None => Vec::new(),
    };
    if values.len() != rest.count() {
        return Err(link.answers_amiss(miscounted()));
    }
    let mut values = values.into_iter();
    let value_of = |key| match oversized.contains(&key) {
        // As foreign as what is there.
        true => Value::BulkString(Vec::new()),
        false => values.next().unwrap_or(Value::Nil),
    };
    Ok(keys.map(value_of).collect())
}

/// What a generation's key holds; `None` if it holds nothing, or something else.
pub(super) fn generation(value: &Value) -> Option<Generation> {
    Generation::parse(text(value)?)
}

/// What the generations say that one or more entries depend on.
pub(super) struct GenerationSet {
    base: StampBase,
    /// The last deadline of the intents on them.
    intended: Option<Millis>,
}

impl GenerationSet {
    pub(super) fn of(server: Nonce, generations: impl IntoIterator<Item = Generation>) -> Self {
        let mut intended = None;
        let nonces = generations.into_iter().map(|generation| {
            intended = intended.max(generation.intended);
            generation.nonce
        });
        let base = StampBase::of(server, nonces);
        Self { base, intended }
    }
}

/// What lies under an entry's key.
#[derive(Clone)]
pub(super) struct StoredValue {
    found: Found,
    /// The last deadline of the intents in its place.
    intended: Option<Millis>,
}

impl StoredValue {
    pub(super) fn of(value: Value) -> Self {
        match value {
            Value::BulkString(bytes) => Self::of_bytes(bytes),
            // Nothing, or something that is not a string; the lease will tell them apart.
            _ => Self {
                found: Found::Nothing,
                intended: None,
            },
        }
    }

    fn of_bytes(bytes: Vec<u8>) -> Self {
        let found = match Header::parse(&bytes) {
            Some((header, _)) if header.content == Content::Value && bytes.len() <= READ_LIMIT => {
                let mut payload = Bytes::from(bytes);
                payload.advance(Header::LEN);
                Found::Entry(header, Payload::Encoded(payload))
            }
            Some((header, _)) => Found::Entry(header, Payload::Empty),
            None => {
                return Self {
                    found: Found::Foreign,
                    intended: intents(&bytes),
                };
            }
        };
        Self {
            found,
            intended: None,
        }
    }

    /// How many bytes the value has.
    pub(super) fn len(&self) -> usize {
        match &self.found {
            Found::Entry(_, payload) => Header::LEN + payload.len(),
            Found::Nothing | Found::Foreign => 0,
        }
    }

    /// What there is to see under this key; `None` if an entry of another key was answered, and the connection was given
    /// up for it.
    pub(super) fn look(
        self,
        key: &str,
        standing: &GenerationSet,
        link: &Link,
        now: Millis,
    ) -> Option<Look> {
        if let Found::Entry(Header { stamp, .. }, _) = &self.found
            && standing.base.is_of_another_key(key, *stamp)
            && link.is_off_by_others(key, *stamp)
        {
            return None;
        }
        Some(Look {
            found: self.found,
            stamp: standing.base.stamp(key),
            intended: self.intended.max(standing.intended),
            now,
        })
    }
}

/// The last deadline of the intents that stand in the place of an entry.
fn intents(bytes: &[u8]) -> Option<Millis> {
    let intents = bytes.strip_prefix(INTENTS.as_bytes())?;
    // What is damaged is for the server to prune.
    Some(last_deadline(intents).unwrap_or(Millis(0)))
}

/// The bytes of a string; `None` for a missing key.
pub(super) fn text(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}
