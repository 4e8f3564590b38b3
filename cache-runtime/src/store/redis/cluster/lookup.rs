//! Reads in a cluster: an entry from its node and its generations from theirs, in one round trip.

use std::sync::Arc;
use std::time::Duration;

use redis::{Pipeline, Value};

use super::super::connection::Connection;
use super::super::reads::mget::{
    Unanswered, is_oversized, lengths, read_alone, set_oversized_aside,
};
use super::super::reads::stored::{
    GenerationSet, Missing, StoredValue, generation, generations, generations_or_unknown,
};
use super::super::reply::{self, millis};
use super::super::scripts;
use super::super::sent::Sent;
use super::super::slots::slot_of;
use super::node::SlotMap;
use super::routing::{ScriptCall, SlotGroup, groups};
use super::state::{Answers, Cluster, Fault, fault};
use crate::base::clock;
use crate::base::error::Error;
use crate::base::join;
use crate::base::nonce::Nonce;
use crate::base::unserved::Unserved;
use crate::protocol::generation::{Generation, StampBase};
use crate::store::{EntryRef, LookupReply};

/// The commands for one node.
pub(super) struct NodeRequest<'k> {
    pub(super) connection: Arc<Connection>,
    commands: Pipeline,
    /// The keys of all commands, in their order.
    keys: Vec<&'k str>,
    pub(super) wanted: Vec<Requested>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Requested {
    Entry(usize),
    Group(usize),
}

impl<'k> NodeRequest<'k> {
    fn new(connection: &Arc<Connection>) -> Self {
        let mut commands = Pipeline::new();
        commands.ignore_errors();
        Self {
            connection: Arc::clone(connection),
            commands,
            keys: Vec::new(),
            wanted: Vec::new(),
        }
    }

    /// Asks for an entry. With a value of another type `MGET` returns nothing, and `GET` an error.
    pub(super) fn entry(&mut self, at: usize, key: &'k str) {
        self.commands.cmd("MGET").arg(key);
        self.keys.push(key);
        self.wanted.push(Requested::Entry(at));
    }

    pub(super) fn group(&mut self, number: usize, group: &SlotGroup<'k>) {
        let keys = group.keys();
        self.commands.cmd("MGET").arg(&keys);
        self.keys.extend(keys);
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
pub(super) fn request_of<'r, 'k>(
    requests: &'r mut Vec<NodeRequest<'k>>,
    connection: &Arc<Connection>,
) -> &'r mut NodeRequest<'k> {
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
        let checked = Box::pin(join::all(checks)).await;
        checked.into_iter().collect()
    }
}

/// The requests of one lookup, and what is known by now.
struct Lookup<'k> {
    requests: Vec<NodeRequest<'k>>,
    /// The connection to the node of each entry, and the entry once it is known.
    entries: Vec<(Arc<Connection>, Option<Value>)>,
    /// The same for each group of generations.
    groups: Vec<(Arc<Connection>, Option<Vec<Value>>)>,
}

