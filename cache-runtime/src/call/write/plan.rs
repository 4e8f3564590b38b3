//! The plan of a write: what it invalidates.

use std::any::TypeId;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use crate::base::nonce::Nonce;
use crate::call::read::{any_tag, tag_dep};
use crate::call::{ambient, tag};
use crate::engine::Handle;
use crate::invalidation::{InvalidationRequest, Sweep};
use crate::key::{IdForm, KeyError, KeyPart, KeyWriter, is_op};
use crate::protocol::generation::Dependency;
use crate::registry::{CallSite, Mistake, Resource};
use crate::store::{Intent, IntentRow};

/// Collects what a function's attribute says to invalidate.
#[derive(Debug)]
#[must_use]
pub struct WritePlan<'a> {
    cache: &'a Handle,
    site: Option<&'static CallSite>,
    targets: Vec<Option<WriteTarget>>,
    tags: Vec<Arc<Dependency>>,
    pub(super) crash_safe: bool,
    pub(super) after_commit: bool,
}

#[derive(Debug)]
struct WriteTarget {
    resource: Arc<Resource>,
    /// The keys of the rows; `None` if none were named.
    rows: Option<Vec<String>>,
    /// The derived entries that are invalidated; all of them if this is empty.
    ops: Vec<&'static str>,
    /// Whether the whole resource is invalidated, even if rows were named.
    is_whole: bool,
}

/// A write of more rows invalidates the whole resource, which costs the same for any number of
/// entries.
const MAX_ROWS: usize = 4_096;

impl<'a> WritePlan<'a> {
    pub(crate) fn new(cache: &'a Handle, site: Option<&'static CallSite>) -> Self {
        Self {
            cache,
            site,
            targets: Vec::new(),
            tags: Vec::new(),
            crash_safe: false,
            after_commit: false,
        }
    }

    /// Adds a resource. It is invalidated as a whole unless an id follows.
    pub fn resource(mut self, name: &'static str) -> Self {
        let resource = self.cache.resource(name);
        if let (None, Some(site)) = (&resource, self.site) {
            site.report(Mistake::ResourceName, || {
                format!("`{name}` is not a resource name, so {site} does not invalidate it; use lower-case letters, digits, `-` and `_`")
            });
        }
        // An invalid name keeps its place, so that its id does not narrow the resource before it.
        self.targets.push(resource.map(WriteTarget::whole));
        self
    }

    /// Narrows the last resource to one row, plus everything derived from the resource.
    pub fn id<T: KeyPart + ?Sized>(mut self, id: &T) -> Self {
        if let Some(Some(target)) = self.targets.last_mut() {
            let mut key = KeyWriter::new(&self.cache.space, &target.resource.name);
            match ambient::front(&target.resource.contexts) {
                Ok(front) => key.front(&front),
                // The context of the row, such as its tenant, is not set.
                Err(_) => target.is_whole = true,
            }
            let form = key.id(id, &self.cache.space.hash_key);
            target.narrow(form, typeid::of::<T>(), key.take(), self.site);
        }
        self
    }

    /// Narrows the last resource to one row. The id is text already: as it is in keys, with the
    /// values that are set around a call in front of it.
    #[cfg(any(feature = "outbox-postgres", feature = "admin"))]
    pub(crate) fn rendered_id(mut self, id: &str) -> Self {
        if let Some(Some(target)) = self.targets.last_mut() {
            // An id contains no `@`.
            let (front, id) = id.split_at(id.rfind('@').map_or(0, |at| at + 1));
            let contexts = target.resource.contexts.len();
            if front.matches('@').count() == contexts + usize::from(contexts > 0) {
                let space = &self.cache.space;
                let key = space.rendered(&target.resource.name, front, id);
                target.rows.get_or_insert_default().push(key);
            } else {
                // The context of the row, such as its tenant, is not set.
                target.is_whole = true;
            }
        }
        self
    }

    /// Narrows the last resource to one row, if this process knows the form of its ids.
    #[cfg(feature = "outbox-postgres")]
    pub(crate) fn unclear_id<T: KeyPart + ?Sized>(mut self, id: &T) -> Self {
        match self.targets.last_mut() {
            Some(Some(target)) if !target.resource.knows_its_ids() => {
                target.is_whole = true;
                self
            }
            _ => self.id(id),
        }
    }

    /// Narrows the last resource to these rows, and to everything derived from the resource.
    pub fn ids<I>(mut self, ids: I) -> Self
    where
        I: IntoIterator,
        I::Item: KeyPart,
    {
        if let Some(Some(target)) = self.targets.last_mut() {
            // An empty list of ids does not mean all rows.
            target.rows.get_or_insert_default();
        }
        for (n, id) in ids.into_iter().enumerate() {
            if n == MAX_ROWS {
                if let Some(Some(target)) = self.targets.last_mut() {
                    target.is_whole = true;
                }
                break;
            }
            self = self.id(&id);
        }
        self
    }

    /// Adds all entries that carry this tag, which is already rendered as text.
    #[cfg(feature = "outbox-postgres")]
    pub(crate) fn rendered_tag(mut self, tag: &str) -> Self {
        self.tags
            .push(Dependency::new(self.cache.space.rendered_tag(tag)));
        self
    }

    /// Of the entries derived from the last resource, narrows it to those that the named `op`s
    /// compute.
    pub fn op(mut self, op: &'static str) -> Self {
        if let Some(Some(target)) = self.targets.last_mut() {
            if is_op(op) {
                target.ops.push(op);
            } else {
                // No reader has this op. An invalidation is never bypassed.
                target.is_whole = true;
            }
        }
        self
    }

