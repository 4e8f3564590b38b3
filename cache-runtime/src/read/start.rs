//! A call before anybody is asked: its key, and whether a copy in the process answers it.
//!
//! What is not needed for a hit is not done: the resource and its dependencies, which all calls of a function share, are
//! not counted, and the call with its key's text is written into memory that the thread keeps.

use std::any::{Any, TypeId};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use super::reader::Hit;
use super::{Call, Extra, LoadContext, ReadPlan, all_deps};
use crate::engine::{Engine, Handle};
use crate::entry::{CodecId, Content, Fingerprint};
use crate::error::{Error, ErrorKind};
use crate::key::{EntryKind, Key, KeyWriter};
use crate::local::{Asked, Copy, Mark};
use crate::observe::{self, BypassReason, Outcome, Status};
use crate::policy::{Grace, MAX_TTL, TtlRequest};
use crate::registry::{Res, Resource, Site};
use crate::returns::{Cacheable, Returns};
use crate::scope::{self, Mode};
use crate::store::Probe;
use crate::transaction;

/// What a function has to do with copies in the process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Copies {
    /// Whether the store is asked whatever there is here.
    pub(crate) strict: bool,
    /// Whether what it loads is kept here.
    pub(crate) kept: bool,
    /// For how long, at most.
    pub(crate) ttl: Duration,
}

impl Default for Copies {
    fn default() -> Self {
        Self {
            strict: false,
            kept: true,
            ttl: MAX_TTL,
        }
    }
}

/// A call of an annotated function with its key.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) resource: Res,
    pub(super) key: KeyWriter,
    pub(super) kind: EntryKind,
    pub(super) problem: Option<BypassReason>,
    pub(super) ttl: TtlRequest,
    pub(super) grace: Grace,
    /// As it is configured.
    pub(super) usual: Grace,
    pub(super) copies: Copies,
    pub(super) context: Option<LoadContext>,
    pub(super) extras: Vec<Extra>,
    pub(super) codec: CodecId,
    pub(super) version: u32,
}

thread_local! {
    /// Memory for the next call: most are over before they ask the store, and leave it.
    static SPARE: Cell<Option<Box<Start>>> = const { Cell::new(None) };
}

impl Start {
    /// It is filled in where it lies, on the heap, in memory that the thread keeps: on a hit, moving things about would be
    /// most of what there is to do.
    pub(super) fn begin(cache: &Engine, resource: Res) -> Box<Self> {
        let mut start = match SPARE.try_with(Cell::take) {
            Ok(Some(mut spare)) => {
                let key = std::mem::take(&mut spare.key);
                *spare = Self::new(resource, key, cache.config.grace);
                spare
            }
            _ => Box::new(Self::new(
                resource,
                KeyWriter::default(),
                cache.config.grace,
            )),
        };
        start.key.begin(&cache.space, &start.resource.name);
        start
    }

    fn new(resource: Res, key: KeyWriter, usual: Grace) -> Self {
        Self {
            resource,
            key,
            kind: EntryKind::Derived,
            problem: None,
            ttl: TtlRequest::default(),
            grace: Grace {
                // They need a body that outlives its caller, which only the attribute can make.
                swr: Duration::ZERO,
                timeout: None,
                ..usual
            },
            usual,
            copies: Copies::default(),
            context: None,
            extras: Vec::new(),
            codec: CodecId::default(),
            version: 0,
        }
    }

    /// Its memory is for the next.
    #[inline]
    fn leave(self: Box<Self>) {
        if self.key.is_small() {
            // While the thread ends there is no place for it.
            let _ = SPARE.try_with(|spare| spare.set(Some(self)));
        }
    }

    /// The first problem counts.
    pub(super) fn refuse(&mut self, problem: BypassReason) {
        self.problem.get_or_insert(problem);
    }

    /// What it depends on beside its own resource is known from now on: a function names it.
    pub(super) fn register(&self, cache: &Engine) {
        for extra in &self.extras {
            if let Extra::Resource(name) = extra {
                cache.resource(name);
            }
        }
    }

    fn into_call(mut self: Box<Self>, cache: Handle) -> Call {
        self.register(&cache);
        let deps = all_deps(&cache, &self.resource, self.kind, &self.extras);
        let call = Call {
            resource: self.resource.to_arc(),
            probe: Probe {
                key: self.key.take(),
                kind: self.kind,
                deps,
            },
            cache,
            problem: self.problem,
            ttl: self.ttl,
            grace: self.grace,
            copies: self.copies,
            context: self.context.take(),
            extras: std::mem::take(&mut self.extras),
            codec: self.codec,
            version: self.version,
        };
        self.leave();
        call
    }
}

