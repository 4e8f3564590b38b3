//! One invalidating call: the body, and what follows from how it ended.
//!
//! | the body | the cache |
//! |---|---|
//! | returned `Ok`, or a plain value | invalidated at once, before the caller gets the value |
//! | returned `Err` | the same, and once more at the uncertainty deadline: an error may hide a commit |
//! | returned an `Err` that wrote nothing (`rejected`, `on = ok`) | nothing |
//! | was dropped, or panicked | announced by a guard, so that nothing is stored until the uncertainty deadline, and invalidated once more then |
//! | is `crash_safe` | announced before the body runs, and withdrawn with the invalidation |

use std::fmt::Display;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::allowance::Allowance;
use crate::clock;
use crate::delivery::{Order, Sweep};
use crate::engine::Handle;
use crate::errands::Errand;
use crate::error::{Error, ErrorKind};
use crate::generation::Dep;
use crate::key::{IdForm, KeyError, KeyPart, KeyWriter};
use crate::nonce::Nonce;
use crate::read::tag_dep;
use crate::registry::{Resource, Site};
use crate::returns::{Kind, Written};
use crate::scope;
use crate::store::{Circuit, Intent, IntentRow};
use crate::transaction::{self, Doubt, Handover};

/// Collects what a function's attribute says it invalidates.
#[derive(Debug)]
#[must_use]
pub struct WritePlan<'a> {
    cache: &'a Handle,
    site: Option<&'static Site>,
    targets: Vec<Option<Target>>,
    tags: Vec<Arc<Dep>>,
    crash_safe: bool,
    after_commit: bool,
}

#[derive(Debug)]
struct Target {
    resource: Arc<Resource>,
    /// The entity's key; `None` for the whole resource.
    entity: Option<String>,
}

impl<'a> WritePlan<'a> {
    pub(crate) fn new(cache: &'a Handle, site: Option<&'static Site>) -> Self {
        Self {
            cache,
            site,
            targets: Vec::new(),
            tags: Vec::new(),
            crash_safe: false,
            after_commit: false,
        }
    }

    /// A resource, to be invalidated as a whole unless an id follows.
    pub fn resource(mut self, name: &'static str) -> Self {
        let resource = self.cache.resource(name);
        if let (None, Some(site)) = (&resource, self.site) {
            site.report(|| {
                format!("`{name}` is not a resource name, so {site} does not invalidate it; use lower-case letters, digits, `-` and `_`")
            });
        }
        // One that is none keeps its place, so that its id does not narrow the resource before it.
        self.targets.push(resource.map(Target::whole));
        self
    }

    /// Narrows the last resource to one row, and to everything derived from the resource.
    pub fn id<T: KeyPart + ?Sized>(mut self, id: &T) -> Self {
        if let Some(Some(target)) = self.targets.last_mut() {
            let mut key = KeyWriter::new(&self.cache.space, &target.resource.name);
            let form = key.id(id);
            target.narrow(form, key.take(), self.site);
        }
        self
    }

    /// A resource that is not named in the program's text.
    pub(crate) fn known(mut self, resource: Arc<Resource>) -> Self {
        self.targets.push(Some(Target::whole(resource)));
        self
    }

    /// All entries that carry this tag.
    pub fn tag(mut self, tag: impl Display) -> Self {
        self.tags.push(tag_dep(self.cache, &tag.to_string()));
        self
    }

    /// The write is announced before it takes place, so that a process which is killed leaves nothing stale.
    pub fn crash_safe(mut self) -> Self {
        self.crash_safe = true;
        self
    }

    /// The function runs inside its caller's transaction, and returns before the commit.
    pub fn after_commit(mut self) -> Self {
        self.after_commit = true;
        self
    }

