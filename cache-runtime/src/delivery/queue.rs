//! What waits to be delivered, as plain data.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::Acknowledgement;
use crate::clock::Instant;
use crate::generation::Dep;
use crate::nonce::Nonce;
use crate::stats::Counters;
use crate::store::{Intent, Invalidation, Probe};

/// What is to be repeated later is repeated together with what falls due within this time.
const DUE_STEP: Duration = Duration::from_millis(250);

/// How many names a loss is reported with.
const NAMES_SHOWN: usize = 10;

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
        self.kills.is_empty() && self.bumps.is_empty() && self.intents.is_empty()
    }
}

/// Those who wait to be told how far their invalidations have come.
pub(super) type Receipts = Vec<oneshot::Sender<Acknowledgement>>;

/// Orders merged into one.
#[derive(Debug, Default)]
pub(super) struct Batch {
    kills: HashSet<String>,
    bumps: HashSet<Arc<Dep>>,
    withdraws: HashSet<Nonce>,
    /// Never merged: no bump says what an intent says.
    intents: Vec<Intent>,
    /// Per resource, whether only derived entries are concerned.
    pub(super) sweeps: HashMap<Box<str>, bool>,
    pub(super) whole_namespace: bool,
    receipts: Receipts,
    /// The number of the last order in it.
    last: u64,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        self.kills.len() + self.bumps.len() + self.intents.len() + usize::from(self.whole_namespace)
    }

    fn of(order: Option<Order>) -> Self {
        let mut batch = Self::default();
        batch.add(order);
        batch
    }

    /// Adds an order, or with `None` one for the whole namespace.
    fn add(&mut self, order: Option<Order>) {
        let Some(order) = order else {
            return self.collapse();
        };
        if self.whole_namespace {
            return;
        }
        self.kills.extend(order.kills);
        self.bumps.extend(order.bumps);
        self.withdraws.extend(order.withdraws);
        self.intents.extend(order.intents);
        for Sweep {
            resource,
            derived_only,
        } in order.sweeps
        {
            *self.sweeps.entry(resource).or_insert(true) &= derived_only;
        }
    }

    fn merge(&mut self, other: Self) {
        self.receipts.extend(other.receipts);
        self.last = self.last.max(other.last);
        if other.whole_namespace {
            self.collapse();
        }
        if self.whole_namespace {
            return;
        }
        unite(&mut self.kills, other.kills);
        unite(&mut self.bumps, other.bumps);
        self.withdraws.extend(other.withdraws);
        self.intents.extend(other.intents);
        for (resource, derived_only) in other.sweeps {
            *self.sweeps.entry(resource).or_insert(true) &= derived_only;
        }
    }

    /// One invalidation of everything, in place of any number of something.
    fn collapse(&mut self) {
        self.kills = HashSet::new();
        self.bumps = HashSet::new();
        // An intent that is not withdrawn ends with its time, and what is announced here is repeated at that time.
        self.withdraws = HashSet::new();
        self.intents = Vec::new();
        self.sweeps = HashMap::new();
        self.whole_namespace = true;
    }

    fn concerns(&self, probe: &Probe) -> bool {
        self.whole_namespace
            || self.kills.contains(probe.key.as_str())
            || probe.deps.iter().any(|dep| self.bumps.contains(dep))
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

/// What will never be delivered, for the log. It names what entries depended on, and keys where nothing else was
/// to be invalidated.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Lost {
    names: Vec<String>,
}

