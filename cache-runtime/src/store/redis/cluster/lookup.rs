//! Reads in a cluster: an entry from its node and its generations from theirs, in one round trip.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redis::{Pipeline, Value};

use super::super::connection::Connection;
use super::super::reply::{self, millis};
use super::super::scripts;
use super::super::slots::slot_of;
use super::super::stored::{
    GenerationSet, Missing, StoredValue, generation, generations_or_unknown,
};
use super::routing::{ScriptCall, SlotGroup, groups};
use super::state::{Answers, Cluster, Fault, fault};
use crate::base::clock;
use crate::base::error::{Error, ErrorKind};
use crate::base::nonce::Nonce;
use crate::protocol::generation::{Generation, StampBase};
use crate::store::{Look, Probe};

/// The commands for one node.
pub(super) struct NodeRequest {
    pub(super) connection: Arc<Connection>,
    commands: Pipeline,
    pub(super) wanted: Vec<Requested>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Requested {
    Entry(usize),
    Group(usize),
}

impl NodeRequest {
    fn new(connection: &Arc<Connection>) -> Self {
        let mut commands = Pipeline::new();
        commands.ignore_errors();
        Self {
            connection: Arc::clone(connection),
            commands,
            wanted: Vec::new(),
        }
    }

    /// Asks for an entry. With a value of another type `MGET` returns nothing, and `GET` an error.
    pub(super) fn entry(&mut self, at: usize, key: &str) {
        self.commands.cmd("MGET").arg(key);
        self.wanted.push(Requested::Entry(at));
    }

    pub(super) fn group(&mut self, number: usize, group: &SlotGroup<'_>) {
        self.commands.cmd("MGET").arg(group.keys());
        self.wanted.push(Requested::Group(number));
    }
}

/// The answer for an entry; `None` if it is no such answer.
pub(super) fn entry_of(answer: Value) -> Option<Value> {
    match answer {
        Value::Array(values) => <[Value; 1]>::try_from(values).ok().map(|[value]| value),
        _ => None,
    }
}

/// A generation, and the connection that it came over.
pub(super) struct Sourced {
    pub(super) generation: Generation,
    pub(super) connection: Arc<Connection>,
}

/// The request for one node, to which commands are added.
pub(super) fn request_of<'r>(
    requests: &'r mut Vec<NodeRequest>,
    connection: &Arc<Connection>,
) -> &'r mut NodeRequest {
    let known = requests
        .iter()
        .position(|it| Arc::ptr_eq(&it.connection, connection));
    let at = known.unwrap_or_else(|| {
        requests.push(NodeRequest::new(connection));
        requests.len() - 1
    });
    &mut requests[at]
}

/// Entries that were returned for another key than their own: one for each connection.
#[derive(Default)]
pub(super) struct Misplaced(Vec<(Arc<Connection>, String)>);

impl Misplaced {
    pub(super) fn add(&mut self, connection: &Arc<Connection>, key: &str) {
        if !self
            .0
            .iter()
            .any(|(known, _)| Arc::ptr_eq(known, connection))
        {
            self.0.push((Arc::clone(connection), key.to_owned()));
        }
    }

    /// Returns once it is known that the entries really are stored under these keys.
    ///
    /// # Errors
    /// If a connection was closed, because its answers belong to other commands.
    pub(super) async fn check(&mut self, budget: Duration) -> Result<(), Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        let misplaced = std::mem::take(&mut self.0);
        let checks = misplaced
            .iter()
            .map(|(connection, key)| connection.check_sync(key, budget));
        // Boxed, so that the future of a hit does not hold memory for it.
        let checked = Box::pin(join_all(checks)).await;
        checked.into_iter().collect()
    }
}

impl Cluster {
    /// Reads entries, and the generations that all of them depend on.
    pub(in crate::store::redis) async fn look_over(
        &self,
        probes: &[Probe],
    ) -> Result<Vec<Look>, Error> {
        self.read_over(probes, Missing::Created).await
    }

