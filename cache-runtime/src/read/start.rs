//! A call before anybody is asked: its key, and whether a copy in the process answers it.
//!
//! What is not needed for a hit is not done: the resource and its dependencies, which all calls of a function share, are
//! not counted, and the key's text is written into memory that the thread keeps.

use std::any::{Any, TypeId};
use std::cell::Cell;
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
    /// The first problem counts.
    pub(super) fn refuse(&mut self, problem: BypassReason) {
        self.problem.get_or_insert(problem);
    }

    pub(super) fn into_call(self) -> Call {
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

/// A call that has begun. It is moved often before it is known whether there is a copy, so it lies on the heap, in memory
/// that the thread keeps.
#[derive(Debug)]
pub(super) struct Begun(Box<Stage>);

#[derive(Debug, Default)]
enum Stage {
    Start(Start),
    Call(Call),
    #[default]
    Over,
}

thread_local! {
    /// Memory for the next call.
    static SPARE: Cell<Option<Box<Stage>>> = const { Cell::new(None) };
}

fn spare(memory: Box<Stage>) {
    // While the thread ends there is no place for it.
    let _ = SPARE.try_with(|spare| spare.set(Some(memory)));
}

impl Begun {
    pub(super) fn start(start: Start) -> Self {
        Self::at(Stage::Start(start))
    }

    /// What its plan is to fill in.
    #[inline]
    pub(super) fn planned(&mut self) -> Option<&mut Start> {
        match &mut *self.0 {
            Stage::Start(start) => Some(start),
            Stage::Call(_) | Stage::Over => None,
        }
    }

    /// The same, planned.
    pub(super) fn into_start(self) -> Option<Start> {
        match self.end() {
            Stage::Start(start) => Some(start),
            Stage::Call(_) | Stage::Over => None,
        }
    }

    pub(super) fn call(call: Call) -> Self {
        Self::at(Stage::Call(call))
    }

    fn at(stage: Stage) -> Self {
        match SPARE.try_with(Cell::take) {
            Ok(Some(mut spare)) => {
                *spare = stage;
                Self(spare)
            }
            _ => Self(Box::new(stage)),
        }
    }

    /// What it was, and its memory for the next.
    fn end(mut self) -> Stage {
        let stage = std::mem::take(&mut *self.0);
        spare(self.0);
        stage
    }

    /// For those who ask the store.
    pub(super) fn into_call(self) -> Option<Call> {
        match self.end() {
            Stage::Start(start) => Some(start.into_call()),
            Stage::Call(call) => Some(call),
            Stage::Over => None,
        }
    }

    pub(super) fn set_context(&mut self, context: &LoadContext) {
        let place = match &mut *self.0 {
            Stage::Start(start) => &mut start.context,
            Stage::Call(call) => &mut call.context,
            Stage::Over => return,
        };
        *place = Some(context.clone());
    }

    /// The key as it is used by hand.
    pub(super) fn key(&self) -> Option<Result<Key, Error>> {
        let asking = self.asking()?;
        Some(match asking.problem {
            Some(problem @ (BypassReason::Unkeyable | BypassReason::Claimed)) => {
                let text = format!("this call has no key of its own ({})", problem.as_str());
                Err(Error::new(ErrorKind::InvalidKey, text))
            }
            _ => Ok(asking.key()),
        })
    }

    fn asking(&self) -> Option<Asking<'_>> {
        match &*self.0 {
            Stage::Start(start) => Some(Asking {
                cache: &start.cache,
                resource: &start.resource,
                key: &start.key,
                kind: start.kind,
                problem: start.problem,
                copies: start.copies,
                extras: &start.extras,
                version: start.version,
            }),
            Stage::Call(call) => Some(call.asking()),
            Stage::Over => None,
        }
    }

    /// The copy in the process, or the call if there is none that may be served.
    pub(super) fn find<R: Returns<S>, S>(mut self) -> Result<R, Self> {
        let Some(returned) = self.asking().and_then(|asking| asking.answer()) else {
            return Err(self);
        };
        if let Stage::Start(start) = &mut *self.0 {
            // Nobody asks for it any more.
            key::reuse(std::mem::take(&mut start.key));
        }
        // In its place: what is over is not moved once more.
        *self.0 = Stage::Over;
        spare(self.0);
        Ok(returned)
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

    /// The return value that a copy stands for.
    fn answer<R: Returns<S>, S>(&self) -> Option<R> {
        let (value, ttl) = self.find::<R::Value>()?;
        let returned = match value {
            Some(value) => R::from_value(value),
            None => R::from_absence()?,
        };
        self.answered(ttl);
        Some(returned)
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
