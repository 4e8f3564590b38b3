//! Invalidations as they are enqueued, and batches of them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::Acknowledgement;
use crate::base::clock::{Instant, Millis};
use crate::base::counters::Counters;
use crate::base::nonce::Nonce;
use crate::protocol::generation::Dependency;
use crate::store::{EntryRef, Intent, IntentRow, Invalidation, Parts};

/// The most rows, and the most dependencies, in one intent that is sent to the store.
const STEP: usize = 256;

/// Which dead entries a sweep may remove after an invalidation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sweep {
    pub(crate) resource: Box<str>,
    pub(crate) derived_only: bool,
}

/// One invalidation, as it is enqueued.
#[derive(Debug, Clone, Default)]
pub(crate) struct InvalidationRequest {
    pub(crate) deletes: Vec<String>,
    pub(crate) rotates: Vec<Arc<Dependency>>,
    pub(crate) sweeps: Vec<Sweep>,
    /// Intents of this process that end with the invalidation.
    pub(crate) ends: Vec<Nonce>,
    /// Intents for writes whose outcome is not known.
    pub(crate) intents: Vec<Intent>,
    /// The statistics that count it when it is enqueued.
    pub(crate) counted: Vec<Arc<Counters>>,
    /// The spans of the writes that asked for it, where somebody traces.
    pub(crate) spans: Vec<tracing::Span>,
}

impl InvalidationRequest {
    /// Combines two requests into one.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.deletes.extend(other.deletes);
        self.rotates.extend(other.rotates);
        self.sweeps.extend(other.sweeps);
        self.ends.extend(other.ends);
        self.intents.extend(other.intents);
        self.counted.extend(other.counted);
        self.spans.extend(other.spans);
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        let is_nothing = |intent: &Intent| intent.rows.is_empty() && intent.deps.is_empty();
        self.deletes.is_empty() && self.rotates.is_empty() && self.intents.iter().all(is_nothing)
    }
}

/// Merged intents. All of them stand for the longest time of any, so that each still holds off its
/// readers. A merged intent gets a fresh token that no caller knows: a caller that withdraws its
/// own intent must not end the others.
#[derive(Debug, Default)]
struct MergedIntents {
    /// The token, while all parts share one.
    token: Option<Nonce>,
    rows: HashMap<String, Arc<Dependency>>,
    deps: HashSet<Arc<Dependency>>,
    length: Duration,
}

impl MergedIntents {
    fn len(&self) -> usize {
        self.rows.len() + self.deps.len()
    }

    fn add(&mut self, intent: Intent) {
        let is_alone = self.len() == 0 || self.token == Some(intent.token);
        self.token = is_alone.then_some(intent.token);
        let rows = intent.rows.into_iter().map(|row| (row.key, row.whole));
        self.rows.extend(rows);
        self.deps.extend(intent.deps);
        self.length = self.length.max(intent.length);
    }

    fn merge(&mut self, other: Self) {
        if other.len() == 0 {
            return;
        }
        self.token = match self.len() {
            0 => other.token,
            _ => self.token.filter(|token| other.token == Some(*token)),
        };
        self.rows.extend(other.rows);
        unite(&mut self.deps, other.deps);
        self.length = self.length.max(other.length);
    }

    /// Splits it into intents that are small enough not to delay other commands to the store.
    fn into_intents(self) -> Vec<Intent> {
        let is_one = self.rows.len() <= STEP && self.deps.len() <= STEP;
        let token = self.token.filter(|_| is_one);
        let mut rows = self
            .rows
            .into_iter()
            .map(|(key, whole)| IntentRow { key, whole });
        let mut deps = self.deps.into_iter();
        let parts = std::iter::from_fn(|| {
            let intent = Intent {
                token: token.unwrap_or_else(Nonce::fresh),
                rows: rows.by_ref().take(STEP).collect(),
                deps: deps.by_ref().take(STEP).collect(),
                length: self.length,
            };
            (keys_of(&intent) > 0).then_some(intent)
        });
        parts.collect()
    }

    fn concerns(&self, entry_ref: &EntryRef) -> bool {
        self.rows.contains_key(entry_ref.key.as_str())
            || entry_ref.deps.iter().any(|dep| self.deps.contains(dep))
    }
}

fn keys_of(intent: &Intent) -> usize {
    intent.rows.len() + intent.deps.len()
}

/// The callers that wait for an acknowledgement.
pub(super) type Waiters = Vec<Waiter>;

