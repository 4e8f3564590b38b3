//! The handle of the queue, for its users.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{Notify, oneshot, watch};
use tracing::Span;

use super::acknowledgement::Acknowledgement;
use super::batch::InvalidationRequest;
use super::clearing::{Clearing, HELD, PendingScan};
use super::direct::DirectDelivery;
use super::queue::{LostInvalidations, Queue, RequestNumber};
use super::report;
use super::shared::SharedQueue;
use super::sweep::Sweeper;
use super::worker::{CLOSING_BUDGET, Worker};
use crate::base::background::{Background, supervised};
use crate::base::clock::{self, Instant};
use crate::base::error::Error;
use crate::store::{Circuit, ConnectionWatch, EntryRef, Invalidation, Store};
use crate::telemetry::Telemetry;

/// How long a manual invalidation waits for its acknowledgement. The store may take many slow
/// steps.
pub(crate) const ACK_TIMEOUT: Duration = Duration::from_secs(2);

/// The handle of the queue.
#[derive(Debug)]
pub(crate) struct InvalidationQueue {
    pub(super) shared: Arc<SharedQueue>,
    pub(super) store: Arc<dyn Store>,
    pub(super) connection: Option<ConnectionWatch>,
    /// For callers that send their own requests.
    worker: Arc<Worker>,
    clearing: Arc<Clearing>,
    closing: watch::Sender<bool>,
    closed: watch::Receiver<bool>,
}

impl InvalidationQueue {
    pub(crate) fn start(
        store: Arc<dyn Store>,
        namespace: &str,
        limit: usize,
        intent: Duration,
        telemetry: Arc<Telemetry>,
        background: &Background,
    ) -> Self {
        let shared = Arc::new(SharedQueue {
            queue: Mutex::new(Queue::new(limit, intent, clock::now())),
            wake: Notify::new(),
            failure: Mutex::default(),
            is_degraded: AtomicBool::new(false),
            running: watch::Sender::new(0),
            is_elsewhere: background.is_own(),
            telemetry: Arc::clone(&telemetry),
        });
        let (closing, on_closing) = watch::channel(false);
        let (on_closed, closed) = watch::channel(false);
        let sweeper = Arc::new(Sweeper::new(telemetry));
        background.spawn(Arc::clone(&sweeper).run(Arc::clone(&store), namespace.to_owned()));
        let clearing = Clearing::start(Arc::clone(&store), namespace, background);
        let connection = store.connection();
        let worker = Arc::new(Worker {
            shared: Arc::clone(&shared),
            store: Arc::clone(&store),
            connection: connection.clone(),
            namespace: namespace.to_owned(),
            sweeper,
            clearing: Arc::clone(&clearing),
        });
        let delivering = Worker::clone(&*worker);
        background.spawn_to_finish(supervised("delivery", move || {
            delivering
                .clone()
                .run(on_closing.clone(), on_closed.clone())
        }));
        Self {
            shared,
            store,
            connection,
            worker,
            clearing,
            closing,
            closed,
        }
    }

    /// Enqueues an invalidation. It takes place even if nobody waits for the acknowledgement.
    pub(crate) fn enqueue(&self, request: InvalidationRequest) -> PendingAck {
        let request = self.announced(request);
        self.enter(Some(request))
    }

    /// The same for a caller that waits for the acknowledgement at once. Its own task sends the
    /// request, if nothing waits before it.
    pub(crate) fn send(&self, request: InvalidationRequest) -> PendingAck {
        let request = self.announced(request);
        if self.store.circuit() != Circuit::Closed {
            return self.enter(Some(request));
        }
        let (sender, acknowledged) = oneshot::channel();
        let is_split = self.store.is_split();
        let entered = self.shared.change(|queue| {
            queue.set_split(is_split);
            queue.enter_to_send(request, sender, clock::now())
        });
        let (request_number, direct) = entered.unwrap_or_else(|lost| {
            self.report_late(&lost);
            (RequestNumber::NEVER, None)
        });
        let mut pending_ack = self.pending_ack(acknowledged, request_number);
        match direct {
            Some((number, outgoing)) => {
                let worker = Arc::clone(&self.worker);
                let direct = DirectDelivery::new(worker, number, outgoing);
                pending_ack.direct = Some(Box::new(direct));
            }
            None => self.shared.wake.notify_one(),
        }
        pending_ack
    }

