//! The worker: delivers the invalidations in the queue and retries them.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::clearing::Clearing;
use super::queue::{OutgoingBatch, Queue, RefusedRequests};
use super::reconnect::{changed, is_away, is_lost, number_of};
use super::report;
use super::shared::{Requeue, SharedQueue};
use super::sweep::Sweeper;
use crate::base::clock::{self, Instant, Millis};
use crate::base::error::Error;
use crate::base::retry::Retry;
use crate::base::span::in_span;
use crate::store::{
    Circuit, ConnectionWatch, Invalidation, NamespaceInvalidated, PartlyInvalidated, Parts, Store,
};

/// The time limit for the remaining deliveries at shutdown.
pub(super) const CLOSING_BUDGET: Duration = Duration::from_secs(2);

/// The pause between two attempts at shutdown. It is short, because the time is limited.
const CLOSING_RETRY: Duration = Duration::from_millis(50);

#[derive(Clone)]
pub(super) struct Worker {
    pub(super) shared: Arc<SharedQueue>,
    pub(super) store: Arc<dyn Store>,
    pub(super) connection: Option<ConnectionWatch>,
    pub(super) namespace: String,
    pub(super) sweeper: Arc<Sweeper>,
    pub(super) clearing: Arc<Clearing>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

/// Why ready invalidations are still waiting.
struct Stopped {
    error: Error,
    /// When the attempt began that has failed.
    began: Instant,
    /// Until when callers wait for a connection. `None` if they were told `Pending`.
    until: Option<Instant>,
}

impl Worker {
    pub(super) async fn run(self, mut closing: watch::Receiver<bool>, closed: watch::Sender<bool>) {
        // A batch is still in flight if an earlier run of the worker panicked.
        if self.shared.queue.lock().is_sending() {
            self.shared.take_back(true);
        }
        tokio::select! {
            () = self.deliver_for_ever() => {}
            _ = closing.wait_for(|closing| *closing) => {}
        }
        self.last_attempt().await;
        // The worker closes the store, because the caller of `shutdown` may have gone.
        self.store.close().await;
        closed.send_replace(true);
    }

    async fn deliver_for_ever(&self) {
        let mut retry: Option<Retry> = None;
        let mut kept_until = None;
        let mut connection = self.connection.as_ref().map(ConnectionWatch::subscribe);
        // One warning per name in an outage, not one per write.
        let mut warned = HashSet::new();
        let mut reported = report::PendingReport::default();
        loop {
            let due = self.shared.queue.lock().wake_at();
            let wake = [due, retry.map(|retry| retry.at), kept_until]
                .into_iter()
                .flatten()
                .min();
            let is_changed = tokio::select! {
                () = self.shared.wake.notified() => false,
                () = changed(&mut connection) => true,
                () = clock::sleep_until(wake) => false,
            };
            // Refused requests are tried only when a retry is due, or after a reconnect, however
            // often others wake this task.
            let began = clock::now();
            let refused_requests = match is_changed || retry.is_none_or(|retry| retry.at <= began) {
                true => RefusedRequests::Send,
                false => RefusedRequests::Skip,
            };
            let stopped = self.attempt(refused_requests, began).await;
            if let Some(connection) = &self.connection {
                connection.want(stopped.is_some());
            }
            kept_until = stopped.as_ref().and_then(|stopped| stopped.until);
            // The retry may have become due while others were sent. It still is, then.
            let next = |retry, began, error: &Error| match refused_requests == RefusedRequests::Send
                || crate::base::mutation::is_active("retries-put-off")
            {
                true => Some(Retry::after(retry, began, is_away(error))),
                false => retry,
            };
            retry = match stopped {
                None => {
                    reported.is_over();
                    if retry.is_some() && !warned.is_empty() {
                        tracing::info!(
                            names = warned.len(),
                            "the invalidations that waited have been delivered"
                        );
                        warned.clear();
                    }
                    None
                }
                Some(Stopped {
                    error,
                    began,
                    until: None,
                }) => {
                    reported.pending(&self.shared);
                    self.warn_of_waiting(&mut warned, &error);
                    next(retry, began, &error)
                }
                Some(Stopped { error, began, .. }) => {
                    retry.and_then(|retry| next(Some(retry), began, &error))
                }
            };
        }
    }

