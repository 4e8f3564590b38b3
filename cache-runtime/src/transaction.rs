//! Transactions of the caller: invalidations are collected while one is open, and take place when it has ended.
//!
//! A function that runs inside its caller's transaction returns before the commit. If it invalidated then, a reader
//! in between would load the old rows again, and they would stay. So inside a block every invalidation of the block's
//! cache is handed to the block, cached reads go past the cache (they may see what is never committed), and the block
//! applies everything when it ends.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::MissedTickBehavior;

use crate::clock;
use crate::delivery::Order;
use crate::engine::Handle;
use crate::nonce::Nonce;
use crate::stats::Counters;
use crate::store::Intent;
use crate::write::Planned;

tokio::task_local! {
    static BLOCK: Arc<Block>;
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
struct Block {
    cache: Handle,
    collected: Mutex<Collected>,
    /// The block around it, of another cache.
    outer: Option<Arc<Block>>,
}

#[derive(Debug, Default)]
struct Collected {
    writes: Vec<Planned>,
    /// Announcements that stand until the block ends.
    intents: Vec<Intent>,
    /// What ends them.
    withdrawals: Vec<Order>,
}

/// What a write leaves with the block it runs in.
#[derive(Debug)]
pub(crate) struct Handover {
    /// What it invalidates; nothing if it wrote nothing.
    pub(crate) write: Option<Planned>,
    /// Its announcement, and what ends that.
    pub(crate) announced: Option<(Intent, Order)>,
}

impl Block {
    /// The innermost block of this cache around the current task.
    fn around(cache: &Handle) -> Option<Arc<Self>> {
        let innermost = BLOCK.try_with(Arc::clone).ok();
        std::iter::successors(innermost, |block| block.outer.clone())
            .find(|block| block.cache.is(cache))
    }

    fn take(&self) -> Collected {
        std::mem::take(&mut self.collected.lock())
    }
}

/// Whether a transaction of this cache is open around the current task.
pub(crate) fn is_open(cache: &Handle) -> bool {
    Block::around(cache).is_some()
}

/// Leaves a write with the block around the current task; gives it back if there is none.
pub(crate) fn hand_over(cache: &Handle, handover: Handover) -> Option<Handover> {
    let Some(block) = Block::around(cache) else {
        return Some(handover);
    };
    let mut collected = block.collected.lock();
    collected.writes.extend(handover.write);
    if let Some((intent, withdrawal)) = handover.announced {
        collected.intents.push(intent);
        collected.withdrawals.push(withdrawal);
    }
    None
}

/// Leaves an order with the block around the current task, to be sent when that has ended, however it has.
pub(crate) fn hand_over_order(cache: &Handle, order: Order) {
    if let Some(block) = Block::around(cache) {
        block.collected.lock().withdrawals.push(order);
    }
}

/// Runs a block; applies what was collected in it when it is the outermost of its cache.
pub(crate) async fn run<T>(cache: Handle, block: impl Future<Output = (T, Ending)>) -> T {
    if is_open(&cache) {
        return block.await.0;
    }
    let opened = Arc::new(Block {
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
    let receipt = opened.cache.delivery.enqueue(open.ended(ending));
    drop(running);
    let _ = receipt
        .acknowledged(opened.cache.config.command_budget)
        .await;
    output
}

/// Runs the block, renewing what is announced in it at a third of an intent's length.
async fn renewing<F: Future>(block: &Block, body: F) -> F::Output {
    let mut body = std::pin::pin!(body);
    let third = block.cache.config.intent / 3;
    let mut renewal = tokio::time::interval_at(clock::now() + third, third);
    renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            output = &mut body => return output,
            _ = renewal.tick() => {
                let intents = block.collected.lock().intents.clone();
                let store = Arc::clone(&block.cache.store);
                block.cache.background.spawn(async move {
                    for intent in intents {
                        // If it can't be renewed it ends with its time, as if the process had been killed.
                        let _ = store.renew_intent(&intent).await;
                    }
                });
            }
        }
    }
}

/// Sees to what was collected, however the block ends.
struct Open {
    block: Arc<Block>,
    has_ended: bool,
}

impl Open {
    fn ended(&mut self, ending: Ending) -> Order {
        self.has_ended = true;
        let Collected {
            writes,
            withdrawals,
            ..
        } = self.block.take();
        let withdrawals = withdrawals.into_iter().fold(Order::default(), Order::and);
        if ending == Ending::RolledBack {
            return withdrawals;
        }
        let writes = writes.into_iter().map(Planned::into_order);
        let order = writes.fold(Order::default(), Order::and);
        if ending == Ending::Unknown {
            let cache = &self.block.cache;
            let later = clock::now() + cache.config.uncertainty;
            cache.delivery.enqueue_at(later, order.clone());
        }
        order.and(withdrawals)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        // Nobody knows whether the commit was sent, and whether it arrives.
        let cache = &self.block.cache;
        let Collected {
            writes, intents, ..
        } = self.block.take();
        for write in writes {
            leave_uncertain(cache, write, Nonce::fresh());
        }
        for intent in intents {
            let length = cache.config.uncertainty;
            announce(cache, Intent { length, ..intent }, Vec::new());
        }
    }
}

/// Announces a write whose outcome nobody knows, until its commit must have arrived, and invalidates once more then.
pub(crate) fn leave_uncertain(cache: &Handle, write: Planned, token: Nonce) {
    let uncertainty = cache.config.uncertainty;
    let intent = write.intent(token, uncertainty);
    let order = write.into_order();
    announce(cache, intent, order.counted.clone());
    cache.delivery.enqueue_at(clock::now() + uncertainty, order);
}

fn announce(cache: &Handle, intent: Intent, counted: Vec<Arc<Counters>>) {
    let order = Order {
        intents: vec![intent],
        counted,
        ..Order::default()
    };
    // Nobody is there to wait for the receipt.
    drop(cache.delivery.enqueue(order));
}
