//! Batches of reads, over all nodes.
//!
//! They are queued like those of one server, whatever node they are for. A batch asks each node for
//! its entries with one `MGET` per entry, since the keys of a command must be in one slot. It asks
//! for generations with one `MGET` per slot. Each key is asked for once. All commands for one node
//! are one pipeline. A read is answered when its own parts have arrived. So a slow node delays only
//! the reads that need it, and the next batch does not wait for it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{BoxFuture, OptionFuture};
use futures_util::stream::{FuturesUnordered, StreamExt};
use redis::{RedisError, Value};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::super::connection::Connection;
use super::super::connection::errors::{is_forbidden, says_away, unanswered};
use super::super::reads::batcher::{
    BatchKeys, BatchOutcome, BatchPlan, Batcher, LookResult, MOST_AT_ONCE, Request as Waiter,
    WORKERS, others_first,
};
use super::super::reads::stored::{GenerationSet, StoredValue, generation};
use super::super::reply::{miscounted, text};
use super::super::sent::Sent;
use super::super::slots::slot_of;
use super::lookup::{
    Misplaced, NodeRequest, Requested, Sourced, entry_of, generation_set, request_of,
};
use super::routing::{groups, routed};
use super::state::{Answers, Cluster, Fault, fault};
use crate::base::clock::{self, Instant};
use crate::base::error::{Error, ErrorKind};
use crate::base::unserved::copied;
use crate::protocol::generation::Generation;
use crate::store::{EntryRef, LookupReply};

/// The number of batches in flight per worker, without those whose nodes are late.
const AT_ONCE: usize = 1;
/// How long nodes may take, after the batch was sent or one of them has answered, before the next
/// batch is sent without them.
const LATE_AFTER: Duration = Duration::from_millis(1);

/// A read that was sent alone. It counts as in flight while this is held.
struct InFlightRead<'c>(&'c Batcher);

impl Drop for InFlightRead<'_> {
    fn drop(&mut self) {
        self.0.alone.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Cluster {
    /// Reads one entry: alone while few reads are in flight, otherwise in a batch.
    pub(in crate::store::redis) fn lookup_one<'l>(
        &'l self,
        entry_ref: &'l EntryRef,
    ) -> BoxFuture<'l, Result<Box<LookupReply>, Error>> {
        let (sent, since) = (Sent::now(self.budget), clock::now());
        let batched = match self.batcher.is_quiet() || self.is_aside(entry_ref) {
            true => None,
            false => self.batcher.join(entry_ref, sent.at),
        };
        let Some(answer) = batched else {
            return Box::pin(self.lookup_alone(entry_ref));
        };
        Box::pin(async move {
            // With a time limit of its own. Once one node has answered, the batch counts as
            // answered, and nobody checks the reads that wait for another node.
            let answer = {
                let _held = sent.held(since);
                match crate::base::time::timeout_at(since + self.budget, answer).await {
                    Ok(Ok(answer)) => answer,
                    Ok(Err(_)) | Err(_) => Err(unanswered(self.budget)),
                }
            };
            let answer = answer.inspect_err(|error| self.unserved.count(error, 1));
            if let Some(lookup) = answer? {
                return Ok(lookup);
            }
            Box::pin(self.lookup_again(since, entry_ref)).await
        })
    }

    /// Whether the length of a key of a read has to be asked for first.
    fn is_aside(&self, entry_ref: &EntryRef) -> bool {
        let deps = entry_ref.deps.iter().map(|dep| routed(dep).0);
        self.set_aside
            .has_any(std::iter::once(entry_ref.key.as_str()).chain(deps))
    }

    async fn lookup_alone(&self, entry_ref: &EntryRef) -> Result<Box<LookupReply>, Error> {
        self.batcher.alone.fetch_add(1, Ordering::Relaxed);
        let _alone = InFlightRead(&self.batcher);
        let mut lookups = self.lookup_all(std::slice::from_ref(entry_ref)).await?;
        lookups.pop().map(Box::new).ok_or_else(miscounted)
    }

    /// Reads once more in the time that is left.
    async fn lookup_again(
        &self,
        since: Instant,
        entry_ref: &EntryRef,
    ) -> Result<Box<LookupReply>, Error> {
        let rest = self.budget.saturating_sub(since.elapsed());
        match crate::base::time::timeout(rest, self.lookup_alone(entry_ref)).await {
            Ok(lookup) => lookup,
            Err(_) => Err(unanswered(self.budget)),
        }
    }
}

