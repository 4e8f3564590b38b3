//! What a function's attribute says, collected into a key and its dependencies.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use super::start::{Copies, Start};
use super::{Call, Extra, all_deps};
use crate::engine::Handle;
use crate::entry::CodecId;
use crate::key::{EntryKind, KeyPart, KeyWriter};
use crate::observe::BypassReason;
use crate::policy::{Grace, IntoTtl, MAX_TTL, TtlRequest};
use crate::registry::{Res, Site};
use crate::store::Probe;

/// Collects what a function's attribute says about its key and its entries.
#[derive(Debug)]
#[must_use]
pub struct ReadPlan {
    cache: Handle,
    site: &'static Site,
    name: &'static str,
    resource: Option<Res>,
    key: Option<KeyWriter>,
    op: Option<&'static str>,
    has_id: bool,
    shared: bool,
    extras: Vec<Extra>,
    codec: CodecId,
    problem: Option<BypassReason>,
    ttl: TtlRequest,
    grace: Grace,
    copies: Copies,
    version: u32,
}

// By reference, and inline: what a hit costs is in the end how often this is moved.
impl ReadPlan {
    pub(super) fn new(cache: Handle, site: &'static Site, name: &'static str) -> Self {
        let resource = site
            .knows(cache.id, name)
            .or_else(|| cache.resource(name).map(Res::Own));
        if resource.is_none() {
            site.report(|| {
                format!("`{name}` is not a resource name, so {site} runs without the cache; use lower-case letters, digits, `-` and `_`")
            });
        }
        Self {
            site,
            name,
            key: resource
                .as_ref()
                .map(|_| KeyWriter::new(&cache.space, name)),
            resource,
            op: None,
            has_id: false,
            shared: false,
            extras: Vec::new(),
            codec: CodecId::default(),
            problem: None,
            ttl: TtlRequest::default(),
            grace: Grace {
                // They need a body that outlives its caller, which only the attribute can make.
                swr: Duration::ZERO,
                timeout: None,
                ..cache.config.grace
            },
            copies: Copies::default(),
            version: 0,
            cache,
        }
    }

    fn refuse(&mut self, problem: BypassReason) {
        self.problem.get_or_insert(problem);
    }

    /// What is computed of the resource; makes the entry a derived one. First of all, and by default the function's
    /// name unless there is an id.
    #[inline]
    pub fn op(&mut self, op: &'static str) -> &mut Self {
        self.op = Some(op);
        if let Some(key) = &mut self.key {
            key.op(op);
        }
        self
    }

