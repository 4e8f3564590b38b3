//! What a function's attribute says, collected into a key and its dependencies.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use super::start::Start;
use super::{Call, Extra, all_deps};
use crate::engine::{Engine, Handle};
use crate::entry::CodecId;
use crate::key::{EntryKind, KeyPart, KeyWriter, is_resource};
use crate::observe::BypassReason;
use crate::policy::{IntoTtl, MAX_TTL};
use crate::registry::{Res, Site};
use crate::store::Probe;

/// Collects what a function's attribute says about its key and its entries.
///
/// Everything is by reference, and what is collected lies where the call will look for it: on a hit in the process,
/// moving things about is most of what there is to do.
#[derive(Debug)]
#[must_use]
pub struct ReadPlan {
    start: Box<Start>,
    site: &'static Site,
    name: &'static str,
    op: Option<&'static str>,
    has_id: bool,
    shared: bool,
}

impl ReadPlan {
    /// `None` if the resource's name is none.
    pub(super) fn new(cache: &Engine, site: &'static Site, name: &'static str) -> Option<Self> {
        let resource = site
            .knows(cache.id, name)
            .or_else(|| cache.resource(name).map(Res::Own));
        if resource.is_none() {
            site.report(|| {
                format!("`{name}` is not a resource name, so {site} runs without the cache; use lower-case letters, digits, `-` and `_`")
            });
        }
        Some(Self {
            start: Start::begin(cache, resource?),
            site,
            name,
            op: None,
            has_id: false,
            shared: false,
        })
    }

    #[inline]
    fn set(&mut self, set: impl FnOnce(&mut Start)) -> &mut Self {
        set(&mut self.start);
        self
    }

    fn refuse(&mut self, problem: BypassReason) {
        self.start.refuse(problem);
    }

    /// What is computed of the resource; makes the entry a derived one. First of all, and by default the function's
    /// name unless there is an id.
    #[inline]
    pub fn op(&mut self, op: &'static str) -> &mut Self {
        self.op = Some(op);
        self.start.key.op(op);
        self
    }

    /// The id, readable in the key.
    #[inline]
    pub fn id<T: KeyPart + ?Sized>(&mut self, id: &T) -> &mut Self {
        self.has_id = true;
        let (is_derived, site) = (self.op.is_some(), self.site);
        self.set(|start| match start.key.id(id) {
            // Only entities share their key with the writers that name an id.
            Ok(form) if is_derived || start.resource.fits(form, Some(site)) => {}
            Ok(_) => start.refuse(BypassReason::Claimed),
            Err(_) => start.refuse(BypassReason::Unkeyable),
        })
    }

