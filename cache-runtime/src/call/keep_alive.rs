//! A body that runs, and what is renewed while it does.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior};

use crate::base::clock;
use crate::call::enclosing::Frame;
use crate::call::scope;
use crate::coalesce::maintenance::MaintenanceJob;
use crate::engine::Handle;

/// A step of a call that depends on no type of the function. A function that returns one is compiled once; an `async fn`
/// would be by each program that awaits it.
pub(crate) type Step<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What is done again and again while a body runs.
#[derive(Debug)]
pub(crate) struct Renewal {
    ticks: Interval,
    cache: Handle,
    job: MaintenanceJob,
}

impl Renewal {
    /// Runs the job at each third of what it renews. A body that blocks its thread is not renewed: its lease lapses, and
    /// its value is not stored.
    pub(crate) fn new(cache: &Handle, length: Duration, job: MaintenanceJob) -> Self {
        let third = length / 3;
        let mut ticks = tokio::time::interval_at(clock::now() + third, third);
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

/// What the cache does while a body runs.
///
/// A body reads no local entries, which may be behind. What a load returns is served to others, and would stay behind; and a
/// write that reads a row, changes it and writes it back (read-modify-write) would undo what another process has written.
#[derive(Debug, Default)]
pub(crate) struct KeepAlive {
    renewal: Option<Renewal>,
    /// What the calls inside the body have to know.
    frame: Option<Arc<Frame>>,
}

impl KeepAlive {
    pub(crate) fn new(frame: Arc<Frame>, renewal: Option<Renewal>) -> Self {
        Self {
            renewal,
            frame: Some(frame),
        }
    }

    fn poll<R>(
        &mut self,
        body: Pin<&mut (dyn Future<Output = R> + '_)>,
        context: &mut Context<'_>,
    ) -> Poll<R> {
        let polled = match &self.frame {
            Some(frame) if crate::base::mutation::is_active("made-of-copies") => {
                frame.run(|| body.poll(context))
            }
            Some(frame) => frame.run(|| scope::strictly(|| body.poll(context))),
            None => body.poll(context),
        };
        if polled.is_pending()
            && let Some(renewal) = &mut self.renewal
        {
            renewal.poll(context);
        }
        polled
    }
}

/// A body with its keep_alive; none while the cache is off.
///
/// Every annotated function has one of these of its own, with its body in it, and so there is next to nothing in it. To the keep_alive
/// a body is a `dyn Future`, for as long as it is polled: so it need not be `Send`.
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