/// Sends batches until the cluster is closed: on the application's runtime if there is one, since
/// it drives the connections; on this one when that has ended.
pub(super) async fn keep_sending(
    cluster: Arc<Cluster>,
    number: usize,
    application: Option<Handle>,
) {
    let worker = || Worker::new(Arc::clone(&cluster), number);
    if let Some(application) = application
        && application.spawn(worker().drive()).await.is_ok()
    {
        return;
    }
    worker().drive().await;
}

struct Worker {
    cluster: Arc<Cluster>,
    /// The slots of its batches.
    slots: Range<usize>,
    /// The number of batches whose nodes are not late.
    prompt: AtomicUsize,
    /// Notified when a batch is late.
    is_late: Notify,
}

/// A batch that blocks the next one until its nodes have answered or are late.
struct Prompt<'w>(Option<&'w Worker>);

impl<'w> Prompt<'w> {
    fn new(worker: &'w Worker) -> Self {
        worker.prompt.fetch_add(1, Ordering::Relaxed);
        Self(Some(worker))
    }

    fn is_over(&mut self) {
        if let Some(worker) = self.0.take() {
            worker.prompt.fetch_sub(1, Ordering::Relaxed);
            worker.is_late.notify_one();
        }
    }
}

impl Drop for Prompt<'_> {
    fn drop(&mut self) {
        self.is_over();
    }
}

/// A batch that counts in the queue. However it ends, reads need not be queued because of it any
/// more.
struct QueuedBatch<'b>(&'b Batcher);

impl Drop for QueuedBatch<'_> {
    fn drop(&mut self) {
        self.0.retire();
    }
}

impl Worker {
    fn new(cluster: Arc<Cluster>, number: usize) -> Self {
        let each = MOST_AT_ONCE / WORKERS;
        Self {
            cluster,
            slots: number * each..(number + 1) * each,
            prompt: AtomicUsize::new(0),
            is_late: Notify::new(),
        }
    }

    async fn drive(self) {
        let batcher = &self.cluster.batcher;
        let mut free: Vec<_> = self.slots.clone().collect();
        let mut in_flight = FuturesUnordered::new();
        loop {
            let is_free = self.prompt.load(Ordering::Relaxed) < AT_ONCE;
            let slot = free.last().copied().filter(|_| is_free);
            tokio::select! {
                biased;
                Some(slot) = in_flight.next() => free.push(slot),
                () = self.is_late.notified() => {}
                Some(next) = OptionFuture::from(slot.map(|slot| batcher.next_batch(slot))) => {
                    let (Some(plan), Some(slot)) = (next, free.pop()) else {
                        return;
                    };
                    in_flight.push(self.run(slot, plan, Prompt::new(&self)));
                }
            }
        }
    }

    /// Sends a batch; returns its slot, which is free again.
    async fn run(&self, slot: usize, plan: BatchPlan, mut prompt: Prompt<'_>) -> usize {
        let _counted = QueuedBatch(&self.cluster.batcher);
        self.send(slot, &plan, &mut prompt).await;
        // The callers are likely to read again. If the batch were retired by then, each read would
        // be sent alone.
        others_first().await;
        slot
    }

    async fn send(&self, slot: usize, plan: &BatchPlan, prompt: &mut Prompt<'_>) {
        let cluster = &*self.cluster;
        if cluster.batcher.is_abandoned(slot) {
            cluster.batcher.complete(slot, &BatchOutcome::Empty);
            return;
        }
        let mut batch = ClusterBatch::new(plan);
        let requests = batch.requests(cluster);
        let asked = requests
            .iter()
            .map(|request| async move { (request, cluster.ask(request).await) });
        let mut asked: FuturesUnordered<_> = asked.collect();
        let mut waiters: Option<Vec<Option<Waiter>>> = None;
        loop {
            // Also before the first answer, which may come from a node that is late.
            let next = match prompt.0.is_some() && !asked.is_empty() {
                false => asked.next().await,
                true => match crate::base::time::timeout(LATE_AFTER, asked.next()).await {
                    Ok(next) => next,
                    Err(_) => {
                        prompt.is_over();
                        continue;
                    }
                },
            };
            let is_last = next.is_none();
            if let Some((request, answers)) = next {
                batch.take_in(request, answers);
            }
            let waiters = waiters.get_or_insert_with(|| {
                let waiters = cluster.batcher.complete(slot, &batch.outcome());
                let gone = (0..waiters.gone).map(|_| None);
                gone.chain(waiters.requests.into_iter().map(Some)).collect()
            });
            let answers = batch.answers(waiters);
            let is_in_sync = batch.misplaced.check(cluster.budget).await.is_ok();
            for (read, answer) in answers {
                let waiter = waiters.get_mut(read).and_then(Option::take);
                // If an answer belongs to another command, all are asked for again.
                let answer = if is_in_sync { answer } else { Ok(None) };
                if let Some(waiter) = waiter {
                    // A read that has timed out wants no answer.
                    let _ = waiter.answer.send(answer);
                }
            }
            if is_last {
                return;
            }
        }
    }
}

