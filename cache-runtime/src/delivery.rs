//! The queue of invalidations: nothing that was enqueued is forgotten before the store has acknowledged it.
//!
//! To enqueue is synchronous, so a guard can do it while it is dropped. What waits is merged; what the store
//! did not take is tried again until it does, and meanwhile this process does not read what it concerns.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};

use crate::background::Background;
use crate::clock::{self, Instant, Millis};
use crate::error::Error;
use crate::generation::Dep;
use crate::store::{Invalidation, Matching, Probe, Store, glob_literal};

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(1);
/// Per resource, dead entries are swept no more often than this.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// A store with more keys than this is not swept: its dead entries leave by their time to live.
const SWEEP_LIMIT: u64 = 1_000_000;
/// How long the last attempt at shutdown may take.
const CLOSING_BUDGET: Duration = Duration::from_secs(2);

/// How far an invalidation has come when its caller goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub enum Acknowledgement {
    /// The store has it: no later read is served older data.
    Delivered,
    /// The store can't be reached. The invalidation is kept and retried, and until it is delivered this
    /// process reads past the cache; other processes may be served older data.
    Pending,
    /// The cache is off, so there was nothing to invalidate.
    Disabled,
}

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
}

impl Order {
    fn names(&self) -> impl Iterator<Item = &str> {
        self.kills
            .iter()
            .map(String::as_str)
            .chain(self.bumps.iter().map(|dep| dep.key()))
    }
}