    /// Delivers what is ready, unless a caller's task has just been refused. Returns why it stopped
    /// before everything was delivered.
    async fn attempt(&self, refused_requests: RefusedRequests, began: Instant) -> Option<Stopped> {
        let failure = self.shared.failure.lock().take();
        match failure {
            // A batch that a caller's task has sent is tried again after a pause, like any other.
            Some(error)
                if self.shared.queue.lock().waits_for_nobody()
                    || crate::base::mutation::is_active("refused-holds-up-others") =>
            {
                Some(Stopped {
                    error,
                    began,
                    until: None,
                })
            }
            // Others have come meanwhile, or everything has been sent.
            _ => self.deliver_ready(refused_requests).await.err(),
        }
    }

    /// Warns of each name that has not been warned of in this outage.
    fn warn_of_waiting(&self, warned: &mut HashSet<String>, error: &Error) {
        for name in self.shared.queue.lock().waiting_of() {
            if !warned.contains(&name) {
                tracing::warn!(invalidated = name, %error, "invalidations wait for the store");
                warned.insert(name);
            }
        }
    }

    async fn deliver_ready(&self, refused_requests: RefusedRequests) -> Result<(), Stopped> {
        let mut began = clock::now();
        loop {
            if !crate::base::mutation::is_active("retries-put-off-by-what-was-sent") {
                began = clock::now();
            }
            // Checking the circuit first costs nothing, however many invalidations wait. A write in
            // an outage must not pay for all those before it.
            if self.store.circuit() != Circuit::Closed {
                let stopped = |until| Stopped {
                    error: Error::unavailable("the store is not connected"),
                    began,
                    until,
                };
                match self.shared.requeue(self.connection.as_ref()) {
                    Requeue::NothingReady => {}
                    Requeue::WaitUntil(until) => return Err(stopped(Some(until))),
                    Requeue::ToldPending => return Err(stopped(None)),
                }
            }
            let number = number_of(self.connection.as_ref());
            let Some(mut outgoing) = self.shared.change(|queue| queue.send(clock::now())) else {
                if self.store.circuit() == Circuit::Closed {
                    self.shared.change(Queue::answered);
                }
                return Ok(());
            };
            outgoing.refused_requests = refused_requests;
            let span = report::delivery_span(&self.shared.telemetry, &outgoing);
            if let Err(error) = in_span(span, self.deliver(&outgoing)).await {
                if is_away(&error) && is_lost(&*self.store, self.connection.as_ref(), number) {
                    // Retry at once over the next connection, which may be there already.
                    self.shared.requeue(self.connection.as_ref());
                    continue;
                }
                // One of several connections, of which the others may be in use.
                let until = match is_away(&error) && self.store.is_split() {
                    true => self.shared.put_back(self.connection.as_ref()),
                    false => None,
                };
                if crate::base::mutation::is_active("a-dead-shard-holds-up-who-comes") {
                    self.shared.requeue(self.connection.as_ref());
                }
                if until.is_none() {
                    self.shared.take_back(is_away(&error));
                }
                return Err(Stopped {
                    error,
                    began,
                    until,
                });
            }
        }
    }

