//! What is handed in, and what of it waits together.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::Acknowledgement;
use crate::base::clock::Instant;
use crate::base::counters::Counters;
use crate::base::nonce::Nonce;
use crate::protocol::generation::Dep;
use crate::store::{Intent, IntentRow, Invalidation, Probe};

/// How many rows one announcement is sent with, and how many dependencies.
const STEP: usize = 256;

/// Which dead entries a sweep may remove after an invalidation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sweep {
    pub(crate) resource: Box<str>,
    pub(crate) derived_only: bool,
}

/// One invalidation, as it is enqueued.
#[derive(Debug, Clone, Default)]
pub(crate) struct Order {
    pub(crate) kills: Vec<String>,
    pub(crate) bumps: Vec<Arc<Dep>>,
    pub(crate) sweeps: Vec<Sweep>,
    /// Own intents that end with it.
    pub(crate) withdraws: Vec<Nonce>,
    /// What is announced, because its outcome is not known.
    pub(crate) intents: Vec<Intent>,
    /// Whose figures it belongs to, once it is enqueued.
    pub(crate) counted: Vec<Arc<Counters>>,
}

impl Order {
    /// Both.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.kills.extend(other.kills);
        self.bumps.extend(other.bumps);
        self.sweeps.extend(other.sweeps);
        self.withdraws.extend(other.withdraws);
        self.intents.extend(other.intents);
        self.counted.extend(other.counted);
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        let is_nothing = |intent: &Intent| intent.rows.is_empty() && intent.deps.is_empty();
        self.kills.is_empty() && self.bumps.is_empty() && self.intents.iter().all(is_nothing)
    }
}

/// Announcements put together. What holds off readers of all of it does so for each, if it stands for the longest. It gets
/// a name of its own then, which nobody else knows: whoever withdraws one of them must not end the others.
#[derive(Debug, Default)]
struct Announcement {
    /// Its name, as long as there is only one.
    name: Option<Nonce>,
    rows: HashMap<String, Arc<Dep>>,
    deps: HashSet<Arc<Dep>>,
    length: Duration,
}

impl Announcement {
    fn len(&self) -> usize {
        self.rows.len() + self.deps.len()
    }

    fn add(&mut self, intent: Intent) {
        let is_alone = self.len() == 0 || self.name == Some(intent.token);
        self.name = is_alone.then_some(intent.token);
        let rows = intent.rows.into_iter().map(|row| (row.key, row.whole));
        self.rows.extend(rows);
        self.deps.extend(intent.deps);
        self.length = self.length.max(intent.length);
    }

    fn merge(&mut self, other: Self) {
        if other.len() == 0 {
            return;
        }
        self.name = match self.len() {
            0 => other.name,
            _ => self.name.filter(|name| other.name == Some(*name)),
        };
        self.rows.extend(other.rows);
        unite(&mut self.deps, other.deps);
        self.length = self.length.max(other.length);
    }

    /// As the store takes it: few enough keys each that nobody else waits behind one.
    fn into_intents(self) -> Vec<Intent> {
        let is_one = self.rows.len() <= STEP && self.deps.len() <= STEP;
        let name = self.name.filter(|_| is_one);
        let mut rows = self
            .rows
            .into_iter()
            .map(|(key, whole)| IntentRow { key, whole });
        let mut deps = self.deps.into_iter();
        let parts = std::iter::from_fn(|| {
            let intent = Intent {
                token: name.unwrap_or_else(Nonce::fresh),
                rows: rows.by_ref().take(STEP).collect(),
                deps: deps.by_ref().take(STEP).collect(),
                length: self.length,
            };
            (keys_of(&intent) > 0).then_some(intent)
        });
        parts.collect()
    }

    fn concerns(&self, probe: &Probe) -> bool {
        self.rows.contains_key(probe.key.as_str())
            || probe.deps.iter().any(|dep| self.deps.contains(dep))
    }
}

fn keys_of(intent: &Intent) -> usize {
    intent.rows.len() + intent.deps.len()
}

