//! The queue of invalidations: nothing that was enqueued is forgotten before the store has acknowledged it.
//!
//! To enqueue is synchronous, so a guard can do it while it is dropped. What waits is merged; what the store
//! did not take is tried again until it does, and meanwhile this process does not read what it concerns. The
//! queue ends with the cache: [`shutdown`](crate::Cache::shutdown) waits for the writes that are running, and
//! tries for a bounded time to deliver what is left. What is lost then is counted and named in the log.

mod batch;
mod clearing;
mod owed;
mod queue;
mod reconnect;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};

use self::batch::Receipts;
pub(crate) use self::batch::{Order, Sweep};
use self::clearing::Clearing;
use self::queue::{Lost, Queue, Ticket};
use self::sweep::Sweeper;
use crate::base::background::{Background, supervised};
use crate::base::clock::{self, Instant, Millis};
use crate::base::error::{Error, ErrorKind};
use crate::base::paused::Held;
use crate::store::{Circuit, ConnectionStatus, ConnectionWatch, Probe, Store};

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(1);
/// How long delivering what is left may take at shutdown.
const CLOSING_BUDGET: Duration = Duration::from_secs(2);
/// The pause between two attempts at shutdown: short, because there is no time to lose.
const CLOSING_RETRY: Duration = Duration::from_millis(50);
/// How long who invalidates by hand waits for the receipt: the store may be slow in many steps.
pub(crate) const ACK_TIMEOUT: Duration = Duration::from_secs(2);

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
    /// A transaction is open around the call: the invalidation takes place when
    /// [`after_commit`](crate::Cache::after_commit) ends.
    Deferred,
    /// The cache is off or has been shut down, and nothing was invalidated. This process is not served from a
    /// cache then; other processes that share the store may be served older data, until its time to live ends.
    Disabled,
    /// The cache was shut down before the store had it. As with [`Disabled`](Self::Disabled), other processes
    /// may be served older data; the log names it.
    Lost,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Notify,
    /// [`Queue::is_degraded`], to spare reads the lock.
    is_degraded: AtomicBool,
    /// How many writes are running, each of which may still hand an invalidation in, and how many values are being stored.
    running: watch::Sender<usize>,
    /// Whether it is delivered on a thread of the cache's own, whatever time it is for the caller.
    is_elsewhere: bool,
}

impl Shared {
    /// Changes the queue, and says so to those who look at it without the lock.
    fn change<T>(&self, change: impl FnOnce(&mut Queue) -> T) -> T {
        let mut queue = self.queue.lock();
        let changed = change(&mut queue);
        self.is_degraded
            .store(queue.is_degraded(), Ordering::Release);
        changed
    }

    /// For one who waits for what is done on that thread.
    fn hold(&self, limit: Duration) -> Option<Held> {
        self.is_elsewhere.then(|| Held::for_at_most(limit))
    }

    /// What was on its way waits again.
    fn take_back(&self) {
        let receipts = self.change(Queue::take_back);
        tell_pending(receipts);
    }

    /// What is ready goes on waiting, and `None` says that nothing is. Until when the receipts are kept.
    fn requeue(&self, connection: Option<&ConnectionWatch>) -> Option<Option<Instant>> {
        let status = connection.map(ConnectionWatch::status);
        let requeue = self.change(|queue| queue.requeue(clock::now(), status))?;
        tell_pending(requeue.pending);
        Some(requeue.until)
    }
}

/// To be called after the change: whoever hears `Pending` may read at once, and looks without the lock.
fn tell_pending(receipts: Receipts) {
    for receipt in receipts {
        // Whoever asked may be gone.
        let _ = receipt.send(Acknowledgement::Pending);
    }
}

/// The queue's near end.
#[derive(Debug)]
pub(crate) struct Delivery {
    shared: Arc<Shared>,
    store: Arc<dyn Store>,
    connection: Option<ConnectionWatch>,
    clearing: Arc<Clearing>,
    closing: watch::Sender<bool>,
    closed: watch::Receiver<bool>,
}

