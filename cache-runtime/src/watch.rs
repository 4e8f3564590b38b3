//! A body that runs, and what is renewed while it does.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior};

use crate::clock;
use crate::engine::Handle;
use crate::errands::Errand;
use crate::scope;

/// What is done again and again while a body runs.
#[derive(Debug)]
pub(crate) struct Renewal {
    ticks: Interval,
    cache: Handle,
    errand: Errand,
}

impl Renewal {
    /// Runs the errand at each third of what it renews. A body that blocks its thread is not renewed: its lease lapses, and
    /// its value is not stored.
    pub(crate) fn new(cache: &Handle, length: Duration, errand: Errand) -> Self {
        let third = length / 3;
        let mut ticks = tokio::time::interval_at(clock::now() + third, third);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            ticks,
            cache: cache.clone(),
            errand,
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) {
        while self.ticks.poll_tick(context).is_ready() {
            self.cache.errands.send(self.errand.clone());
        }
    }
}

/// A body, with what is renewed meanwhile.
///
/// A future by hand, and pinned by its owner: in place of an `async fn` with a `select!` in it, which every annotated function
/// would have a copy of, each has one small function more.
#[derive(Debug)]
pub(crate) struct Watched<'w, F> {
    body: Pin<&'w mut F>,
    renewal: Option<&'w mut Renewal>,
    is_load: bool,
}

impl<'w, F> Watched<'w, F> {
    pub(crate) fn new(body: Pin<&'w mut F>, renewal: Option<&'w mut Renewal>) -> Self {
        Self {
            body,
            renewal,
            is_load: false,
        }
    }

    /// What it returns is served to others, so it is made of no copies: those may be behind, and it would stay so.
    pub(crate) fn loading(self) -> Self {
        Self {
            is_load: true,
            ..self
        }
    }
}

impl<F: Future> Future for Watched<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let is_load = self.is_load;
        let body = self.body.as_mut();
        let polled = match is_load {
            true => scope::strictly(|| body.poll(context)),
            false => body.poll(context),
        };
        if polled.is_pending()
            && let Some(renewal) = &mut self.renewal
        {
            renewal.poll(context);
        }
        polled
    }
}