impl<'k> Lookup<'k> {
    /// # Errors
    /// If one of the nodes can't be read now.
    fn plan(
        cluster: &Cluster,
        entry_refs: &'k [EntryRef],
        groups: &[SlotGroup<'k>],
        oversized: &[&str],
    ) -> Result<Self, Error> {
        let mut requests = Vec::with_capacity(2);
        let mut entries = Vec::with_capacity(entry_refs.len());
        let mut of_groups = Vec::with_capacity(groups.len());
        let map = cluster.map.load();
        if map.nodes().is_empty() {
            return Err(cluster.unknown());
        }
        // Otherwise the read would wait for answers that can't be used.
        cluster.confirmed()?;
        for (at, entry_ref) in entry_refs.iter().enumerate() {
            let connection = cluster.readable(&map, slot_of(&entry_ref.key))?;
            let value = match oversized.contains(&entry_ref.key.as_str()) {
                false => {
                    request_of(&mut requests, &connection).entry(at, &entry_ref.key);
                    None
                }
                // Handled like any other foreign value.
                true => Some(Value::BulkString(Vec::new())),
            };
            entries.push((connection, value));
        }
        for (at, group) in groups.iter().enumerate() {
            let connection = cluster.readable(&map, group.slot)?;
            let values = match group.deps.iter().any(|(key, _)| oversized.contains(key)) {
                false => {
                    request_of(&mut requests, &connection).group(at, group);
                    None
                }
                // The script that creates missing generations replaces it.
                true => Some(vec![Value::Nil; group.deps.len()]),
            };
            of_groups.push((connection, values));
        }
        Ok(Self {
            requests,
            entries,
            groups: of_groups,
        })
    }

    /// Takes the answers to the requests.
    fn take_in(&mut self, answers: Vec<Result<Answers, Error>>) -> Result<(), Fault> {
        for (request, answers) in self.requests.iter().zip(answers) {
            for (wanted, answer) in request.wanted.iter().zip(answers.map_err(Fault::Failed)?) {
                let value = answer.map_err(|error| fault(&request.connection, error))?;
                match (wanted, value) {
                    (Requested::Entry(at), value) => {
                        let value =
                            entry_of(value).ok_or_else(|| miscounted(&request.connection))?;
                        self.entries[*at].1 = Some(value);
                    }
                    (Requested::Group(at), Value::Array(values)) => {
                        self.groups[*at].1 = Some(values);
                    }
                    (Requested::Group(_), _) => return Err(miscounted(&request.connection)),
                }
            }
        }
        Ok(())
    }
}

/// Decodes the entries, and finds those that were returned for another key.
fn decoded(
    entry_refs: &[EntryRef],
    entries: Vec<(Arc<Connection>, Option<Value>)>,
    generations: &[Sourced],
) -> (Vec<LookupReply>, Misplaced) {
    let mut misplaced = Misplaced::default();
    let lookups = entry_refs.iter().zip(entries);
    let lookups = lookups.map(|(entry_ref, (connection, value))| {
        let value = StoredValue::of(value.unwrap_or(Value::Nil));
        let generation_set = generation_set(&connection, generations);
        let lookup = value.lookup(&entry_ref.key, &generation_set, connection.clock.now());
        if generation_set.is_misplaced(&lookup) {
            misplaced.add(&connection, &entry_ref.key);
        }
        lookup
    });
    (lookups.collect(), misplaced)
}

impl Cluster {
    /// Reads entries, and the generations that all of them depend on.
    pub(in crate::store::redis) async fn lookup_all(
        &self,
        entry_refs: &[EntryRef],
    ) -> Result<Vec<LookupReply>, Error> {
        let lookups = self.read_over(entry_refs, Missing::Created).await;
        lookups.inspect_err(|error| self.unserved.count(error, entry_refs.len()))
    }

    /// Reads an entry, and creates nothing.
    pub(in crate::store::redis) async fn examine(
        &self,
        entry_ref: &EntryRef,
    ) -> Result<LookupReply, Error> {
        let entry_refs = std::slice::from_ref(entry_ref);
        let mut lookups = self.read_over(entry_refs, Missing::Unknown).await?;
        lookups.pop().ok_or_else(reply::miscounted)
    }

