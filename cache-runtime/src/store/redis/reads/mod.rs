//! Reads an entry and its generations in one round trip, and interprets the answer.

pub(crate) mod batcher;
pub(crate) mod mget;
pub(crate) mod own_batches;
pub(crate) mod read_path;
pub(crate) mod runtimes;
pub(crate) mod set_aside;
pub(crate) mod stored;

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::BoxFuture;
pub(super) use redis::Value;

use self::mget::mget_checked;
use self::read_path::{BatchedRead, DirectRead, ReadPath, read_path};
use self::stored::{GenerationSet, Missing, StoredValue, generations, generations_or_unknown};
use super::connection::Connection;
use super::connection::errors::unanswered;
use super::reply::{millis, miscounted};
use super::sent::Sent;
use super::{RedisStore, scripts};
use crate::base::clock::Millis;
use crate::base::error::Error;
use crate::base::nonce::Nonce;
use crate::protocol::generation::{Dep, Generation};
use crate::store::{Look, Probe};

impl RedisStore {
    /// Reads one entry: with a command of its own while few reads are in flight, otherwise in a
    /// batch. The choice is made when this is called, so that the future of a batched read is
    /// small.
    pub(super) fn look_at<'l>(
        &'l self,
        probe: &'l Probe,
    ) -> BoxFuture<'l, Result<Box<Look>, Error>> {
        let path = self
            .connections
            .using(|connection| read_path(connection, probe));
        match path {
            Ok(ReadPath::Direct(alone)) => {
                Box::pin(async move { self.look_alone(alone.connection(), probe).await })
            }
            Ok(ReadPath::Batched(read)) => Box::pin(async move {
                let BatchedRead { answer, since, .. } = read;
                let answer = {
                    let budget = self.budget;
                    let sent = Sent { at: since, budget };
                    let _held = read.tokio_now.and_then(|now| sent.held(now));
                    let answer = answer.await;
                    answer.unwrap_or_else(|_| Err(unanswered(self.budget)))
                };
                // Handled before anything else is awaited, so that the future does not hold it.
                if let Some(look) = answer? {
                    return Ok(look);
                }
                Box::pin(self.look_again(since, probe)).await
            }),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    /// Reads once more in the time that is left.
    async fn look_again(&self, since: Instant, probe: &Probe) -> Result<Box<Look>, Error> {
        let alone = self.connections.using(DirectRead::on)?;
        let look = pin!(self.look_alone(alone.connection(), probe));
        let rest = self.budget.saturating_sub(since.elapsed());
        match tokio::time::timeout(rest, look).await {
            Ok(look) => look,
            Err(_) => Err(unanswered(self.budget)),
        }
    }

    async fn look_alone(&self, connection: &Connection, probe: &Probe) -> Result<Box<Look>, Error> {
        let probes = std::slice::from_ref(probe);
        loop {
            let mut reply = self.read(connection, probes, Missing::Created).await?;
            let look = Box::new(reply.look(&probe.key).ok_or_else(miscounted)?);
            if self.is_in_step(connection, &reply).await? {
                return Ok(look);
            }
        }
    }

    /// Reads entries, and the generations that all of them depend on, with one command.
    pub(super) async fn look_at_all(&self, probes: &[Probe]) -> Result<Vec<Look>, Error> {
        let connection = self.connections.current()?;
        self.look_over(&connection, probes, Missing::Created).await
    }

    /// Reads an entry, and creates nothing.
    pub(super) async fn examine_alone(&self, probe: &Probe) -> Result<Look, Error> {
        let connection = self.connections.current()?;
        let probes = std::slice::from_ref(probe);
        let mut looks = self
            .look_over(&connection, probes, Missing::Unknown)
            .await?;
        looks.pop().ok_or_else(miscounted)
    }

    async fn look_over(
        &self,
        connection: &Connection,
        probes: &[Probe],
        missing: Missing,
    ) -> Result<Vec<Look>, Error> {
        if probes.is_empty() {
            return Ok(Vec::new());
        }
        loop {
            let mut reply = self.read(connection, probes, missing).await?;
            let looks = probes.iter().map(|probe| reply.look(&probe.key));
            let looks: Option<Vec<_>> = looks.collect();
            let looks = looks.ok_or_else(miscounted)?;
            if self.is_in_step(connection, &reply).await? {
                return Ok(looks);
            }
        }
    }

    /// Reads the values of entries, and the generations that all of them depend on.
    async fn read<'p>(
        &self,
        connection: &Connection,
        probes: &'p [Probe],
        missing: Missing,
    ) -> Result<Reply<'p>, Error> {
        let deps = probes.first().map_or(&[][..], |probe| &*probe.deps);
        debug_assert!(probes.iter().all(|probe| *probe.deps == *deps));
        loop {
            let keys = probes.iter().map(|probe| probe.key.as_str());
            let keys = keys.chain(deps.iter().map(|dep| dep.key()));
            let values = mget_checked(connection, self.budget, keys).await?;
            if values.len() != probes.len() + deps.len() {
                if connection.runtimes.give_up_own() {
                    continue;
                }
                return Err(connection.answers_amiss(miscounted()));
            }
            let of_deps = values.get(probes.len()..).unwrap_or_default();
            let known = GenerationSet::of_all(connection.identity(), of_deps);
            let generation_set = match (known, missing) {
                (Some(known), _) => known,
                (None, Missing::Created) => {
                    // Boxed, so that the future of a hit does not hold memory for it.
                    let created = Box::pin(self.ensure(connection, deps)).await?;
                    GenerationSet::of(connection.identity(), created)
                }
                (None, Missing::Unknown) => {
                    let unknown = generations_or_unknown(of_deps);
                    GenerationSet::of(connection.identity(), unknown)
                }
            };
            connection.check_confirmed()?;
            return Ok(Reply {
                values: values.into_iter(),
                generation_set,
                now: connection.clock.now(),
                misplaced: None,
            });
        }
    }

    /// Whether answers belong to their commands, if an entry of another key has raised the doubt.
    /// `false` if the read has to be repeated.
    async fn is_in_step(&self, connection: &Connection, reply: &Reply<'_>) -> Result<bool, Error> {
        let Some(key) = reply.misplaced else {
            return Ok(true);
        };
        // It may be the runtime's own connection that returns the answers of others.
        if connection.runtimes.give_up_own() {
            return Ok(false);
        }
        Box::pin(connection.check_sync(key, self.budget)).await?;
        Ok(true)
    }

    /// The generations; missing ones are created.
    async fn ensure(
        &self,
        connection: &Connection,
        deps: &[Arc<Dep>],
    ) -> Result<Vec<Generation>, Error> {
        // Existing generations are read again with the new ones, so that all are from one point in
        // time.
        let ttl = millis(self.default_generation_ttl);
        let nonce = || match crate::base::mutation::is_active("missing-is-as-before") {
            true => Nonce(1),
            false => Nonce::fresh(),
        };
        let nonces = deps.iter().map(|_| nonce().to_string().into_bytes());
        let keys: Vec<_> = deps.iter().map(|dep| dep.key()).collect();
        let values: Vec<Value> = self
            .script(
                connection,
                &scripts::ENSURE,
                keys.iter().copied(),
                std::iter::once(ttl).chain(nonces),
            )
            .await?;
        generations(&values, &keys)
    }
}

/// The answer to one read of entries with the same dependencies.
struct Reply<'p> {
    /// Those of the entries first.
    values: std::vec::IntoIter<Value>,
    generation_set: GenerationSet,
    now: Millis,
    /// The key of an entry that is of another key.
    misplaced: Option<&'p str>,
}

impl<'p> Reply<'p> {
    /// The entry under the next key. Has to be called in the order of the keys.
    fn look(&mut self, key: &'p str) -> Option<Look> {
        let value = StoredValue::of(self.values.next()?);
        let look = value.look(key, &self.generation_set, self.now);
        if self.generation_set.is_misplaced(&look) {
            self.misplaced = Some(key);
        }
        Some(look)
    }
}