impl Delivery {
    pub(crate) fn start(
        store: Arc<dyn Store>,
        namespace: &str,
        limit: usize,
        intent: Duration,
        background: &Background,
    ) -> Self {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue::new(limit, intent, clock::now())),
            wake: Notify::new(),
            is_degraded: AtomicBool::new(false),
            running: watch::Sender::new(0),
            is_elsewhere: background.is_own(),
        });
        let (closing, on_closing) = watch::channel(false);
        let (on_closed, closed) = watch::channel(false);
        let sweeper = Arc::new(Sweeper::default());
        background.spawn(Arc::clone(&sweeper).run(Arc::clone(&store), namespace.to_owned()));
        let clearing = Clearing::start(Arc::clone(&store), namespace, background);
        let connection = store.connection();
        let worker = Worker {
            shared: Arc::clone(&shared),
            store: Arc::clone(&store),
            connection: connection.clone(),
            namespace: namespace.to_owned(),
            sweeper,
            clearing: Arc::clone(&clearing),
        };
        background.spawn_to_finish(supervised("delivery", move || {
            worker.clone().run(on_closing.clone(), on_closed.clone())
        }));
        Self {
            shared,
            store,
            connection,
            clearing,
            closing,
            closed,
        }
    }

    /// Hands an invalidation in. It will take place whether or not anybody waits for the receipt.
    pub(crate) fn enqueue(&self, order: Order) -> Receipt {
        for counters in &order.counted {
            counters.invalidations.add_one();
        }
        self.enter(Some(order))
    }

    /// Invalidates everything in the namespace.
    pub(crate) fn enqueue_namespace(&self) -> Receipt {
        self.enter(None)
    }

    fn enter(&self, order: Option<Order>) -> Receipt {
        let (sender, acknowledged) = oneshot::channel();
        let entered = self.shared.change(|queue| queue.enter(order, sender));
        self.shared.wake.notify_one();
        let ticket = entered.unwrap_or_else(|lost| {
            report_late(&lost);
            Ticket::NEVER
        });
        Receipt {
            shared: Arc::clone(&self.shared),
            acknowledged,
            ticket,
        }
    }

    /// Hands an invalidation in that is to take place later, or with `None` one of everything.
    pub(crate) fn enqueue_at(&self, due: Instant, order: impl Into<Option<Order>>) {
        let entered = self.shared.change(|queue| queue.enter_at(due, order));
        self.shared.wake.notify_one();
        if let Err(lost) = entered {
            report_late(&lost);
        }
    }

    /// Says that a write is running, or a value being stored, until the guard is dropped: a shutdown waits for it.
    pub(crate) fn begin(&self) -> Running {
        self.shared.running.send_modify(|running| *running += 1);
        Running(Arc::clone(&self.shared))
    }

    /// Whether anything was reported as pending and is not delivered yet.
    pub(crate) fn is_degraded(&self) -> bool {
        self.shared.is_degraded.load(Ordering::Acquire)
    }

    /// Whether an invalidation that concerns this entry was reported as pending and is not delivered yet.
    pub(crate) fn is_pending(&self, probe: &Probe) -> bool {
        self.is_degraded() && self.shared.queue.lock().concerns(probe)
    }

    /// How many invalidations the store has not acknowledged, be it that it never will.
    pub(crate) fn pending(&self) -> u64 {
        self.shared.queue.lock().len() as u64
    }

    /// For how long the oldest of them has waited; `None` if none waits.
    pub(crate) fn oldest_pending(&self) -> Option<Duration> {
        let oldest = self.shared.queue.lock().oldest()?;
        Some(clock::now().saturating_duration_since(oldest))
    }

    /// Waits for the writes that are running and delivers what is left, for a bounded time; then the queue and
    /// the store are closed. Whoever calls this a second time waits as well.
    pub(crate) async fn close(&self) {
        self.closing.send_replace(true);
        let mut closed = self.closed.clone();
        let _held = self.shared.hold(CLOSING_BUDGET * 2);
        // The worker says that it is done, or is gone, or took too long.
        let _ = tokio::time::timeout(CLOSING_BUDGET * 2, closed.wait_for(|closed| *closed)).await;
    }
}

/// A write that is running, or a value that is being stored.
#[derive(Debug)]
pub(crate) struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.send_modify(|running| *running -= 1);
    }
}

fn report_late(lost: &Lost) {
    if lost.is_news() {
        tracing::error!(
            "an invalidation was handed in after the cache had been shut down, and is lost: {lost}"
        );
    }
}

/// For one who waits until an invalidation has been acknowledged.
#[derive(Debug)]
pub(crate) struct Receipt {
    shared: Arc<Shared>,
    acknowledged: oneshot::Receiver<Acknowledgement>,
    ticket: Ticket,
}