    async fn read_over(
        &self,
        entry_refs: &[EntryRef],
        missing: Missing,
    ) -> Result<Vec<LookupReply>, Error> {
        let deadline = clock::now() + self.budget;
        loop {
            match self.try_look(entry_refs, missing).await {
                Ok(lookups) => return Ok(lookups),
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

    async fn try_look(
        &self,
        entry_refs: &[EntryRef],
        missing: Missing,
    ) -> Result<Vec<LookupReply>, Fault> {
        let Some(EntryRef { deps, .. }) = entry_refs.first() else {
            return Ok(Vec::new());
        };
        debug_assert!(entry_refs.iter().all(|entry_ref| entry_ref.deps == *deps));
        let groups = groups(deps.iter());
        let keys = entry_refs.iter().map(|entry_ref| entry_ref.key.as_str());
        let of_groups = groups.iter().flat_map(|group| &group.deps);
        let aside = self
            .set_aside
            .among(keys.chain(of_groups.map(|(key, _)| *key)));
        let oversized = match aside.is_empty() {
            true => Vec::new(),
            // Boxed, so that the future of a hit does not hold memory for it.
            false => Box::pin(self.oversized(aside)).await?,
        };
        let mut lookup =
            Lookup::plan(self, entry_refs, &groups, &oversized).map_err(Fault::Failed)?;
        let answers = match &lookup.requests[..] {
            [request] => vec![self.ask(request).await],
            requests if crate::base::mutation::is_active("cluster-reads-in-turn") => {
                let mut answers = Vec::new();
                for request in requests {
                    answers.push(self.ask(request).await);
                }
                answers
            }
            requests => join::all(requests.iter().map(|request| self.ask(request))).await,
        };
        lookup.take_in(answers)?;
        let mut generations: Vec<Option<Sourced>> = deps.iter().map(|_| None).collect();
        for (group, (connection, values)) in groups.iter().zip(lookup.groups) {
            let values = values.filter(|values| values.len() == group.deps.len());
            let values = values.ok_or_else(|| miscounted(&connection))?;
            let read: Option<Vec<_>> = values.iter().map(generation).collect();
            let read = match read {
                Some(read) => read,
                None if missing == Missing::Unknown => generations_or_unknown(&values),
                // Boxed, so that the future of a hit does not hold memory for it.
                None => Box::pin(self.ensure(&connection, group)).await?,
            };
            for ((_, at), generation) in group.deps.iter().zip(read) {
                let connection = Arc::clone(&connection);
                generations[*at] = Some(Sourced {
                    generation,
                    connection,
                });
            }
        }
        self.confirmed().map_err(Fault::Failed)?;
        let generations: Option<Vec<Sourced>> = generations.into_iter().collect();
        let generations = generations.unwrap_or_default();
        let (lookups, mut misplaced) = decoded(entry_refs, lookup.entries, &generations);
        misplaced.check(self.budget).await.map_err(Fault::Failed)?;
        Ok(lookups)
    }

    /// The connection to read a slot over.
    ///
    /// # Errors
    /// Also while the slot's former owner may take invalidations that its new one does not get.
    pub(super) fn readable(&self, map: &SlotMap, slot: u16) -> Result<Arc<Connection>, Error> {
        if self.fences.has(slot) && !crate::base::mutation::is_active("new-owner-read-at-once") {
            return Err(Unserved::Fenced.into());
        }
        map.connection(slot)
    }

    pub(super) async fn ask(&self, request: &NodeRequest<'_>) -> Result<Answers, Error> {
        let NodeRequest {
            connection,
            commands,
            keys,
            wanted,
        } = request;
        let sent = Sent::now(self.budget);
        let unanswered = Unanswered::new(connection, sent, keys.iter().copied());
        let answered = connection.ask_at(sent, async |multiplexed| {
            commands.query_async(multiplexed).await
        });
        let answers: Answers = unanswered.ended(answered.await)?;
        let answers = connection.counted(answers, wanted.len())?;
        let mut keys = keys.iter().copied();
        for answer in &answers {
            // It is not known how many keys a command had that failed.
            let Ok(Value::Array(values)) = answer else {
                break;
            };
            set_oversized_aside(connection, keys.by_ref().take(values.len()), values);
        }
        Ok(answers)
    }

    /// Those of these keys whose values are larger than the cache stores.
    async fn oversized<'k>(&self, aside: Vec<&'k str>) -> Result<Vec<&'k str>, Fault> {
        let (mut oversized, aside): (Vec<_>, Vec<_>) = aside
            .into_iter()
            .partition(|key| self.set_aside.is_held(key));
        let mut by_node: Vec<(Arc<Connection>, Vec<&'k str>)> = Vec::new();
        {
            let map = self.map.load();
            for key in aside {
                let connection = self.readable(&map, slot_of(key)).map_err(Fault::Failed)?;
                match by_node
                    .iter_mut()
                    .find(|(it, _)| Arc::ptr_eq(it, &connection))
                {
                    Some((_, keys)) => keys.push(key),
                    None => by_node.push((connection, vec![key])),
                }
            }
        }
        let asked = by_node.iter().map(|(connection, keys)| async move {
            let lengths = lengths(keys.iter().copied());
            let asked = connection.ask(self.budget, async |multiplexed| {
                lengths.query_async(multiplexed).await
            });
            connection.counted(asked.await?, keys.len())
        });
        let answers: Vec<Result<Answers, Error>> = join::all(asked).await;
        for ((connection, keys), answers) in by_node.iter().zip(answers) {
            for (key, answer) in keys.iter().zip(answers.map_err(Fault::Failed)?) {
                let answer = match answer {
                    Ok(answer) => answer,
                    Err(error) => match fault(connection, error) {
                        // It holds no string.
                        Fault::Failed(_) => Value::Nil,
                        elsewhere => return Err(elsewhere),
                    },
                };
                if is_oversized(connection, key, &answer) {
                    oversized.push(*key);
                } else if self.set_aside.is_doubtful(key) {
                    let read = read_alone(connection, self.budget, key).await;
                    // Other errors are those of the slot, which the read meets as well.
                    if let Err(error) = read
                        && !connection.is_usable()
                    {
                        return Err(Fault::Failed(error));
                    }
                }
            }
        }
        Ok(oversized)
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
            Value::Array(values) => generations(&values, &group.keys()),
            _ => Err(reply::miscounted()),
        };
        made.map_err(Fault::Failed)
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
    let intents_until = generations.iter().filter_map(|it| {
        let until = it.generation.intents_until?;
        Some(entry.clock.here_to(it.connection.clock.to_here(until)))
    });
    GenerationSet::new(base, intents_until.max())
}