    pub(crate) fn finish(self) -> Planned {
        let mut planned = Planned {
            order: Order {
                bumps: self.tags,
                ..Order::default()
            },
            rows: Vec::new(),
            tags: Vec::new(),
            crash_safe: self.crash_safe,
            after_commit: self.after_commit,
        };
        planned.tags.clone_from(&planned.order.bumps);
        if !planned.order.bumps.is_empty() {
            let others = Arc::clone(&self.cache.registry.others);
            planned.order.counted.push(others);
        }
        let order = &mut planned.order;
        for target in self.targets.into_iter().flatten() {
            let resource = target.resource;
            order.sweeps.push(Sweep {
                resource: resource.name.clone(),
                derived_only: target.entity.is_some(),
            });
            match target.entity {
                Some(key) => {
                    order.kills.push(key.clone());
                    order.bumps.push(Arc::clone(&resource.derived));
                    let whole = Arc::clone(&resource.whole);
                    planned.rows.push(IntentRow { key, whole });
                }
                None => order.bumps.push(Arc::clone(&resource.whole)),
            }
            order.counted.push(Arc::clone(&resource.counters));
        }
        planned
    }
}

/// What a write invalidates.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    order: Order,
    /// The entries in the order, with what stands for each where it is somebody else's.
    rows: Vec<IntentRow>,
    /// The tags among the bumps.
    tags: Vec<Arc<Dep>>,
    crash_safe: bool,
    after_commit: bool,
}

impl Planned {
    /// Whether it is undone if the transaction around it is.
    pub(crate) fn takes_part(&self) -> bool {
        self.after_commit
    }

    /// What was planned before the body ran, with the rows that are known by now.
    fn with_rows_of(&self, known: Self, cache: &Handle) -> Self {
        let mut narrowed = Self {
            tags: self.tags.clone(),
            crash_safe: self.crash_safe,
            after_commit: self.after_commit,
            ..known
        };
        if !self.tags.is_empty() {
            narrowed.order.bumps.extend(self.tags.iter().cloned());
            let others = Arc::clone(&cache.registry.others);
            narrowed.order.counted.push(others);
        }
        narrowed
    }

    pub(crate) fn into_order(self) -> Order {
        self.order
    }

    /// The same as an announcement: it invalidates, and nothing is stored until its time is over.
    pub(crate) fn intent(&self, token: Nonce, length: Duration) -> Intent {
        Intent {
            token,
            rows: self.rows.clone(),
            deps: self.order.bumps.clone(),
            length,
        }
    }
}

impl Target {
    fn whole(resource: Arc<Resource>) -> Self {
        Self {
            resource,
            entity: None,
        }
    }

    /// An id that the readers would not write in this form names no entry of theirs: then it is the whole
    /// resource. An invalidation is never bypassed.
    fn narrow(&mut self, form: Result<IdForm, KeyError>, key: String, site: Option<&'static Site>) {
        if form.is_ok_and(|form| self.resource.fits(form, site)) {
            self.entity = Some(key);
        }
    }
}

/// How `rejected` is typed while nobody has given one.
pub(crate) type Never<R, S> = fn(&<R as Written<S>>::Error) -> bool;
/// How `result` is typed while nobody has given one.
pub(crate) type Unchanged<R, S> =
    for<'a, 'r> fn(WritePlan<'a>, &'r <R as Written<S>>::Value) -> WritePlan<'a>;

/// A call of an invalidating function, before its body runs.
#[derive(Debug)]
#[must_use]
pub struct Write<R, S, J, D> {
    /// The cache, and what to invalidate if nothing more is known.
    active: Option<(Handle, Planned)>,
    site: &'static Site,
    on_ok: bool,
    rejected: Option<J>,
    result: Option<D>,
    /// What to return in place of running while the store is away.
    refuse: Option<fn(Error) -> R>,
    kind: PhantomData<fn() -> (R, S)>,
}

impl<S, R: Written<S>> Write<R, S, Never<R, S>, Unchanged<R, S>> {
    /// Prepares the call. `plan` runs only if a cache is on, and before the arguments move into the body.
    pub(crate) fn new(
        cache: Option<Handle>,
        site: &'static Site,
        plan: impl for<'a> FnOnce(WritePlan<'a>) -> WritePlan<'a>,
    ) -> Self {
        let active = cache.map(|cache| {
            let planned = plan(WritePlan::new(&cache, Some(site))).finish();
            (cache, planned)
        });
        Self {
            active,
            site,
            on_ok: false,
            rejected: None,
            result: None,
            refuse: None,
            kind: PhantomData,
        }
    }
}