/// The answer for one key.
enum KeyAnswer<T> {
    Awaited,
    Come(T),
    /// The read has to be repeated alone: the slot has moved, or a generation is missing.
    Again,
    Failed(Error),
}

/// A batch, its keys, and what has arrived for them.
struct ClusterBatch<'p> {
    plan: &'p BatchPlan,
    keys: BatchKeys,
    /// By entry: the connection that it is asked over, and what arrived.
    entries: Vec<(Option<Arc<Connection>>, KeyAnswer<StoredValue>)>,
    /// By dependency.
    deps: Vec<(Option<Arc<Connection>>, KeyAnswer<Generation>)>,
    /// The indexes of the dependencies in each group, in the order in which they were asked for.
    groups: Vec<Vec<usize>>,
    /// By list and by the connection of the entry.
    generation_sets: Vec<(usize, Arc<Connection>, GenerationSet)>,
    misplaced: Misplaced,
    /// How many entries have arrived, and how many bytes their values have. The values of other
    /// programs and those that are too large count, too: they are not kept, but were transferred.
    come: (usize, usize),
    /// Whether a node has not answered in time.
    is_unanswered: bool,
}

impl<'p> ClusterBatch<'p> {
    fn new(plan: &'p BatchPlan) -> Self {
        let keys = plan.batch_keys(BatchKeys::default());
        Self {
            entries: keys
                .entries
                .iter()
                .map(|_| (None, KeyAnswer::Awaited))
                .collect(),
            deps: keys
                .deps
                .iter()
                .map(|_| (None, KeyAnswer::Awaited))
                .collect(),
            groups: Vec::new(),
            generation_sets: Vec::new(),
            misplaced: Misplaced::default(),
            come: (0, 0),
            is_unanswered: false,
            plan,
            keys,
        }
    }

