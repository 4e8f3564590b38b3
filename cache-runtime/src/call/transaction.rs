//! Transactions of the caller: invalidations are collected while a transaction is open, and take
//! place when it has ended.
//!
//! A function that runs inside its caller's transaction returns before the commit. If it
//! invalidated at that time, a reader could load the old rows again before the commit, and they
//! would stay. So inside a block, every invalidation in the block's cache is handed to the block.
//! Cached reads bypass the cache, because they may see data that is never committed. The block
//! applies the invalidations when it ends.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::MissedTickBehavior;

use crate::base::clock;
use crate::base::counters::Counters;
use crate::base::join;
use crate::base::nonce::Nonce;
use crate::base::scope_flags::{self, ScopeFlags};
use crate::call::write::PlannedWrite;
use crate::call::{memo, observe};
use crate::coalesce::maintenance::MaintenanceJob;
use crate::engine::{Engine, Handle};
use crate::invalidation::{Acknowledgement, InvalidationRequest, PendingAck};
use crate::store::Intent;

tokio::task_local! {
    static BLOCK: Arc<TransactionScope>;
}

/// How a transaction has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TransactionOutcome {
    Committed,
    RolledBack,
    /// The commit was sent, but no answer came.
    Unknown,
}

/// An open transaction of one cache.
#[derive(Debug)]
struct TransactionScope {
    cache: Handle,
    collected: Mutex<Collected>,
    /// The enclosing block, of this cache or another.
    outer: Option<Arc<TransactionScope>>,
}

#[derive(Debug, Default)]
struct Collected {
    writes: Vec<CollectedWrite>,
    /// Entries that were removed by hand.
    requests: Vec<InvalidationRequest>,
    /// Whether everything was invalidated by hand.
    everything: bool,
    /// Intents that stand until the block ends.
    intents: Vec<Intent>,
    /// The requests that end these intents.
    withdrawals: Vec<InvalidationRequest>,
}

/// A write that waits for the end of a block.
#[derive(Debug)]
struct CollectedWrite {
    write: PlannedWrite,
    in_doubt: InDoubt,
    /// Whether a rollback of the block undoes the write. That is known only of an `after_commit`
    /// write, and only for the block in which it runs. Any other write may have committed on a
    /// connection of its own. Invalidating a write that was undone costs a miss.
    is_undone: bool,
}

/// Whether the outcome of a deferred write is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InDoubt {
    /// The write returned successfully.
    None,
    /// The write returned an error, which may hide a commit.
    Failed,
    /// The write was dropped or panicked. Its commit may still arrive.
    Dropped,
}

/// A write that hands its invalidation to the enclosing block.
#[derive(Debug)]
pub(crate) struct DeferredWrite {
    /// The invalidation. `None` if nothing was written.
    pub(crate) write: Option<PlannedWrite>,
    pub(crate) in_doubt: InDoubt,
    /// The intent of the write, and the request that ends it.
    pub(crate) announced: Option<(Intent, InvalidationRequest)>,
}

impl TransactionScope {
    /// Returns the innermost block of this cache around the current task.
    fn around(cache: &Engine) -> Option<Arc<Self>> {
        let innermost = BLOCK.try_with(Arc::clone).ok();
        Self::of(innermost, cache)
    }

    /// Returns true if this block, or an enclosing one, belongs to this cache.
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
    /// Applies the end of the block: drops the writes that were undone, and marks those whose
    /// outcome is unknown.
    fn ended(&mut self, ending: TransactionOutcome) {
        if ending == TransactionOutcome::RolledBack {
            let spares_all = crate::base::mutation::is_active("rollback-spares-all");
            self.writes.retain(|write| !write.is_undone && !spares_all);
        }
        for write in &mut self.writes {
            // The enclosing block may be rolled back without undoing this write.
            write.is_undone = false;
            if ending == TransactionOutcome::Unknown && write.in_doubt == InDoubt::None {
                write.in_doubt = InDoubt::Failed;
            }
        }
    }

    fn dropped(&mut self) {
        for write in &mut self.writes {
            write.in_doubt = InDoubt::Dropped;
        }
    }

    /// Hands everything to the enclosing block.
    fn into_block(self, outer: &TransactionScope) {
        let mut collected = outer.collected.lock();
        collected.writes.extend(self.writes);
        collected.requests.extend(self.requests);
        collected.everything |= self.everything;
        collected.intents.extend(self.intents);
        collected.withdrawals.extend(self.withdrawals);
    }

