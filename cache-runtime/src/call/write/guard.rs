//! A write from before its body runs until its invalidation is enqueued, whatever happens in
//! between. Nothing here depends on the types of the function.

use std::sync::Arc;

use futures_util::FutureExt as _;
use tracing::{Instrument as _, Span};

use super::plan::PlannedWrite;
use crate::base::call_budget::CallBudget;
use crate::base::clock;
use crate::base::error::{Error, ErrorKind};
use crate::base::nonce::Nonce;
use crate::call::enclosing::Frame;
use crate::call::keep_alive::{KeepAlive, Renewal, Step};
use crate::call::log;
use crate::call::memo::{self, MemoWrite};
use crate::call::observe;
use crate::call::scope;
use crate::call::transaction::{self, DeferredWrite, InDoubt};
use crate::coalesce::maintenance::MaintenanceJob;
use crate::engine::Handle;
use crate::invalidation::{InvalidationRequest, PendingAck, Running};
use crate::registry::{Mistake, Site};
use crate::store::{Circuit, Intent};

/// A write whose body may run, and the reason to refuse it, if any.
pub(super) type StartedWrite = (Box<WriteInProgress>, Option<Error>);

/// The steps before the body. `None` if the cache is off. `required` refuses the write while the
/// store is away.
#[inline]
pub(super) fn begin(
    active: Option<Box<(Handle, PlannedWrite)>>,
    site: &'static Site,
    required: bool,
) -> Option<Step<StartedWrite>> {
    if scope::takes_key(|| Err(no_key())) {
        return Some(Box::pin(std::future::pending()));
    }
    active.map(|active| open(active, site, required))
}

fn open(
    active: Box<(Handle, PlannedWrite)>,
    site: &'static Site,
    required: bool,
) -> Step<StartedWrite> {
    Box::pin(async move {
        let (cache, planned) = *active;
        let running = cache.invalidations.begin();
        let mut guard = Guard::new(cache, planned);
        let mut problem = None;
        if required || guard.planned.crash_safe {
            // A write that is only `crash_safe` goes on without its intent. It is then as safe as a
            // write without the option.
            problem = guard.ready().await.err();
        }
        let span = log::write_span(site);
        guard.span = span;
        let writing = WriteInProgress {
            guard,
            running,
            site,
        };
        (Box::new(writing), problem)
    })
}

const REFUSED: &str = "the store refused an earlier invalidation of the same row or tag, which still \
    waits; see the warning `invalidations wait for the store`, and give the user access to its keys";

fn no_key() -> Error {
    let text = "this call has no key: the function writes, it is under `#[invalidates]`";
    Error::new(ErrorKind::InvalidKey, text)
}

/// A write in progress.
pub(super) struct WriteInProgress {
    // Dropped first: a shutdown waits on `running`, and so also for what the guard enqueues.
    pub(super) guard: Guard,
    running: Running,
    site: &'static Site,
}

/// How the body ended, without the types of the function.
pub(super) struct WriteOutcome {
    pub(super) has_failed: bool,
    pub(super) wrote_nothing: bool,
    /// The invalidation in place of the plan's, if only the result names its rows.
    pub(super) known: Option<Box<PlannedWrite>>,
}

impl WriteInProgress {
    /// Invalidates what was written, and waits for the acknowledgement within the call's budget.
    pub(super) fn finish(self: Box<Self>, outcome: WriteOutcome) -> Step<()> {
        match self.guard.span.clone() {
            Some(span) => Box::pin(self.invalidate(outcome).instrument(span)),
            None => Box::pin(self.invalidate(outcome)),
        }
    }

    async fn invalidate(self: Box<Self>, outcome: WriteOutcome) {
        let Self {
            mut guard,
            running,
            site,
        } = *self;
        let _writing = match outcome.has_failed && !outcome.wrote_nothing {
            true => memo::begin_write_in_doubt(),
            false => memo::begin_write(),
        };
        let enqueued = guard.enqueue(outcome, site);
        drop(running);
        let Some((pending_ack, _in_doubt)) = enqueued else {
            return;
        };
        // The result is in the statistics and the log. The write itself has already succeeded or
        // failed.
        let acknowledged = pending_ack.acknowledged(guard.call_budget.left()).await;
        observe::record_invalidation(acknowledged);
    }
}