impl Receipt {
    /// Returns with the store's word, or with [`Acknowledgement::Pending`] as soon as it is known that the store
    /// does not give it now; at the latest after `patience`.
    pub(crate) async fn acknowledged(self, patience: Duration) -> Acknowledgement {
        // The write has taken place: whatever the caller runs on, this must not panic for want of a timer.
        if tokio::runtime::Handle::try_current().is_err() {
            return self.acknowledged.await.unwrap_or(Acknowledgement::Lost);
        }
        let _held = self.shared.hold(patience);
        match tokio::time::timeout(patience, self.acknowledged).await {
            Ok(acknowledgement) => acknowledgement.unwrap_or(Acknowledgement::Lost),
            Err(_) => self.shared.change(|queue| queue.lose_patience(self.ticket)),
        }
    }
}

#[derive(Clone)]
struct Worker {
    shared: Arc<Shared>,
    store: Arc<dyn Store>,
    connection: Option<ConnectionWatch>,
    namespace: String,
    sweeper: Arc<Sweeper>,
    clearing: Arc<Clearing>,
}

/// Why something waits that is ready.
struct Stopped {
    error: Error,
    /// Until when those who wait for receipts wait for a connection; `None` if they have been told.
    until: Option<Instant>,
}

impl Worker {
    async fn run(self, mut closing: watch::Receiver<bool>, closed: watch::Sender<bool>) {
        // When this has panicked before.
        if self.shared.queue.lock().is_sending() {
            self.shared.take_back();
        }
        tokio::select! {
            () = self.deliver_for_ever() => {}
            _ = closing.wait_for(|closing| *closing) => {}
        }
        self.last_attempt().await;
        // Here, because the one who asked for it may have gone.
        self.store.close().await;
        closed.send_replace(true);
    }

    async fn deliver_for_ever(&self) {
        let mut retry: Option<Duration> = None;
        let mut kept_until = None;
        let mut connection = self.connection.as_ref().map(ConnectionWatch::subscribe);
        // One warning for each, and not one for each write in an outage.
        let mut warned = HashSet::new();
        loop {
            let due = self.shared.queue.lock().next_due();
            let wake = [due, retry.map(|wait| clock::now() + wait), kept_until]
                .into_iter()
                .flatten()
                .min();
            tokio::select! {
                () = self.shared.wake.notified() => {}
                () = changed(&mut connection) => {}
                () = sleep_until(wake) => {}
            }
            let stopped = self.deliver_ready().await.err();
            if let Some(connection) = &self.connection {
                connection.want(stopped.is_some());
            }
            kept_until = stopped.as_ref().and_then(|stopped| stopped.until);
            retry = match stopped {
                None => {
                    if retry.is_some() && !warned.is_empty() {
                        tracing::info!("the invalidations that waited have been delivered");
                        warned.clear();
                    }
                    None
                }
                Some(Stopped { error, until: None }) => {
                    for name in self.shared.queue.lock().waiting_of() {
                        if !warned.contains(&name) {
                            tracing::warn!("invalidations of {name} wait for the store: {error}");
                            warned.insert(name);
                        }
                    }
                    Some(retry.map_or(FIRST_RETRY, |wait| (wait * 2).min(LAST_RETRY)))
                }
                Some(Stopped { until: Some(_), .. }) => retry,
            };
        }
    }

    async fn deliver_ready(&self) -> Result<(), Stopped> {
        loop {
            // Known beforehand, it costs nothing, however much waits: a write in an outage is not to pay for all
            // those before it.
            if self.store.circuit() != Circuit::Closed
                && let Some(until) = self.shared.requeue(self.connection.as_ref())
            {
                let error = Error::unavailable("the store is not connected");
                return Err(Stopped { error, until });
            }
            let number = number_of(self.connection.as_ref());
            let Some(delivery) = self.shared.change(|queue| queue.send(clock::now())) else {
                if self.store.circuit() == Circuit::Closed {
                    self.shared.change(Queue::answered);
                }
                return Ok(());
            };
            if let Err(error) = self.deliver(&delivery).await {
                if is_away(&error) && is_lost(&*self.store, self.connection.as_ref(), number) {
                    // Sent again at once over the next connection, which may be there already.
                    self.shared.requeue(self.connection.as_ref());
                    continue;
                }
                self.shared.take_back();
                return Err(Stopped { error, until: None });
            }
        }
    }