    /// Reads an entry, and creates nothing.
    pub(in crate::store::redis) async fn examine(&self, probe: &Probe) -> Result<Look, Error> {
        let probes = std::slice::from_ref(probe);
        let mut looks = self.read_over(probes, Missing::Unknown).await?;
        looks.pop().ok_or_else(reply::miscounted)
    }

    async fn read_over(&self, probes: &[Probe], missing: Missing) -> Result<Vec<Look>, Error> {
        let deadline = clock::now() + self.budget;
        loop {
            match self.try_look(probes, missing).await {
                Ok(looks) => return Ok(looks),
                Err(Fault::Moved) => Box::pin(self.refreshed(deadline)).await?,
                // The keys of a slot that is being moved are in two places. Nothing is read from
                // the new node before it owns the slot: its values may be from an earlier attempt
                // to move it.
                Err(Fault::Moving(_) | Fault::Split) => {
                    return Err(Error::unavailable("the key's slot is being moved"));
                }
                Err(Fault::Failed(error)) => return Err(error),
            }
        }
    }

    async fn try_look(&self, probes: &[Probe], missing: Missing) -> Result<Vec<Look>, Fault> {
        let Some(Probe { deps, .. }) = probes.first() else {
            return Ok(Vec::new());
        };
        debug_assert!(probes.iter().all(|probe| probe.deps == *deps));
        let groups = groups(deps.iter());
        let mut requests = Vec::with_capacity(2);
        let mut connections = Vec::with_capacity(probes.len());
        let mut group_links = Vec::with_capacity(groups.len());
        {
            let map = self.map.load();
            if map.nodes().is_empty() {
                return Err(Fault::Failed(self.unknown()));
            }
            for (at, probe) in probes.iter().enumerate() {
                let connection = map.connection(slot_of(&probe.key)).map_err(Fault::Failed)?;
                request_of(&mut requests, &connection).entry(at, &probe.key);
                connections.push(connection);
            }
            for (at, group) in groups.iter().enumerate() {
                let connection = map.connection(group.slot).map_err(Fault::Failed)?;
                request_of(&mut requests, &connection).group(at, group);
                group_links.push(connection);
            }
        }
        let mut values: Vec<Option<Value>> = probes.iter().map(|_| None).collect();
        let mut found: Vec<Option<Vec<Value>>> = groups.iter().map(|_| None).collect();
        let answers = match &requests[..] {
            [request] => vec![self.ask(request).await],
            requests if crate::base::mutation::is_active("cluster-reads-in-turn") => {
                let mut answers = Vec::new();
                for request in requests {
                    answers.push(self.ask(request).await);
                }
                answers
            }
            requests => join_all(requests.iter().map(|request| self.ask(request))).await,
        };
        for (request, answers) in requests.iter().zip(answers) {
            for (wanted, answer) in request.wanted.iter().zip(answers.map_err(Fault::Failed)?) {
                let value = answer.map_err(|error| fault(&request.connection, error))?;
                match (wanted, value) {
                    (Requested::Entry(at), value) => {
                        let value =
                            entry_of(value).ok_or_else(|| miscounted(&request.connection))?;
                        values[*at] = Some(value);
                    }
                    (Requested::Group(at), Value::Array(values)) => found[*at] = Some(values),
                    (Requested::Group(_), _) => return Err(miscounted(&request.connection)),
                }
            }
        }
        let mut generations: Vec<Option<Sourced>> = deps.iter().map(|_| None).collect();
        for ((group, connection), values) in groups.iter().zip(&group_links).zip(found) {
            let values = values.filter(|values| values.len() == group.deps.len());
            let values = values.ok_or_else(|| miscounted(connection))?;
            let read: Option<Vec<_>> = values.iter().map(generation).collect();
            let read = match read {
                Some(read) => read,
                None if missing == Missing::Unknown => generations_or_unknown(&values),
                // Boxed, so that the future of a hit does not hold memory for it.
                None => Box::pin(self.ensure(connection, group)).await?,
            };
            for ((_, at), generation) in group.deps.iter().zip(read) {
                let connection = Arc::clone(connection);
                generations[*at] = Some(Sourced {
                    generation,
                    connection,
                });
            }
        }
        let generations: Option<Vec<Sourced>> = generations.into_iter().collect();
        let generations = generations.unwrap_or_default();
        let mut misplaced = Misplaced::default();
        let looks = probes.iter().zip(&connections).zip(values);
        let looks = looks.map(|((probe, connection), value)| {
            let value = StoredValue::of(value.unwrap_or(Value::Nil));
            let generation_set = generation_set(connection, &generations);
            let look = value.look(&probe.key, &generation_set, connection.clock.now());
            if generation_set.is_misplaced(&look) {
                misplaced.add(connection, &probe.key);
            }
            look
        });
        let looks = looks.collect();
        misplaced.check(self.budget).await.map_err(Fault::Failed)?;
        Ok(looks)
    }

