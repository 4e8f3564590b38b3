//! Reads an entry and its generations in one round trip, and interprets the answer.

use std::sync::Arc;

use futures_util::future::BoxFuture;
pub(super) use redis::Value;

use super::connection::Connection;
use super::errors::unanswered;
use super::mget::mget_checked;
use super::read_path::{DirectRead, ReadPath, read_path};
use super::reply::{millis, miscounted};
use super::stored::{GenerationSet, Missing, StoredValue, generation, generations_or_unknown};
use super::{RedisStore, scripts};
use crate::base::clock::Instant;
use crate::base::error::{Error, ErrorKind};
use crate::base::nonce::Nonce;
use crate::protocol::generation::{Dep, Generation};
use crate::store::{Look, Probe};

impl RedisStore {
    /// Reads one entry: with a command of its own while few reads are in flight, otherwise in a
    /// batch. The choice is made when this is called, so that the future of a batched read is
    /// small.
    pub(super) fn look_at<'l>(&'l self, probe: &'l Probe) -> BoxFuture<'l, Result<Look, Error>> {
        match self
            .connections
            .using(|connection| read_path(connection, probe))
        {
            Ok(ReadPath::Direct(alone)) => {
                Box::pin(async move { self.look_alone(alone.connection(), probe).await })
            }
            Ok(ReadPath::Batched(answer, since)) => Box::pin(async move {
                let answer = answer
                    .await
                    .unwrap_or_else(|_| Err(unanswered(self.budget)));
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
    async fn look_again(&self, since: Instant, probe: &Probe) -> Result<Look, Error> {
        let alone = self.connections.using(DirectRead::on)?;
        let look = self.look_alone(alone.connection(), probe);
        let rest = self.budget.saturating_sub(since.elapsed());
        match tokio::time::timeout(rest, look).await {
            Ok(look) => look,
            Err(_) => Err(unanswered(self.budget)),
        }
    }

    async fn look_alone(&self, connection: &Connection, probe: &Probe) -> Result<Look, Error> {
        let probes = std::slice::from_ref(probe);
        let mut looks = self.look_over(connection, probes, Missing::Created).await?;
        looks.pop().ok_or_else(miscounted)
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
        let Some(Probe { deps, .. }) = probes.first() else {
            return Ok(Vec::new());
        };
        debug_assert!(probes.iter().all(|probe| probe.deps == *deps));
        loop {
            let keys = probes.iter().map(|probe| probe.key.as_str());
            let keys = keys.chain(deps.iter().map(|dep| dep.key()));
            let mut values = mget_checked(connection, self.budget, keys).await?;
            if values.len() != probes.len() + deps.len() {
                if connection.runtimes.give_up_own() {
                    continue;
                }
                return Err(connection.answers_amiss(miscounted()));
            }
            let generations = values.split_off(probes.len());
            let generations = match missing {
                Missing::Created => self.generations(connection, deps, &generations).await?,
                Missing::Unknown => generations_or_unknown(&generations),
            };
            connection.check_confirmed()?;
            let generation_set = GenerationSet::of(connection.identity(), generations);
            let now = connection.clock.now();
            let mut misplaced = None;
            let looks = values.into_iter().zip(probes).map(|(value, probe)| {
                let look = StoredValue::of(value).look(&probe.key, &generation_set, now);
                if generation_set.is_misplaced(&look) {
                    misplaced = Some(probe.key.as_str());
                }
                look
            });
            let looks = looks.collect();
            if let Some(key) = misplaced {
                // It may be the runtime's own connection that returns the answers of others.
                if connection.runtimes.give_up_own() {
                    continue;
                }
                Box::pin(connection.check_sync(key, self.budget)).await?;
            }
            return Ok(looks);
        }
    }

    /// The generations in `values`. Those that are missing or invalid are created.
    async fn generations(
        &self,
        connection: &Connection,
        deps: &[Arc<Dep>],
        values: &[Value],
    ) -> Result<Vec<Generation>, Error> {
        if let Some(generations) = values.iter().map(generation).collect() {
            return Ok(generations);
        }
        // Boxed, so that the future of a hit does not hold memory for it.
        Box::pin(self.ensure(connection, deps)).await
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
        let keys = deps.iter().map(|dep| dep.key());
        let values: Vec<Value> = self
            .script(
                connection,
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