    /// The id, readable in the key.
    #[inline]
    pub fn id<T: KeyPart + ?Sized>(&mut self, id: &T) -> &mut Self {
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
    #[inline]
    pub fn arg<T: KeyPart + ?Sized>(&mut self, arg: &T) -> &mut Self {
        self.default_op();
        if self.key.as_mut().is_some_and(|key| key.arg(arg).is_err()) {
            self.refuse(BypassReason::Unkeyable);
        }
        self
    }

    /// A type parameter of the function, hashed by its name.
    #[inline]
    pub fn type_param<T: ?Sized>(&mut self) -> &mut Self {
        self.arg(std::any::type_name::<T>())
    }

    fn default_op(&mut self) {
        if let (None, Some(key)) = (self.op, &mut self.key) {
            self.op = Some(self.site.function());
            key.op(self.site.function());
        }
    }

    /// The entry depends on this tag, too.
    #[inline]
    pub fn tag(&mut self, tag: impl Display) -> &mut Self {
        self.extras.push(Extra::Tag(tag.to_string()));
        self
    }

    /// The entry depends on everything of this resource, too.
    #[inline]
    pub fn depends(&mut self, resource: &'static str) -> &mut Self {
        if self.cache.resource(resource).is_some() {
            self.extras.push(Extra::Resource(resource.into()));
        } else {
            // Without it the entry would outlive what it is made of.
            self.refuse(BypassReason::Unkeyable);
            let site = self.site;
            site.report(|| {
                format!("`{resource}` is not a resource name, so {site} can't depend on it and runs without the cache; use lower-case letters, digits, `-` and `_`")
            });
        }
        self
    }

    /// Whether this call uses the cache at all.
    #[inline]
    pub fn when(&mut self, condition: bool) -> &mut Self {
        if !condition {
            self.refuse(BypassReason::Condition);
        }
        self
    }

    /// How the value is encoded.
    #[inline]
    pub fn codec(&mut self, codec: CodecId) -> &mut Self {
        self.codec = codec;
        self
    }

    /// Others that say so, too, may use the same keys.
    #[inline]
    pub fn shared(&mut self) -> &mut Self {
        self.shared = true;
        self
    }

    /// For how long a value is served.
    #[inline]
    pub fn ttl(&mut self, ttl: impl IntoTtl) -> &mut Self {
        self.ttl.value = ttl.into_ttl();
        self
    }

    /// For how long an absence is served.
    #[inline]
    pub fn none_ttl(&mut self, ttl: impl IntoTtl) -> &mut Self {
        self.ttl.absence = ttl.into_ttl();
        self
    }

    /// Whether absences are stored at all.
    #[inline]
    pub fn cache_none(&mut self, cache_none: bool) -> &mut Self {
        self.ttl.never_absence = !cache_none;
        self
    }

    /// For how long past its time an entry is served while a new one is loaded in the background.
    #[inline]
    pub fn swr(&mut self, time: impl IntoTtl) -> &mut Self {
        self.grace.swr = bounded(time).unwrap_or(self.cache.config.grace.swr);
        self
    }

    /// For how long past its time an entry is served in place of an error.
    #[inline]
    pub fn stale_if_error(&mut self, time: impl IntoTtl) -> &mut Self {
        self.grace.stale_if_error = bounded(time).unwrap_or(self.cache.config.grace.stale_if_error);
        self
    }

    /// After how long an entry past its time is served in place of a load that goes on.
    #[inline]
    pub fn timeout(&mut self, time: impl IntoTtl) -> &mut Self {
        self.grace.timeout = time.into_ttl().or(self.cache.config.grace.timeout);
        self
    }

    /// How eagerly an entry is loaded again before its time is over.
    #[inline]
    pub fn early(&mut self, beta: f64) -> &mut Self {
        self.grace.early = beta;
        self
    }

    /// By which part of it a time to live is shortened at most, at random.
    #[inline]
    pub fn jitter(&mut self, part: f64) -> &mut Self {
        self.grace.jitter = part;
        self
    }

    /// Whether the store is asked whatever lies in the process.
    #[inline]
    pub fn strict(&mut self) -> &mut Self {
        self.copies.strict = true;
        self
    }

    /// Whether copies are kept in the process at all.
    #[inline]
    pub fn local(&mut self, kept: bool) -> &mut Self {
        self.copies.kept = kept;
        self
    }

    /// For how long a copy in the process is served.
    #[inline]
    pub fn local_ttl(&mut self, ttl: impl IntoTtl) -> &mut Self {
        self.copies.ttl = bounded(ttl).unwrap_or(MAX_TTL);
        self
    }

    /// The version of the value's type; entries of another one are misses.
    #[inline]
    pub fn version(&mut self, version: u32) -> &mut Self {
        self.version = version;
        self
    }

    /// One call for each id, with the keys of entities. The claim on these is that of the function that reads one row.
    pub(super) fn finish_each<K: KeyPart>(self, ids: &[K]) -> Option<Vec<Call>> {
        let (cache, resource) = (&self.cache, self.resource?.into_arc());
        let deps = all_deps(cache, &resource, EntryKind::Entity, &self.extras);
        let calls = ids.iter().map(|id| {
            let mut key = KeyWriter::new(&cache.space, &resource.name);
            let problem = match key.id(id) {
                Ok(form) if resource.fits(form, Some(self.site)) => None,
                Ok(_) => Some(BypassReason::Claimed),
                Err(_) => Some(BypassReason::Unkeyable),
            };
            Call {
                cache: cache.clone(),
                resource: Arc::clone(&resource),
                probe: Probe {
                    key: key.finish(false),
                    kind: EntryKind::Entity,
                    deps: Arc::clone(&deps),
                },
                problem: self.problem.or(problem),
                ttl: self.ttl,
                grace: self.grace,
                copies: self.copies,
                context: None,
                extras: self.extras.clone(),
                codec: self.codec,
                version: self.version,
            }
        });
        Some(calls.collect())
    }

    pub(super) fn finish(mut self) -> Option<Start> {
        if !self.has_id {
            self.default_op();
        }
        let (Some(resource), Some(key)) = (self.resource, self.key) else {
            return None;
        };
        let kind = if self.op.is_none() && self.has_id {
            EntryKind::Entity
        } else {
            EntryKind::Derived
        };
        let (op, shared) = (self.op, self.shared);
        if !self
            .site
            .claims(self.cache.id, self.name, &resource, op, shared)
        {
            self.problem.get_or_insert(BypassReason::Claimed);
        }
        Some(Start {
            cache: self.cache,
            resource,
            key: key.finish(!self.has_id),
            kind,
            problem: self.problem,
            ttl: self.ttl,
            grace: self.grace,
            copies: self.copies,
            context: None,
            extras: self.extras,
            codec: self.codec,
            version: self.version,
        })
    }
}

fn bounded(time: impl IntoTtl) -> Option<Duration> {
    time.into_ttl().map(|time| time.min(MAX_TTL))
}
