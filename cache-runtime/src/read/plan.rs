//! What a function's attribute says, collected into a key and its dependencies.

use std::sync::Arc;

use super::Call;
use crate::engine::Handle;
use crate::generation::Dep;
use crate::key::{self, EntryKind, KeyPart, KeyWriter};
use crate::observe::BypassReason;
use crate::policy::{IntoTtl, TtlRequest};
use crate::registry::{Resource, Site};
use crate::store::Probe;

/// Collects what a function's attribute says about its key and its entries.
#[derive(Debug)]
#[must_use]
pub struct ReadPlan<'a> {
    cache: &'a Handle,
    site: &'static Site,
    resource: Option<Arc<Resource>>,
    key: Option<KeyWriter<'a>>,
    op: Option<&'static str>,
    has_id: bool,
    problem: Option<BypassReason>,
    ttl: TtlRequest,
    version: u32,
}

impl<'a> ReadPlan<'a> {
    pub(super) fn new(cache: &'a Handle, site: &'static Site) -> Self {
        Self {
            cache,
            site,
            resource: None,
            key: None,
            op: None,
            has_id: false,
            problem: None,
            ttl: TtlRequest::default(),
            version: 0,
        }
    }

    fn refuse(&mut self, problem: BypassReason) {
        self.problem.get_or_insert(problem);
    }

    /// The resource; always first.
    pub fn resource(mut self, name: &'static str) -> Self {
        self.resource = self.cache.resource(name);
        if self.resource.is_some() {
            self.key = Some(KeyWriter::new(&self.cache.space, name));
        } else {
            self.site.report(|| {
                let site = self.site;
                format!("`{name}` is not a resource name, so {site} runs without the cache; use lower-case letters, digits, `-` and `_`")
            });
        }
        self
    }

    /// What is computed of the resource; makes the entry a derived one.
    pub fn op(mut self, op: &'static str) -> Self {
        self.op = Some(op);
        if let Some(key) = &mut self.key {
            key.op(op);
        }
        self
    }

    /// The id, readable in the key.
    pub fn id<T: KeyPart + ?Sized>(mut self, id: &T) -> Self {
        self.has_id = true;
        let (Some(key), Some(resource)) = (&mut self.key, &self.resource) else {
            return self;
        };
        match key.id(id) {
            // Only entities share their key with the writers that name an id.
            Ok(form) if self.op.is_some() || resource.fits(form, Some(self.site)) => {}
            Ok(_) => self.refuse(BypassReason::Claimed),
            Err(_) => self.refuse(BypassReason::Unkeyable),
        }
        self
    }

    /// One argument, hashed.
    pub fn arg<T: KeyPart + ?Sized>(mut self, arg: &T) -> Self {
        if self.key.as_mut().is_some_and(|key| key.arg(arg).is_err()) {
            self.refuse(BypassReason::Unkeyable);
        }
        self
    }

    /// A type parameter of the function, hashed by its name.
    pub fn type_param<T: ?Sized>(self) -> Self {
        self.arg(std::any::type_name::<T>())
    }

    /// For how long a value is served.
    pub fn ttl(mut self, ttl: impl IntoTtl) -> Self {
        self.ttl.value = ttl.into_ttl();
        self
    }

    /// For how long an absence is served.
    pub fn none_ttl(mut self, ttl: impl IntoTtl) -> Self {
        self.ttl.absence = ttl.into_ttl();
        self
    }

    /// Whether absences are stored at all.
    pub fn cache_none(mut self, cache_none: bool) -> Self {
        self.ttl.never_absence = !cache_none;
        self
    }

    /// The version of the value's type; entries of another one are misses.
    pub fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    pub(super) fn finish(mut self, cache: &Handle) -> Option<Call> {
        let (Some(resource), Some(key)) = (self.resource, self.key) else {
            return None;
        };
        let kind = if self.op.is_none() && self.has_id {
            EntryKind::Entity
        } else {
            EntryKind::Derived
        };
        if !resource.claim(self.op, self.site) {
            self.problem.get_or_insert(BypassReason::Claimed);
        }
        let probe = Probe {
            key: key.finish(!self.has_id),
            kind,
            deps: Arc::clone(resource.deps(kind)),
        };
        Some(Call {
            cache: cache.clone(),
            resource,
            probe,
            problem: self.problem,
            ttl: self.ttl,
            version: self.version,
        })
    }
}

/// The dependency that a tag stands for; no resource is spelled like it.
pub(crate) fn tag_dep(cache: &Handle, tag: &str) -> Arc<Dep> {
    Dep::new(cache.space.generation(&format!("~{}", key::escaped(tag))))
}
