//! Sends the batches of a connection that only reads, and answers them.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::{Handle, Id};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::super::connection::Connection;
use super::super::sent::Sent;
use super::batcher::{
    BatchKeys, BatchLookups, BatchOutcome, BatchPlan, BatchReply, Batcher, at_once, others_first,
};
use super::read_socket::ReadSocket;
use super::read_sockets::{ReadServer, State};
use super::replies::Reply;
use super::stored::Values as _;
use crate::base::clock;
use crate::base::error::Error;
use crate::base::paused::PauseGuard;
use crate::store::LookupReply;

/// How long connecting may take. No caller waits for it.
const CONNECT_BUDGET: Duration = Duration::from_secs(1);

/// So often a batch asks for some of its keys again.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// Opens a connection for the reads of this runtime, after so many in a row that could not be made,
/// and sends what is queued. The task ends with the runtime at the latest.
pub(super) fn connect(
    main: &Arc<Connection>,
    runtime: &Handle,
    server: &Arc<ReadServer>,
    failures: u32,
) {
    let attempt = Attempt {
        main: Arc::downgrade(main),
        runtime: runtime.id(),
        batcher: Arc::default(),
        next: None,
    };
    let kept = main.read_sockets.until_dropped();
    runtime.spawn(attempt.run(Arc::clone(server), failures, kept));
}

/// The task of a connection. However it ends, its reads are repeated over the main connection.
struct Attempt {
    main: Weak<Connection>,
    runtime: Id,
    batcher: Arc<Batcher>,
    /// The runtime's state afterwards; `None` if the runtime ends.
    next: Option<State>,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Tokio panics if the runtime was built without its driver for sockets.
            self.next = Some(State::Unable);
        }
        if let Some(main) = self.main.upgrade() {
            main.read_sockets.ended(self.runtime, self.next.take());
        }
        // Callers that still find it are told to read elsewhere.
        self.batcher.give_back();
    }
}

impl Attempt {
    async fn run(mut self, server: Arc<ReadServer>, failures: u32, mut kept: watch::Receiver<()>) {
        let opening = ReadSocket::open(&server.config, server.address, server.identity);
        let opened = crate::base::time::timeout(CONNECT_BUDGET, opening).await;
        let Ok(Ok(socket)) = opened else {
            self.next = Some(State::after_failures(failures));
            return;
        };
        let overdue = Arc::new(Notify::new());
        // Aborted when it is dropped.
        let mut watching = JoinSet::new();
        let watch = watch_reads(
            Weak::clone(&self.main),
            Arc::clone(&server),
            Arc::clone(&self.batcher),
            Arc::clone(&overdue),
        );
        watching.spawn_on(watch, &server.background);
        if let Some(main) = self.main.upgrade() {
            main.read_sockets.connected(self.runtime, &self.batcher);
        }
        let driver = ReadDriver {
            socket,
            batcher: Arc::clone(&self.batcher),
            main: Weak::clone(&self.main),
            budget: server.budget,
            holds_time: !server.is_shared()
                && !crate::base::mutation::is_active("own-connections-hold-no-time"),
            last: 1,
            checked: (None, 0),
            free: (0..at_once(server.round_trip)).collect(),
            in_flight: VecDeque::new(),
            spare: BatchKeys::default(),
        };
        tokio::select! {
            biased;
            _ = kept.changed() => {}
            () = overdue.notified() => {}
            () = driver.run() => {}
        }
        self.next = Some(State::AFTER_LOSS);
    }
}

/// Ensures that no read waits longer than the budget, and notifies of batches without an answer.
///
/// If only the callers of one runtime use the connection, that runtime may be what is late: its
/// thread is blocked. Then the server does not count as silent, which the main connection finds
/// out.
async fn watch_reads(
    main: Weak<Connection>,
    server: Arc<ReadServer>,
    batcher: Arc<Batcher>,
    overdue: Arc<Notify>,
) -> Infallible {
    let counts = server.is_shared() || crate::base::mutation::is_active("blocked-runtimes-count");
    let is_overdue = || {
        if let Some(main) = main.upgrade().filter(|_| counts) {
            main.state.unanswered(server.budget);
        }
        overdue.notify_one();
    };
    batcher.watch(server.budget, is_overdue).await
}

