//! A call of an annotated function with its key, in memory that the thread keeps.

use std::any::TypeId;
use std::cell::Cell;
use std::time::Duration;

use siphasher::sip::SipHasher13;

use super::local_options::Copies;
use super::{Call, all_deps};
use crate::base::policy::{Grace, TtlRequest};
use crate::call::observe::BypassReason;
use crate::engine::{Engine, Handle};
use crate::key::{Dependency, EntryKind, KeyError, KeyWriter};
use crate::protocol::codec_id::CodecId;
use crate::protocol::fingerprint::Fingerprint;
use crate::registry::{ResourceRef, Site};
use crate::store::Probe;

/// A call of an annotated function with its key.
#[derive(Debug)]
pub(super) struct PreparedCall {
    pub(super) site: &'static Site,
    pub(super) name: &'static str,
    pub(super) resource: ResourceRef,
    pub(super) key: KeyWriter,
    pub(super) options: ReadOptions,
    pub(super) extras: Vec<Dependency>,
}

/// What a function's attribute says, and what becomes of it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ReadOptions {
    pub(super) op: Option<&'static str>,
    pub(super) has_id: bool,
    pub(super) shared: bool,
    pub(super) problem: Option<BypassReason>,
    pub(super) ttl: TtlRequest,
    pub(super) grace: Grace,
    pub(super) copies: Copies,
    pub(super) codec: CodecId,
    pub(super) version: u32,
    /// A hash of the types that calls of this function are told apart by.
    pub(super) types: u64,
    /// Which instance of the function this is, of those that its type parameters, those of its `impl` and the type of its
    /// `self` make. None for a call by hand.
    pub(super) instance: Option<TypeId>,
}

impl ReadOptions {
    /// Nothing, so it is as configured. It is written where it lies: what is put together elsewhere has to be waited for until
    /// it can be moved.
    #[inline]
    pub(super) fn nothing(&mut self, usual: &Grace) {
        self.op = None;
        self.has_id = false;
        self.shared = false;
        self.problem = None;
        self.ttl = TtlRequest::default();
        // These two need a body that outlives its caller, which only the attribute can make.
        self.grace.swr = Duration::ZERO;
        self.grace.timeout = None;
        self.grace.stale_if_error = usual.stale_if_error;
        self.grace.early = usual.early;
        self.grace.jitter = usual.jitter;
        self.copies = Copies::default();
        self.codec = CodecId::default();
        self.version = 0;
        self.types = 0;
        self.instance = None;
    }

    #[inline]
    pub(super) fn kind(&self) -> EntryKind {
        match self.has_id && self.op.is_none() {
            true => EntryKind::Entity,
            false => EntryKind::Derived,
        }
    }
}

/// The same in all processes of one build.
#[cold]
fn version_of(instance: TypeId) -> u32 {
    let mut hasher = SipHasher13::new();
    std::hash::Hash::hash(&instance, &mut hasher);
    // 0 would be none.
    (std::hash::Hasher::finish(&hasher) as u32).max(1)
}

thread_local! {
    /// Memory for the next call: most are over before they ask the store, and leave it.
    static SPARE: Cell<Option<Box<PreparedCall>>> = const { Cell::new(None) };
}

impl PreparedCall {
    /// It is filled in where it lies, on the heap, in memory that the thread keeps: on a hit, moving things about would be
    /// most of what there is to do.
    #[inline]
    pub(super) fn begin(
        site: &'static Site,
        name: &'static str,
        resource: ResourceRef,
    ) -> Box<Self> {
        let mut start = match SPARE.try_with(Cell::take) {
            Ok(Some(mut spare)) => {
                spare.site = site;
                spare.name = name;
                spare.resource = resource;
                spare
            }
            // While the thread ends there is none, either.
            _ => Box::new(Self {
                site,
                name,
                resource,
                key: KeyWriter::default(),
                options: ReadOptions::default(),
                extras: Vec::new(),
            }),
        };
        start.options.nothing(&start.resource.grace);
        start.key.begin(&start.resource.prefix);
        start
    }

    /// The fingerprint of its values.
    #[inline]
    pub(super) fn fingerprint(&self, type_id: TypeId, of: fn(u32) -> Fingerprint) -> Fingerprint {
        self.resource.fingerprint(type_id, self.options.version, of)
    }

    /// Its memory is for the next.
    #[inline]
    pub(super) fn leave(mut self: Box<Self>) {
        self.extras.clear();
        if self.key.is_small() {
            // While the thread ends there is no place for it.
            let _ = SPARE.try_with(|spare| spare.set(Some(self)));
        }
    }

    /// Of the instances of a function that nothing tells apart, the first has the entries as they are; those of each other
    /// one are told apart by their fingerprint, whose version this is.
    #[inline]
    pub(super) fn check_instance(&mut self) {
        if let Some(instance) = self.options.instance
            && !self.options.shared
            && !self.resource.is_of(self.site, self.options.types, instance)
        {
            self.options.version ^= version_of(instance);
        }
    }

    /// The first problem counts.
    pub(super) fn refuse(&mut self, problem: BypassReason) {
        self.options.problem.get_or_insert(problem);
    }

    /// An argument can't be in a key; one that is too long is said once, since the type does not tell.
    #[cold]
    pub(super) fn refuse_key(&mut self, error: &KeyError) {
        if error.is_too_long() {
            let site = self.site;
            site.report(|| format!("a call of {site} runs without the cache: {error}"));
        }
        self.refuse(BypassReason::Unkeyable);
    }

    /// What it depends on beside its own resource is known from now on: a function names it.
    pub(super) fn register(&self, cache: &Engine) {
        for extra in &self.extras {
            if let Dependency::Resource(name) = extra {
                cache.resource(name);
            }
        }
    }

    pub(super) fn into_call(mut self: Box<Self>, cache: Handle) -> Call {
        self.register(&cache);
        let options = self.options;
        let deps = all_deps(&cache, &self.resource, options.kind(), &self.extras);
        let call = Call {
            resource: self.resource.clone(),
            probe: Probe {
                key: self.key.take(),
                kind: options.kind(),
                deps,
            },
            cache,
            problem: options.problem,
            ttl: options.ttl,
            grace: options.grace,
            copies: options.copies,
            context: None,
            extras: std::mem::take(&mut self.extras),
            codec: options.codec,
            version: options.version,
            site: Some(self.site),
        };
        self.leave();
        call
    }
}