/// A caller that waits for an acknowledgement.
#[derive(Debug)]
pub(super) struct Waiter {
    sender: oneshot::Sender<Acknowledgement>,
    /// The parts that it waits for, if the store may complete a batch in parts.
    waits_for: Option<Box<WaitsFor>>,
}

/// The entries and generations that a request names.
#[derive(Debug)]
struct WaitsFor {
    deletes: Vec<String>,
    rotates: Vec<Arc<Dependency>>,
}

impl Waiter {
    pub(super) fn new(
        sender: oneshot::Sender<Acknowledgement>,
        request: Option<&InvalidationRequest>,
        is_done_in_parts: bool,
    ) -> Self {
        let request = request.filter(|_| is_done_in_parts);
        Self {
            sender,
            waits_for: request.map(|it| {
                Box::new(WaitsFor {
                    deletes: it.deletes.clone(),
                    rotates: it.rotates.clone(),
                })
            }),
        }
    }

    /// The invalidation of the whole namespace stands for what it waits for.
    fn wait_for_everything(&mut self) {
        self.waits_for = None;
    }

    pub(super) fn tell(self, acknowledgement: Acknowledgement) {
        // The receiver may be gone.
        let _ = self.sender.send(acknowledgement);
    }

    /// Returns true if everything that it waits for is done, although the entries and generations
    /// of `undone` are not.
    fn is_done_without(&self, undone: &Batch) -> bool {
        self.waits_for.as_ref().is_some_and(|it| {
            !it.deletes.iter().any(|key| undone.deletes.contains(key))
                && !it.rotates.iter().any(|dep| undone.rotates.contains(dep))
        })
    }
}

/// An invalidation of the whole namespace, or what the store has left of one.
#[derive(Debug, Clone)]
pub(super) struct WholeNamespace {
    pub(super) parts: Parts,
    /// When it began, in the store's time, if a part is done.
    began: Option<Millis>,
}

impl WholeNamespace {
    fn all() -> Self {
        Self {
            parts: Parts::All,
            began: None,
        }
    }

    fn and(self, other: Self) -> Self {
        match (self.parts, other.parts) {
            (Parts::Only(mut parts), Parts::Only(others)) => {
                parts.extend(others);
                Self {
                    parts: Parts::Only(parts),
                    began: self.began.into_iter().chain(other.began).min(),
                }
            }
            _ => Self::all(),
        }
    }
}