    pub(super) async fn ask(&self, request: &NodeRequest) -> Result<Answers, Error> {
        let commands = &request.commands;
        let answers: Answers = request
            .connection
            .ask(self.budget, async |multiplexed| {
                commands.query_async(multiplexed).await
            })
            .await?;
        match answers.len() == request.wanted.len() {
            true => Ok(answers),
            false => Err(request.connection.answers_amiss(reply::miscounted())),
        }
    }

    /// The generations of one slot; missing ones are created.
    async fn ensure(
        &self,
        connection: &Arc<Connection>,
        group: &SlotGroup<'_>,
    ) -> Result<Vec<Generation>, Fault> {
        let ttl = millis(self.default_generation_ttl);
        let nonces = group
            .deps
            .iter()
            .map(|_| Nonce::fresh().to_string().into_bytes());
        let step = ScriptCall {
            slot: group.slot,
            script: &scripts::ENSURE,
            keys: group.keys(),
            args: std::iter::once(ttl).chain(nonces).collect(),
        };
        let mut answers = self
            .send(connection, &[&step])
            .await
            .map_err(Fault::Failed)?;
        let answer = answers.pop().ok_or_else(|| miscounted(connection))?;
        let made = match answer.map_err(|error| fault(connection, error))? {
            Value::Array(values) => values.iter().map(generation).collect::<Option<Vec<_>>>(),
            _ => None,
        };
        made.filter(|made| made.len() == group.deps.len())
            .ok_or_else(|| {
                let text = "a generation's key holds something else";
                Fault::Failed(Error::new(ErrorKind::Foreign, text))
            })
    }
}

fn miscounted(connection: &Connection) -> Fault {
    Fault::Failed(connection.answers_amiss(reply::miscounted()))
}

/// The generation set of an entry that came over this connection. It contains the identities of all
/// servers concerned, unless there is only one.
pub(super) fn generation_set(entry: &Connection, generations: &[Sourced]) -> GenerationSet {
    let own = match crate::base::mutation::is_active("entry-node-not-in-stamp") {
        true => Nonce::NONE,
        false => entry.identity(),
    };
    let identity =
        |it: &Sourced| match crate::base::mutation::is_active("generation-node-not-in-stamp") {
            true => own,
            false => it.connection.identity(),
        };
    let nonces = generations.iter().map(|it| it.generation.nonce);
    let base = match generations.iter().all(|it| identity(it) == own) {
        true => StampBase::of(own, nonces),
        false => StampBase::split(own, nonces.zip(generations.iter().map(identity))),
    };
    // Each deadline follows the clock of its node.
    let intended = generations.iter().filter_map(|it| {
        let until = it.generation.intended?;
        Some(entry.clock.here_to(it.connection.clock.to_here(until)))
    });
    GenerationSet::new(base, intended.max())
}