impl Lost {
    /// Whether there is anything that has not been reported before.
    pub(super) fn is_news(&self) -> bool {
        !self.names.is_empty()
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.names[..self.names.len().min(NAMES_SHOWN)];
        write!(f, "{}", shown.join(", "))?;
        match self.names.len() - shown.len() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// What is to be sent now.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) whole_namespace: bool,
    pub(super) invalidation: Invalidation,
    pub(super) intents: Vec<Intent>,
}

/// What waits, what is on its way, and what is to be repeated later.
///
/// Whatever has come in is in exactly one of them until the store has acknowledged it.
#[derive(Debug)]
pub(super) struct Queue {
    ready: Batch,
    in_flight: Option<Batch>,
    delayed: BTreeMap<Instant, Batch>,
    /// Where the steps of `delayed` are counted from.
    origin: Instant,
    limit: usize,
    /// How many orders have come in; each has its number.
    entered: u64,
    /// The number of the last order that the store has acknowledged.
    delivered: u64,
    /// Somebody was told that an order is pending: until all are delivered, reads of what they concern bypass.
    is_distressed: bool,
    is_closed: bool,
    /// How many invalidations will never be delivered.
    lost: usize,
    /// Which of them are in the log.
    reported: HashSet<Arc<Dep>>,
}

impl Queue {
    pub(super) fn new(limit: usize, origin: Instant) -> Self {
        Self {
            ready: Batch::default(),
            in_flight: None,
            delayed: BTreeMap::new(),
            origin,
            limit,
            entered: 0,
            delivered: 0,
            is_distressed: false,
            is_closed: false,
            lost: 0,
            reported: HashSet::new(),
        }
    }

    /// Takes an order in, or with `None` one for the whole namespace; returns its number.
    ///
    /// # Errors
    /// What is lost, if nothing is delivered any more. Dropping the receipt says so to its owner.
    pub(super) fn enter(
        &mut self,
        order: Option<Order>,
        receipt: oneshot::Sender<Acknowledgement>,
    ) -> Result<u64, Lost> {
        if order.as_ref().is_some_and(Order::is_empty) {
            // Nobody waits for nothing, least of all behind what the store does not take. Whoever asked may be
            // gone.
            let _ = receipt.send(Acknowledgement::Delivered);
            return Ok(self.delivered);
        }
        if self.is_closed {
            return Err(self.lose(Batch::of(order)));
        }
        self.entered += 1;
        self.ready.add(order);
        self.ready.last = self.entered;
        self.ready.receipts.push(receipt);
        self.enforce_limit();
        Ok(self.entered)
    }

    /// Takes in an order for later.
    ///
    /// # Errors
    /// What is lost, if nothing is delivered any more.
    pub(super) fn enter_at(&mut self, due: Instant, order: Order) -> Result<(), Lost> {
        let order = Some(order);
        if self.is_closed {
            return Err(self.lose(Batch::of(order)));
        }
        let steps = due
            .saturating_duration_since(self.origin)
            .as_millis()
            .div_ceil(DUE_STEP.as_millis());
        let due = u32::try_from(steps)
            .ok()
            .and_then(|steps| self.origin.checked_add(DUE_STEP * steps));
        // What lies beyond time itself is repeated now: better early than never.
        match due {
            Some(due) => self.delayed.entry(due).or_default().add(order),
            None => self.ready.add(order),
        }
        self.enforce_limit();
        Ok(())
    }

    fn waiting(&self) -> usize {
        self.ready.len() + self.delayed.values().map(Batch::len).sum::<usize>()
    }

    fn enforce_limit(&mut self) {
        if self.waiting() <= self.limit {
            return;
        }
        self.ready.collapse();
        // Each in its place: what is due soon must not wait for the last.
        self.delayed.values_mut().for_each(Batch::collapse);
        if self.waiting() <= self.limit {
            return;
        }
        // More steps than there is room for: the last one covers all that came in.
        if let Some(last) = std::mem::take(&mut self.delayed).pop_last() {
            self.delayed.extend([last]);
        }
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.delayed.first_key_value().map(|(due, _)| *due)
    }

    /// Makes ready what is due, and what was interrupted on its way.
    fn gather(&mut self, now: Instant) {
        while self.next_due().is_some_and(|due| due <= now)
            && let Some((_, batch)) = self.delayed.pop_first()
        {
            self.ready.merge(batch);
        }
        if let Some(interrupted) = self.in_flight.take() {
            self.ready.merge(interrupted);
        }
    }

    /// Leaves what is ready where it is, since the store would not take it; returns those who are to be told that
    /// it is pending, as [`take_back`](Self::take_back) does, or `None` if nothing is ready.
    #[must_use]
    pub(super) fn put_off(&mut self, now: Instant) -> Option<Receipts> {
        self.gather(now);
        if self.ready.is_empty() {
            return None;
        }
        self.is_distressed = true;
        Some(std::mem::take(&mut self.ready.receipts))
    }