/// A call that has begun.
#[derive(Debug)]
pub(super) enum Begun {
    Start(Handle, Box<Start>),
    Call(Box<Call>),
}

impl Begun {
    /// A call of an annotated function; `None` if the resource's name is none.
    #[inline(never)]
    pub(super) fn planned(
        cache: Handle,
        site: &'static Site,
        resource: &'static str,
        plan: impl FnOnce(&mut ReadPlan) -> &mut ReadPlan,
    ) -> Option<Self> {
        let mut planned = ReadPlan::new(&cache, site, resource)?;
        plan(&mut planned);
        let start = planned.finish(&cache);
        Some(Self::Start(cache, start))
    }

    /// For those who ask the store.
    pub(super) fn into_call(self) -> Arc<Call> {
        match self {
            Self::Start(cache, start) => Arc::new(start.into_call(cache)),
            Self::Call(call) => Arc::from(call),
        }
    }

    pub(super) fn set_context(&mut self, context: &LoadContext) {
        let place = match self {
            Self::Start(_, start) => &mut start.context,
            Self::Call(call) => &mut call.context,
        };
        *place = Some(context.clone());
    }

    /// The key as it is used by hand.
    pub(super) fn key(&self) -> Result<Key, Error> {
        let asking = self.asking();
        match asking.problem {
            Some(problem @ (BypassReason::Unkeyable | BypassReason::Claimed)) => {
                let text = format!("this call has no key of its own ({})", problem.as_str());
                Err(Error::new(ErrorKind::InvalidKey, text))
            }
            _ => Ok(asking.key()),
        }
    }

    #[inline]
    fn asking(&self) -> Asking<'_> {
        match self {
            Self::Start(cache, start) => Asking {
                cache,
                resource: &start.resource,
                key: start.key.text(),
                kind: start.kind,
                problem: start.problem,
                grace: &start.grace,
                copies: start.copies,
                extras: &start.extras,
                version: start.version,
            },
            Self::Call(call) => call.asking(),
        }
    }

    /// The fingerprint of the call's values.
    fn fingerprint<V: 'static>(&self) -> Fingerprint {
        match self {
            Self::Start(_, start) => start.resource.fingerprint::<V>(start.version),
            Self::Call(call) => call.fingerprint::<V>(),
        }
    }

    /// What can be said without asking anybody outside the process, or the call if that is nothing.
    #[inline]
    pub(super) fn find<R: Returns<S>, S>(self) -> Result<R, Self> {
        let asking = self.asking();
        let found = match asking.cache.local {
            Some(_) => asking.answer(),
            None => asking.glance(|| self.fingerprint::<R::Value>()),
        };
        let Some(returned) = found else {
            return Err(self);
        };
        if let Self::Start(_, start) = self {
            start.leave();
        }
        Ok(returned)
    }
}

/// What there is to say of a call to those who look for a copy.
struct Asking<'a> {
    cache: &'a Engine,
    resource: &'a Resource,
    key: &'a str,
    kind: EntryKind,
    problem: Option<BypassReason>,
    grace: &'a Grace,
    copies: Copies,
    extras: &'a [Extra],
    version: u32,
}