/// Orders merged into one.
#[derive(Debug, Default)]
struct Batch {
    kills: HashSet<String>,
    bumps: HashSet<Arc<Dep>>,
    sweeps: HashMap<Box<str>, bool>,
    whole_namespace: bool,
    receipts: Vec<oneshot::Sender<Acknowledgement>>,
    /// The number of the last order in it.
    last: u64,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        self.kills.len() + self.bumps.len() + usize::from(self.whole_namespace)
    }

    fn add(&mut self, order: Order) {
        self.kills.extend(order.kills);
        self.bumps.extend(order.bumps);
        for sweep in order.sweeps {
            // Of two sweeps of a resource, the one that takes more.
            let derived_only = self.sweeps.entry(sweep.resource).or_insert(true);
            *derived_only &= sweep.derived_only;
        }
    }

    fn merge(&mut self, other: Self) {
        self.kills.extend(other.kills);
        self.bumps.extend(other.bumps);
        for (resource, derived_only) in other.sweeps {
            *self.sweeps.entry(resource).or_insert(true) &= derived_only;
        }
        self.whole_namespace |= other.whole_namespace;
        self.receipts.extend(other.receipts);
        self.last = self.last.max(other.last);
    }

    /// Past the bound: one invalidation of everything in place of too many of something.
    fn collapse(&mut self) {
        self.kills.clear();
        self.bumps.clear();
        self.sweeps.clear();
        self.whole_namespace = true;
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.kills
            .iter()
            .map(String::as_str)
            .chain(self.bumps.iter().map(|dep| dep.key()))
    }

    fn invalidation(&self) -> Invalidation {
        Invalidation {
            kills: self.kills.iter().cloned().collect(),
            bumps: self.bumps.iter().cloned().collect(),
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    ready: Batch,
    delayed: Vec<(Instant, Order)>,
    /// When everything is to be invalidated once more, after the queue overflowed.
    namespace_at: Option<Instant>,
    /// What the store has refused to take so far; reads of these bypass.
    pending: HashSet<String>,
    namespace_pending: bool,
    /// How many orders have come in; each has its number.
    entered: u64,
    /// The number of the last order that the store has acknowledged.
    delivered: u64,
    /// The cache has been shut down: nothing is delivered any more.
    closed: bool,
}

impl Queue {
    /// The number of an order that is in `ready` by now, and where its receipt goes.
    fn expect_receipt(&mut self, sender: oneshot::Sender<Acknowledgement>) -> u64 {
        self.entered += 1;
        self.ready.last = self.entered;
        if self.closed {
            tracing::warn!("an invalidation after the cache was shut down reaches nobody");
        } else {
            self.ready.receipts.push(sender);
        }
        self.ready.last
    }

    fn enforce_bound(&mut self, limit: usize) {
        if self.ready.len() + self.delayed.len() <= limit {
            return;
        }
        self.ready.collapse();
        let last = self.delayed.drain(..).map(|(due, _)| due).max();
        self.namespace_at = self.namespace_at.max(last);
    }

    fn next_due(&self) -> Option<Instant> {
        self.delayed
            .iter()
            .map(|(due, _)| *due)
            .chain(self.namespace_at)
            .min()
    }

    fn promote(&mut self, now: Instant) {
        let (due, later) = std::mem::take(&mut self.delayed)
            .into_iter()
            .partition(|(due, _)| *due <= now);
        self.delayed = later;
        let due: Vec<(Instant, Order)> = due;
        for (_, order) in due {
            self.ready.add(order);
        }
        if self.namespace_at.is_some_and(|due| due <= now) {
            self.namespace_at = None;
            self.ready.collapse();
        }
    }
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Notify,
    /// Whether anything in `queue` makes reads bypass; spares them the lock.
    any_pending: AtomicBool,
    limit: usize,
}

/// The queue's near end.
#[derive(Debug)]
pub(crate) struct Delivery {
    shared: Arc<Shared>,
    closing: watch::Sender<bool>,
    closed: watch::Receiver<bool>,
    /// How long anybody waits for a receipt. The store's own budget ends the waiting long before, unless it is
    /// slow in many steps.
    patience: Duration,
}

impl Delivery {
    pub(crate) fn start(
        store: Arc<dyn Store>,
        namespace: &str,
        limit: usize,
        patience: Duration,
        background: &Background,
    ) -> Self {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            wake: Notify::new(),
            any_pending: AtomicBool::new(false),
            limit,
        });
        let sweeps = Arc::new(Sweeper::default());
        let (closing, on_closing) = watch::channel(false);
        let (on_closed, closed) = watch::channel(false);
        background.spawn(sweep(
            Arc::clone(&sweeps),
            Arc::clone(&store),
            namespace.to_owned(),
        ));
        let worker = Worker {
            shared: Arc::clone(&shared),
            store,
            namespace: namespace.to_owned(),
            sweeps,
        };
        background.spawn(worker.run(on_closing, on_closed));
        Self {
            shared,
            closing,
            closed,
            patience,
        }
    }

    /// Hands an invalidation in. It will take place whether or not anybody waits for the receipt.
    pub(crate) fn enqueue(&self, order: Order) -> Receipt {
        let names = order.names().map(str::to_owned).collect();
        self.enter(names, |ready| ready.add(order))
    }

    /// Invalidates everything in the namespace.
    pub(crate) fn enqueue_namespace(&self) -> Receipt {
        self.enter(Vec::new(), Batch::collapse)
    }

    fn enter(&self, names: Vec<String>, enter: impl FnOnce(&mut Batch)) -> Receipt {
        let (sender, receiver) = oneshot::channel();
        let number = {
            let mut queue = self.shared.queue.lock();
            enter(&mut queue.ready);
            let number = queue.expect_receipt(sender);
            queue.enforce_bound(self.shared.limit);
            number
        };
        self.shared.wake.notify_one();
        Receipt {
            receiver,
            shared: Arc::clone(&self.shared),
            names,
            number,
            patience: self.patience,
        }
    }

    /// Hands an invalidation in that is to take place later.
    pub(crate) fn enqueue_at(&self, due: Instant, order: Order) {
        {
            let mut queue = self.shared.queue.lock();
            queue.delayed.push((due, order));
            queue.enforce_bound(self.shared.limit);
        }
        self.shared.wake.notify_one();
    }

    /// Whether an invalidation that concerns this entry has not reached the store.
    pub(crate) fn is_pending(&self, probe: &Probe) -> bool {
        if !self.shared.any_pending.load(Ordering::Acquire) {
            return false;
        }
        let queue = self.shared.queue.lock();
        queue.namespace_pending
            || queue.pending.contains(probe.key.as_str())
            || probe
                .deps
                .iter()
                .any(|dep| queue.pending.contains(dep.key()))
    }

    /// How many invalidations the store has not acknowledged.
    pub(crate) fn pending(&self) -> u64 {
        let queue = self.shared.queue.lock();
        (queue
            .ready
            .len()
            .max(queue.pending.len() + usize::from(queue.namespace_pending))) as u64
    }

    /// Tries once more to deliver what is left, for a bounded time, and ends the queue.
    pub(crate) async fn close(&self) {
        self.closing.send_replace(true);
        let mut closed = self.closed.clone();
        // Either the worker says that it is done, or it is gone.
        let _ = closed.wait_for(|closed| *closed).await;
    }
}

