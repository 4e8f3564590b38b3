//! Batches of reads (auto-pipelining, as in rueidis and ioredis).
//!
//! While few reads are in flight, a read is sent alone, without another task in between. Further
//! reads are queued. Workers take turns to send the queue with a single `MGET` that contains each
//! key once. So the more reads there are, the less each of them costs client and server. Before a
//! worker sends, it lets the ready tasks run, above all those that it has just answered, since they
//! are likely to read next. In either case the command is sent after the read began.
//!
//! Over a connection that only reads (`read_driver.rs`) every read is queued, and one task takes
//! the place of the workers.
//!
//! Other clients only pipeline commands. Here they are also merged, so that the server reads each
//! generation once per batch.

mod plan;
mod reply;
#[cfg(test)]
mod tests;
mod worker;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

pub(crate) use self::plan::{BatchKeys, BatchPlan};
pub(crate) use self::reply::{BatchLookups, BatchReply};
pub(crate) use self::worker::{Worker, at_once};
use crate::base::clock;
use crate::base::error::Error;
use crate::base::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::base::sync::{Mutex, Notify, time};
use crate::base::unserved::copied;
use crate::store::{EntryRef, LookupReply};

/// The number of batches in flight: while one is answered, the server reads the next. If the round
/// trip is long there are more, one for each [`WAY_OF_ONE`]. So a read waits only for a small part
/// of a round trip before it is sent.
pub(crate) const FEWEST_AT_ONCE: usize = WORKERS;

pub(crate) const MOST_AT_ONCE: usize = 64;

pub(crate) const WAY_OF_ONE: Duration = Duration::from_micros(500);

/// The tasks that send batches.
pub(crate) const WORKERS: usize = 2;

/// The limits of a batch: the number of reads, of their keys, and of the expected bytes of the
/// answer.
const MAX_READS: usize = 256;

const MAX_KEYS: usize = 2 * MAX_READS;

const MAX_BYTES: usize = 4 << 20;

/// The limit on reads in a batch before the size of the entries is known.
const FIRST_READS: usize = 64;

/// The cost of one more command for client and server together. As many reads are sent alone as fit
/// into a round trip. Below that number the processors wait for the network anyway, and queueing
/// would only add to the time.
const COMMAND: Duration = Duration::from_micros(10);

/// The same on a link that is faster than the processors, such as loopback, and in a cluster, whose
/// round trip is not measured. On an idle machine, 8, 16, 64 and 512 callers had 0.82, 0.75, 1.12
/// and 1.50 times the throughput of hand-written code with this, and 0.76, 0.74, 1.06 and 1.41 with
/// four.
const FEWEST_ALONE: usize = 8;

const MOST_ALONE: usize = 64;

/// A smaller batch is not answered in halves.
const FEWEST_HALVED: usize = 4;

/// The most turns that a worker waits for what the first half reads next to be sent. The other
/// worker, if it is free, needs two.
const MOST_TURNS: usize = 8;

/// Waiting reads are checked this many times per budget.
const ROUNDS: u32 = 8;

/// `None` if the read has to be repeated alone.
pub(crate) type LookResult = Result<Option<Box<LookupReply>>, Error>;

/// The reads of one connection.
pub(crate) struct Batcher {
    pub(crate) alone: AtomicUsize,
    /// The limit on reads that are sent alone.
    width: AtomicUsize,
    /// Batches that are queued, in flight or have just been answered. Written under the queue's
    /// lock.
    together: AtomicUsize,
    queue: Mutex<BatchQueue>,
    queued: Notify,
    /// The batches in flight, by slot.
    sent: Box<[Mutex<SentBatch>]>,
    /// Whether a task checks the waiting reads.
    is_watched: AtomicBool,
    arrived: Notify,
}

/// The batches that have not been sent, in order. Only the last one takes more requests.
struct BatchQueue {
    batches: VecDeque<PendingBatch>,
    /// The recent size of an entry, in bytes.
    usual: usize,
    /// How many reads the last batch had; the next is likely to have as many.
    last: usize,
    /// A plan whose room the next batch uses.
    spare: Option<BatchPlan>,
    /// How many batches have left the queue.
    taken: u64,
    is_over: bool,
}

impl Default for BatchQueue {
    fn default() -> Self {
        Self {
            batches: VecDeque::new(),
            usual: MAX_BYTES / FIRST_READS,
            last: 0,
            spare: None,
            taken: 0,
            is_over: false,
        }
    }
}

struct PendingBatch {
    plan: BatchPlan,
    waiters: Waiters,
}

