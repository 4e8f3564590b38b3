//! A call before anybody is asked: its key, and whether a copy in the process answers it.
//!
//! What is not needed for a hit is not done: the resource and its dependencies, which all calls of a function share, are
//! not counted, and the key's text is written into memory that the thread keeps.

use std::any::{Any, TypeId};
use std::sync::Arc;
use std::time::Duration;

use super::reader::Hit;
use super::{Call, Extra, LoadContext, all_deps};
use crate::engine::Handle;
use crate::entry::{CodecId, Content};
use crate::error::{Error, ErrorKind};
use crate::key::{self, EntryKind, Key};
use crate::local::{Asked, Copy, Mark};
use crate::observe::{self, BypassReason, Outcome, Status};
use crate::policy::{Grace, MAX_TTL, TtlRequest};
use crate::registry::{Res, Resource};
use crate::returns::{Cacheable, Returns};
use crate::scope::{self, Mode};
use crate::store::Probe;
use crate::transaction;

/// How many times the usual wait XFetch may make of the time that a load took, all but once in a thousand times.
const EARLIEST: f64 = 7.0;

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
    pub(super) cache: Handle,
    pub(super) resource: Res,
    pub(super) key: String,
    pub(super) kind: EntryKind,
    pub(super) problem: Option<BypassReason>,
    pub(super) ttl: TtlRequest,
    pub(super) grace: Grace,
    pub(super) copies: Copies,
    pub(super) context: Option<LoadContext>,
    pub(super) extras: Vec<Extra>,
    pub(super) codec: CodecId,
    pub(super) version: u32,
}

impl Start {
    fn into_call(self) -> Call {
        let deps = all_deps(&self.cache, &self.resource, self.kind, &self.extras);
        Call {
            resource: self.resource.into_arc(),
            probe: Probe {
                key: self.key,
                kind: self.kind,
                deps,
            },
            cache: self.cache,
            problem: self.problem,
            ttl: self.ttl,
            grace: self.grace,
            copies: self.copies,
            context: self.context,
            extras: self.extras,
            codec: self.codec,
            version: self.version,
        }
    }
}

/// A call that has begun.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "both are about as large, and the one in a box would be the one of every hit"
)]
pub(super) enum Begun {
    Start(Start),
    Call(Call),
}

impl Begun {
    pub(super) fn into_call(self) -> Call {
        match self {
            Self::Start(start) => start.into_call(),
            Self::Call(call) => call,
        }
    }

    pub(super) fn set_context(&mut self, context: &LoadContext) {
        let place = match self {
            Self::Start(start) => &mut start.context,
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

    fn asking(&self) -> Asking<'_> {
        match self {
            Self::Start(start) => Asking {
                cache: &start.cache,
                resource: &start.resource,
                key: &start.key,
                kind: start.kind,
                problem: start.problem,
                copies: start.copies,
                extras: &start.extras,
                version: start.version,
            },
            Self::Call(call) => call.asking(),
        }
    }

    /// The copy in the process, if there is one that may be served.
    pub(super) fn find<R: Returns<S>, S>(&mut self) -> Option<R> {
        let asking = self.asking();
        let (value, ttl) = asking.find::<R::Value>()?;
        let returned = match value {
            Some(value) => R::from_value(value),
            None => R::from_absence()?,
        };
        asking.answered(ttl);
        if let Self::Start(start) = self {
            // Nobody asks for it any more.
            key::reuse(std::mem::take(&mut start.key));
        }
        Some(returned)
    }
}

/// What there is to say of a call to those who look for a copy.
struct Asking<'a> {
    cache: &'a Handle,
    resource: &'a Resource,
    key: &'a str,
    kind: EntryKind,
    problem: Option<BypassReason>,
    copies: Copies,
    extras: &'a [Extra],
    version: u32,
}

impl Asking<'_> {
    /// A value or the knowledge that there is none, and for how long it is fresh.
    fn find<V: Cacheable>(&self) -> Option<(Option<Arc<V>>, Duration)> {
        let local = self.cache.local.as_ref()?;
        let is_exact = self.copies.strict
            || !self.copies.kept
            || self.problem.is_some()
            // What waits to be delivered may concern it; who asks the store looks closer.
            || self.cache.delivery.is_distressed()
            || scope::mode() != Mode::Usual
            || scope::is_strict()
            || transaction::is_open(self.cache);
        if is_exact {
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

    fn answered(&self, ttl: Duration) {
        observe::record(|| Outcome {
            key: self.key.to_owned(),
            resource: self.resource.name.to_string(),
            store: "local",
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
        let took = Duration::from_millis(hit.header.took.into());
        let early = took.mul_f64((self.grace.early * EARLIEST).clamp(0.0, 1e6));
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