    /// Puts all that is ready on its way; `None` if there is nothing.
    pub(super) fn send(&mut self, now: Instant) -> Option<Delivery> {
        self.gather(now);
        let batch = std::mem::take(&mut self.ready);
        if batch.is_empty() {
            return None;
        }
        let invalidation = Invalidation {
            kills: batch.kills.iter().cloned().collect(),
            bumps: batch.bumps.iter().cloned().collect(),
            withdraws: batch.withdraws.iter().copied().collect(),
        };
        let intents = batch.intents.clone();
        let whole_namespace = batch.whole_namespace;
        self.in_flight = Some(batch);
        Some(Delivery {
            whole_namespace,
            invalidation,
            intents,
        })
    }

    /// The store has acknowledged what was on its way; returns it, for the sweep.
    pub(super) fn acknowledge(&mut self) -> Batch {
        let mut batch = self.in_flight.take().unwrap_or_default();
        self.delivered = self.delivered.max(batch.last);
        self.is_distressed &= !self.ready.is_empty();
        for receipt in batch.receipts.drain(..) {
            let _ = receipt.send(Acknowledgement::Delivered);
        }
        batch
    }

    /// The store did not take what was on its way: it waits again. Returns those who are to be told that it is
    /// pending, once it is known to all that reads bypass.
    #[must_use]
    pub(super) fn take_back(&mut self) -> Receipts {
        self.is_distressed = true;
        let Some(mut batch) = self.in_flight.take() else {
            return Receipts::new();
        };
        let receipts = std::mem::take(&mut batch.receipts);
        self.ready.merge(batch);
        self.enforce_limit();
        receipts
    }

    /// One who waited has lost patience; says what to go on with.
    pub(super) fn lose_patience(&mut self, number: u64) -> Acknowledgement {
        if number <= self.delivered {
            return Acknowledgement::Delivered;
        }
        self.is_distressed = true;
        Acknowledgement::Pending
    }

    /// What was to be repeated later is ready now, because later there is nobody.
    pub(super) fn hasten(&mut self) {
        for (_, batch) in std::mem::take(&mut self.delayed) {
            self.ready.merge(batch);
        }
    }

    /// Ends the queue if nothing is left in it; says whether it has ended.
    pub(super) fn close_if_done(&mut self) -> bool {
        let is_done = self.ready.is_empty() && self.in_flight.is_none() && self.delayed.is_empty();
        self.is_closed |= is_done;
        self.is_closed
    }

    /// Nothing is delivered any more; those who wait are told so. Returns what is lost with it.
    pub(super) fn close(&mut self) -> Lost {
        self.is_closed = true;
        self.hasten();
        let mut left = std::mem::take(&mut self.ready);
        if let Some(interrupted) = self.in_flight.take() {
            left.merge(interrupted);
        }
        self.lose(left)
    }

    fn lose(&mut self, batch: Batch) -> Lost {
        self.lost += batch.len();
        if batch.whole_namespace {
            return Lost {
                names: vec!["the whole namespace".into()],
            };
        }
        if batch.bumps.is_empty() {
            return Lost {
                names: batch.kills.into_iter().collect(),
            };
        }
        let mut names = Vec::new();
        for dep in batch.bumps {
            if self.reported.insert(Arc::clone(&dep)) {
                names.push(dep.key().to_owned());
            }
        }
        Lost { names }
    }

    pub(super) fn is_distressed(&self) -> bool {
        self.is_distressed
    }

    /// Whether anything that the store has not acknowledged concerns this entry.
    pub(super) fn concerns(&self, probe: &Probe) -> bool {
        self.ready.concerns(probe)
            || self
                .in_flight
                .as_ref()
                .is_some_and(|batch| batch.concerns(probe))
    }

    /// What the invalidations that wait are of, by names that are fit for a log.
    pub(super) fn waiting_of(&self) -> Vec<String> {
        if self.ready.whole_namespace {
            return vec!["everything".to_owned()];
        }
        let resources = self.ready.sweeps.keys();
        let mut names: Vec<String> = resources.map(|name| format!("`{name}`")).collect();
        if names.is_empty() && !self.ready.is_empty() {
            names.push("single entries, tags or announced writes".to_owned());
        }
        names.sort_unstable();
        names
    }