impl PendingBatch {
    /// A batch with room for so many reads, and a plan without any.
    fn new(reads: usize, plan: BatchPlan) -> Self {
        Self {
            plan,
            waiters: Waiters {
                requests: VecDeque::with_capacity(reads),
                gone: 0,
            },
        }
    }

    fn add(&mut self, entry_ref: &EntryRef, request: Request) {
        self.plan.add(entry_ref);
        self.waiters.requests.push_back(request);
    }

    fn is_full(&self, usual: usize) -> bool {
        let reads = (MAX_BYTES / usual.max(1)).clamp(1, MAX_READS);
        self.plan.len() >= reads || self.plan.keys() >= MAX_KEYS
    }
}

/// The requests of a batch, in the order of its plan.
#[derive(Default)]
pub(crate) struct Waiters {
    pub(crate) requests: VecDeque<Request>,
    /// How many requests at the front have timed out or were answered.
    pub(crate) gone: usize,
}

pub(crate) struct Request {
    pub(crate) answer: oneshot::Sender<LookResult>,
    /// By the system's clock, as all times here: the watch may be on another runtime than the read,
    /// and a test may have paused the time of one of them.
    pub(crate) since: Instant,
}

impl Waiters {
    /// Moves the requests from before this time into `late`; returns whether these were all.
    fn give_up(&mut self, by: Instant, late: &mut Vec<Request>) -> bool {
        let is_late = |request: &Request| request.since <= by;
        while self.requests.front().is_some_and(is_late) {
            late.extend(self.requests.pop_front());
            self.gone += 1;
        }
        self.requests.is_empty()
    }

    /// Answers the requests, from the results of all reads of the batch.
    pub(crate) fn serve(self, lookups: impl Iterator<Item = Option<Box<LookupReply>>>) {
        // `skip` does not take what it passes over, but a request that is gone wants no answer.
        for (request, lookup) in self.requests.into_iter().zip(lookups.skip(self.gone)) {
            let _ = request.answer.send(Ok(lookup));
        }
    }

    /// The reads are repeated alone.
    pub(crate) fn repeat(self) {
        for request in self.requests {
            let _ = request.answer.send(Ok(None));
        }
    }

    /// The reads could not be made.
    pub(crate) fn fail(self, error: &Error) {
        for request in self.requests {
            let _ = request.answer.send(Err(copied(error)));
        }
    }

    /// Whether no request is left.
    fn is_abandoned(&self) -> bool {
        self.requests
            .iter()
            .all(|request| request.answer.is_closed())
    }
}

/// A batch in flight.
#[derive(Default)]
struct SentBatch {
    waiters: Waiters,
    sent: Option<Instant>,
    /// How often the batch has been overdue.
    overdue: u32,
}

/// How a batch has ended.
pub(crate) enum BatchOutcome {
    /// It was answered, with this many entries of this many bytes.
    Brought { entries: usize, bytes: usize },
    /// It was not answered in time, or not at all.
    Unanswered { reads: usize },
    /// It was refused, or was not sent.
    Empty,
}

impl Default for Batcher {
    fn default() -> Self {
        Self {
            alone: AtomicUsize::new(0),
            width: AtomicUsize::new(FEWEST_ALONE),
            together: AtomicUsize::new(0),
            queue: Mutex::default(),
            queued: Notify::new(),
            sent: (0..MOST_AT_ONCE).map(|_| Mutex::default()).collect(),
            is_watched: AtomicBool::new(false),
            arrived: Notify::new(),
        }
    }
}

impl Batcher {
    /// Sets the round trip of a command on an idle connection.
    pub(crate) fn set_round_trip(&self, round_trip: Duration) {
        let fit = round_trip.as_nanos() / COMMAND.as_nanos();
        let fit = usize::try_from(fit).unwrap_or(MOST_ALONE);
        let width = fit.clamp(FEWEST_ALONE, MOST_ALONE);
        self.width.store(width, Ordering::Relaxed);
    }

    /// Whether so few reads are in flight that another one may be sent alone. A few more may get
    /// through.
    pub(crate) fn is_quiet(&self) -> bool {
        // A read that comes while a batch is in flight waits for that batch at most.
        self.together.load(Ordering::Relaxed) == 0
            && self.alone.load(Ordering::Relaxed) < self.width.load(Ordering::Relaxed)
    }

