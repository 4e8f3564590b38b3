//! Polls a body, and renews its lease or intent meanwhile.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::{Interval, MissedTickBehavior};

use crate::base::clock;
use crate::call::enclosing::Frame;
use crate::coalesce::maintenance::MaintenanceJob;
use crate::engine::Handle;

/// A step of a call that depends on no type of the function. A function that returns one is
/// compiled once. An `async fn` would be compiled again in each program that awaits it.
pub(crate) type Step<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The end of a poll after the call has returned or panicked: a panic, as for futures of `async fn`.
#[cold]
#[inline(never)]
#[track_caller]
pub(crate) fn polled_after_end() -> ! {
    panic!("the call of an annotated function was polled after its end")
}

/// A job that is repeated while a body runs.
#[derive(Debug)]
pub(crate) struct Renewal {
    ticks: Interval,
    cache: Handle,
    job: MaintenanceJob,
}

impl Renewal {
    /// Runs the job at each third of the length. While a body blocks its thread, nothing is
    /// renewed: its lease expires, and its value is not stored.
    pub(crate) fn new(cache: &Handle, length: Duration, job: MaintenanceJob) -> Self {
        let third = length / 3;
        let mut ticks = crate::base::time::interval_at(clock::now() + third, third);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            ticks,
            cache: cache.clone(),
            job,
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) {
        while self.ticks.poll_tick(context).is_ready() {
            self.cache.maintenance.send(self.job.clone());
        }
    }
}

/// A task that ends when this is dropped.
#[derive(Debug)]
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The work of the cache while a body runs.
///
/// A body reads no local entries, because they may be slightly stale. A load would pass stale data
/// on to others, where it would stay. A write that reads a row, changes it and writes it back
/// (read-modify-write) would undo the write of another process.
#[derive(Debug, Default)]
pub(crate) struct KeepAlive {
    renewal: Option<Renewal>,
    /// The task that renews while the body blocks its thread.
    elsewhere: Option<AbortOnDrop>,
    /// The frame that calls inside the body see.
    frame: Option<Arc<Frame>>,
    /// Entered while the body is polled.
    span: Option<tracing::Span>,
}

impl KeepAlive {
    /// Whether the result of the body must not be kept for others.
    pub(crate) fn is_private(&self) -> bool {
        self.frame.as_ref().is_some_and(|frame| frame.is_private())
    }

    /// The body runs under a permit of this function.
    pub(crate) fn holds_permit(&self, function: usize) {
        if let Some(frame) = &self.frame {
            frame.holds_permit(function);
        }
    }

    pub(crate) fn new(frame: Arc<Frame>, renewal: Option<Renewal>) -> Self {
        Self {
            renewal,
            elsewhere: None,
            frame: Some(frame),
            span: None,
        }
    }

    /// Tasks that have inherited the body of this write stay part of it: its invalidation waits for
    /// a commit, or the body was dropped, and such a task may go on with what it was to write.
    pub(crate) fn never_ends(&mut self) {
        self.frame = None;
    }

    /// Renews on the cache's own thread, until this is dropped.
    pub(crate) fn renew_elsewhere(&mut self) {
        if let Some(mut renewal) = self.renewal.take() {
            let handle = renewal.cache.background.handle().clone();
            let task = handle.spawn(std::future::poll_fn(move |context| {
                renewal.poll(context);
                Poll::<()>::Pending
            }));
            self.elsewhere = Some(AbortOnDrop(task.abort_handle()));
        }
    }

    /// Runs a body that blocks its thread.
    pub(crate) fn during<R>(&self, body: impl FnOnce() -> R) -> R {
        match &self.frame {
            Some(frame) => frame.run(body),
            None => body(),
        }
    }

    /// Runs the body in this span, if there is one.
    pub(crate) fn within(mut self, span: Option<tracing::Span>) -> Self {
        self.span = span;
        self
    }

    /// Polls the body, and renews what it needs meanwhile.
    pub(crate) fn poll<R>(
        &mut self,
        body: Pin<&mut (dyn Future<Output = R> + '_)>,
        context: &mut Context<'_>,
    ) -> Poll<R> {
        let (mut body, mut returned) = (body, None);
        let mut poll = |context: &mut Context<'_>| match body.as_mut().poll(context) {
            Poll::Ready(value) => {
                returned = Some(value);
                Poll::Ready(())
            }
            Poll::Pending => Poll::Pending,
        };
        self.poll_any(&mut poll, context);
        returned.map_or(Poll::Pending, Poll::Ready)
    }

    /// The same for a body of any type.
    fn poll_any(
        &mut self,
        body: &mut dyn FnMut(&mut Context<'_>) -> Poll<()>,
        context: &mut Context<'_>,
    ) {
        let _entered = self.span.as_ref().map(tracing::Span::enter);
        let polled = match &self.frame {
            Some(frame) => frame.run(|| body(context)),
            None => body(context),
        };
        if polled.is_ready() && crate::base::mutation::is_active("writes-over-with-their-bodies") {
            self.frame.iter().for_each(|frame| frame.ends());
        }
        if polled.is_pending()
            && let Some(renewal) = &mut self.renewal
        {
            renewal.poll(context);
        }
    }
}

impl Drop for KeepAlive {
    /// The load has ended, or the invalidation of the write is acknowledged or enqueued.
    fn drop(&mut self) {
        if let Some(frame) = &self.frame {
            frame.ends();
        }
    }
}

/// A body with its `KeepAlive`, which is empty while the cache is off.
///
/// Each annotated function has its own copy of this type, so it contains almost nothing. The body
/// is passed on as a `dyn Future` while it is polled, so it need not be `Send`.
#[derive(Debug)]
pub(crate) struct KeptAlive<'w, F> {
    pub(crate) body: Pin<&'w mut F>,
    pub(crate) keep_alive: &'w mut KeepAlive,
}

impl<F: Future> Future for KeptAlive<'_, F> {
    type Output = F::Output;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Self { body, keep_alive } = &mut *self;
        keep_alive.poll(body.as_mut(), context)
    }
}