impl Asking<'_> {
    /// Whether the store has to be asked whatever there is in the process.
    #[inline]
    fn is_exact(&self) -> bool {
        self.problem.is_some()
            // What waits to be delivered may concern it; who asks the store looks closer.
            || self.cache.delivery.is_distressed()
            || scope::mode() != Mode::Usual
            || transaction::is_open(self.cache)
    }

    /// What the store has to say if it need not be waited for.
    #[inline]
    fn glance<R: Returns<S>, S>(&self, fingerprint: impl FnOnce() -> Fingerprint) -> Option<R> {
        if self.is_exact() {
            return None;
        }
        let store = &self.cache.store;
        let look = if self.extras.is_empty() {
            store.glance(self.key, self.resource.deps(self.kind))?
        } else {
            let deps = all_deps(self.cache, self.resource, self.kind, self.extras);
            store.glance(self.key, &deps)?
        };
        let hit = Hit::of(look, fingerprint())?;
        // In its last time one caller in many loads anew, and that is decided where the store is asked.
        if hit.ttl <= self.grace.last_time(hit.header.took()) {
            return None;
        }
        let returned = super::restore(hit.content, hit.codec, &hit.payload)?;
        self.resource.counters.hits.add_one();
        self.answered(store.name(), hit.ttl);
        Some(returned)
    }

    /// A value or the knowledge that there is none, and for how long it is fresh.
    #[inline]
    fn find<V: Cacheable>(&self) -> Option<(Option<Arc<V>>, Duration)> {
        let local = self.cache.local.as_ref()?;
        if self.copies.strict || !self.copies.kept || scope::is_strict() || self.is_exact() {
            return None;
        }
        let found = local.find(
            self.key,
            &Asked {
                type_id: TypeId::of::<V>(),
                version: self.version,
                extras: self.extras,
            },
        )?;
        let value = match found.value {
            Some(value) => Some(value.downcast().ok()?),
            None => None,
        };
        local.note(self.resource.counters.local_hits.count(), found.age);
        Some((value, found.ttl))
    }

    /// The return value that a copy stands for.
    #[inline]
    fn answer<R: Returns<S>, S>(&self) -> Option<R> {
        let (value, ttl) = self.find::<R::Value>()?;
        let returned = match value {
            Some(value) => R::from_value(value),
            None => R::from_absence()?,
        };
        self.answered("local", ttl);
        Some(returned)
    }

    #[inline]
    fn answered(&self, store: &'static str, ttl: Duration) {
        observe::record(|| Outcome {
            key: self.key.to_owned(),
            resource: self.resource.name.to_string(),
            store,
            status: Status::Hit { ttl },
        });
    }

    fn key(&self) -> Key {
        let namespace = self.cache.space.namespace.len() + self.resource.name.len() + 1;
        let rest = self.key.get(namespace..).unwrap_or_default();
        let (name, extras) = (&self.resource.name, self.extras.to_vec());
        Key::rendered(name, rest, self.kind, extras, self.version)
    }
}

impl Call {
    fn asking(&self) -> Asking<'_> {
        Asking {
            cache: &self.cache,
            resource: &self.resource,
            key: &self.probe.key,
            kind: self.probe.kind,
            problem: self.problem,
            grace: &self.grace,
            copies: self.copies,
            extras: &self.extras,
            version: self.version,
        }
    }

    /// As [`Begun::find`], for one id of a batch; the outcome is not recorded.
    pub(super) fn find<V: Cacheable>(&self) -> Option<(Option<Arc<V>>, Duration)> {
        self.asking().find()
    }

    /// To be taken before the store is asked, if what it says may be kept here.
    pub(super) fn mark(&self) -> Option<Mark> {
        let local = self.cache.local.as_ref()?;
        let keeps = self.copies.kept && !self.copies.strict && self.problem.is_none();
        keeps.then(|| local.mark(&self.probe)).flatten()
    }

    /// Serves what the store has just said, and keeps a copy of it here.
    pub(super) fn serve_and_keep<R: Returns<S>, S>(
        &self,
        hit: &Hit,
        mark: Option<Mark>,
    ) -> Option<R> {
        let returned = match hit.content {
            Content::Absence => {
                let returned = R::from_absence()?;
                self.keep::<R::Value>(hit, None, mark);
                returned
            }
            Content::Value => {
                let value = super::value_of::<R::Value>(hit.codec, &hit.payload)?;
                self.keep(hit, Some(&value), mark);
                R::from_value(value)
            }
            Content::Nothing => return None,
        };
        self.answered(Status::Hit { ttl: hit.ttl });
        Some(returned)
    }

    /// Keeps a copy of what the store has just said, if it was marked.
    pub(super) fn keep<V: Cacheable>(&self, hit: &Hit, value: Option<&Arc<V>>, mark: Option<Mark>) {
        let (Some(local), Some(mark)) = (&self.cache.local, mark) else {
            return;
        };
        // Who holds a lease is about to replace it.
        if !hit.past.is_zero() || hit.header.is_leased() {
            return;
        }
        // In its last time one caller in many loads anew, and that is decided where the store is asked.
        let early = self.grace.last_time(hit.header.took());
        local.keep(
            mark,
            Copy {
                value: value.map(|value| Arc::clone(value) as Arc<dyn Any + Send + Sync>),
                type_id: TypeId::of::<V>(),
                version: self.version,
                extras: self.extras.as_slice().into(),
                ttl: hit.ttl,
                local_ttl: self.copies.ttl.min(hit.ttl.saturating_sub(early)),
                encoded: hit.payload.len(),
            },
        );
    }
}