    /// Delivers the parts one by one. A part that the store refuses doesn't hold up the others.
    async fn deliver(&self, outgoing: &OutgoingBatch) -> Result<(), Error> {
        let mut outcome = Ok(());
        if outgoing.invalidates {
            let began = clock::now();
            match self.invalidate(outgoing).await {
                Ok(at) => {
                    if outgoing.whole_namespace {
                        // First, so that whoever is told finds it in the log and among the events.
                        report::all_delivered(&self.shared.telemetry, outgoing, began.elapsed());
                    }
                    let batch = self.shared.change(Queue::acknowledge);
                    // A scan with waiting callers replaces the sweep.
                    let is_swept = batch.everything.is_some() && !self.clearing.begin();
                    let namespace = is_swept.then_some((None, false));
                    let resources = batch
                        .sweeps
                        .into_iter()
                        .map(|(name, derived)| (Some(name), derived));
                    self.sweeper.request(resources.chain(namespace), at);
                }
                // The store is down: trying the intents would take as long again. A split store may
                // be down in parts.
                Err(error) if is_away(&error) && !self.store.is_split() => return Err(error),
                Err(error) => outcome = Err(error),
            }
        }
        for intent in &outgoing.intents {
            let Err(error) = self.store.intend(intent).await else {
                self.shared
                    .change(|queue| queue.acknowledge_intent(intent.token));
                continue;
            };
            self.shared.change(|queue| queue.defer_intent(intent.token));
            let is_away = is_away(&error);
            outcome = Err(error);
            if is_away && !self.store.is_split() {
                break;
            }
        }
        outcome
    }

    async fn invalidate(&self, outgoing: &OutgoingBatch) -> Result<Millis, Error> {
        let (everything, each) = match self.store.is_split() {
            // A part that does not answer must not delay what lies elsewhere.
            true => {
                let (everything, each) = tokio::join!(
                    self.invalidate_everything(outgoing),
                    self.invalidate_each(outgoing)
                );
                (everything?, each?)
            }
            false => (
                self.invalidate_everything(outgoing).await?,
                self.invalidate_each(outgoing).await?,
            ),
        };
        Ok(everything.or(each).unwrap_or(Millis(0)))
    }

    /// Invalidates the whole namespace, or what is left of that. Returns when it began, in the
    /// store's time.
    async fn invalidate_everything(
        &self,
        outgoing: &OutgoingBatch,
    ) -> Result<Option<Millis>, Error> {
        if !outgoing.whole_namespace {
            return Ok(None);
        }
        let NamespaceInvalidated { at, undone } = match outgoing.parts.is_empty() {
            true => NamespaceInvalidated {
                at: None,
                undone: None,
            },
            false => {
                let (store, parts) = (&self.store, &outgoing.parts);
                let done = store.invalidate_namespace_partly(&self.namespace, parts);
                done.await
            }
        };
        let (parts, error) = match undone {
            None => (Parts::Only(BTreeSet::new()), None),
            Some((parts, error)) => (parts, Some(error)),
        };
        let began = self
            .shared
            .change(|queue| queue.acknowledge_parts(parts, at));
        error.map_or(Ok(began), Err)
    }

    /// Invalidates the entries and generations. Returns when, in the store's time.
    async fn invalidate_each(&self, outgoing: &OutgoingBatch) -> Result<Option<Millis>, Error> {
        let (others, refused) = (&outgoing.invalidation, &outgoing.refused);
        // First, and apart: who waits for nothing that is refused must not wait for the refusal.
        let at = match others.is_empty() {
            true => Ok(None),
            false => self
                .invalidate_part(outgoing, others, false)
                .await
                .map(Some),
        };
        if refused.is_empty() {
            return at;
        }
        // Also if a generation was refused just now before which rows or tags among the others may
        // not be replaced. From now on it is taken out with them.
        let ends = |error: &Error| {
            is_away(error) || !crate::base::mutation::is_active("rows-sent-past-a-refused-window")
        };
        let is_over = at.as_ref().is_err_and(ends) && !self.store.is_split();
        if is_over || outgoing.refused_requests == RefusedRequests::Skip {
            return at.and_then(|_| Err(self.shared.queue.lock().refusal()));
        }
        let again = self.invalidate_part(outgoing, refused, true).await;
        Ok(at?.max(Some(again?)))
    }

