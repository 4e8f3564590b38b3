//! A write from before its body runs to its invalidation, whatever happens to it. Nothing here depends on the function's
//! types.

use std::sync::Arc;

use futures_util::FutureExt as _;

use super::plan::Planned;
use crate::base::call_budget::CallBudget;
use crate::base::clock;
use crate::base::error::{Error, ErrorKind};
use crate::base::nonce::Nonce;
use crate::call::enclosing::Frame;
use crate::call::keep_alive::{KeepAlive, Renewal, Step};
use crate::call::scope;
use crate::call::transaction::{self, DeferredWrite, InDoubt};
use crate::coalesce::maintenance::MaintenanceJob;
use crate::engine::Handle;
use crate::invalidation::{Order, Running};
use crate::registry::Site;
use crate::store::{Circuit, Intent};

/// A write whose body may run, and what may be in its way.
pub(super) type Begun = (Box<Writing>, Option<Error>);

/// What comes before the body; `None` if the cache is off. `required` says whether the write is refused while the store is away.
#[inline]
pub(super) fn begin(
    active: Option<Box<(Handle, Planned)>>,
    site: &'static Site,
    required: bool,
) -> Option<Step<Begun>> {
    if scope::takes_key(|| Err(no_key())) {
        return Some(Box::pin(std::future::pending()));
    }
    active.map(|active| open(active, site, required))
}

fn open(active: Box<(Handle, Planned)>, site: &'static Site, required: bool) -> Step<Begun> {
    Box::pin(async move {
        let (cache, planned) = *active;
        let running = cache.delivery.begin();
        let mut guard = Guard::new(cache, planned);
        let mut problem = None;
        if required || guard.planned.crash_safe {
            // Without it a write that is only `crash_safe` goes on, as safe as one that does not ask for it.
            problem = guard.ready().await.err();
        }
        let writing = Writing {
            guard,
            running,
            site,
        };
        (Box::new(writing), problem)
    })
}

fn no_key() -> Error {
    let text = "this call has no key: the function writes, it is under `#[invalidates]`";
    Error::new(ErrorKind::InvalidKey, text)
}

/// A write under way.
pub(super) struct Writing {
    // Dropped before what a shutdown waits for: what it enqueues then is waited for as well.
    guard: Guard,
    running: Running,
    site: &'static Site,
}

/// How the body ended, as far as its types are needed to tell.
pub(super) struct WriteOutcome {
    pub(super) has_failed: bool,
    pub(super) wrote_nothing: bool,
    /// What is invalidated in place of what was planned, if only the result says that.
    pub(super) known: Option<Box<Planned>>,
}

impl Writing {
    pub(super) fn cache(&self) -> &Handle {
        &self.guard.cache
    }

    /// The body is about to run; what is done meanwhile.
    pub(super) fn runs(&mut self) -> &mut KeepAlive {
        self.guard.runs()
    }

    /// Lets the guard do nothing when it is dropped: what a mutation does too early.
    pub(super) fn watches_no_longer(&mut self) {
        self.guard.state = State::Over;
    }

    /// Invalidates what has been written, and waits until that is acknowledged, for as long as the call may.
    pub(super) fn over(self: Box<Self>, verdict: WriteOutcome) -> Step<()> {
        Box::pin(self.invalidate(verdict))
    }

    async fn invalidate(self: Box<Self>, verdict: WriteOutcome) {
        let Self {
            mut guard,
            running,
            site,
        } = *self;
        let WriteOutcome {
            has_failed,
            wrote_nothing,
            known,
        } = verdict;
        let planned = match known {
            Some(known) => guard.planned.with_rows_of(*known, &guard.cache),
            None => guard.planned.clone(),
        };
        let handover = DeferredWrite {
            write: (!wrote_nothing).then_some(planned),
            doubt: match has_failed {
                true => InDoubt::Failed,
                false => InDoubt::None,
            },
            announced: guard.announced().zip(guard.withdrawal()),
        };
        // Not before: what the user's code leaves undone by a panic, the guard does.
        guard.state = State::Over;
        let cache = &guard.cache;
        // Inside its caller's transaction the outcome is not known yet.
        let Some(DeferredWrite {
            write, announced, ..
        }) = transaction::defer(cache, handover)
        else {
            return;
        };
        if let Some(write) = &write
            && guard.planned.after_commit
        {
            site.report(|| {
                format!("{site} runs outside `after_commit`, so nobody says when its transaction has ended: what it wrote is not cached for a while; wrap the transaction in `Cache::after_commit`")
            });
            let receipt = transaction::leave_uncertain(cache, write.clone(), Nonce::fresh());
            drop(running);
            // The caller is about to commit: by then the announcement stands.
            let _ = receipt.acknowledged(guard.call_budget.left()).await;
            return;
        }
        let mut order = write.map_or_else(Order::default, Planned::into_order);
        if has_failed
            && !wrote_nothing
            && !crate::base::mutation::is_active("errors-invalidated-once")
        {
            let later = clock::now() + cache.config.uncertainty;
            cache.delivery.enqueue_at(later, order.clone());
        }
        if let Some((_, withdrawal)) = announced {
            order = order.and(withdrawal);
        } else if wrote_nothing {
            return;
        }
        // What it says is in the statistics and the log; the write itself has succeeded or failed by now.
        let receipt = cache.delivery.enqueue(order);
        drop(running);
        let _ = receipt.acknowledged(guard.call_budget.left()).await;
    }
}