    /// Adds a resource that the program's source does not name.
    pub(crate) fn known(mut self, resource: Arc<Resource>) -> Self {
        self.targets.push(Some(WriteTarget::whole(resource)));
        self
    }

    /// Adds all entries that carry this tag.
    pub fn tag(mut self, tag: impl Display) -> Self {
        let tag = tag::written(tag);
        self.tags.extend(tag.map(|tag| tag_dep(self.cache, &tag)));
        self
    }

    /// Puts an intent before the body runs, so that a killed process leaves nothing stale.
    pub fn crash_safe(mut self) -> Self {
        self.crash_safe = true;
        self
    }

    /// Marks a function that runs inside its caller's transaction and returns before the commit.
    pub fn after_commit(mut self) -> Self {
        self.after_commit = true;
        self
    }

    pub(crate) fn finish(self) -> PlannedWrite {
        let mut planned = PlannedWrite {
            request: InvalidationRequest {
                rotates: self.tags,
                ..InvalidationRequest::default()
            },
            rows: Vec::new(),
            tags: Vec::new(),
            crash_safe: self.crash_safe,
            after_commit: self.after_commit,
        };
        if !planned.request.rotates.is_empty() {
            planned.request.rotates.push(any_tag(&self.cache.space));
        }
        planned.tags.clone_from(&planned.request.rotates);
        if !planned.request.rotates.is_empty() {
            let others = Arc::clone(&self.cache.registry.others);
            planned.request.counted.push(others);
        }
        let request = &mut planned.request;
        for target in self.targets.into_iter().flatten() {
            let resource = target.resource;
            request.counted.push(Arc::clone(&resource.counters));
            let is_whole = target.is_whole || (target.rows.is_none() && target.ops.is_empty());
            // Entries of other ops are alive, and a sweep can't tell them from dead ones.
            if is_whole || target.ops.is_empty() {
                request.sweeps.push(Sweep {
                    resource: resource.name.clone(),
                    derived_only: !is_whole,
                });
            }
            if is_whole {
                request.rotates.push(Arc::clone(&resource.whole));
                continue;
            }
            match target.ops.as_slice() {
                [] => request.rotates.push(Arc::clone(&resource.derived)),
                ops => {
                    request.rotates.extend(ops.iter().map(|op| resource.op(op)));
                    // Entries that depend on the whole resource contain the rows as well.
                    if !crate::base::mutation::is_active("ops-spare-dependents") {
                        request.rotates.push(resource.any_op());
                    }
                }
            }
            for key in target.rows.into_iter().flatten() {
                request.deletes.push(key.clone());
                if !crate::base::mutation::is_active("row-dependencies-not-rotated") {
                    request.rotates.extend(resource.row_of(&key));
                }
                let whole = Arc::clone(&resource.whole);
                planned.rows.push(IntentRow { key, whole });
            }
        }
        planned
    }
}

/// The entries and dependencies that a write invalidates.
#[derive(Debug, Clone)]
pub(crate) struct PlannedWrite {
    pub(super) request: InvalidationRequest,
    /// The entries in the request. Each has the generation that takes its intent if another
    /// program's value is under its key.
    pub(super) rows: Vec<IntentRow>,
    /// The dependencies of the tags.
    tags: Vec<Arc<Dependency>>,
    pub(super) crash_safe: bool,
    pub(super) after_commit: bool,
}

impl PlannedWrite {
    /// Returns true if a rollback of the enclosing transaction undoes the write.
    pub(crate) fn takes_part(&self) -> bool {
        self.after_commit
    }

    /// Combines the plan from before the body with the rows that the result has told.
    pub(super) fn with_rows_of(&self, known: Self, cache: &Handle) -> Self {
        let mut narrowed = Self {
            tags: self.tags.clone(),
            crash_safe: self.crash_safe,
            after_commit: self.after_commit,
            ..known
        };
        if !self.tags.is_empty() && !crate::base::mutation::is_active("tags-lost-beside-result") {
            narrowed.request.rotates.extend(self.tags.iter().cloned());
            let others = Arc::clone(&cache.registry.others);
            narrowed.request.counted.push(others);
        }
        narrowed
    }

    pub(crate) fn into_request(self) -> InvalidationRequest {
        self.request
    }

    /// Returns the dependencies whose generations it replaces.
    #[cfg(feature = "outbox-postgres")]
    pub(crate) fn deps(&self) -> &[Arc<Dependency>] {
        &self.request.rotates
    }

    /// Returns the single rows that it invalidates.
    #[cfg(feature = "outbox-postgres")]
    pub(crate) fn intent_rows(&self) -> &[IntentRow] {
        &self.rows
    }

    /// Returns the plan as an intent: it invalidates, and readers store nothing while it stands.
    pub(crate) fn intent(&self, token: Nonce, length: Duration) -> Intent {
        Intent {
            token,
            rows: self.rows.clone(),
            deps: self.request.rotates.clone(),
            length,
        }
    }
}

impl WriteTarget {
    fn whole(resource: Arc<Resource>) -> Self {
        Self {
            resource,
            rows: None,
            ops: Vec::new(),
            is_whole: false,
        }
    }

    /// Narrows to one row. If the readers would not write an id in this form, it names none of
    /// their entries, so the whole resource is invalidated. An invalidation is never bypassed.
    fn narrow(
        &mut self,
        form: Result<IdForm, KeyError>,
        of: TypeId,
        key: String,
        site: Option<&'static CallSite>,
    ) {
        if form.is_ok_and(|form| self.resource.fits(form, of, site)) {
            self.rows.get_or_insert_default().push(key);
        } else {
            self.is_whole = true;
        }
    }
}