impl<S, R: Written<S>, J, D> Write<R, S, J, D> {
    /// The author vouches that no error hides a commit.
    pub fn on_ok(mut self) -> Self {
        self.on_ok = true;
        self
    }

    /// The write is refused while the store is away.
    pub fn required(mut self) -> Self
    where
        R: Refusable,
    {
        self.refuse = Some(R::refused);
        self
    }

    /// Which errors wrote nothing.
    pub fn rejected<J2: Fn(&R::Error) -> bool>(self, rejected: J2) -> Write<R, S, J2, D> {
        Write {
            active: self.active,
            site: self.site,
            on_ok: self.on_ok,
            rejected: Some(rejected),
            result: self.result,
            refuse: self.refuse,
            kind: PhantomData,
        }
    }

    /// What to invalidate once there is a result.
    pub fn result<D2>(self, result: D2) -> Write<R, S, J, D2>
    where
        D2: for<'a, 'r> FnOnce(WritePlan<'a>, &'r R::Value) -> WritePlan<'a>,
    {
        Write {
            active: self.active,
            site: self.site,
            on_ok: self.on_ok,
            rejected: self.rejected,
            result: Some(result),
            refuse: self.refuse,
            kind: PhantomData,
        }
    }
}

impl<S, R, J, D> Write<R, S, J, D>
where
    R: Written<S>,
    J: Fn(&R::Error) -> bool,
    D: for<'a, 'r> FnOnce(WritePlan<'a>, &'r R::Value) -> WritePlan<'a>,
{
    /// Runs `body`, then invalidates, then returns what `body` returned.
    ///
    /// # Cancel safety
    /// Dropped while the body runs, the future enqueues an announcement, so that nothing is stored until the uncertainty
    /// deadline, and one more invalidation for that deadline; dropped later it changes nothing, since by then the
    /// invalidation is enqueued.
    pub async fn run(self, body: impl AsyncFnOnce(Kind<R, S>) -> R) -> R {
        if scope::takes_key(|| Err(no_key())) {
            return std::future::pending().await;
        }
        let Some((cache, planned)) = self.active else {
            return body(Kind::OF).await;
        };
        // Before the guard, so that it is dropped after it: what the guard enqueues is waited for as well.
        let running = cache.delivery.begin();
        let mut guard = Guard::new(&cache, planned);
        if let Some(refuse) = self.refuse {
            if let Err(error) = guard.ready().await {
                return refuse(error);
            }
        } else if guard.planned.crash_safe {
            // Without it the write goes on, as safe as one that does not ask for it.
            let _ = guard.ready().await;
        }
        let returned = guard.watch(body(Kind::OF)).await;

        let wrote_nothing = returned.error().is_some_and(|error| {
            self.on_ok || self.rejected.is_some_and(|rejected| rejected(error))
        });
        let withdrawal = guard.withdrawal();
        let announced = guard.announced();
        let planned = self
            .result
            .zip(returned.value())
            .map(|(result, value)| {
                let known = result(WritePlan::new(&cache, Some(self.site)), value).finish();
                guard.planned.with_rows_of(known, &cache)
            })
            .unwrap_or_else(|| guard.planned.clone());
        let handover = Handover {
            write: (!wrote_nothing).then_some(planned),
            doubt: match returned.error() {
                Some(_) => Doubt::Failed,
                None => Doubt::None,
            },
            announced: announced.zip(withdrawal),
        };
        // Not before: what the user's code above leaves undone by a panic, the guard does.
        guard.state = State::Over;
        // Inside its caller's transaction the outcome is not known yet.
        let Some(Handover {
            write, announced, ..
        }) = transaction::hand_over(&cache, handover)
        else {
            return returned;
        };
        if let Some(write) = &write
            && guard.planned.after_commit
        {
            self.site.report(|| {
                let site = self.site;
                format!("{site} runs outside `after_commit`, so nobody says when its transaction has ended: what it wrote is not cached for a while; wrap the transaction in `Cache::after_commit`")
            });
            let receipt = transaction::leave_uncertain(&cache, write.clone(), Nonce::fresh());
            drop(running);
            // The caller is about to commit: by then the announcement stands.
            let _ = receipt.acknowledged(guard.allowance.left()).await;
            return returned;
        }
        let mut order = write.map_or_else(Order::default, Planned::into_order);
        if returned.error().is_some() && !wrote_nothing {
            let later = clock::now() + cache.config.uncertainty;
            cache.delivery.enqueue_at(later, order.clone());
        }
        if let Some((_, withdrawal)) = announced {
            order = order.and(withdrawal);
        } else if wrote_nothing {
            return returned;
        }
        // What it says is in the statistics and the log; the write itself has succeeded or failed by now.
        let receipt = cache.delivery.enqueue(order);
        drop(running);
        let _ = receipt.acknowledged(guard.allowance.left()).await;
        returned
    }
}