    /// Queues a read that began then; `None` if the connection was closed.
    pub(crate) fn join(
        &self,
        entry_ref: &EntryRef,
        since: Instant,
    ) -> Option<oneshot::Receiver<LookResult>> {
        let (answer, receiver) = oneshot::channel();
        let since = match crate::base::mutation::is_active("reads-timed-by-paused-time") {
            true => clock::now().into_std(),
            false => since,
        };
        let request = Request { answer, since };
        {
            let mut queue = self.queue.lock();
            if queue.is_over {
                return None;
            }
            if crate::base::mutation::is_active("joined-a-read-that-has-left") {
                let mut sent = self.sent.iter().map(|sent_batch| sent_batch.lock());
                if let Some(mut left) = sent.find(|sent_batch| sent_batch.sent.is_some()) {
                    left.waiters.requests.push_back(request);
                    return Some(receiver);
                }
            }
            let usual = queue.usual;
            let last = queue.batches.back_mut();
            if let Some(batch) = last.filter(|batch| !batch.is_full(usual)) {
                batch.add(entry_ref, request);
                return Some(receiver);
            }
            let plan = queue.spare.take().unwrap_or_default();
            let mut batch = PendingBatch::new(queue.last, plan);
            batch.add(entry_ref, request);
            queue.batches.push_back(batch);
            self.together.fetch_add(1, Ordering::SeqCst);
        }
        // The first request of a batch wakes those that send and watch it.
        self.queued.notify_one();
        if !self.is_watched.swap(true, Ordering::SeqCst) {
            self.arrived.notify_one();
        }
        Some(receiver)
    }

    /// The plan of the next batch, whose requests now wait in this slot; `None` if the connection
    /// is closed.
    pub(crate) async fn next_batch(&self, slot: usize) -> Option<BatchPlan> {
        loop {
            // Created first, so that a notification after the check of the queue is not lost.
            let queued = self.queued.notified();
            if let Some((plan, _)) = self.take(slot)? {
                return Some(plan);
            }
            queued.await;
            // The first request has woken this task. Without this it would run next, and send that
            // request alone.
            others_first().await;
        }
    }

    /// The plan of the next batch, if one is queued, and the system's time; its requests now wait
    /// in this slot. `None` if the connection is closed.
    pub(crate) fn take(&self, slot: usize) -> Option<Option<(BatchPlan, Instant)>> {
        let mut queue = self.queue.lock();
        if queue.is_over {
            return None;
        }
        let Some(PendingBatch { plan, waiters }) = queue.batches.pop_front() else {
            return Some(None);
        };
        queue.last = plan.len();
        queue.taken += 1;
        let now = clock::system();
        // Under the queue's lock, so that anyone who looks for the requests finds them in one of
        // the two places.
        *self.sent.get(slot)?.lock() = SentBatch {
            waiters,
            sent: Some(now),
            overdue: 0,
        };
        Some(Some((plan, now)))
    }

    /// Returns once a batch was queued. One that was queued before counts as well, if nobody has
    /// waited for it.
    pub(crate) async fn queued(&self) {
        self.queued.notified().await;
    }

    /// Takes a plan whose batch has ended, for the room in it.
    pub(crate) fn reuse(&self, mut plan: BatchPlan) {
        plan.clear();
        self.queue.lock().spare = Some(plan);
    }

    /// Whether no request of this batch is left.
    pub(crate) fn is_abandoned(&self, slot: usize) -> bool {
        let sent = self.sent.get(slot);
        sent.is_none_or(|sent_batch| sent_batch.lock().waiters.is_abandoned())
    }

    /// The requests that still wait when their batch ends.
    pub(crate) fn complete(&self, slot: usize, outcome: &BatchOutcome) -> Waiters {
        let mut queue = self.queue.lock();
        match *outcome {
            BatchOutcome::Brought { entries, bytes } => {
                queue.usual = (3 * queue.usual + bytes / entries.max(1)) / 4;
            }
            // The batch may have been too large.
            BatchOutcome::Unanswered { reads } => {
                let least = MAX_BYTES / reads.max(1);
                queue.usual = (2 * queue.usual).clamp(least, MAX_BYTES.max(least));
            }
            BatchOutcome::Empty => {}
        }
        if queue.is_over {
            return Waiters::default();
        }
        let sent_batch = self.sent.get(slot);
        sent_batch.map_or_else(Waiters::default, |it| {
            std::mem::take(&mut *it.lock()).waiters
        })
    }

    /// Answers the first half of an answered batch, from the results of all its reads; returns
    /// whether the batch is answered in halves. Once what this half reads next is sent, the others
    /// are to be answered, which wait in the slot until then.
    ///
    /// Callers that are answered together read again together. If no other batch is in flight, they
    /// would be in one batch, and client and server would work in turn: each would wait for the
    /// other. In two halves, the server reads for one half while the client works for the other.
    pub(crate) fn serve_first_half(
        &self,
        slot: usize,
        lookups: &mut [Option<Box<LookupReply>>],
    ) -> bool {
        let is_only = self.together.load(Ordering::Relaxed) <= 1;
        let Some(sent_batch) = self.sent.get(slot).filter(|_| is_only) else {
            return false;
        };
        let first = {
            let waiters = &mut sent_batch.lock().waiters;
            let reads = waiters.requests.len();
            if reads < FEWEST_HALVED {
                return false;
            }
            let (gone, half) = (waiters.gone, reads.div_ceil(2));
            waiters.gone += half;
            Waiters {
                requests: waiters.requests.drain(..half).collect(),
                gone,
            }
        };
        first.serve(lookups.iter_mut().map(Option::take));
        true
    }

