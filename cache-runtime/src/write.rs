//! One invalidating call: the body, and what follows from how it ended.
//!
//! | the body | the cache |
//! |---|---|
//! | returned `Ok`, or a plain value | invalidated at once, before the caller gets the value |
//! | returned `Err` | the same, and once more at the uncertainty deadline: an error may hide a commit |
//! | returned an `Err` that wrote nothing (`rejected`, `on = ok`) | nothing |
//! | was dropped, or panicked | enqueued by a guard, and once more at the uncertainty deadline |

use std::fmt::Display;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::clock;
use crate::delivery::{Order, Sweep};
use crate::engine::Handle;
use crate::error::{Error, ErrorKind};
use crate::generation::Dep;
use crate::key::{IdForm, KeyError, KeyPart, KeyWriter};
use crate::read::tag_dep;
use crate::registry::{Resource, Site};
use crate::returns::{Kind, Written};
use crate::scope;

/// Collects what a function's attribute says it invalidates.
#[derive(Debug)]
#[must_use]
pub struct WritePlan<'a> {
    cache: &'a Handle,
    site: Option<&'static Site>,
    targets: Vec<Option<Target>>,
    tags: Vec<Arc<Dep>>,
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
            target.narrow(form, key.finish(false), self.site);
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

    pub(crate) fn finish(self) -> Order {
        let mut order = Order::default();
        if !self.tags.is_empty() {
            order.counted.push(Arc::clone(&self.cache.registry.others));
            order.bumps = self.tags;
        }
        for target in self.targets.into_iter().flatten() {
            order.counted.push(Arc::clone(&target.resource.counters));
            let derived_only = target.entity.is_some();
            order.sweeps.push(Sweep {
                resource: target.resource.name.clone(),
                derived_only,
            });
            match target.entity {
                Some(key) => {
                    order.kills.push(key);
                    order.bumps.push(Arc::clone(&target.resource.derived));
                }
                None => order.bumps.push(Arc::clone(&target.resource.whole)),
            }
        }
        order
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
    active: Option<(Handle, Order)>,
    site: &'static Site,
    on_ok: bool,
    rejected: Option<J>,
    result: Option<D>,
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
            let order = plan(WritePlan::new(&cache, Some(site))).finish();
            (cache, order)
        });
        Self {
            active,
            site,
            on_ok: false,
            rejected: None,
            result: None,
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

    /// Which errors wrote nothing.
    pub fn rejected<J2: Fn(&R::Error) -> bool>(self, rejected: J2) -> Write<R, S, J2, D> {
        let Self {
            active,
            site,
            on_ok,
            result,
            ..
        } = self;
        Write {
            active,
            site,
            on_ok,
            rejected: Some(rejected),
            result,
            kind: PhantomData,
        }
    }

    /// What to invalidate once there is a result.
    pub fn result<D2>(self, result: D2) -> Write<R, S, J, D2>
    where
        D2: for<'a, 'r> FnOnce(WritePlan<'a>, &'r R::Value) -> WritePlan<'a>,
    {
        let Self {
            active,
            site,
            on_ok,
            rejected,
            ..
        } = self;
        Write {
            active,
            site,
            on_ok,
            rejected,
            result: Some(result),
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
    /// Dropped while the body runs, the future enqueues the invalidation, now and once more at the
    /// uncertainty deadline; dropped later it changes nothing, since by then the invalidation is enqueued.
    pub async fn run(self, body: impl AsyncFnOnce(Kind<R, S>) -> R) -> R {
        if scope::takes_key(|| Err(no_key())) {
            return std::future::pending().await;
        }
        let Some((cache, order)) = self.active else {
            return body(Kind::OF).await;
        };
        // Before the guard, so that it is dropped after it: what the guard enqueues is waited for as well.
        let running = cache.delivery.begin_write();
        let guard = Guard {
            cache: &cache,
            order: Some(order),
        };
        let returned = body(Kind::OF).await;

        let wrote_nothing = returned.error().is_some_and(|error| {
            self.on_ok || self.rejected.is_some_and(|rejected| rejected(error))
        });
        if wrote_nothing {
            guard.disarm();
            return returned;
        }
        let known = self
            .result
            .zip(returned.value())
            .map(|(result, value)| result(WritePlan::new(&cache, Some(self.site)), value).finish());
        let is_uncertain = returned.error().is_some();
        let order = guard.disarm();
        let order = known.unwrap_or(order);
        if is_uncertain {
            cache
                .delivery
                .enqueue_at(clock::now() + cache.config.uncertainty, order.clone());
        }
        let receipt = cache.delivery.enqueue(order);
        drop(running);
        // What it says is in the statistics and the log; the write itself has succeeded or failed by now.
        let _ = receipt.acknowledged().await;
        returned
    }
}

fn no_key() -> Error {
    let text = "this call has no key: the function writes, it is under `#[invalidates]`";
    Error::new(ErrorKind::InvalidKey, text)
}

/// Invalidates if the body does not come to its end.
struct Guard<'a> {
    cache: &'a Handle,
    order: Option<Order>,
}

impl Guard<'_> {
    fn disarm(mut self) -> Order {
        self.order.take().unwrap_or_default()
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if let Some(order) = self.order.take() {
            // Nobody is there to wait for the receipt.
            drop(self.cache.delivery.enqueue(order.clone()));
            // The commit may still be on its way.
            let later = clock::now() + self.cache.config.uncertainty;
            self.cache.delivery.enqueue_at(later, order);
        }
    }
}
