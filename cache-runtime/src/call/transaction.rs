//! Transactions of the caller: invalidations are collected while one is open, and take place when it has ended.
//!
//! A function that runs inside its caller's transaction returns before the commit. If it invalidated then, a reader
//! in between would load the old rows again, and they would stay. So inside a block every invalidation of the block's
//! cache is handed to the block, cached reads go past the cache (they may see what is never committed), and the block
//! applies everything when it ends.

use std::sync::Arc;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::time::MissedTickBehavior;

use crate::base::clock;
use crate::base::counters::Counters;
use crate::base::nonce::Nonce;
use crate::call::write::Planned;
use crate::coalesce::maintenance::MaintenanceJob;
use crate::engine::{Engine, Handle};
use crate::invalidation::{Acknowledgement, Order, Receipt};
use crate::store::Intent;

tokio::task_local! {
    static BLOCK: Arc<TransactionScope>;
}

/// How a transaction has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Committed,
    RolledBack,
    /// The commit was sent, and no answer came.
    Unknown,
}

/// An open transaction of one cache.
#[derive(Debug)]
struct TransactionScope {
    cache: Handle,
    collected: Mutex<Collected>,
    /// The block around it, of this cache or another.
    outer: Option<Arc<TransactionScope>>,
}

#[derive(Debug, Default)]
struct Collected {
    writes: Vec<Deferred>,
    /// What was removed by hand.
    orders: Vec<Order>,
    /// Whether everything was invalidated by hand.
    everything: bool,
    /// Announcements that stand until the block ends.
    intents: Vec<Intent>,
    /// What ends them.
    withdrawals: Vec<Order>,
}

/// A write that waits for the end of a block.
#[derive(Debug)]
struct Deferred {
    write: Planned,
    doubt: InDoubt,
    /// Whether it is undone if the block's transaction is. Only of an `after_commit` write is that known, and only by the
    /// block that it runs in: another one may have committed on a connection of its own, and to invalidate what
    /// was not written costs a miss.
    is_undone: bool,
}

/// What is not known of a write when it leaves its invalidation to a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InDoubt {
    /// It has returned.
    None,
    /// It has returned an error, which may hide a commit.
    Failed,
    /// It was dropped, or panicked: its commit may be on its way.
    Dropped,
}

/// What a write leaves with the block it runs in.
#[derive(Debug)]
pub(crate) struct DeferredWrite {
    /// What it invalidates; nothing if it wrote nothing.
    pub(crate) write: Option<Planned>,
    pub(crate) doubt: InDoubt,
    /// Its announcement, and what ends that.
    pub(crate) announced: Option<(Intent, Order)>,
}

impl TransactionScope {
    /// The innermost block of this cache around the current task.
    fn around(cache: &Engine) -> Option<Arc<Self>> {
        let innermost = BLOCK.try_with(Arc::clone).ok();
        Self::of(innermost, cache)
    }

    /// Whether this block, or one around it, is one of this cache.
    fn is_of(&self, cache: &Engine) -> bool {
        std::iter::successors(Some(self), |block| block.outer.as_deref())
            .any(|block| block.cache.is(cache))
    }

    fn of(innermost: Option<Arc<Self>>, cache: &Engine) -> Option<Arc<Self>> {
        std::iter::successors(innermost, |block| block.outer.clone()).find(|block| {
            block.cache.is(cache) && !crate::base::mutation::is_active("after-commit-at-once")
        })
    }

    fn take(&self) -> Collected {
        std::mem::take(&mut self.collected.lock())
    }
}

impl Collected {
    /// Settles which writes are undone, and of which nobody knows, now that the block has ended.
    fn ended(&mut self, ending: Ending) {
        if ending == Ending::RolledBack {
            let spares_all = crate::base::mutation::is_active("rollback-spares-all");
            self.writes.retain(|write| !write.is_undone && !spares_all);
        }
        for write in &mut self.writes {
            // What is around it may be undone without it.
            write.is_undone = false;
            if ending == Ending::Unknown && write.doubt == InDoubt::None {
                write.doubt = InDoubt::Failed;
            }
        }
    }