    /// The commands for each node. Keys without a reachable node have failed. Those that were set
    /// aside meanwhile are read alone.
    fn requests(&mut self, cluster: &Cluster) -> Vec<NodeRequest<'p>> {
        let plan = self.plan;
        let map = cluster.map.load();
        // Otherwise the reads would wait for answers that can't be used.
        let confirmed = cluster.confirmed();
        let connection = |slot| match (map.nodes().is_empty(), &confirmed) {
            (true, _) => Err(cluster.unknown()),
            (false, Err(error)) => Err(copied(error)),
            (false, Ok(())) => cluster.readable(&map, slot),
        };
        let is_aside = |key: &str| cluster.set_aside.has_any(std::iter::once(key));
        let mut requests = Vec::with_capacity(map.nodes().len().min(8));
        for (at, entry) in self.keys.entries.iter().enumerate() {
            let Some(part) = self.entries.get_mut(at) else {
                continue;
            };
            let key = plan.key(entry.read);
            match connection(slot_of(key)) {
                Ok(_) if is_aside(key) => part.1 = KeyAnswer::Again,
                Ok(connection) => {
                    request_of(&mut requests, &connection).entry(at, key);
                    part.0 = Some(connection);
                }
                Err(error) => part.1 = KeyAnswer::Failed(error),
            }
        }
        for (number, group) in groups(plan.deps_of(&self.keys)).into_iter().enumerate() {
            let places: Vec<_> = group.deps.iter().map(|(_, at)| *at).collect();
            let connection = connection(group.slot);
            let is_aside = group.deps.iter().any(|(key, _)| is_aside(key));
            for at in &places {
                if let Some(part) = self.deps.get_mut(*at) {
                    match &connection {
                        Ok(_) if is_aside => part.1 = KeyAnswer::Again,
                        Ok(connection) => part.0 = Some(Arc::clone(connection)),
                        Err(error) => part.1 = KeyAnswer::Failed(copied(error)),
                    }
                }
            }
            if let Ok(connection) = &connection
                && !is_aside
            {
                request_of(&mut requests, connection).group(number, &group);
            }
            self.groups.push(places);
        }
        requests
    }

    /// Stores a node's answers.
    fn take_in(&mut self, request: &NodeRequest<'_>, answers: Result<Answers, Error>) {
        let connection = &request.connection;
        let is_late = |error: &Error| error.kind() == ErrorKind::Unavailable && !says_away(error);
        self.is_unanswered |= answers.as_ref().is_err_and(is_late);
        let confirmed = |answers| connection.check_confirmed().map(|()| answers);
        let (answers, error) = match answers.and_then(confirmed) {
            Ok(answers) => (answers.into_iter().map(Some).collect(), None),
            Err(error) => (Vec::new(), Some(error)),
        };
        let mut answers: Vec<Option<Result<Value, RedisError>>> = answers;
        answers.resize_with(request.wanted.len(), || None);
        for (wanted, answer) in request.wanted.iter().zip(answers) {
            let part = match (answer, &error) {
                (Some(Ok(value)), _) => KeyAnswer::Come(value),
                (Some(Err(error)), _) => refused(connection, error),
                (None, Some(error)) => KeyAnswer::Failed(copied(error)),
                (None, None) => KeyAnswer::Failed(miscounted()),
            };
            match *wanted {
                Requested::Entry(at) => {
                    let part = match part {
                        KeyAnswer::Come(value) => match entry_of(value) {
                            Some(value) => KeyAnswer::Come(self.decoded(value)),
                            None => KeyAnswer::Failed(connection.answers_amiss(miscounted())),
                        },
                        KeyAnswer::Awaited | KeyAnswer::Again => KeyAnswer::Again,
                        KeyAnswer::Failed(error) => KeyAnswer::Failed(error),
                    };
                    if let Some(entry) = self.entries.get_mut(at) {
                        entry.1 = part;
                    }
                }
                Requested::Group(number) => self.take_in_group(connection, number, part),
            }
        }
    }

    fn take_in_group(&mut self, connection: &Connection, number: usize, part: KeyAnswer<Value>) {
        let places = self.groups.get(number).map_or(&[][..], Vec::as_slice);
        let mut values = match part {
            KeyAnswer::Come(Value::Array(values)) if values.len() == places.len() => values,
            part => {
                let error = match part {
                    KeyAnswer::Failed(error) => Some(error),
                    KeyAnswer::Come(_) => Some(connection.answers_amiss(miscounted())),
                    KeyAnswer::Awaited | KeyAnswer::Again => None,
                };
                for at in places {
                    if let Some(dep) = self.deps.get_mut(*at) {
                        let error = error.as_ref();
                        dep.1 = error
                            .map_or(KeyAnswer::Again, |error| KeyAnswer::Failed(copied(error)));
                    }
                }
                return;
            }
        };
        for (at, value) in places.iter().zip(values.drain(..)) {
            if let Some(dep) = self.deps.get_mut(*at) {
                dep.1 = generation(&value).map_or(KeyAnswer::Again, KeyAnswer::Come);
            }
        }
    }

    /// The value of an entry that has arrived, which counts.
    fn decoded(&mut self, value: Value) -> StoredValue {
        self.come.0 += 1;
        self.come.1 += text(&value).map_or(0, <[u8]>::len);
        StoredValue::of(value)
    }

    /// How many entries the answer has, and of how many bytes.
    fn outcome(&self) -> BatchOutcome {
        let (entries, bytes) = self.come;
        match entries {
            0 if self.is_unanswered => BatchOutcome::Unanswered {
                reads: self.keys.reads.len(),
            },
            0 => BatchOutcome::Empty,
            _ => BatchOutcome::Brought { entries, bytes },
        }
    }

    /// The results of the waiting reads whose parts have all arrived.
    fn answers(&mut self, waiters: &[Option<Waiter>]) -> Vec<(usize, LookResult)> {
        let waiting = waiters.iter().enumerate().filter(|(_, it)| it.is_some());
        waiting
            .filter_map(|(read, _)| Some((read, self.lookup(read)?)))
            .collect()
    }

    /// The result of a read; `None` while parts of it are missing.
    fn lookup(&mut self, read: usize) -> Option<Result<Option<Box<LookupReply>>, Error>> {
        let (at, list) = *self.keys.reads.get(read)?;
        let (entry_link, entry) = self.entries.get(at)?;
        let deps = self.keys.list(list)?;
        let mut is_to_repeat = false;
        match entry {
            KeyAnswer::Awaited => return None,
            KeyAnswer::Failed(error) => return Some(Err(copied(error))),
            KeyAnswer::Again => is_to_repeat = true,
            KeyAnswer::Come(_) => {}
        }
        for dep in deps {
            match &self.deps.get(*dep)?.1 {
                KeyAnswer::Awaited => return None,
                KeyAnswer::Failed(error) => return Some(Err(copied(error))),
                KeyAnswer::Again => is_to_repeat = true,
                KeyAnswer::Come(_) => {}
            }
        }
        if is_to_repeat {
            return Some(Ok(None));
        }
        let connection = Arc::clone(entry_link.as_ref()?);
        let known = self
            .generation_sets
            .iter()
            .position(|(of, over, _)| *of == list && Arc::ptr_eq(over, &connection));
        let known = match known {
            Some(known) => known,
            None => {
                let sourced = deps.iter().map(|dep| match self.deps.get(*dep) {
                    Some((Some(connection), KeyAnswer::Come(generation))) => Some(Sourced {
                        generation: *generation,
                        connection: Arc::clone(connection),
                    }),
                    _ => None,
                });
                let sourced: Vec<_> = sourced.collect::<Option<_>>()?;
                let set = generation_set(&connection, &sourced);
                self.generation_sets
                    .push((list, Arc::clone(&connection), set));
                self.generation_sets.len() - 1
            }
        };
        let (.., set) = self.generation_sets.get(known)?;
        let asked = self.keys.entries.get_mut(at)?;
        asked.readers = asked.readers.saturating_sub(1);
        let part = &mut self.entries.get_mut(at)?.1;
        let value = match (asked.readers, &*part) {
            (0, _) => match std::mem::replace(part, KeyAnswer::Again) {
                KeyAnswer::Come(value) => value,
                _ => return Some(Ok(None)),
            },
            (_, KeyAnswer::Come(value)) => value.clone(),
            _ => return Some(Ok(None)),
        };
        let key = self.plan.key(read);
        let lookup = Box::new(value.lookup(key, set, connection.clock.now()));
        if set.is_misplaced(&lookup) {
            self.misplaced.add(&connection, key);
        }
        Some(Ok(Some(lookup)))
    }
}