/// For one who waits until an invalidation has been acknowledged.
#[derive(Debug)]
pub(crate) struct Receipt {
    receiver: oneshot::Receiver<Acknowledgement>,
    shared: Arc<Shared>,
    names: Vec<String>,
    number: u64,
    patience: Duration,
}

impl Receipt {
    /// Returns with the store's word, or with [`Acknowledgement::Pending`] as soon as it is known that the store
    /// does not give it now; at the latest when the patience of the queue is over.
    pub(crate) async fn acknowledged(self) -> Acknowledgement {
        match tokio::time::timeout(self.patience, self.receiver).await {
            Ok(Ok(acknowledgement)) => acknowledgement,
            // Shut down: no read of this process asks the cache any more.
            Ok(Err(_)) => Acknowledgement::Pending,
            Err(_) => {
                let mut queue = self.shared.queue.lock();
                if self.number <= queue.delivered {
                    return Acknowledgement::Delivered;
                }
                queue.namespace_pending |= self.names.is_empty();
                queue.pending.extend(self.names);
                self.shared.any_pending.store(true, Ordering::Release);
                Acknowledgement::Pending
            }
        }
    }
}

struct Worker {
    shared: Arc<Shared>,
    store: Arc<dyn Store>,
    namespace: String,
    sweeps: Arc<Sweeper>,
}

impl Worker {
    async fn run(self, mut closing: watch::Receiver<bool>, closed: watch::Sender<bool>) {
        let mut retry: Option<Duration> = None;
        loop {
            let due = self.shared.queue.lock().next_due();
            let wake = [due, retry.map(|wait| clock::now() + wait)]
                .into_iter()
                .flatten()
                .min();
            tokio::select! {
                () = self.shared.wake.notified() => {}
                () = sleep_until(wake) => {}
                _ = closing.wait_for(|closing| *closing) => break,
            }
            retry = match self.deliver_ready().await {
                Ok(()) => {
                    if retry.is_some() {
                        tracing::info!("the invalidations that waited have been delivered");
                    }
                    None
                }
                Err(error) => {
                    if retry.is_none() {
                        tracing::warn!(
                            "an invalidation could not be delivered and is kept: {error}"
                        );
                    }
                    Some(retry.map_or(FIRST_RETRY, |wait| (wait * 2).min(LAST_RETRY)))
                }
            };
        }
        self.last_attempt().await;
        {
            let mut queue = self.shared.queue.lock();
            queue.closed = true;
            // Whoever waits is told that nothing comes any more.
            queue.ready.receipts.clear();
        }
        closed.send_replace(true);
    }

    async fn deliver_ready(&self) -> Result<(), Error> {
        loop {
            let batch = {
                let mut queue = self.shared.queue.lock();
                queue.promote(clock::now());
                std::mem::take(&mut queue.ready)
            };
            if batch.is_empty() {
                for receipt in batch.receipts {
                    // Whoever asked may be gone.
                    let _ = receipt.send(Acknowledgement::Delivered);
                }
                return Ok(());
            }
            match self.deliver(&batch).await {
                Ok(at) => self.delivered(batch, at),
                Err(error) => {
                    self.failed(batch);
                    return Err(error);
                }
            }
        }
    }