    fn dropped(&mut self) {
        for write in &mut self.writes {
            write.doubt = InDoubt::Dropped;
        }
    }

    /// Hands all of it to the block around.
    fn into_block(self, outer: &TransactionScope) {
        let mut collected = outer.collected.lock();
        collected.writes.extend(self.writes);
        collected.orders.extend(self.orders);
        collected.everything |= self.everything;
        collected.intents.extend(self.intents);
        collected.withdrawals.extend(self.withdrawals);
    }

    /// Enqueues what is to be invalidated now; what is in doubt is seen to later as well. Returns the receipts.
    fn enqueue(self, cache: &Handle, ending: Ending) -> impl Iterator<Item = Receipt> + use<> {
        let everything = self.everything.then(|| cache.delivery.enqueue_namespace());
        if self.everything && ending == Ending::Unknown {
            cache
                .delivery
                .enqueue_at(clock::now() + cache.config.uncertainty, None);
        }
        let mut now = self
            .withdrawals
            .into_iter()
            .fold(Order::default(), Order::and);
        let mut later = Order::default();
        for order in self.orders {
            if ending == Ending::Unknown {
                later = later.and(order.clone());
            }
            now = now.and(order);
        }
        for Deferred { write, doubt, .. } in self.writes {
            if doubt == InDoubt::Dropped {
                // In the same order: whoever waits for the end of the block waits until it is announced, too.
                let intent = write.intent(Nonce::fresh(), cache.config.uncertainty);
                now.intents.push(intent);
            }
            let order = write.into_order();
            let is_forgotten = crate::base::mutation::is_active("doubt-forgotten-in-blocks");
            if doubt == InDoubt::Dropped || (doubt != InDoubt::None && !is_forgotten) {
                later = later.and(order.clone());
            }
            now = now.and(order);
        }
        repeat(cache, later);
        everything.into_iter().chain([cache.delivery.enqueue(now)])
    }
}

/// Has an order carried out once more when a commit that is on its way must have arrived.
fn repeat(cache: &Handle, order: Order) {
    if !order.is_empty() {
        let deadline = clock::now() + cache.config.uncertainty;
        cache.delivery.enqueue_at(deadline, order);
    }
}

/// Whether a transaction of this cache is open around the current task.
#[inline]
pub(crate) fn is_open(cache: &Engine) -> bool {
    // Most calls are outside of any.
    BLOCK.try_with(|block| block.is_of(cache)).unwrap_or(false)
}

/// Leaves a write with the block around the current task; gives it back if there is none.
pub(crate) fn defer(cache: &Handle, handover: DeferredWrite) -> Option<DeferredWrite> {
    let Some(block) = TransactionScope::around(cache) else {
        return Some(handover);
    };
    let mut collected = block.collected.lock();
    collected
        .writes
        .extend(handover.write.map(|write| Deferred {
            is_undone: write.takes_part(),
            doubt: handover.doubt,
            write,
        }));
    if let Some((intent, withdrawal)) = handover.announced {
        collected.intents.push(intent);
        collected.withdrawals.push(withdrawal);
    }
    None
}

/// Leaves an order with the block around the current task, to be sent once more when that has ended, however it has.
pub(crate) fn hand_over_order(cache: &Handle, order: &Order) {
    if let Some(block) = TransactionScope::around(cache) {
        block.collected.lock().orders.push(order.clone());
    }
}

/// The same of an invalidation of everything.
pub(crate) fn defer_everything(cache: &Handle) {
    if let Some(block) = TransactionScope::around(cache) {
        block.collected.lock().everything = true;
    }
}

/// What was collected so far in the innermost block, if that is one of this cache: the writes, and whether everything is
/// invalidated.
#[cfg(feature = "outbox-postgres")]
pub(crate) fn collected(cache: &Engine) -> (Vec<Planned>, bool) {
    let innermost = BLOCK.try_with(Arc::clone).ok();
    let Some(block) = innermost.filter(|block| block.cache.is(cache)) else {
        return (Vec::new(), false);
    };
    let collected = block.collected.lock();
    let writes = collected.writes.iter().map(|write| write.write.clone());
    (writes.collect(), collected.everything)
}