    /// Tells the statistics that a request is about to be enqueued.
    fn announced(&self, mut request: InvalidationRequest) -> InvalidationRequest {
        report::link_to_current(&mut request);
        if crate::base::mutation::is_active("switches-stop-invalidations")
            && !self.shared.telemetry.switches.listed().0.is_empty()
        {
            request = InvalidationRequest::default();
        }
        let resources = request.sweeps.iter().map(|sweep| &*sweep.resource);
        self.shared.telemetry.invalidating(resources);
        for counters in &request.counted {
            counters.invalidations.add_one();
        }
        request
    }

    /// The span around an invalidation of a caller who does not use the queue.
    pub(crate) fn direct_span(&self, invalidation: &Invalidation) -> Span {
        report::direct_span(&self.shared.telemetry, invalidation)
    }

    /// Reports that the store has taken an invalidation of this resource from a caller who did not
    /// use the queue. Its `deletes` may be a pattern.
    pub(crate) fn done_directly(&self, resource: &str, done: &Invalidation, took: Duration) {
        let telemetry = &self.shared.telemetry;
        telemetry.invalidating([resource]);
        report::done_directly(telemetry, done, took);
    }

    /// Invalidates everything in the namespace.
    pub(crate) fn enqueue_namespace(&self) -> PendingAck {
        self.enter(None)
    }

    fn enter(&self, request: Option<InvalidationRequest>) -> PendingAck {
        let (sender, acknowledged) = oneshot::channel();
        let is_split = self.store.is_split();
        let entered = self.shared.change(|queue| {
            queue.set_split(is_split);
            queue.enter(request, sender)
        });
        self.shared.wake.notify_one();
        let request_number = entered.unwrap_or_else(|lost| {
            self.report_late(&lost);
            RequestNumber::NEVER
        });
        self.pending_ack(acknowledged, request_number)
    }

    fn pending_ack(
        &self,
        acknowledged: oneshot::Receiver<Acknowledgement>,
        request_number: RequestNumber,
    ) -> PendingAck {
        PendingAck {
            shared: Arc::clone(&self.shared),
            acknowledged,
            request_number,
            direct: None,
            began: clock::now(),
            is_answered: false,
        }
    }

    /// Enqueues an invalidation for later, or one of the whole namespace for `None`.
    pub(crate) fn enqueue_at(&self, due: Instant, request: impl Into<Option<InvalidationRequest>>) {
        let entered = self.shared.change(|queue| queue.enter_at(due, request));
        self.shared.wake.notify_one();
        if let Err(lost) = entered {
            self.report_late(&lost);
        }
    }

    fn report_late(&self, lost: &LostInvalidations) {
        report::lost(&self.shared.telemetry, lost);
        if lost.is_news() {
            tracing::error!(
                %lost,
                "an invalidation was enqueued after the cache had been shut down, and is lost"
            );
        }
    }

    /// Registers a running write or fill until the guard is dropped. A shutdown waits for it.
    pub(crate) fn begin(&self) -> Running {
        self.shared.running.send_modify(|running| *running += 1);
        Running(Arc::clone(&self.shared))
    }

    /// Returns true if a caller was told `Pending` and not everything is delivered yet.
    #[inline]
    pub(crate) fn is_degraded(&self) -> bool {
        self.shared.is_degraded.load(Ordering::Acquire)
    }

    /// Returns true if an invalidation of this entry was reported as `Pending` and is not delivered
    /// yet.
    pub(crate) fn is_pending(&self, entry_ref: &EntryRef) -> bool {
        self.is_degraded()
            && self.concerns(entry_ref)
            && !crate::base::mutation::is_active("pending-not-bypassed")
    }

    /// Returns true if the store has refused to invalidate something that a request names, which
    /// still waits.
    pub(crate) fn refuses(&self, request: &InvalidationRequest) -> bool {
        self.is_degraded()
            && self.shared.queue.lock().refuses(request)
            && !crate::base::mutation::is_active("required-asks-for-any-key")
    }

    fn concerns(&self, entry_ref: &EntryRef) -> bool {
        let queue = self.shared.queue.lock();
        queue.concerns(entry_ref, |dep| self.store.part_of(dep))
    }

    /// How many invalidations the store has not acknowledged, including lost ones.
    pub(crate) fn pending(&self) -> u64 {
        self.shared.queue.lock().len() as u64
    }

    /// How long the oldest of them has waited, or `None` if none is waiting.
    pub(crate) fn oldest_pending(&self) -> Option<Duration> {
        let oldest = self.shared.queue.lock().oldest()?;
        Some(clock::now().saturating_duration_since(oldest))
    }