    async fn deliver(&self, batch: &Batch) -> Result<Millis, Error> {
        if batch.whole_namespace {
            self.store.clear(&self.namespace).await?;
        }
        Ok(self.store.invalidate(&batch.invalidation()).await?.at)
    }

    fn delivered(&self, mut batch: Batch, at: Millis) {
        {
            let mut queue = self.shared.queue.lock();
            queue.delivered = queue.delivered.max(batch.last);
            for name in batch.names() {
                queue.pending.remove(name);
            }
            if batch.whole_namespace {
                queue.namespace_pending = false;
                queue.pending.clear();
            }
            let any = queue.namespace_pending || !queue.pending.is_empty();
            self.shared.any_pending.store(any, Ordering::Release);
        }
        for receipt in batch.receipts.drain(..) {
            let _ = receipt.send(Acknowledgement::Delivered);
        }
        self.sweeps.request(batch.sweeps, at);
    }

    /// Reads bypass before anybody is told that the invalidation is pending.
    fn failed(&self, mut batch: Batch) {
        let receipts = std::mem::take(&mut batch.receipts);
        {
            let mut queue = self.shared.queue.lock();
            queue.pending.extend(batch.names().map(str::to_owned));
            queue.namespace_pending |= batch.whole_namespace;
            self.shared.any_pending.store(true, Ordering::Release);
            queue.ready.merge(batch);
            queue.enforce_bound(self.shared.limit);
            if queue.ready.whole_namespace {
                queue.namespace_pending = true;
            }
        }
        for receipt in receipts {
            let _ = receipt.send(Acknowledgement::Pending);
        }
    }

    async fn last_attempt(&self) {
        {
            let mut queue = self.shared.queue.lock();
            // What was to be repeated later is repeated now: later there is nobody.
            let last = queue.next_due();
            for (_, order) in std::mem::take(&mut queue.delayed) {
                queue.ready.add(order);
            }
            if queue.namespace_at.take().is_some() && last.is_some() {
                queue.ready.collapse();
            }
        }
        let lost = match tokio::time::timeout(CLOSING_BUDGET, self.deliver_ready()).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", CLOSING_BUDGET.as_secs()),
        };
        tracing::error!("invalidations were not delivered before the cache was shut down: {lost}");
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}

/// Dead entries leave by their time to live; a sweep makes them leave sooner, because people look.
#[derive(Debug, Default)]
struct Sweeper {
    /// Per resource: whether only derived entries are concerned, and before when they were stored.
    requested: Mutex<HashMap<Box<str>, (bool, Millis)>>,
    wake: Notify,
}

impl Sweeper {
    fn request(&self, resources: HashMap<Box<str>, bool>, before: Millis) {
        if resources.is_empty() {
            return;
        }
        {
            let mut requested = self.requested.lock();
            for (resource, derived_only) in resources {
                let entry = requested.entry(resource).or_insert((true, before));
                // An entity that was stored between a derived sweep and a whole one may be swept although it
                // is alive. That costs one miss.
                *entry = (entry.0 && derived_only, entry.1.max(before));
            }
        }
        self.wake.notify_one();
    }
}

async fn sweep(sweeper: Arc<Sweeper>, store: Arc<dyn Store>, namespace: String) {
    let namespace = glob_literal(&namespace);
    loop {
        sweeper.wake.notified().await;
        let next_round = clock::now() + SWEEP_INTERVAL;
        let requested = std::mem::take(&mut *sweeper.requested.lock());
        for (resource, (derived_only, before)) in requested {
            let matching = Matching {
                pattern: format!("{namespace}{resource}:*"),
                derived_only,
                stored_before: Some(before),
                unless_larger_than: Some(SWEEP_LIMIT),
            };
            if let Err(error) = store.remove_matching(&matching).await {
                tracing::debug!("the sweep of `{resource}` was not finished: {error}");
            }
        }
        tokio::time::sleep_until(next_round).await;
    }
}