    /// The intents that stand until the end of the in-doubt window, since a commit may still arrive
    /// and the process be killed before. Nothing withdraws them.
    fn intents_left(&mut self, ending: TransactionOutcome, length: Duration) -> Vec<Intent> {
        let is_in_doubt = ending == TransactionOutcome::Unknown
            || self.writes.iter().any(|it| it.in_doubt != InDoubt::None);
        if !is_in_doubt || crate::base::mutation::is_active("announcements-end-with-errors") {
            return Vec::new();
        }
        self.withdrawals.clear();
        let intents = std::mem::take(&mut self.intents).into_iter();
        intents.map(|intent| Intent { length, ..intent }).collect()
    }

    /// Enqueues the invalidations. Those in doubt are enqueued for the end of the in-doubt window
    /// too. Returns the acknowledgements to wait for.
    fn enqueue(
        mut self,
        cache: &Handle,
        ending: TransactionOutcome,
    ) -> impl Iterator<Item = PendingAck> + use<> {
        let in_doubt_window = cache.config.in_doubt_window;
        let intents = self.intents_left(ending, in_doubt_window);
        let everything = self
            .everything
            .then(|| cache.invalidations.enqueue_namespace());
        if self.everything && ending == TransactionOutcome::Unknown {
            cache
                .invalidations
                .enqueue_at(clock::now() + in_doubt_window, None);
        }
        let mut now = self
            .withdrawals
            .into_iter()
            .fold(InvalidationRequest::default(), InvalidationRequest::and);
        now.intents.extend(intents);
        let mut later = InvalidationRequest::default();
        for request in self.requests {
            if ending == TransactionOutcome::Unknown {
                later = later.and(request.clone());
            }
            now = now.and(request);
        }
        for CollectedWrite {
            write, in_doubt, ..
        } in self.writes
        {
            if in_doubt == InDoubt::Dropped {
                // In the same order, so that the end of the block also waits until the intent
                // stands.
                let intent = write.intent(Nonce::fresh(), in_doubt_window);
                now.intents.push(intent);
            }
            let request = write.into_request();
            let is_forgotten = crate::base::mutation::is_active("doubt-forgotten-in-blocks");
            if in_doubt == InDoubt::Dropped || (in_doubt != InDoubt::None && !is_forgotten) {
                later = later.and(request.clone());
            }
            now = now.and(request);
        }
        repeat(cache, later);
        everything
            .into_iter()
            .chain([cache.invalidations.enqueue(now)])
    }
}

/// Enqueues a request for the time by which a commit that was sent must have arrived.
fn repeat(cache: &Handle, request: InvalidationRequest) {
    if !request.is_empty() {
        let deadline = clock::now() + cache.config.in_doubt_window;
        cache.invalidations.enqueue_at(deadline, request);
    }
}

/// Returns true if a transaction of this cache is open around the current task.
#[inline]
pub(crate) fn is_open(cache: &Engine) -> bool {
    // Most calls run outside any transaction.
    ScopeFlags::now().has(ScopeFlags::TRANSACTION)
        && BLOCK.try_with(|block| block.is_of(cache)).unwrap_or(false)
}

/// Hands a write to the block around the current task. Returns the write if there is no block.
pub(crate) fn defer(cache: &Handle, deferred: DeferredWrite) -> Option<DeferredWrite> {
    let Some(block) = TransactionScope::around(cache) else {
        return Some(deferred);
    };
    let mut collected = block.collected.lock();
    collected
        .writes
        .extend(deferred.write.map(|write| CollectedWrite {
            is_undone: write.takes_part(),
            in_doubt: deferred.in_doubt,
            write,
        }));
    if let Some((intent, withdrawal)) = deferred.announced {
        collected.intents.push(intent);
        collected.withdrawals.push(withdrawal);
    }
    None
}

/// The transaction of the block around the current task was rolled back: the writes that took part
/// in it so far did not happen.
pub(crate) fn rolled_back(cache: &Handle) {
    if let Some(block) = TransactionScope::around(cache) {
        let mut collected = block.collected.lock();
        collected.writes.retain(|write| !write.is_undone);
    }
}

/// Hands a request to the block around the current task. It is sent once more when the block has
/// ended, committed or not.
pub(crate) fn defer_request(cache: &Handle, request: &InvalidationRequest) {
    if let Some(block) = TransactionScope::around(cache) {
        block.collected.lock().requests.push(request.clone());
    }
}

/// Does the same for an invalidation of the whole namespace.
pub(crate) fn defer_everything(cache: &Handle) {
    if let Some(block) = TransactionScope::around(cache) {
        block.collected.lock().everything = true;
    }
}

/// Returns what the innermost block has collected so far, if it belongs to this cache: the writes,
/// and whether everything is invalidated.
#[cfg(feature = "outbox-postgres")]
pub(crate) fn collected(cache: &Engine) -> (Vec<PlannedWrite>, bool) {
    let innermost = BLOCK.try_with(Arc::clone).ok();
    let Some(block) = innermost.filter(|block| block.cache.is(cache)) else {
        return (Vec::new(), false);
    };
    let collected = block.collected.lock();
    let writes = collected.writes.iter().map(|write| write.write.clone());
    (writes.collect(), collected.everything)
}