/// The effect of an error on the reads that need the key.
fn refused(connection: &Connection, error: RedisError) -> KeyAnswer<Value> {
    match fault(connection, error) {
        Fault::Moved | Fault::Moving(_) | Fault::Split => KeyAnswer::Again,
        // One key caused the error, and perhaps another one of the same command.
        Fault::Failed(error) if is_forbidden(&error) => KeyAnswer::Again,
        Fault::Failed(error) => KeyAnswer::Failed(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::unserved::Unserved;
    use crate::key::EntryKind;
    use crate::protocol::generation::Dependency;

    /// Values that are not kept take as long to transfer.
    #[test]
    fn values_of_other_programs_count_as_bytes_of_the_batch() {
        let plan = BatchPlan::default();
        let mut batch = ClusterBatch::new(&plan);
        let foreign = Value::BulkString(b"x".repeat(100_000));
        let _ = (batch.decoded(foreign), batch.decoded(Value::Nil));
        let BatchOutcome::Brought { entries, bytes } = batch.outcome() else {
            panic!("two have arrived");
        };
        assert_eq!((entries, bytes), (2, 100_000));
    }

    /// A batch that is refused says nothing of how many bytes the nodes can send in time.
    #[test]
    fn reads_that_are_not_sent_make_no_batch_smaller() {
        let mut plan = BatchPlan::default();
        plan.add(&EntryRef {
            key: "users:1".into(),
            kind: EntryKind::Entity,
            deps: [Dependency::new("@gen:users".into())].into_iter().collect(),
        });
        let mut batch = ClusterBatch::new(&plan);
        let fenced = KeyAnswer::Failed(Unserved::Fenced.into());
        batch.entries[0].1 = fenced;
        assert!(matches!(batch.outcome(), BatchOutcome::Empty));
        let answer = batch.lookup(0).expect("it is not awaited");
        let error = answer.expect_err("it is refused");
        assert!(matches!(Unserved::of(&error), Some(Unserved::Fenced)));
        assert_eq!(error.to_string(), Unserved::Fenced.text());
        batch.is_unanswered = true;
        assert!(matches!(
            batch.outcome(),
            BatchOutcome::Unanswered { reads: 1 }
        ));
    }
}