/// Guards a write until its invalidation is enqueued.
pub(super) struct Guard {
    pub(super) cache: Handle,
    planned: PlannedWrite,
    pub(super) state: State,
    /// How long the write may still wait for the store.
    call_budget: CallBudget,
    /// The intent that was put, or may have been put, before the body ran.
    announced: Option<AnnouncedWrite>,
    /// Renews the intent at a third of its length.
    pub(super) keep_alive: KeepAlive,
    /// The span of the write, if traces are on.
    span: Option<Span>,
}

/// The progress of a write.
#[derive(PartialEq)]
pub(super) enum State {
    /// Nothing has been written.
    Before,
    /// The body is running. It may have written already.
    Running,
    /// Its outcome is known.
    Over,
}

#[derive(Clone, Copy)]
struct AnnouncedWrite {
    token: Nonce,
    /// Whether the intent stands, or may stand, on whole resources instead of rows.
    on_whole: bool,
}

impl Guard {
    fn new(cache: Handle, planned: PlannedWrite) -> Self {
        Self {
            planned,
            state: State::Before,
            call_budget: CallBudget::new(cache.config.command_budget),
            announced: None,
            keep_alive: KeepAlive::default(),
            span: None,
            cache,
        }
    }

    /// Puts the intent of a `crash_safe` write. For others, checks that the store is there. If the
    /// connection is lost meanwhile, waits for the next one, since a lost connection alone is no
    /// reason to refuse a write.
    async fn ready(&mut self) -> Result<(), Error> {
        let token = Nonce::fresh();
        let intent = self
            .planned
            .crash_safe
            .then(|| self.planned.intent(token, self.cache.config.intent));
        loop {
            let attempt = self.cache.invalidations.attempt();
            let asked = match &intent {
                Some(intent) => self.announce(intent).await,
                None => self.call_budget.spend(self.cache.store.ping()).await,
            };
            let Err(error) = asked else {
                // A store that takes writes may still refuse single keys.
                let invalidations = &self.cache.invalidations;
                let is_refused = intent.is_none() && invalidations.refuses(&self.planned.request);
                return match is_refused {
                    true => Err(Error::unavailable(REFUSED)),
                    false => Ok(()),
                };
            };
            let reconnected = self.cache.invalidations.reconnected(attempt, &error);
            let reconnected = reconnected.map(Ok::<_, Error>);
            if !self.call_budget.spend(reconnected).await.unwrap_or(false) {
                return Err(error);
            }
        }
    }

    async fn announce(&mut self, intent: &Intent) -> Result<(), Error> {
        let store = &self.cache.store;
        if store.circuit() != Circuit::Closed {
            // Nothing was sent, so there is nothing to withdraw either.
            return Err(Error::unavailable("the store is not connected"));
        }
        let is_first = self.announced.is_none();
        // An intent without an answer may have been put.
        let announced = self.announced.insert(AnnouncedWrite {
            token: intent.token,
            on_whole: true,
        });
        if crate::base::mutation::is_active("not-announced") {
            announced.on_whole = store.ping().await.is_err();
            return Ok(());
        }
        let reply = self.call_budget.spend(store.intend(intent)).await?;
        // If this is a retry, the result of the earlier attempt is unknown.
        announced.on_whole = reply.on_whole || !is_first;
        Ok(())
    }

    /// Has to be called right before the body runs.
    pub(super) fn start_body(&mut self) {
        self.state = State::Running;
        let renewal = self.announced().map(|intent| {
            Renewal::new(
                &self.cache,
                intent.length,
                MaintenanceJob::RenewIntent(intent),
            )
        });
        let renewal = renewal.filter(|_| !crate::base::mutation::is_active("intents-not-renewed"));
        let InvalidationRequest {
            deletes, rotates, ..
        } = &self.planned.request;
        let frame = Frame::write(&self.cache, deletes.as_slice(), rotates.as_slice());
        self.keep_alive = KeepAlive::new(frame, renewal).within(self.span.clone());
    }