    /// Lets the ready tasks run, until a batch was sent or no read is queued.
    ///
    /// The other worker is woken by the first of those who read again, and sends their batch after
    /// all of them have run. If the second half were answered before that, its callers would join
    /// that batch, which would be the only one once more. On one thread, batches of 64 callers had
    /// 64 reads each then, and have 32 with this: 1.12 times the throughput of hand-written code in
    /// place of 0.80.
    pub(crate) async fn others_send(&self) {
        let taken_before = self.queue.lock().taken;
        for _ in 0..MOST_TURNS {
            others_first().await;
            let queue = self.queue.lock();
            // Reads that are queued after that have to wait for this worker.
            if queue.taken != taken_before || queue.batches.is_empty() {
                return;
            }
        }
    }

    /// After a batch has ended, reads need not be queued because of it.
    pub(crate) fn retire(&self) {
        let queue = self.queue.lock();
        if !queue.is_over {
            self.together.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Ensures that no read waits longer than the budget, even if a worker does not run. There is
    /// one timer for all reads. Calls `overdue` for each budget by which a batch is late, since its
    /// worker does not end it.
    pub(crate) async fn watch(&self, budget: Duration, overdue: impl Fn()) -> Infallible {
        let round = (budget / ROUNDS).max(Duration::from_millis(1));
        loop {
            self.arrived.notified().await;
            while self.is_busy() {
                time::sleep(round).await;
                let now = clock::system();
                if let Some(by) = now.checked_sub(budget.saturating_sub(round)) {
                    self.give_up(by);
                }
                if self.is_overdue(now, budget, round) {
                    overdue();
                }
            }
        }
    }

    fn is_busy(&self) -> bool {
        // First, so that a read that is queued after the check of the counter notices it.
        self.is_watched.store(false, Ordering::SeqCst);
        self.together.load(Ordering::SeqCst) > 0
    }

    /// Times out the reads from before this time.
    fn give_up(&self, by: Instant) {
        let mut late = Vec::new();
        {
            let mut queue = self.queue.lock();
            while let Some(batch) = queue.batches.front_mut() {
                if !batch.waiters.give_up(by, &mut late) {
                    break;
                }
                queue.batches.pop_front();
                self.together.fetch_sub(1, Ordering::SeqCst);
            }
        }
        for sent_batch in self.sent.iter() {
            sent_batch.lock().waiters.give_up(by, &mut late);
        }
    }

    /// Whether a batch is late by one more budget.
    fn is_overdue(&self, now: Instant, budget: Duration, round: Duration) -> bool {
        let mut is_overdue = false;
        for sent_batch in self.sent.iter() {
            let mut sent_batch = sent_batch.lock();
            let most = budget * (sent_batch.overdue + 1) + round;
            if sent_batch.sent.is_some_and(|sent| sent + most <= now) {
                sent_batch.overdue += 1;
                is_overdue = true;
            }
        }
        is_overdue
    }

    /// The connection is closed: waiting reads are told, and later reads are sent alone.
    pub(crate) fn end(&self) {
        drop(self.close());
    }

    /// Like [`end`](Self::end), and the waiting reads are repeated alone.
    pub(crate) fn give_back(&self) {
        let left = self.close();
        if crate::base::mutation::is_active("own-batches-lost-for-good") {
            return;
        }
        for waiters in left {
            waiters.repeat();
        }
    }

    /// The requests that are left.
    fn close(&self) -> Vec<Waiters> {
        let mut left = Vec::new();
        {
            let mut queue = self.queue.lock();
            queue.is_over = true;
            self.together.store(0, Ordering::SeqCst);
            for sent_batch in self.sent.iter() {
                left.push(std::mem::take(&mut *sent_batch.lock()).waiters);
            }
            left.extend(queue.batches.drain(..).map(|batch| batch.waiters));
        }
        self.queued.notify_waiters();
        left
    }
}

/// Returns when the ready tasks of this thread have run. It runs after them, and does not poll the
/// network first, as the runtime's own `yield_now` does.
pub(crate) async fn others_first() {
    let mut has_waited = false;
    poll_fn(|context| {
        if has_waited {
            return Poll::Ready(());
        }
        has_waited = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