/// Runs a block. When it ends, what was collected in it goes to the block around it, or takes place if there is none: then it
/// also says whether the store has acknowledged all of it.
pub(crate) async fn run<T>(cache: Handle, block: impl Future<Output = (T, Ending)>) -> (T, bool) {
    let opened = Arc::new(TransactionScope {
        outer: BLOCK.try_with(Arc::clone).ok(),
        collected: Mutex::default(),
        cache,
    });
    let running = opened.cache.delivery.begin();
    let mut open = Open {
        block: Arc::clone(&opened),
        has_ended: false,
    };
    let block = BLOCK.scope(Arc::clone(&opened), block);
    let (output, ending) = renewing(&opened, block).await;
    let receipts = open.ended(ending);
    drop(running);
    let budget = opened.cache.config.command_budget;
    let acknowledged = receipts.map(|receipt| receipt.acknowledged(budget));
    // What they say is in the statistics and the log, too; the transaction has ended.
    let acknowledged = join_all(acknowledged).await;
    let is_delivered = |it: &Acknowledgement| *it == Acknowledgement::Delivered;
    let is_all = !acknowledged.is_empty() && acknowledged.iter().all(is_delivered);
    (output, is_all)
}

/// Runs the block, renewing what is announced in it at a third of an intent's length.
async fn renewing<F: Future>(block: &TransactionScope, body: F) -> F::Output {
    let mut body = std::pin::pin!(body);
    let third = block.cache.config.intent / 3;
    let mut renewal = tokio::time::interval_at(clock::now() + third, third);
    renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            output = &mut body => return output,
            _ = renewal.tick() => {
                for intent in block.collected.lock().intents.clone() {
                    block.cache.maintenance.send(MaintenanceJob::RenewIntent(intent));
                }
            }
        }
    }
}

/// Sees to what was collected, however the block ends.
struct Open {
    block: Arc<TransactionScope>,
    has_ended: bool,
}

impl Open {
    /// Enqueues what is to be invalidated now, unless it is handed to the block around.
    fn ended(&mut self, ending: Ending) -> impl Iterator<Item = Receipt> + use<> {
        self.has_ended = true;
        let mut collected = self.block.take();
        collected.ended(ending);
        let enqueued = match self.outer() {
            Some(outer) => {
                collected.into_block(&outer);
                None
            }
            None => Some(collected.enqueue(&self.block.cache, ending)),
        };
        enqueued.into_iter().flatten()
    }

    /// The block of the same cache around this one.
    fn outer(&self) -> Option<Arc<TransactionScope>> {
        TransactionScope::of(self.block.outer.clone(), &self.block.cache)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        // Nobody knows whether the commit was sent, and whether it arrives.
        let cache = &self.block.cache;
        let mut collected = self.block.take();
        collected.dropped();
        if let Some(outer) = self.outer() {
            return collected.into_block(&outer);
        }
        // These stand until then; nothing withdraws them.
        for intent in collected.intents.drain(..) {
            let length = cache.config.uncertainty;
            drop(announce(cache, Intent { length, ..intent }, Vec::new()));
        }
        collected.withdrawals.clear();
        // Nobody is there to wait for the receipts.
        drop(collected.enqueue(cache, Ending::Unknown));
    }
}

/// Announces a write whose outcome nobody knows, until its commit must have arrived, and invalidates once more then. The
/// receipt is for the announcement.
pub(crate) fn leave_uncertain(cache: &Handle, write: Planned, token: Nonce) -> Receipt {
    let uncertainty = cache.config.uncertainty;
    let intent = write.intent(token, uncertainty);
    let order = write.into_order();
    let receipt = if crate::base::mutation::is_active("guard-without-intent") {
        cache.delivery.enqueue(order.clone())
    } else {
        announce(cache, intent, order.counted.clone())
    };
    cache.delivery.enqueue_at(clock::now() + uncertainty, order);
    receipt
}

fn announce(cache: &Handle, intent: Intent, counted: Vec<Arc<Counters>>) -> Receipt {
    let order = Order {
        intents: vec![intent],
        counted,
        ..Order::default()
    };
    cache.delivery.enqueue(order)
}