    /// Each part is done with once the store has taken it: what it refuses holds nothing else up.
    async fn deliver(&self, delivery: &queue::Delivery) -> Result<(), Error> {
        let mut outcome = Ok(());
        if delivery.invalidates {
            match self.invalidate(delivery).await {
                Ok(at) => {
                    let batch = self.shared.change(Queue::acknowledge);
                    // A walk that somebody waits for is a sweep as well.
                    let is_swept = batch.whole_namespace && !self.clearing.begin();
                    let namespace = is_swept.then_some((None, false));
                    let resources = batch
                        .sweeps
                        .into_iter()
                        .map(|(name, derived)| (Some(name), derived));
                    self.sweeper.request(resources.chain(namespace), at);
                }
                // Whoever asks for more now waits as long again.
                Err(error) if is_away(&error) => return Err(error),
                Err(error) => outcome = Err(error),
            }
        }
        for intent in &delivery.intents {
            let Err(error) = self.store.intend(intent).await else {
                self.shared
                    .change(|queue| queue.acknowledge_intent(intent.token));
                continue;
            };
            self.shared.change(|queue| queue.defer_intent(intent.token));
            let is_away = is_away(&error);
            outcome = Err(error);
            if is_away {
                break;
            }
        }
        outcome
    }

    async fn invalidate(&self, delivery: &queue::Delivery) -> Result<Millis, Error> {
        let invalidation = &delivery.invalidation;
        let mut at = Millis(0);
        if delivery.whole_namespace {
            at = self.store.invalidate_namespace(&self.namespace).await?;
        }
        if !(invalidation.kills.is_empty() && invalidation.bumps.is_empty()) {
            at = self.store.invalidate(invalidation).await?.at;
        }
        Ok(at)
    }

    async fn last_attempt(&self) {
        let mut fault = None;
        let attempts = self.deliver_the_rest(&mut fault);
        // Whether it came to its end is seen from what is left.
        let _ = tokio::time::timeout(CLOSING_BUDGET, attempts).await;
        let lost = self.shared.change(Queue::close);
        if lost.is_news() {
            let reason = fault.map_or_else(
                || format!("no answer within {} s", CLOSING_BUDGET.as_secs()),
                |error: Error| error.to_string(),
            );
            tracing::error!(
                "invalidations were not delivered before the cache was shut down: {reason}; lost: {lost}"
            );
        }
    }

    /// Delivers what is left, and what the writes that are running hand in, and ends the queue.
    async fn deliver_the_rest(&self, fault: &mut Option<Error>) {
        let mut running = self.shared.running.subscribe();
        let mut connection = self.connection.as_ref().map(ConnectionWatch::subscribe);
        if let Some(connection) = &self.connection {
            connection.want(true);
        }
        loop {
            self.shared.change(Queue::flush_delayed);
            if let Err(Stopped { error, .. }) = self.deliver_ready().await {
                *fault = Some(error);
                tokio::select! {
                    () = tokio::time::sleep(CLOSING_RETRY) => {}
                    () = changed(&mut connection) => {}
                }
                continue;
            }
            let is_quiet = *running.borrow_and_update() == 0;
            if is_quiet && self.shared.change(Queue::close_if_done) {
                return;
            }
            tokio::select! {
                () = self.shared.wake.notified() => {}
                _ = running.changed() => {}
            }
        }
    }
}

fn is_away(error: &Error) -> bool {
    error.kind() == ErrorKind::Unavailable
}

/// How many connections there have been.
fn number_of(connection: Option<&ConnectionWatch>) -> u64 {
    connection.map_or(0, |connection| connection.status().number)
}

/// Whether the connection is lost that was the last one when there had been so many.
fn is_lost(store: &dyn Store, connection: Option<&ConnectionWatch>, number: u64) -> bool {
    connection.is_some_and(|connection| {
        connection.status().number != number || store.circuit() != Circuit::Closed
    })
}

/// Returns when something has changed with the connection since the last time.
async fn changed(connection: &mut Option<watch::Receiver<ConnectionStatus>>) {
    if let Some(connection) = connection
        && connection.changed().await.is_ok()
    {
        return;
    }
    // A store that says nothing is asked again when the time has come.
    std::future::pending().await
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}