/// A return type that can say that a write was refused.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot say that the write was refused",
    note = "a function under `#[invalidates(.., required)]` returns `Result<T, E>`, where `E` implements `From<cache_runtime::Error>`"
)]
pub trait Refusable {
    /// The write was refused, because of this.
    fn refused(error: Error) -> Self;
}

#[diagnostic::do_not_recommend]
impl<T, E: From<Error>> Refusable for Result<T, E> {
    fn refused(error: Error) -> Self {
        Err(error.into())
    }
}

fn no_key() -> Error {
    let text = "this call has no key: the function writes, it is under `#[invalidates]`";
    Error::new(ErrorKind::InvalidKey, text)
}

/// Watches over a write until its invalidation is enqueued.
struct Guard<'a> {
    cache: &'a Handle,
    planned: Planned,
    state: State,
    /// What the write may still wait for the store.
    allowance: Allowance,
    /// The intent that was put before the body ran, or may have been.
    announced: Option<Announced>,
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

impl<'a> Guard<'a> {
    fn new(cache: &'a Handle, planned: Planned) -> Self {
        Self {
            cache,
            planned,
            state: State::Before,
            allowance: Allowance::new(cache.config.command_budget),
            announced: None,
        }
    }

    /// Announces the write if it is to survive a crash; else asks whether the store is there.
    async fn ready(&mut self) -> Result<(), Error> {
        let store = &self.cache.store;
        if !self.planned.crash_safe {
            return self.allowance.spend(store.ping()).await;
        }
        if store.circuit() != Circuit::Closed {
            // It is surely not sent, so that there is nothing to withdraw either.
            return Err(Error::unavailable("the store is not connected"));
        }
        let token = Nonce::fresh();
        // An announcement that is not answered may have taken place.
        let announced = self.announced.insert(Announced {
            token,
            on_whole: true,
        });
        let intent = self.planned.intent(token, self.cache.config.intent);
        let intended = self.allowance.spend(store.intend(&intent)).await?;
        announced.on_whole = intended.on_whole;
        Ok(())
    }

    /// Runs the body, renewing the announcement at a third of its length if there is one.
    async fn watch<F: Future>(&mut self, body: F) -> F::Output {
        self.state = State::Running;
        let mut body = std::pin::pin!(body);
        match self.announced {
            None => body.await,
            Some(Announced { token, .. }) => {
                let intent = self.planned.intent(token, self.cache.config.intent);
                let third = intent.length / 3;
                let mut renewal = tokio::time::interval_at(clock::now() + third, third);
                renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    tokio::select! {
                        biased;
                        output = &mut body => return output,
                        _ = renewal.tick() => self.renew(intent.clone()),
                    }
                }
            }
        }
    }

    fn renew(&self, intent: Intent) {
        self.cache.errands.send(Errand::RenewIntent(intent));
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

impl Drop for Guard<'_> {
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
                let handover = Handover {
                    write: Some(self.planned.clone()),
                    doubt: Doubt::Dropped,
                    announced: self.announced().zip(self.withdrawal()),
                };
                if transaction::hand_over(self.cache, handover).is_some() {
                    // The commit may still be on its way: until it must have arrived, nothing is stored.
                    let write = self.planned.clone();
                    drop(transaction::leave_uncertain(self.cache, write, token));
                }
            }
        }
    }
}
