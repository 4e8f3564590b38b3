//! Reads an entry and its generations in one round trip, and interprets the answer.

pub(crate) mod batcher;
pub(crate) mod mget;
pub(crate) mod read_driver;
pub(crate) mod read_path;
pub(crate) mod read_socket;
pub(crate) mod read_sockets;
mod replies;
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
use super::reply::{millis, miscounted, text};
use super::sent::Sent;
use super::{RedisStore, scripts};
use crate::base::clock::Millis;
use crate::base::error::Error;
use crate::base::nonce::Nonce;
use crate::protocol::generation::{Dependency, Generation};
use crate::store::{EntryRef, LookupReply};

impl RedisStore {
    /// Reads one entry: with a command of its own while few reads are in flight, otherwise in a
    /// batch. The choice is made when this is called, so that the future of a batched read is
    /// small.
    pub(super) fn lookup_one<'l>(
        &'l self,
        entry_ref: &'l EntryRef,
    ) -> BoxFuture<'l, Result<Box<LookupReply>, Error>> {
        let path = self
            .connections
            .using(|connection| read_path(connection, entry_ref));
        match path {
            Ok(ReadPath::Direct(alone)) => {
                Box::pin(async move { self.lookup_alone(alone.connection(), entry_ref).await })
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
                if let Some(lookup) = answer? {
                    return Ok(lookup);
                }
                Box::pin(self.lookup_again(since, entry_ref)).await
            }),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    /// Reads once more in the time that is left.
    async fn lookup_again(
        &self,
        since: Instant,
        entry_ref: &EntryRef,
    ) -> Result<Box<LookupReply>, Error> {
        let alone = self.connections.using(DirectRead::on)?;
        let lookup = pin!(self.lookup_alone(alone.connection(), entry_ref));
        let rest = self.budget.saturating_sub(since.elapsed());
        match crate::base::time::timeout(rest, lookup).await {
            Ok(lookup) => lookup,
            Err(_) => Err(unanswered(self.budget)),
        }
    }

    async fn lookup_alone(
        &self,
        connection: &Connection,
        entry_ref: &EntryRef,
    ) -> Result<Box<LookupReply>, Error> {
        let entry_refs = std::slice::from_ref(entry_ref);
        let mut reply = self.read(connection, entry_refs, Missing::Created).await?;
        let lookup = Box::new(reply.lookup(&entry_ref.key).ok_or_else(miscounted)?);
        self.check_step(connection, &reply).await?;
        Ok(lookup)
    }

    /// Reads entries, and the generations that all of them depend on, with one command.
    pub(super) async fn lookup_all(
        &self,
        entry_refs: &[EntryRef],
    ) -> Result<Vec<LookupReply>, Error> {
        let connection = self.connections.current()?;
        self.lookup_over(&connection, entry_refs, Missing::Created)
            .await
    }

    /// Reads an entry, and creates nothing.
    pub(super) async fn examine_alone(&self, entry_ref: &EntryRef) -> Result<LookupReply, Error> {
        let connection = self.connections.current()?;
        let entry_refs = std::slice::from_ref(entry_ref);
        let mut lookups = self
            .lookup_over(&connection, entry_refs, Missing::Unknown)
            .await?;
        lookups.pop().ok_or_else(miscounted)
    }

    async fn lookup_over(
        &self,
        connection: &Connection,
        entry_refs: &[EntryRef],
        missing: Missing,
    ) -> Result<Vec<LookupReply>, Error> {
        if entry_refs.is_empty() {
            return Ok(Vec::new());
        }
        let mut reply = self.read(connection, entry_refs, missing).await?;
        let lookups = entry_refs
            .iter()
            .map(|entry_ref| reply.lookup(&entry_ref.key));
        let lookups: Option<Vec<_>> = lookups.collect();
        let lookups = lookups.ok_or_else(miscounted)?;
        self.check_step(connection, &reply).await?;
        Ok(lookups)
    }

    /// Reads the values of entries, and the generations that all of them depend on.
    async fn read<'p>(
        &self,
        connection: &Connection,
        entry_refs: &'p [EntryRef],
        missing: Missing,
    ) -> Result<Reply<'p>, Error> {
        let deps = entry_refs
            .first()
            .map_or(&[][..], |entry_ref| &*entry_ref.deps);
        debug_assert!(entry_refs.iter().all(|entry_ref| *entry_ref.deps == *deps));
        let keys = entry_refs.iter().map(|entry_ref| entry_ref.key.as_str());
        let keys = keys.chain(deps.iter().map(|dep| dep.key()));
        let values = mget_checked(connection, self.budget, keys).await?;
        let values = connection.counted(values, entry_refs.len() + deps.len())?;
        let of_deps = values.get(entry_refs.len()..).unwrap_or_default();
        let known = GenerationSet::of_all(connection.identity(), of_deps.iter().map(text));
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
        Ok(Reply {
            values: values.into_iter(),
            generation_set,
            now: connection.clock.now(),
            misplaced: None,
        })
    }

    /// Checks that answers belong to their commands, if an entry of another key has raised the
    /// doubt.
    async fn check_step(&self, connection: &Connection, reply: &Reply<'_>) -> Result<(), Error> {
        match reply.misplaced {
            None => Ok(()),
            Some(key) => Box::pin(connection.check_sync(key, self.budget)).await,
        }
    }

    /// The generations; missing ones are created.
    async fn ensure(
        &self,
        connection: &Connection,
        deps: &[Arc<Dependency>],
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
            .one_server
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
    fn lookup(&mut self, key: &'p str) -> Option<LookupReply> {
        let value = StoredValue::of(self.values.next()?);
        let lookup = value.lookup(key, &self.generation_set, self.now);
        if self.generation_set.is_misplaced(&lookup) {
            self.misplaced = Some(key);
        }
        Some(lookup)
    }
}
