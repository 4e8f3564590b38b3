//! One invalidating call: the body, and what follows from how it ended.
//!
//! | the body | the cache |
//! |---|---|
//! | returned `Ok`, or a plain value | invalidated at once, before the caller gets the value |
//! | returned `Err` | the same, and once more at the uncertainty deadline: an error may hide a commit |
//! | returned an `Err` that wrote nothing (`rejected`, `on = ok`) | nothing |
//! | was dropped, or panicked | announced by a guard, so that nothing is stored until the uncertainty deadline, and invalidated once more then |
//! | is `crash_safe` | announced before the body runs, and withdrawn with the invalidation |

mod guard;

use std::any::TypeId;
use std::fmt::Display;
use std::marker::PhantomData;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use self::guard::{WriteOutcome, Writing};
use crate::base::error::Error;
use crate::base::nonce::Nonce;
use crate::call::read::tag_dep;
use crate::call::returns::{Kind, Written};
use crate::coalesce::keep_alive::KeptAlive;
use crate::engine::Handle;
use crate::invalidation::{Order, Sweep};
use crate::key::{IdForm, KeyError, KeyPart, KeyWriter};
use crate::protocol::generation::Dep;
use crate::registry::{Resource, Site};
use crate::store::{Intent, IntentRow};

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
            let form = key.id(id, &self.cache.space.hash_key);
            target.narrow(form, typeid::of::<T>(), key.take(), self.site);
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
        if !self.tags.is_empty() && !crate::base::mutation::is_active("tags-lost-beside-result") {
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
    fn narrow(
        &mut self,
        form: Result<IdForm, KeyError>,
        of: TypeId,
        key: String,
        site: Option<&'static Site>,
    ) {
        if form.is_ok_and(|form| self.resource.fits(form, of, site)) {
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
    /// The cache, and what to invalidate if nothing more is known; `None` if the cache is off.
    active: Option<Box<(Handle, Planned)>>,
    site: &'static Site,
    on_ok: bool,
    rejected: Option<J>,
    result: Option<D>,
    /// What to return in place of running while the store is away.
    refuse: Option<fn(Error) -> R>,
    kind: PhantomData<fn() -> (R, S)>,
}

#[inline(never)]
fn planned(
    cache: Handle,
    site: &'static Site,
    plan: impl for<'a> FnOnce(WritePlan<'a>) -> WritePlan<'a>,
) -> Box<(Handle, Planned)> {
    let planned = plan(WritePlan::new(&cache, Some(site))).finish();
    Box::new((cache, planned))
}

impl<S, R: Written<S>> Write<R, S, Never<R, S>, Unchanged<R, S>> {
    /// Prepares the call. `plan` runs only if a cache is on, and before the arguments move into the body.
    #[inline]
    pub(crate) fn new(
        cache: Option<Handle>,
        site: &'static Site,
        plan: impl for<'a> FnOnce(WritePlan<'a>) -> WritePlan<'a>,
    ) -> Self {
        Self {
            active: cache.map(|cache| planned(cache, site, plan)),
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
    pub fn rejected<J2: Fn(&R::Error) -> bool>(self, rejected: J2) -> Write<R, S, J2, D>
    where
        R: CanFail,
    {
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
    // What is in here is compiled once for each annotated function, so the steps are elsewhere.
    #[inline]
    pub fn run<F>(self, body: impl FnOnce(Kind<R, S>) -> F) -> impl Future<Output = R>
    where
        F: Future<Output = R>,
    {
        let beginning = guard::begin(self.active, self.site, self.refuse.is_some());
        let judge = Judge {
            site: self.site,
            on_ok: self.on_ok,
            rejected: self.rejected,
            result: self.result,
        };
        async move {
            let Some(beginning) = beginning else {
                return body(Kind::OF).await;
            };
            let (mut writing, problem) = beginning.await;
            if let (Some(refuse), Some(error)) = (self.refuse, problem) {
                return refuse(error);
            }
            let watched = KeptAlive {
                body: pin!(body(Kind::OF)),
                keep_alive: writing.runs(),
            };
            let returned = watched.await;
            let verdict = judge.verdict(&writing, &returned);
            writing.over(verdict).await;
            returned
        }
    }
}

/// What the function's author says of its outcome.
struct Judge<J, D> {
    site: &'static Site,
    on_ok: bool,
    rejected: Option<J>,
    result: Option<D>,
}

impl<J, D> Judge<J, D> {
    /// Runs the author's code, and nothing else; if that panics, the write is as one whose body has panicked.
    fn verdict<R: Written<S>, S>(self, writing: &Writing, returned: &R) -> WriteOutcome
    where
        J: Fn(&R::Error) -> bool,
        D: for<'a, 'r> FnOnce(WritePlan<'a>, &'r R::Value) -> WritePlan<'a>,
    {
        let error = returned.error();
        WriteOutcome {
            has_failed: error.is_some(),
            wrote_nothing: error.is_some_and(|error| {
                crate::base::mutation::is_active("errors-not-invalidated")
                    || self.on_ok
                    || self.rejected.is_some_and(|rejected| rejected(error))
            }),
            known: match (self.result, returned.value()) {
                (Some(result), Some(value)) => {
                    let plan = WritePlan::new(writing.cache(), Some(self.site));
                    Some(Box::new(result(plan, value).finish()))
                }
                _ => None,
            },
        }
    }
}

/// A return type that has errors.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no errors that `rejected` could tell apart",
    label = "this is no `Result`",
    note = "return `Result<T, E>`, or leave `rejected` out of `#[invalidates(..)]`"
)]
pub trait CanFail {}

#[diagnostic::do_not_recommend]
impl<T, E> CanFail for Result<T, E> {}

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