    /// One argument, hashed.
    #[inline]
    pub fn arg<T: KeyPart + ?Sized>(&mut self, arg: &T) -> &mut Self {
        self.default_op();
        if self.start.key.arg(arg).is_err() {
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
        if self.op.is_none() {
            self.op(self.site.function());
        }
    }

    /// The entry depends on this tag, too.
    pub fn tag(&mut self, tag: impl Display) -> &mut Self {
        self.set(|start| start.extras.push(Extra::Tag(tag.to_string())))
    }

    /// The entry depends on everything of this resource, too.
    pub fn depends(&mut self, resource: &'static str) -> &mut Self {
        let site = self.site;
        self.set(|start| {
            if is_resource(resource) {
                start.extras.push(Extra::Resource(resource.into()));
            } else {
                // Without it the entry would outlive what it is made of.
                start.refuse(BypassReason::Unkeyable);
                site.report(|| {
                    format!("`{resource}` is not a resource name, so {site} can't depend on it and runs without the cache; use lower-case letters, digits, `-` and `_`")
                });
            }
        })
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
        self.set(|start| start.codec = codec)
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
        let ttl = ttl.into_ttl();
        self.set(|start| start.ttl.value = ttl)
    }

    /// For how long an absence is served.
    #[inline]
    pub fn none_ttl(&mut self, ttl: impl IntoTtl) -> &mut Self {
        let ttl = ttl.into_ttl();
        self.set(|start| start.ttl.absence = ttl)
    }

    /// Whether absences are stored at all.
    #[inline]
    pub fn cache_none(&mut self, cache_none: bool) -> &mut Self {
        self.set(|start| start.ttl.never_absence = !cache_none)
    }

    /// For how long past its time an entry is served while a new one is loaded in the background.
    #[inline]
    pub fn swr(&mut self, time: impl IntoTtl) -> &mut Self {
        let time = bounded(time);
        self.set(|start| start.grace.swr = time.unwrap_or(start.usual.swr))
    }

    /// For how long past its time an entry is served in place of an error.
    #[inline]
    pub fn stale_if_error(&mut self, time: impl IntoTtl) -> &mut Self {
        let time = bounded(time);
        self.set(|start| {
            start.grace.stale_if_error = time.unwrap_or(start.usual.stale_if_error);
        })
    }

    /// After how long an entry past its time is served in place of a load that goes on.
    #[inline]
    pub fn timeout(&mut self, time: impl IntoTtl) -> &mut Self {
        let time = time.into_ttl();
        self.set(|start| start.grace.timeout = time.or(start.usual.timeout))
    }

    /// How eagerly an entry is loaded again before its time is over.
    #[inline]
    pub fn early(&mut self, beta: f64) -> &mut Self {
        self.set(|start| start.grace.early = beta)
    }

    /// By which part of it a time to live is shortened at most, at random.
    #[inline]
    pub fn jitter(&mut self, part: f64) -> &mut Self {
        self.set(|start| start.grace.jitter = part)
    }

    /// Whether the store is asked whatever lies in the process.
    #[inline]
    pub fn strict(&mut self) -> &mut Self {
        self.set(|start| start.copies.strict = true)
    }

    /// Whether copies are kept in the process at all.
    #[inline]
    pub fn local(&mut self, kept: bool) -> &mut Self {
        self.set(|start| start.copies.kept = kept)
    }

    /// For how long a copy in the process is served.
    #[inline]
    pub fn local_ttl(&mut self, ttl: impl IntoTtl) -> &mut Self {
        let ttl = bounded(ttl).unwrap_or(MAX_TTL);
        self.set(|start| start.copies.ttl = ttl)
    }

    /// The version of the value's type; entries of another one are misses.
    #[inline]
    pub fn version(&mut self, version: u32) -> &mut Self {
        self.set(|start| start.version = version)
    }

    /// One call for each id, with the keys of entities. The claim on these is that of the function that reads one row.
    pub(super) fn finish_each<K: KeyPart>(self, cache: &Handle, ids: &[K]) -> Vec<Call> {
        self.start.register(cache);
        let start = self.start;
        let resource = start.resource.to_arc();
        let deps = all_deps(cache, &resource, EntryKind::Entity, &start.extras);
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
                    key: key.take(),
                    kind: EntryKind::Entity,
                    deps: Arc::clone(&deps),
                },
                problem: start.problem.or(problem),
                ttl: start.ttl,
                grace: start.grace,
                copies: start.copies,
                context: None,
                extras: start.extras.clone(),
                codec: start.codec,
                version: start.version,
            }
        });
        calls.collect()
    }

    pub(super) fn finish(mut self, cache: &Engine) -> Box<Start> {
        if !self.has_id {
            self.default_op();
        }
        let start = &mut *self.start;
        start.kind = if self.op.is_none() && self.has_id {
            EntryKind::Entity
        } else {
            EntryKind::Derived
        };
        if !self.has_id {
            start.key.end_hashed(&cache.space);
        }
        let is_granted =
            self.site
                .claims(cache.id, self.name, &start.resource, self.op, self.shared);
        if !is_granted {
            start.refuse(BypassReason::Claimed);
        }
        self.start
    }
}

fn bounded(time: impl IntoTtl) -> Option<Duration> {
    time.into_ttl().map(|time| time.min(MAX_TTL))
}