/// Those who wait to be told how far their invalidations have come.
pub(super) type Receipts = Vec<Waiter>;

/// One of them.
#[derive(Debug)]
pub(super) struct Waiter {
    receipt: oneshot::Sender<Acknowledgement>,
    /// What it waits for, where the store may have done a part of a batch.
    waits_for: Option<Box<(Vec<String>, Vec<Arc<Dep>>)>>,
}

impl Waiter {
    pub(super) fn new(
        receipt: oneshot::Sender<Acknowledgement>,
        order: Option<&Order>,
        is_split: bool,
    ) -> Self {
        let order = order.filter(|_| is_split);
        Self {
            receipt,
            waits_for: order.map(|it| Box::new((it.kills.clone(), it.bumps.clone()))),
        }
    }

    pub(super) fn tell(self, acknowledgement: Acknowledgement) {
        // Whoever asked may be gone.
        let _ = self.receipt.send(acknowledgement);
    }

    /// Whether all that it waits for is done, where this is not.
    fn is_done_without(&self, undone: &Invalidation) -> bool {
        self.waits_for.as_ref().is_some_and(|it| {
            let (kills, bumps) = &**it;
            !kills.iter().any(|key| undone.kills.contains(key))
                && !bumps.iter().any(|dep| undone.bumps.contains(dep))
        })
    }
}