    /// Waits for the running writes and delivers what is left, within a time limit. Then closes the
    /// queue and the store. A second caller waits as well.
    pub(crate) async fn close(&self) {
        self.closing.send_replace(true);
        let mut closed = self.closed.clone();
        let _held = self.shared.hold(CLOSING_BUDGET * 2);
        // Any result is fine: the worker is done, or gone, or took too long.
        let _ =
            crate::base::time::timeout(CLOSING_BUDGET * 2, closed.wait_for(|closed| *closed)).await;
    }
}

/// A running write or fill.
#[derive(Debug)]
pub(crate) struct Running(Arc<SharedQueue>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.send_modify(|running| *running -= 1);
    }
}

/// Waits for the acknowledgement of one invalidation.
#[derive(Debug)]
pub(crate) struct PendingAck {
    shared: Arc<SharedQueue>,
    acknowledged: oneshot::Receiver<Acknowledgement>,
    request_number: RequestNumber,
    /// The batch that the waiting task has to send. If it does not wait, the worker sends it.
    direct: Option<Box<DirectDelivery>>,
    /// When it was handed in.
    began: Instant,
    /// Whether the caller knows what became of it.
    is_answered: bool,
}

impl PendingAck {
    /// Returns the acknowledgement. It is [`Acknowledgement::Pending`] as soon as the store is
    /// known to be away, and after `limit` at the latest.
    pub(crate) async fn acknowledged(mut self, limit: Duration) -> Acknowledgement {
        let told = self.told(limit).await;
        self.is_answered = true;
        report::acknowledged(&self.shared.telemetry, told, self.began.elapsed());
        told
    }

    async fn told(&mut self, limit: Duration) -> Acknowledgement {
        let direct = self.direct.take();
        // The write has taken place, so this must not panic on a runtime without a timer.
        if tokio::runtime::Handle::try_current().is_err() {
            drop(direct);
            let told = (&mut self.acknowledged).await;
            return told.unwrap_or(Acknowledgement::Lost);
        }
        let _held = self.shared.hold(limit);
        let told = async {
            if let Some(direct) = direct {
                // Boxed, since the future of a write that waits does not need it any more.
                let sent = Box::pin(direct.deliver());
                tokio::select! {
                    biased;
                    () = sent => {}
                    // The worker has taken it over, and is done with it before this task.
                    told = &mut self.acknowledged => return told,
                }
            }
            (&mut self.acknowledged).await
        };
        match crate::base::time::timeout(limit, told).await {
            Ok(acknowledgement) => acknowledgement.unwrap_or(Acknowledgement::Lost),
            Err(_) => self
                .shared
                .change(|queue| queue.stop_waiting(self.request_number)),
        }
    }

    /// Nothing was written, so nobody needs to know whether it is delivered.
    pub(crate) fn forget(mut self) {
        self.is_answered = true;
    }
}

impl Drop for PendingAck {
    /// Nobody waits any more: the caller has hung up or panicked. Reads of this process must not
    /// find what it wrote out of date until it is delivered, just as after
    /// [`Acknowledgement::Pending`]. The worker may get to it only after the next read, since both
    /// may be tasks of one thread.
    fn drop(&mut self) {
        if self.is_answered || crate::base::mutation::is_active("hung-up-is-served-meanwhile") {
            return;
        }
        // Otherwise it was acknowledged, or the queue is closed.
        if let Err(TryRecvError::Empty) = self.acknowledged.try_recv() {
            let _pending = self
                .shared
                .change(|queue| queue.stop_waiting(self.request_number));
        }
    }
}

impl InvalidationQueue {
    /// Joins the callers that wait for the scan after the next invalidation of the whole namespace.
    pub(crate) fn join_walk(&self) -> PendingScan {
        self.clearing.join()
    }

    /// Waits for that scan, and for another one if the connection is lost meanwhile. Returns how
    /// many entries it removed.
    ///
    /// # Errors
    /// The error of the store, or `ErrorKind::Unavailable` if the cache is shut down first.
    pub(crate) async fn walked(&self, walk: PendingScan) -> Result<u64, Error> {
        let _held = self.shared.hold(HELD);
        if crate::base::mutation::is_active("walks-not-shared") {
            return self.store.remove_matching(&self.clearing.everything).await;
        }
        let mut joined = Some(walk);
        self.persist(|| {
            let walk = joined.take().unwrap_or_else(|| {
                let walk = self.clearing.join();
                self.clearing.begin();
                walk
            });
            walk.outcome()
        })
        .await
    }
}