    /// How many invalidations the store has not acknowledged, be it that it never will; those for later are not
    /// counted.
    pub(super) fn len(&self) -> usize {
        self.ready.len() + self.in_flight.as_ref().map_or(0, Batch::len) + self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::key::EntryKind;

    fn dep(name: &str) -> Arc<Dep> {
        Dep::new(format!("@gen:{name}"))
    }

    fn kill(key: &str) -> Order {
        Order {
            kills: vec![key.into()],
            bumps: vec![dep("users~derived")],
            ..Order::default()
        }
    }

    fn probe(key: &str) -> Probe {
        Probe {
            key: key.into(),
            kind: EntryKind::Entity,
            deps: [dep("users")].into(),
        }
    }

    fn queue(limit: usize) -> Queue {
        Queue::new(limit, clock::now())
    }

    fn enter(queue: &mut Queue, order: Order) -> oneshot::Receiver<Acknowledgement> {
        let (sender, receiver) = oneshot::channel();
        // Once the queue is closed, the receiver says so.
        let _ = queue.enter(Some(order), sender);
        receiver
    }

    #[test]
    fn what_waits_is_sent_once_and_acknowledged_to_all() {
        let mut queue = queue(10);
        let mut receipts = [
            enter(&mut queue, kill("users:1")),
            enter(&mut queue, kill("users:1")),
        ];
        let sent = queue.send(clock::now()).expect("something to send");
        assert_eq!(
            (sent.invalidation.kills.len(), sent.invalidation.bumps.len()),
            (1, 1)
        );
        queue.acknowledge();
        assert!(
            receipts
                .iter_mut()
                .all(|r| r.try_recv() == Ok(Acknowledgement::Delivered))
        );
        assert!(queue.send(clock::now()).is_none());
        assert!(!queue.is_distressed());
    }

    #[test]
    fn what_waits_is_named() {
        let mut queue = queue(10);
        assert_eq!(queue.waiting_of(), [""; 0]);
        drop(enter(&mut queue, kill("users:1")));
        assert_eq!(
            queue.waiting_of(),
            ["single entries, tags or announced writes"]
        );
        let sweep = |resource: &str| Order {
            sweeps: vec![Sweep {
                resource: resource.into(),
                derived_only: true,
            }],
            ..kill("x")
        };
        drop(enter(&mut queue, sweep("users")));
        drop(enter(&mut queue, sweep("teams")));
        assert_eq!(queue.waiting_of(), ["`teams`", "`users`"]);
    }

    #[test]
    fn what_was_refused_concerns_its_readers_until_it_is_delivered() {
        let mut queue = queue(10);
        let mut receipt = enter(&mut queue, kill("users:1"));
        queue.send(clock::now());
        assert_eq!(queue.take_back().len(), 1);
        assert!(receipt.try_recv().is_err(), "its owner is told later");
        assert!(queue.is_distressed() && queue.concerns(&probe("users:1")));
        assert!(!queue.concerns(&probe("users:2")));
        queue.send(clock::now());
        assert!(queue.concerns(&probe("users:1")), "on its way is not there");
        queue.acknowledge();
        assert!(!queue.is_distressed() && !queue.concerns(&probe("users:1")));
    }

    #[test]
    fn an_order_of_one_who_lost_patience_outlives_an_earlier_one_of_the_same_name() {
        let mut queue = queue(10);
        let _first = enter(&mut queue, kill("users:1"));
        queue.send(clock::now());
        let (sender, _second) = oneshot::channel();
        let number = queue.enter(Some(kill("users:1")), sender).expect("open");
        assert_eq!(queue.lose_patience(number), Acknowledgement::Pending);
        queue.acknowledge();
        assert!(queue.is_distressed() && queue.concerns(&probe("users:1")));
        queue.send(clock::now());
        queue.acknowledge();
        assert!(!queue.is_distressed());
        assert_eq!(queue.lose_patience(number), Acknowledgement::Delivered);
    }

    #[test]
    fn nobody_waits_for_an_order_of_nothing() {
        let mut queue = queue(10);
        let _waits = enter(&mut queue, kill("users:1"));
        queue.send(clock::now());
        let (sender, mut receipt) = oneshot::channel();
        let number = queue.enter(Some(Order::default()), sender).expect("open");
        assert_eq!(queue.lose_patience(number), Acknowledgement::Delivered);
        assert!(!queue.is_distressed());
        assert_eq!(receipt.try_recv(), Ok(Acknowledgement::Delivered));
    }

    #[test]
    fn past_the_limit_everything_is_invalidated_now_and_whenever_it_is_due() {
        let mut queue = queue(4);
        let [soon, later] = [1, 5].map(|s| clock::now() + Duration::from_secs(s));
        for due in [later, soon] {
            queue.enter_at(due, kill("users:0")).expect("open");
        }
        for id in 0..9 {
            drop(enter(&mut queue, kill(&format!("users:{id}"))));
        }
        assert!(queue.concerns(&probe("teams:1")));
        for now in [clock::now(), soon + DUE_STEP, later + DUE_STEP] {
            let sent = queue.send(now).expect("something to send");
            assert!(sent.whole_namespace && sent.invalidation.kills.is_empty());
            queue.acknowledge();
            assert!(queue.send(now).is_none());
        }
    }

    #[test]
    fn with_more_steps_than_room_the_last_covers_all() {
        let mut queue = queue(4);
        let due = |step: u32| clock::now() + DUE_STEP * step;
        for step in 1..=9 {
            queue.enter_at(due(step), kill("users:0")).expect("open");
        }
        queue.send(due(0));
        queue.acknowledge();
        let sent = queue.send(due(10)).expect("something to send");
        assert!(sent.whole_namespace);
        queue.acknowledge();
        assert!(queue.send(due(100)).is_none());
    }

    #[test]
    fn repetitions_of_one_resource_take_one_place() {
        let mut queue = queue(4);
        let later = clock::now() + Duration::from_secs(5);
        for _ in 0..10_000 {
            let order = Order {
                bumps: vec![dep("users")],
                ..Order::default()
            };
            queue.enter_at(later, order).expect("open");
        }
        assert!(queue.send(clock::now()).is_none());
        let sent = queue.send(later + DUE_STEP).expect("something to send");
        assert_eq!(
            (sent.whole_namespace, sent.invalidation.bumps.len()),
            (false, 1)
        );
    }

    #[test]
    fn what_was_interrupted_is_sent_again() {
        let mut queue = queue(4);
        let _receipt = enter(&mut queue, kill("users:1"));
        queue.send(clock::now());
        let again = queue.send(clock::now()).expect("something to send");
        assert_eq!(again.invalidation.kills, ["users:1"]);
    }

    #[test]
    fn what_a_closed_queue_held_and_what_comes_after_is_lost_and_named() {
        let mut queue = queue(4);
        let mut before = enter(&mut queue, kill("users:1"));
        assert!(!queue.close_if_done());
        assert_eq!(queue.close().to_string(), "@gen:users~derived");
        assert!(before.try_recv().is_err(), "nobody waits");
        assert_eq!(queue.len(), 2);

        let mut lose = |order| {
            let (sender, mut receipt) = oneshot::channel();
            let lost = queue.enter(order, sender).expect_err("closed");
            assert!(receipt.try_recv().is_err());
            lost
        };
        assert!(!lose(Some(kill("users:2"))).is_news(), "it is in the log");
        let teams = Order {
            bumps: vec![dep("teams")],
            ..Order::default()
        };
        assert_eq!(lose(Some(teams.clone())).to_string(), "@gen:teams");
        assert_eq!(lose(None).to_string(), "the whole namespace");
        assert!(
            !queue
                .enter_at(clock::now(), teams)
                .expect_err("closed")
                .is_news()
        );
        assert_eq!(queue.len(), 2 + 2 + 1 + 1 + 1);
    }

    #[test]
    fn a_loss_is_named_by_a_few_names() {
        let names = (0..12).map(|n| n.to_string()).collect();
        assert_eq!(
            Lost { names }.to_string(),
            "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"
        );
    }
}