/// Several requests merged into one.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) deletes: HashSet<String>,
    pub(super) rotates: HashSet<Arc<Dependency>>,
    /// Generations of single rows. Each goes with the deletion of its row's entry, so none is counted.
    pub(super) rows: HashSet<Arc<Dependency>>,
    /// Intents of this process that end with the batch, and when each expires by itself.
    pub(super) ends: HashMap<Nonce, Instant>,
    /// Intents that were never sent. They are kept apart from the generations that are replaced,
    /// because those can't replace an intent.
    unsent: MergedIntents,
    /// Intents that may have reached the store. Each keeps its token, so that a retry is harmless.
    pub(super) intents: Vec<Intent>,
    /// For each resource, whether the sweep removes only derived entries.
    pub(super) sweeps: HashMap<Box<str>, bool>,
    pub(super) everything: Option<WholeNamespace>,
    /// When its oldest part was enqueued or became due.
    pub(super) since: Option<Instant>,
    pub(super) waiters: Waiters,
    /// The spans of the writes in it that wait for their acknowledgements.
    pub(super) spans: Vec<tracing::Span>,
    /// The callers of requests with intents. They are told once everything has been delivered.
    pub(super) announcers: Waiters,
    /// The number of the last request in it, and of the last request with intents.
    pub(super) last: u64,
    pub(super) last_announcing: u64,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        self.deletes.len()
            + self.rotates.len()
            + self.ends.len()
            + self.unsent.len()
            + self.intents.iter().map(keys_of).sum::<usize>()
            + usize::from(self.everything.is_some())
    }

    /// The generations to replace. Those of tags and of rows last: a load that names one of them
    /// goes by what is replaced before it.
    pub(super) fn rotates_in_order(&self) -> Vec<Arc<Dependency>> {
        let mut rotates = Dependency::in_order(self.rotates.iter().cloned());
        rotates.extend(self.rows.iter().cloned());
        rotates
    }

    /// Returns true if it contains more than intents.
    pub(super) fn invalidates(&self) -> bool {
        self.everything.is_some() || !(self.deletes.is_empty() && self.rotates.is_empty())
    }

    /// Takes out everything but the intents.
    pub(super) fn take_invalidation(&mut self) -> Self {
        let rest = Self {
            unsent: std::mem::take(&mut self.unsent),
            intents: std::mem::take(&mut self.intents),
            announcers: std::mem::take(&mut self.announcers),
            last_announcing: self.last_announcing,
            since: self.since,
            ..Self::default()
        };
        std::mem::replace(self, rest)
    }

    /// Removes what the store has done. Returns the callers that wait for nothing else, and the
    /// sweeps of resources whose generations are all replaced.
    pub(super) fn remove(&mut self, done: &Invalidation) -> (Waiters, HashMap<Box<str>, bool>) {
        if crate::base::mutation::is_active("undone-remainder-dropped") {
            self.deletes = HashSet::new();
            self.rotates = HashSet::new();
            return (std::mem::take(&mut self.waiters), HashMap::new());
        }
        if done.is_empty() {
            return (Waiters::new(), HashMap::new());
        }
        for key in &done.deletes {
            self.deletes.remove(key);
        }
        // Those of rows too: their entries may be deleted, so now they are counted.
        self.rotates.extend(std::mem::take(&mut self.rows));
        for dep in &done.rotates {
            self.rotates.remove(dep);
        }
        if self.deletes.is_empty() && self.rotates.is_empty() {
            self.ends = HashMap::new();
        }
        let left: HashSet<&str> = self.rotates.iter().map(|dep| dep.owner()).collect();
        let sweeps = std::mem::take(&mut self.sweeps).into_iter();
        let (left, swept) = sweeps.partition(|(resource, _)| left.contains(&**resource));
        self.sweeps = left;
        let waiters = std::mem::take(&mut self.waiters);
        let (done, rest) = waiters
            .into_iter()
            .partition(|waiter| waiter.is_done_without(self));
        self.waiters = rest;
        (done, swept)
    }

    /// Keeps only the parts of the namespace that the store has not done. Returns when the first
    /// was, in the store's time.
    pub(super) fn keep_parts(&mut self, undone: Parts, began: Option<Millis>) -> Option<Millis> {
        let undone = match crate::base::mutation::is_active("namespace-remainder-dropped") {
            true => Parts::Only(BTreeSet::new()),
            false => undone,
        };
        let everything = self.everything.as_mut()?;
        everything.began = everything.began.or(began);
        if !crate::base::mutation::is_active("namespace-undone-as-a-whole") {
            everything.parts = undone;
        }
        everything.began
    }

    /// Returns true if an invalidation of the whole namespace stands for all smaller ones. What is
    /// left of one does not, since they may lie in the parts that are done.
    fn is_of_everything(&self) -> bool {
        self.everything.as_ref().is_some_and(|it| {
            it.parts == Parts::All || crate::base::mutation::is_active("remainder-stands-for-all")
        })
    }

    /// Creates a batch of one request, or of the whole namespace for `None`. The intents that the
    /// request withdraws expire by themselves at `end`.
    pub(super) fn of(request: Option<InvalidationRequest>, end: Instant) -> Self {
        let mut batch = Self::default();
        batch.add(request, end);
        batch
    }

    /// Adds a request; see [`of`](Self::of).
    pub(super) fn add(&mut self, request: Option<InvalidationRequest>, end: Instant) {
        let Some(request) = request else {
            self.everything = Some(WholeNamespace::all());
            return self.absorb();
        };
        self.spans.extend(request.spans);
        self.deletes.extend(request.deletes);
        let (rows, rotates): (Vec<_>, Vec<_>) =
            request.rotates.into_iter().partition(|dep| dep.is_of_row());
        self.rotates.extend(rotates);
        self.rows.extend(rows);
        let ends = request.ends.into_iter().map(|token| (token, end));
        self.ends.extend(ends);
        for intent in request.intents {
            self.unsent.add(intent);
        }
        for Sweep {
            resource,
            derived_only,
        } in request.sweeps
        {
            *self.sweeps.entry(resource).or_insert(true) &= derived_only;
        }
        self.absorb();
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.waiters.extend(other.waiters);
        self.announcers.extend(other.announcers);
        self.spans.extend(other.spans);
        self.last = self.last.max(other.last);
        self.last_announcing = self.last_announcing.max(other.last_announcing);
        self.everything = match (self.everything.take(), other.everything) {
            (Some(it), Some(other)) => Some(it.and(other)),
            (it, other) => it.or(other),
        };
        self.since = self.since.into_iter().chain(other.since).min();
        unite(&mut self.deletes, other.deletes);
        unite(&mut self.rotates, other.rotates);
        unite(&mut self.rows, other.rows);
        self.ends.extend(other.ends);
        self.unsent.merge(other.unsent);
        self.intents.extend(other.intents);
        for (resource, derived_only) in other.sweeps {
            *self.sweeps.entry(resource).or_insert(true) &= derived_only;
        }
        self.absorb();
    }

    /// An invalidation of the whole namespace replaces all smaller ones. It replaces no intents.
    /// While intents are to be ended, `deletes` and `rotates` stay too, because ending an intent needs
    /// the keys that hold it.
    fn absorb(&mut self) {
        if !self.is_of_everything() {
            return;
        }
        if self.ends.is_empty() {
            self.deletes = HashSet::new();
            self.rotates = HashSet::new();
            self.rows = HashSet::new();
        }
        self.sweeps = HashMap::new();
    }

    /// Drops the withdrawals of intents that have expired. The invalidations that came with them
    /// stay.
    pub(super) fn forget_ended(&mut self, now: Instant) {
        self.ends.retain(|_, end| now < *end);
        self.absorb();
    }

    /// Replaces everything in the batch by one invalidation of the whole namespace. Returns the
    /// longest time that any of the dropped intents would have stood.
    pub(super) fn collapse(&mut self) -> Option<Duration> {
        // An intent that is not withdrawn expires by itself.
        self.ends = HashMap::new();
        self.seal();
        let intents = std::mem::take(&mut self.intents);
        self.everything = Some(WholeNamespace::all());
        self.absorb();
        intents.iter().map(|intent| intent.length).max()
    }

    /// Fixes the intents as they are now: later ones get intents of their own.
    pub(super) fn seal(&mut self) {
        let unsent = std::mem::take(&mut self.unsent);
        self.intents.extend(unsent.into_intents());
        if self.is_of_everything() {
            let waiters = self.waiters.iter_mut().chain(&mut self.announcers);
            waiters.for_each(Waiter::wait_for_everything);
        }
    }

    /// Returns the names for a log message: dependencies, and keys for the case that there are no
    /// dependencies.
    pub(super) fn names(mut self) -> (HashSet<Arc<Dependency>>, Vec<String>) {
        self.seal();
        let (mut deps, mut keys) = (self.rotates, Vec::from_iter(self.deletes));
        for intent in self.intents {
            deps.extend(intent.deps);
            keys.extend(intent.rows.into_iter().map(|row| row.key));
        }
        (deps, keys)
    }

    pub(super) fn place_of(&self, token: Nonce) -> Option<usize> {
        self.intents.iter().position(|intent| intent.token == token)
    }

    pub(super) fn take_waiters(&mut self) -> Waiters {
        // The callers go on, and their spans end.
        self.spans.clear();
        let mut waiters = std::mem::take(&mut self.waiters);
        waiters.append(&mut self.announcers);
        waiters
    }

    /// Returns true if it concerns this entry. `part_of` is the part of the store that holds a
    /// generation.
    pub(super) fn concerns(
        &self,
        entry_ref: &EntryRef,
        part_of: impl Fn(&Dependency) -> u16,
    ) -> bool {
        let is_left = |everything: &WholeNamespace| match &everything.parts {
            Parts::All => true,
            parts => entry_ref.deps.iter().any(|dep| parts.has(part_of(dep))),
        };
        self.everything.as_ref().is_some_and(is_left)
            || self.deletes.contains(entry_ref.key.as_str())
            || entry_ref
                .deps
                .iter()
                .any(|dep| self.rotates.contains(dep) || self.rows.contains(dep))
            || self.unsent.concerns(entry_ref)
            || self.intents.iter().any(|intent| {
                intent.rows.iter().any(|row| row.key == entry_ref.key)
                    || intent.deps.iter().any(|dep| entry_ref.deps.contains(dep))
            })
    }
}

/// Moves the smaller set into the larger one. In an outage a few items join many, again and again.
fn unite<T: Eq + Hash>(set: &mut HashSet<T>, mut other: HashSet<T>) {
    if set.len() < other.len() {
        std::mem::swap(set, &mut other);
    }
    set.extend(other);
}
