//! The queue of invalidations: nothing that was enqueued is forgotten before the store has acknowledged it.
//!
//! To enqueue is synchronous, so a guard can do it while it is dropped. What waits is merged; what the store
//! did not take is tried again until it does, and meanwhile this process does not read what it concerns. The
//! queue ends with the cache: [`shutdown`](crate::Cache::shutdown) makes a last attempt.

mod queue;
mod sweep;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot, watch};

use self::queue::Queue;
pub(crate) use self::queue::{Order, Sweep};
use self::sweep::Sweeper;
use crate::background::Background;
use crate::clock::{self, Instant, Millis};
use crate::error::Error;
use crate::store::{Probe, Store};

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(1);
/// How long the last attempt at shutdown may take.
const CLOSING_BUDGET: Duration = Duration::from_secs(2);
/// How long anybody waits for a receipt. The store's own budget ends the waiting long before, unless it is slow
/// in many steps.
const PATIENCE: Duration = Duration::from_secs(2);

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
    /// The cache is off, or has been shut down, so there was nothing to invalidate.
    Disabled,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Notify,
    /// [`Queue::is_distressed`], to spare reads the lock.
    is_distressed: AtomicBool,
}

impl Shared {
    /// Changes the queue, and says so to those who look at it without the lock.
    fn change<T>(&self, change: impl FnOnce(&mut Queue) -> T) -> T {
        let mut queue = self.queue.lock();
        let changed = change(&mut queue);
        self.is_distressed
            .store(queue.is_distressed(), Ordering::Release);
        changed
    }

    /// What was on its way waits again.
    fn take_back(&self) {
        // Told after the change: whoever hears `Pending` may read at once, and looks without the lock.
        for receipt in self.change(Queue::take_back) {
            // Whoever asked may be gone.
            let _ = receipt.send(Acknowledgement::Pending);
        }
    }
}

/// The queue's near end.
#[derive(Debug)]
pub(crate) struct Delivery {
    shared: Arc<Shared>,
    closing: watch::Sender<bool>,
    closed: watch::Receiver<bool>,
}

impl Delivery {
    pub(crate) fn start(
        store: Arc<dyn Store>,
        namespace: &str,
        limit: usize,
        background: &Background,
    ) -> Self {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue::new(limit, clock::now())),
            wake: Notify::new(),
            is_distressed: AtomicBool::new(false),
        });
        let (closing, on_closing) = watch::channel(false);
        let (on_closed, closed) = watch::channel(false);
        let sweeper = Arc::new(Sweeper::default());
        background.spawn(Arc::clone(&sweeper).run(Arc::clone(&store), namespace.to_owned()));
        let worker = Worker {
            shared: Arc::clone(&shared),
            store,
            namespace: namespace.to_owned(),
            sweeper,
        };
        background.spawn(worker.run(on_closing, on_closed));
        Self {
            shared,
            closing,
            closed,
        }
    }

    /// Hands an invalidation in. It will take place whether or not anybody waits for the receipt.
    pub(crate) fn enqueue(&self, order: Order) -> Receipt {
        self.enter(Some(order))
    }

    /// Invalidates everything in the namespace.
    pub(crate) fn enqueue_namespace(&self) -> Receipt {
        self.enter(None)
    }

    fn enter(&self, order: Option<Order>) -> Receipt {
        let (sender, acknowledged) = oneshot::channel();
        let number = self.shared.change(|queue| queue.enter(order, sender));
        self.shared.wake.notify_one();
        Receipt {
            shared: Arc::clone(&self.shared),
            acknowledged,
            number,
        }
    }

    /// Hands an invalidation in that is to take place later.
    pub(crate) fn enqueue_at(&self, due: Instant, order: Order) {
        self.shared.change(|queue| queue.enter_at(due, order));
        self.shared.wake.notify_one();
    }

    /// Whether an invalidation that concerns this entry was reported as pending and is not delivered yet.
    pub(crate) fn is_pending(&self, probe: &Probe) -> bool {
        self.shared.is_distressed.load(Ordering::Acquire)
            && self.shared.queue.lock().concerns(probe)
    }

    /// How many invalidations the store has not acknowledged.
    pub(crate) fn pending(&self) -> u64 {
        self.shared.queue.lock().len() as u64
    }

    /// Tries once more to deliver what is left, for a bounded time, and ends the queue.
    pub(crate) async fn close(&self) {
        self.closing.send_replace(true);
        let mut closed = self.closed.clone();
        // The worker says that it is done, or is gone, or took too long.
        let _ = tokio::time::timeout(CLOSING_BUDGET * 2, closed.wait_for(|closed| *closed)).await;
    }
}

/// For one who waits until an invalidation has been acknowledged.
#[derive(Debug)]
pub(crate) struct Receipt {
    shared: Arc<Shared>,
    acknowledged: oneshot::Receiver<Acknowledgement>,
    number: u64,
}

impl Receipt {
    /// Returns with the store's word, or with [`Acknowledgement::Pending`] as soon as it is known that the store
    /// does not give it now; at the latest after two seconds.
    pub(crate) async fn acknowledged(self) -> Acknowledgement {
        // The write has taken place: whatever the caller runs on, this must not panic for want of a timer.
        if Handle::try_current().is_err() {
            return self.acknowledged.await.unwrap_or(Acknowledgement::Disabled);
        }
        match tokio::time::timeout(PATIENCE, self.acknowledged).await {
            Ok(acknowledgement) => acknowledgement.unwrap_or(Acknowledgement::Disabled),
            Err(_) => self.shared.change(|queue| queue.lose_patience(self.number)),
        }
    }
}

struct Worker {
    shared: Arc<Shared>,
    store: Arc<dyn Store>,
    namespace: String,
    sweeper: Arc<Sweeper>,
}

impl Worker {
    async fn run(self, mut closing: watch::Receiver<bool>, closed: watch::Sender<bool>) {
        tokio::select! {
            () = self.deliver_for_ever() => {}
            _ = closing.wait_for(|closing| *closing) => {}
        }
        self.last_attempt().await;
        closed.send_replace(true);
    }

    async fn deliver_for_ever(&self) {
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
    }

    async fn deliver_ready(&self) -> Result<(), Error> {
        while let Some(delivery) = self.shared.change(|queue| queue.send(clock::now())) {
            match self.deliver(&delivery).await {
                Ok(at) => {
                    let batch = self.shared.change(Queue::acknowledge);
                    let namespace = batch.whole_namespace.then_some((None, false));
                    let resources = batch
                        .sweeps
                        .into_iter()
                        .map(|(name, derived)| (Some(name), derived));
                    self.sweeper.request(resources.chain(namespace), at);
                }
                Err(error) => {
                    self.shared.take_back();
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    async fn deliver(&self, delivery: &queue::Delivery) -> Result<Millis, Error> {
        if delivery.whole_namespace {
            return self.store.invalidate_namespace(&self.namespace).await;
        }
        Ok(self.store.invalidate(&delivery.invalidation).await?.at)
    }

    async fn last_attempt(&self) {
        self.shared.change(Queue::hasten);
        let lost = match tokio::time::timeout(CLOSING_BUDGET, self.deliver_ready()).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {} s", CLOSING_BUDGET.as_secs())),
        };
        if let Some(lost) = lost {
            tracing::error!(
                "invalidations were not delivered before the cache was shut down: {lost}"
            );
        }
        self.shared.change(Queue::close);
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}