/// Orders merged into one.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) kills: HashSet<String>,
    pub(super) bumps: HashSet<Arc<Dep>>,
    /// Own intents that end with it, and when each will have ended by itself.
    pub(super) withdraws: HashMap<Nonce, Instant>,
    /// What is announced and was never sent. It is not merged with the above: no bump says what an intent says.
    unsent: Announcement,
    /// What is announced, and may have reached the store: it keeps its name.
    pub(super) intents: Vec<Intent>,
    /// Per resource, whether only derived entries are concerned.
    pub(super) sweeps: HashMap<Box<str>, bool>,
    pub(super) whole_namespace: bool,
    /// When the oldest part of it came in, or fell due.
    pub(super) since: Option<Instant>,
    pub(super) receipts: Receipts,
    /// Of those orders that announce something: these are told when all of it has been delivered.
    pub(super) announcers: Receipts,
    /// The number of the last order in it, and of the last one that announces something.
    pub(super) last: u64,
    pub(super) last_announcing: u64,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        self.kills.len()
            + self.bumps.len()
            + self.withdraws.len()
            + self.unsent.len()
            + self.intents.iter().map(keys_of).sum::<usize>()
            + usize::from(self.whole_namespace)
    }

    /// Whether anything is to be invalidated besides what is announced.
    pub(super) fn invalidates(&self) -> bool {
        self.whole_namespace || !(self.kills.is_empty() && self.bumps.is_empty())
    }

    /// Takes out all but what is announced.
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

    /// Keeps only what the store has not done; returns those who waited for none of that.
    pub(super) fn keep(&mut self, undone: &Invalidation) -> Receipts {
        if crate::base::mutation::is_active("undone-remainder-dropped") {
            self.kills = HashSet::new();
            self.bumps = HashSet::new();
            return std::mem::take(&mut self.receipts);
        }
        self.kills = undone.kills.iter().cloned().collect();
        self.bumps = undone.bumps.iter().cloned().collect();
        let receipts = std::mem::take(&mut self.receipts);
        let (done, rest) = receipts
            .into_iter()
            .partition(|waiter| waiter.is_done_without(undone));
        self.receipts = rest;
        done
    }

    /// An order, or with `None` one for the whole namespace. What it withdraws will have ended by itself at `end`.
    pub(super) fn of(order: Option<Order>, end: Instant) -> Self {
        let mut batch = Self::default();
        batch.add(order, end);
        batch
    }

    /// Adds an order, as [`of`](Self::of) takes it.
    pub(super) fn add(&mut self, order: Option<Order>, end: Instant) {
        let Some(order) = order else {
            self.whole_namespace = true;
            return self.absorb();
        };
        self.kills.extend(order.kills);
        self.bumps.extend(order.bumps);
        let withdraws = order.withdraws.into_iter().map(|token| (token, end));
        self.withdraws.extend(withdraws);
        for intent in order.intents {
            self.unsent.add(intent);
        }
        for Sweep {
            resource,
            derived_only,
        } in order.sweeps
        {
            *self.sweeps.entry(resource).or_insert(true) &= derived_only;
        }
        self.absorb();
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.receipts.extend(other.receipts);
        self.announcers.extend(other.announcers);
        self.last = self.last.max(other.last);
        self.last_announcing = self.last_announcing.max(other.last_announcing);
        self.whole_namespace |= other.whole_namespace;
        self.since = self.since.into_iter().chain(other.since).min();
        unite(&mut self.kills, other.kills);
        unite(&mut self.bumps, other.bumps);
        self.withdraws.extend(other.withdraws);
        self.unsent.merge(other.unsent);
        self.intents.extend(other.intents);
        for (resource, derived_only) in other.sweeps {
            *self.sweeps.entry(resource).or_insert(true) &= derived_only;
        }
        self.absorb();
    }

    /// An invalidation of everything stands for any number of something. Of announcements it says nothing, and what is
    /// withdrawn is to be looked for where it stands.
    fn absorb(&mut self) {
        if !self.whole_namespace {
            return;
        }
        if self.withdraws.is_empty() {
            self.kills = HashSet::new();
            self.bumps = HashSet::new();
        }
        self.sweeps = HashMap::new();
    }

    /// Forgets what need not be withdrawn any more. What went with it is invalidated all the same.
    pub(super) fn forget_ended(&mut self, now: Instant) {
        self.withdraws.retain(|_, end| now < *end);
        self.absorb();
    }

    /// One invalidation of everything in place of all that is here; returns for how long the longest of the
    /// announcements would have stood that are lost with it.
    pub(super) fn collapse(&mut self) -> Option<Duration> {
        // An intent that is not withdrawn ends with its time.
        self.withdraws = HashMap::new();
        self.seal();
        let intents = std::mem::take(&mut self.intents);
        self.whole_namespace = true;
        self.absorb();
        intents.iter().map(|intent| intent.length).max()
    }

    /// What is announced is sent as it is now: nothing is added to it any more.
    pub(super) fn seal(&mut self) {
        let unsent = std::mem::take(&mut self.unsent);
        self.intents.extend(unsent.into_intents());
    }

    /// What is invalidated or announced here, for a log: what entries depend on, or keys where there is nothing else.
    pub(super) fn names(mut self) -> (HashSet<Arc<Dep>>, Vec<String>) {
        self.seal();
        let (mut deps, mut keys) = (self.bumps, Vec::from_iter(self.kills));
        for intent in self.intents {
            deps.extend(intent.deps);
            keys.extend(intent.rows.into_iter().map(|row| row.key));
        }
        (deps, keys)
    }

    pub(super) fn place_of(&self, token: Nonce) -> Option<usize> {
        self.intents.iter().position(|intent| intent.token == token)
    }

    pub(super) fn take_receipts(&mut self) -> Receipts {
        let mut receipts = std::mem::take(&mut self.receipts);
        receipts.append(&mut self.announcers);
        receipts
    }

    pub(super) fn concerns(&self, probe: &Probe) -> bool {
        self.whole_namespace
            || self.kills.contains(probe.key.as_str())
            || probe.deps.iter().any(|dep| self.bumps.contains(dep))
            || self.unsent.concerns(probe)
            || self.intents.iter().any(|intent| {
                intent.rows.iter().any(|row| row.key == probe.key)
                    || intent.deps.iter().any(|dep| probe.deps.contains(dep))
            })
    }
}

/// Moves the fewer to the more: in an outage a few join many, again and again.
fn unite<T: Eq + Hash>(set: &mut HashSet<T>, mut other: HashSet<T>) {
    if set.len() < other.len() {
        std::mem::swap(set, &mut other);
    }
    set.extend(other);
}