/// Runs a block. When it ends, the collected invalidations go to the enclosing block, or take place
/// if there is none. Also returns whether invalidations took place and the store has acknowledged
/// all of them.
pub(crate) async fn run<T>(
    cache: Handle,
    block: impl Future<Output = (T, TransactionOutcome)>,
) -> (T, bool) {
    let opened = Arc::new(TransactionScope {
        outer: BLOCK.try_with(Arc::clone).ok(),
        collected: Mutex::default(),
        cache,
    });
    let running = opened.cache.invalidations.begin();
    let mut open = OpenScope {
        block: Arc::clone(&opened),
        has_ended: false,
    };
    let block = BLOCK.scope(Arc::clone(&opened), block);
    let block = scope_flags::flagged(ScopeFlags::TRANSACTION, block);
    let (output, ending) = renewing(&opened, block).await;
    let has_written = {
        let collected = opened.collected.lock();
        collected.everything || !(collected.requests.is_empty() && collected.writes.is_empty())
    };
    let _writing = match ending {
        TransactionOutcome::Unknown if has_written => memo::begin_write_in_doubt(),
        _ => memo::begin_write(),
    };
    let pending_acks = open.ended(ending);
    drop(running);
    let budget = opened.cache.config.command_budget;
    let acknowledged = pending_acks.map(|pending_ack| pending_ack.acknowledged(budget));
    // The results are in the statistics and the log too. The transaction itself has ended.
    let acknowledged = join::all(acknowledged).await;
    if has_written {
        acknowledged
            .iter()
            .copied()
            .for_each(observe::record_invalidation);
    }
    let is_delivered = |it: &Acknowledgement| *it == Acknowledgement::Delivered;
    let is_all = !acknowledged.is_empty() && acknowledged.iter().all(is_delivered);
    (output, is_all)
}

/// Runs the block and renews the intents in it, at a third of their length.
async fn renewing<F: Future>(block: &TransactionScope, body: F) -> F::Output {
    let mut body = std::pin::pin!(body);
    let third = block.cache.config.intent / 3;
    let mut renewal = crate::base::time::interval_at(clock::now() + third, third);
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

/// Applies or hands on what was collected, however the block ends.
struct OpenScope {
    block: Arc<TransactionScope>,
    has_ended: bool,
}

impl OpenScope {
    /// Hands the invalidations to the enclosing block, or enqueues them if there is none.
    fn ended(&mut self, ending: TransactionOutcome) -> impl Iterator<Item = PendingAck> + use<> {
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

    /// Returns the enclosing block of the same cache.
    fn outer(&self) -> Option<Arc<TransactionScope>> {
        TransactionScope::of(self.block.outer.clone(), &self.block.cache)
    }
}

impl Drop for OpenScope {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let _writing = memo::begin_write_in_doubt();
        // It is not known whether the commit was sent, or whether it will arrive.
        let cache = &self.block.cache;
        let mut collected = self.block.take();
        collected.dropped();
        if let Some(outer) = self.outer() {
            return collected.into_block(&outer);
        }
        // The intents last until the end of the in-doubt window. Nothing withdraws them.
        let length = cache.config.in_doubt_window;
        for intent in collected.intents_left(TransactionOutcome::Unknown, length) {
            drop(announce(cache, intent, Vec::new()));
        }
        // No caller waits for these acknowledgements.
        drop(collected.enqueue(cache, TransactionOutcome::Unknown));
    }
}

/// Puts an intent for a write in doubt until the end of the in-doubt window, and enqueues one more
/// invalidation for that deadline. The acknowledgement is that of the intent.
pub(crate) fn leave_in_doubt(cache: &Handle, write: PlannedWrite, token: Nonce) -> PendingAck {
    let in_doubt_window = cache.config.in_doubt_window;
    let intent = write.intent(token, in_doubt_window);
    let request = write.into_request();
    let pending_ack = if crate::base::mutation::is_active("guard-without-intent") {
        cache.invalidations.enqueue(request.clone())
    } else {
        announce(cache, intent, request.counted.clone())
    };
    cache
        .invalidations
        .enqueue_at(clock::now() + in_doubt_window, request);
    pending_ack
}

fn announce(cache: &Handle, intent: Intent, counted: Vec<Arc<Counters>>) -> PendingAck {
    let request = InvalidationRequest {
        intents: vec![intent],
        counted,
        ..InvalidationRequest::default()
    };
    cache.invalidations.enqueue(request)
}