/// Watches over a write until its invalidation is enqueued.
struct Guard {
    cache: Handle,
    planned: Planned,
    state: State,
    /// What the write may still wait for the store.
    call_budget: CallBudget,
    /// The intent that was put before the body ran, or may have been.
    announced: Option<Announced>,
    /// Renews the intent, at a third of its length.
    keep_alive: KeepAlive,
}

/// Where a write is.
#[derive(PartialEq)]
enum State {
    /// Nothing has been written.
    Before,
    /// The body runs: whatever happens to it, it may have written.
    Running,
    /// Its outcome is known.
    Over,
}

#[derive(Clone, Copy)]
struct Announced {
    token: Nonce,
    /// Whether the intent stands, or may stand, on whole resources in place of rows.
    on_whole: bool,
}

impl Guard {
    fn new(cache: Handle, planned: Planned) -> Self {
        Self {
            planned,
            state: State::Before,
            call_budget: CallBudget::new(cache.config.command_budget),
            announced: None,
            keep_alive: KeepAlive::default(),
            cache,
        }
    }

    /// Announces the write if it is to survive a crash; else asks whether the store is there. A connection that is lost
    /// meanwhile is waited for, since that alone is no reason to refuse a write.
    async fn ready(&mut self) -> Result<(), Error> {
        let token = Nonce::fresh();
        let intent = self
            .planned
            .crash_safe
            .then(|| self.planned.intent(token, self.cache.config.intent));
        loop {
            let attempt = self.cache.delivery.attempt();
            let asked = match &intent {
                Some(intent) => self.announce(intent).await,
                None => self.call_budget.spend(self.cache.store.ping()).await,
            };
            let Err(error) = asked else {
                return Ok(());
            };
            let reconnected = self.cache.delivery.reconnected(attempt, &error);
            let reconnected = reconnected.map(Ok::<_, Error>);
            if !self.call_budget.spend(reconnected).await.unwrap_or(false) {
                return Err(error);
            }
        }
    }

    async fn announce(&mut self, intent: &Intent) -> Result<(), Error> {
        let store = &self.cache.store;
        if store.circuit() != Circuit::Closed {
            // It is surely not sent, so that there is nothing to withdraw either.
            return Err(Error::unavailable("the store is not connected"));
        }
        let is_first = self.announced.is_none();
        // An announcement that is not answered may have taken place.
        let announced = self.announced.insert(Announced {
            token: intent.token,
            on_whole: true,
        });
        if crate::base::mutation::is_active("not-announced") {
            announced.on_whole = store.ping().await.is_err();
            return Ok(());
        }
        let intended = self.call_budget.spend(store.intend(intent)).await?;
        // What the one before has done is not known.
        announced.on_whole = intended.on_whole || !is_first;
        Ok(())
    }

    fn runs(&mut self) -> &mut KeepAlive {
        self.state = State::Running;
        let renewal = self.announced().map(|intent| {
            Renewal::new(
                &self.cache,
                intent.length,
                MaintenanceJob::RenewIntent(intent),
            )
        });
        let renewal = renewal.filter(|_| !crate::base::mutation::is_active("intents-not-renewed"));
        let Order { kills, bumps, .. } = &self.planned.order;
        let frame = Frame::write(&self.cache, kills.as_slice(), bumps.as_slice());
        self.keep_alive = KeepAlive::new(frame, renewal);
        &mut self.keep_alive
    }

    /// The announcement, if there is one.
    fn announced(&self) -> Option<Intent> {
        let token = self.announced?.token;
        Some(self.planned.intent(token, self.cache.config.intent))
    }

    /// Ends the announcement, if there is one, with all that it stands on.
    fn withdrawal(&self) -> Option<Order> {
        let Announced { token, on_whole } = self.announced?;
        let mut order = self.planned.order.clone();
        // The invalidation that it goes with is counted.
        order.counted.clear();
        if on_whole {
            let wholes = self.planned.rows.iter().map(|row| Arc::clone(&row.whole));
            order.bumps.extend(wholes);
        }
        order.withdraws.push(token);
        Some(order)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let delivery = &self.cache.delivery;
        match self.state {
            State::Over => {}
            State::Before => {
                // Nobody is there to wait for the receipt.
                drop(self.withdrawal().map(|order| delivery.enqueue(order)));
            }
            State::Running => {
                let token = self
                    .announced
                    .map_or_else(Nonce::fresh, |announced| announced.token);
                let handover = DeferredWrite {
                    write: Some(self.planned.clone()),
                    doubt: InDoubt::Dropped,
                    announced: self.announced().zip(self.withdrawal()),
                };
                if transaction::defer(&self.cache, handover).is_some()
                    && !crate::base::mutation::is_active("no-guard")
                {
                    // The commit may still be on its way: until it must have arrived, nothing is stored.
                    let write = self.planned.clone();
                    drop(transaction::leave_uncertain(&self.cache, write, token));
                }
            }
        }
    }
}