/// Sends what is queued, until the socket can't be used any more.
struct ReadDriver {
    socket: ReadSocket,
    batcher: Arc<Batcher>,
    /// The connection that watches whether the server may be read.
    main: Weak<Connection>,
    budget: Duration,
    /// Whether paused time has to stand still while a batch is in flight. A runtime whose
    /// connection is shared has several threads, and can't pause its time; callers of other
    /// runtimes hold theirs themselves.
    holds_time: bool,
    /// The number of reads in the last batch.
    last: usize,
    /// When a batch last asked for keys again, and for how many.
    checked: (Option<Instant>, usize),
    /// The slots of the batcher that no batch is in.
    free: Vec<usize>,
    /// In the order in which they were sent, which is that of the replies.
    in_flight: VecDeque<SentBatch>,
    /// The keys of an earlier batch, for the room in them.
    spare: BatchKeys,
}

struct SentBatch {
    slot: usize,
    plan: BatchPlan,
    batch_keys: BatchKeys,
    /// How many keys were asked for again.
    again: usize,
    sent: Sent,
    _held: Option<PauseGuard>,
}

/// What has woken the task.
enum Woken {
    ByRequests,
    BySocket,
}

/// The socket can't be used any more. Its reads are repeated over the main connection.
struct Unusable;

impl Drop for ReadDriver {
    /// After a good part of the budget without an answer the keys become suspects: the value of one
    /// of them may be too large.
    fn drop(&mut self) {
        let Some(main) = self.main.upgrade() else {
            return;
        };
        for SentBatch {
            plan,
            batch_keys,
            sent,
            ..
        } in &self.in_flight
        {
            if sent.is_late() {
                main.set_aside().suspect(plan.keys_of(batch_keys));
            }
        }
    }
}

impl ReadDriver {
    /// Returns when the socket can't be used any more.
    async fn run(mut self) {
        let batcher = Arc::clone(&self.batcher);
        // Registered once for each batch, and not each time that this task is woken.
        let mut queued = pin!(batcher.queued());
        loop {
            match self.step(queued.as_mut()).await {
                Ok(Woken::ByRequests) => queued.set(batcher.queued()),
                Ok(Woken::BySocket) => {}
                Err(Unusable) => return,
            }
        }
    }