    /// Enqueues the invalidation, or hands it to the transaction around the call. `None` if there
    /// is nothing to wait for.
    fn enqueue(
        &mut self,
        outcome: WriteOutcome,
        site: &'static Site,
    ) -> Option<(PendingAck, Option<MemoWrite>)> {
        let WriteOutcome {
            has_failed,
            wrote_nothing,
            known,
        } = outcome;
        let planned = match known {
            Some(known) => self.planned.with_rows_of(*known, &self.cache),
            None => self.planned.clone(),
        };
        let deferred = DeferredWrite {
            write: (!wrote_nothing).then_some(planned),
            in_doubt: match has_failed {
                true => InDoubt::Failed,
                false => InDoubt::None,
            },
            announced: self.announced().zip(self.withdrawal()),
        };
        // Not earlier: if the author's code panics, the guard must still act.
        self.state = State::Over;
        let cache = &self.cache;
        // Inside the caller's transaction, the outcome is not known yet.
        let Some(DeferredWrite {
            write, announced, ..
        }) = transaction::defer(cache, deferred)
        else {
            self.keep_alive.never_ends();
            return None;
        };
        if let Some(write) = &write
            && self.planned.after_commit
        {
            site.report(Mistake::OutsideAfterCommit, || {
                format!("{site} runs outside `after_commit`, so nobody says when its transaction has ended: what it wrote is not cached for a while; wrap the transaction in `Cache::after_commit`")
            });
            let in_doubt = memo::begin_write_in_doubt();
            // The caller is about to commit, and waits until the intent stands.
            let pending_ack = transaction::leave_in_doubt(cache, write.clone(), Nonce::fresh());
            return Some((pending_ack, Some(in_doubt)));
        }
        // The error may hide a commit that is still on its way, and the process may be killed
        // before the second invalidation. So the announcement stands until then.
        if has_failed
            && let (Some(write), Some(announced)) = (&write, self.announced)
            && !crate::base::mutation::is_active("announcements-end-with-errors")
        {
            let pending_ack = transaction::leave_in_doubt(cache, write.clone(), announced.token);
            return Some((pending_ack, None));
        }
        let mut request = write.map_or_else(InvalidationRequest::default, |write| write.request);
        if has_failed
            && !wrote_nothing
            && !crate::base::mutation::is_active("errors-invalidated-once")
        {
            let later = clock::now() + cache.config.in_doubt_window;
            cache.invalidations.enqueue_at(later, request.clone());
        }
        if let Some((_, withdrawal)) = announced {
            request = request.and(withdrawal);
        } else if wrote_nothing {
            return None;
        }
        Some((cache.invalidations.send(request), None))
    }

    /// Returns the intent, if there is one.
    fn announced(&self) -> Option<Intent> {
        let token = self.announced?.token;
        Some(self.planned.intent(token, self.cache.config.intent))
    }

    /// Returns the request that ends the intent, on all keys that may hold it.
    fn withdrawal(&self) -> Option<InvalidationRequest> {
        let AnnouncedWrite { token, on_whole } = self.announced?;
        let mut request = self.planned.request.clone();
        // The invalidation that it is merged with is counted already.
        request.counted.clear();
        if on_whole {
            let wholes = self.planned.rows.iter().map(|row| Arc::clone(&row.whole));
            request.rotates.extend(wholes);
        }
        request.ends.push(token);
        Some(request)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let invalidations = &self.cache.invalidations;
        match self.state {
            State::Over => {}
            State::Before => {
                // No caller waits for the acknowledgement, and nothing was written.
                let withdrawal = self.withdrawal();
                if let Some(pending_ack) = withdrawal.map(|request| invalidations.enqueue(request))
                {
                    pending_ack.forget();
                }
            }
            State::Running => {
                let _writing = memo::begin_write_in_doubt();
                let token = self
                    .announced
                    .map_or_else(Nonce::fresh, |announced| announced.token);
                let deferred = DeferredWrite {
                    write: Some(self.planned.clone()),
                    in_doubt: InDoubt::Dropped,
                    announced: self.announced().zip(self.withdrawal()),
                };
                self.keep_alive.never_ends();
                if transaction::defer(&self.cache, deferred).is_some()
                    && !crate::base::mutation::is_active("no-guard")
                {
                    // The commit may still be on its way. Nothing is stored until it must have
                    // arrived.
                    let write = self.planned.clone();
                    drop(transaction::leave_in_doubt(&self.cache, write, token));
                }
            }
        }
    }
}
