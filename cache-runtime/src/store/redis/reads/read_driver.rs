//! Sends the batches of a connection that only reads, and answers them.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::super::connection::Connection;
use super::super::sent::Sent;
use super::batcher::{
    BatchKeys, BatchLookups, BatchOutcome, BatchPlan, BatchReply, Batcher, at_once, others_first,
};
use super::read_socket::ReadSocket;
use super::read_sockets::MainConnection;
use super::replies::Reply;
use super::stored::Values as _;
use crate::base::error::Error;
use crate::base::unserved::copied;
use crate::store::LookupReply;

/// Lets runtimes open connections beside this one. `background` is a runtime that no caller blocks.
pub(crate) fn allow(connection: &Arc<Connection>, budget: Duration, background: Handle) {
    let main = Arc::downgrade(connection);
    let counted = Weak::clone(&main);
    connection.read_sockets.allow(MainConnection {
        drive: Box::new(move |socket, batcher, round_trip| {
            let main = Weak::clone(&main);
            let driver = ReadDriver {
                socket,
                batcher,
                main,
                budget,
                last: 1,
                checked: (None, 0),
                free: (0..at_once(round_trip)).collect(),
                in_flight: VecDeque::new(),
            };
            Box::pin(driver.run())
        }),
        unanswered: Box::new(move || {
            if let Some(main) = counted.upgrade() {
                main.state.unanswered(budget);
            }
        }),
        budget,
        background,
    });
}

/// So often a batch asks for some of its keys again.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// Sends what is queued, until the socket can't be used any more.
struct ReadDriver {
    socket: ReadSocket,
    batcher: Arc<Batcher>,
    /// The connection that watches whether the server may be read.
    main: Weak<Connection>,
    budget: Duration,
    /// The number of reads in the last batch.
    last: usize,
    /// When a batch last asked for keys again, and for how many.
    checked: (Option<Instant>, usize),
    /// The slots of the batcher that no batch is in.
    free: Vec<usize>,
    /// In the order in which they were sent, which is that of the replies.
    in_flight: VecDeque<SentBatch>,
}

struct SentBatch {
    slot: usize,
    plan: BatchPlan,
    batch_keys: BatchKeys,
    /// How many keys were asked for again.
    again: usize,
    sent: Sent,
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
        while self.step().await.is_ok() {}
    }

    async fn step(&mut self) -> Result<(), Unusable> {
        self.send_queued()?;
        tokio::select! {
            biased;
            () = self.batcher.queued(), if !self.free.is_empty() => {
                // The first request has woken this task, which would send it alone. One caller
                // alone does not wait for others: with it, its hits took 1.25 times as long.
                if self.last > 1 {
                    others_first().await;
                }
            }
            exchanged = self.socket.exchange() => exchanged.map_err(|_| Unusable)?,
        }
        while let Some(reply) = self.socket.next_reply().map_err(|_| Unusable)? {
            let mut batch = self.in_flight.pop_front().ok_or(Unusable)?;
            let main = self.main.upgrade().filter(|main| main.is_usable());
            let main = main.ok_or(Unusable)?;
            let answer = batch.answer(&main, reply)?;
            self.serve(&main, batch.slot, answer).await?;
            self.batcher.retire();
            self.free.push(batch.slot);
        }
        Ok(())
    }

    /// Sends all that is queued.
    fn send_queued(&mut self) -> Result<(), Unusable> {
        while let Some(slot) = self.free.last().copied() {
            let Some(plan) = self.batcher.take(slot).ok_or(Unusable)? else {
                break;
            };
            if self.batcher.is_abandoned(slot) {
                self.batcher.complete(slot, &BatchOutcome::Empty);
                self.batcher.retire();
                continue;
            }
            self.free.pop();
            self.last = plan.len();
            let batch_keys = plan.batch_keys();
            let sent = Sent::now(self.budget);
            let again = self.keys_again(sent.at).min(batch_keys.len());
            let keys = plan.keys_of(&batch_keys);
            let asked = keys.clone().chain(keys.take(again));
            self.socket.mget(batch_keys.len() + again, asked);
            self.in_flight.push_back(SentBatch {
                slot,
                plan,
                batch_keys,
                again,
                sent,
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

    /// Answers the requests of a batch. Those that are left in its slot are repeated when the socket
    /// is given up.
    async fn serve(
        &mut self,
        main: &Connection,
        slot: usize,
        answer: Answer,
    ) -> Result<(), Unusable> {
        let (outcome, mut lookups) = match answer {
            Answer::Read { outcome, lookups } => (outcome, lookups),
            Answer::Unread(error) => {
                let waiters = self.batcher.complete(slot, &BatchOutcome::Empty);
                for request in waiters.requests {
                    let _ = request.answer.send(Err(copied(&error)));
                }
                return Ok(());
            }
            Answer::Refused => {
                self.batcher.complete(slot, &BatchOutcome::Empty).repeat();
                return Ok(());
            }
        };
        main.state.failures.answered();
        let first = self.batcher.first_half(slot);
        if !first.requests.is_empty() {
            first.serve(lookups.iter_mut().map(Option::take));
            others_first().await;
            self.send_queued()?;
        }
        let rest = self.batcher.complete(slot, &outcome);
        rest.serve(lookups.into_iter());
        Ok(())
    }
}

/// What the server has answered to a batch.
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
    fn answer(&mut self, main: &Connection, reply: Reply<'_>) -> Result<Answer, Unusable> {
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
        } = reply.lookups();
        match misplaced {
            None => Ok(Answer::Read { outcome, lookups }),
            // Over the main connection it becomes known whether the entry was renamed, or whether
            // the answer belongs to another command.
            Some(_) => Err(Unusable),
        }
    }
}