    async fn step(
        &mut self,
        queued: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<Woken, Unusable> {
        self.send_queued()?;
        let woken = tokio::select! {
            biased;
            () = queued, if !self.free.is_empty() => {
                // The first request has woken this task, which would send it alone. One caller
                // alone does not wait for others: with it, its hits took 1.25 times as long.
                if self.last > 1 {
                    others_first().await;
                }
                Woken::ByRequests
            }
            exchanged = self.socket.exchange() => {
                exchanged.map_err(|_| Unusable)?;
                Woken::BySocket
            }
        };
        while let Some(reply) = self.socket.replies.next().map_err(|_| Unusable)? {
            let mut batch = self.in_flight.pop_front().ok_or(Unusable)?;
            let main = self.main.upgrade().filter(|main| main.is_usable());
            let main = main.ok_or(Unusable)?;
            let answer = batch.read(&main, reply)?;
            self.answer(&main, batch.slot, answer).await?;
            self.batcher.retire();
            self.free.push(batch.slot);
            self.spare = batch.batch_keys;
            self.batcher.reuse(batch.plan);
        }
        Ok(woken)
    }

    /// Sends all that is queued.
    fn send_queued(&mut self) -> Result<(), Unusable> {
        while let Some(slot) = self.free.last().copied() {
            let Some((plan, at)) = self.batcher.take(slot).ok_or(Unusable)? else {
                break;
            };
            if self.batcher.is_abandoned(slot) {
                self.batcher.complete(slot, &BatchOutcome::Empty);
                self.batcher.retire();
                continue;
            }
            let budget = self.budget;
            let sent = Sent { at, budget };
            let held = self.holds_time.then(|| sent.held(clock::now())).flatten();
            self.free.pop();
            self.last = plan.len();
            let batch_keys = plan.batch_keys(std::mem::take(&mut self.spare));
            let again = self.keys_again(at).min(batch_keys.len());
            let keys = plan.keys_of(&batch_keys);
            let asked = keys.clone().chain(keys.take(again));
            self.socket.mget(batch_keys.len() + again, asked);
            self.in_flight.push_back(SentBatch {
                slot,
                plan,
                batch_keys,
                again,
                sent,
                _held: held,
            });
        }
        self.socket.send().map_err(|_| Unusable)
    }

    /// How many keys a batch that is sent now asks for again.
    ///
    /// If a proxy has lost or repeated an answer, each batch gets that of another one. Values under
    /// other keys show that at once. Where all batches ask for the same keys, only the number of
    /// values can tell: so it changes now and then, and differs from that of the batch before, also
    /// if there is a batch every few seconds only.
    fn keys_again(&mut self, now: Instant) -> usize {
        let (at, before) = self.checked;
        if at.is_some_and(|at| now.duration_since(at) < CHECK_EVERY)
            || crate::base::mutation::is_active("read-sockets-not-in-step")
        {
            return 0;
        }
        // A batch has two keys at least: an entry and a generation.
        let again = if before == 1 { 2 } else { 1 };
        self.checked = (Some(now), again);
        again
    }

    /// Answers the requests of a batch. Those that are left in its slot are repeated when the
    /// socket is given up.
    async fn answer(
        &mut self,
        main: &Connection,
        slot: usize,
        answer: Answer,
    ) -> Result<(), Unusable> {
        match answer {
            Answer::Read {
                outcome,
                mut lookups,
            } => {
                main.state.failures.answered();
                if self.batcher.serve_first_half(slot, &mut lookups) {
                    others_first().await;
                    self.send_queued()?;
                }
                let rest = self.batcher.complete(slot, &outcome);
                rest.serve(lookups.into_iter());
            }
            Answer::Unread(error) => {
                let waiters = self.batcher.complete(slot, &BatchOutcome::Empty);
                waiters.fail(&error);
            }
            Answer::Refused => {
                self.batcher.complete(slot, &BatchOutcome::Empty).repeat();
            }
        }
        Ok(())
    }
}

/// The answer of the server to a batch.
enum Answer {
    Read {
        outcome: BatchOutcome,
        lookups: Vec<Option<Box<LookupReply>>>,
    },
    /// The values can't be used now.
    Unread(Error),
    /// One key may have caused it. Over the main connection it becomes known what follows from it.
    Refused,
}

impl SentBatch {
    fn read(&mut self, main: &Connection, reply: Reply<'_>) -> Result<Answer, Unusable> {
        let strings = match reply {
            Reply::Strings(strings) if strings.len() == self.batch_keys.len() + self.again => {
                strings
            }
            Reply::Refused(_) => return Ok(Answer::Refused),
            Reply::Strings(_) | Reply::Single(_) => return Err(Unusable),
        };
        for at in strings.oversized() {
            if let Some(key) = self.plan.keys_of(&self.batch_keys).nth(at) {
                main.set_aside().is_oversized(key);
            }
        }
        let batch_keys = std::mem::take(&mut self.batch_keys);
        let reply = match BatchReply::of(main, &self.plan, batch_keys, strings) {
            Ok(reply) => reply,
            Err(error) => return Ok(Answer::Unread(error)),
        };
        let BatchLookups {
            outcome,
            lookups,
            misplaced,
            batch_keys,
        } = reply.lookups();
        self.batch_keys = batch_keys;
        match misplaced {
            None => Ok(Answer::Read { outcome, lookups }),
            // Over the main connection it becomes known whether the entry was renamed, or whether
            // the answer belongs to another command.
            Some(_) => Err(Unusable),
        }
    }
}