    /// Sends a part of a batch, and acknowledges what is done of it if other parts are left.
    async fn invalidate_part(
        &self,
        outgoing: &OutgoingBatch,
        part: &Invalidation,
        was_refused: bool,
    ) -> Result<Millis, Error> {
        let began = clock::now();
        let sent = self.store.invalidate_partly(part).await;
        let PartlyInvalidated { done, undone } = match was_refused {
            true => self.with_replaced(part, sent).await,
            false => sent,
        };
        let at = done.at;
        let done = match &undone {
            None => Cow::Borrowed(part),
            Some((undone, _)) => Cow::Owned(part.without(undone)),
        };
        if !outgoing.whole_namespace {
            report::delivered(&self.shared.telemetry, &done, began.elapsed());
        }
        if undone.is_some()
            || !outgoing.refused.is_empty()
            || self.store.is_split() && outgoing.whole_namespace
        {
            let sweeps = self.shared.change(|queue| {
                // Before anybody is told.
                if let Some((undone, error)) = &undone
                    && !is_away(error)
                {
                    queue.refuse(part, undone, error);
                }
                queue.acknowledge_part(&done)
            });
            let sweeps = sweeps.into_iter();
            self.sweeper
                .request(sweeps.map(|(name, derived)| (Some(name), derived)), at);
        }
        undone.map_or(Ok(at), |(_, error)| Err(error))
    }

    /// Something that was refused is done now. Others may have loaded values of it after the
    /// generations beside it were replaced, so these are replaced once more, before anybody is told.
    async fn with_replaced(
        &self,
        refused: &Invalidation,
        sent: PartlyInvalidated,
    ) -> PartlyInvalidated {
        let left = sent.undone.as_ref().map_or(0, |(undone, _)| undone.len());
        let replaced = self.shared.queue.lock().replaced_meanwhile();
        if left == refused.len() || replaced.is_empty() {
            return sent;
        }
        let replaced = refused.part(Vec::new(), replaced);
        match self.store.invalidate_partly(&replaced).await.undone {
            None => sent,
            // So all of it is sent again.
            Some((_, error)) => PartlyInvalidated::partly(sent.done, refused.clone(), error),
        }
    }

    async fn last_attempt(&self) {
        let mut fault = None;
        let attempts = self.deliver_the_rest(&mut fault);
        // A timeout needs no handling: what is left in the queue shows whether all was delivered.
        let _ = crate::base::time::timeout(CLOSING_BUDGET, attempts).await;
        let lost = self.shared.change(Queue::close);
        report::lost(&self.shared.telemetry, &lost);
        if lost.is_news() {
            let reason = fault.map_or_else(
                || format!("no answer within {} s", CLOSING_BUDGET.as_secs()),
                |error: Error| error.to_string(),
            );
            tracing::error!(
                reason,
                %lost,
                "invalidations were not delivered before the cache was shut down"
            );
        }
    }

    /// Delivers what is left and what running writes enqueue meanwhile, then closes the queue.
    async fn deliver_the_rest(&self, fault: &mut Option<Error>) {
        let mut running = self.shared.running.subscribe();
        let mut connection = self.connection.as_ref().map(ConnectionWatch::subscribe);
        if let Some(connection) = &self.connection {
            connection.want(true);
        }
        loop {
            self.shared.change(Queue::flush_delayed);
            if let Err(Stopped { error, .. }) = self.deliver_ready(RefusedRequests::Send).await {
                *fault = Some(error);
                tokio::select! {
                    () = crate::base::time::sleep(CLOSING_RETRY) => {}
                    () = changed(&mut connection) => {}
                }
                continue;
            }
            let is_quiet = *running.borrow_and_update() == 0;
            if is_quiet && self.shared.change(Queue::close_if_done) {
                return;
            }
            let takeover = self.shared.queue.lock().wake_at();
            tokio::select! {
                () = self.shared.wake.notified() => {}
                () = clock::sleep_until(takeover) => {}
                _ = running.changed() => {}
            }
        }
    }
}
