//! A call before the store is asked: its key, and the answer from the process, if there is one.
//!
//! A hit does only what it needs. It does not count references to the resource and its
//! dependencies, which all calls of a function share, and it writes the call and its key into
//! memory that the thread keeps.

use std::any::{Any, TypeId};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use super::audited::Audited;
use super::hit::Hit;
use super::known::extended;
use super::local_options::LocalOptions;
use super::prepared::PreparedCall;
use super::{Call, ReadPlan, all_deps, timing};
use crate::auditor::Draw;
use crate::base::clock::{self, Millis};
use crate::base::error::{Error, ErrorKind};
use crate::base::mutation;
use crate::base::policy::StalePolicy;
use crate::call::log::{self, Asker};
use crate::call::memo::{self, Recalled};
use crate::call::observe::{self, BypassReason, Outcome, Status};
use crate::call::returns::Returns;
use crate::call::scope::{self, Mode};
use crate::call::{enclosing, transaction};
use crate::engine::{Engine, EngineRef};
use crate::key::{Dependency, EntryKind, Key};
use crate::local::{AnyValue, ClockReading, Expected, Local, NewLocalEntry, ReadToken};
use crate::protocol::cacheable::Cacheable;
use crate::protocol::codec;
use crate::protocol::entry::{Content, Header};
use crate::protocol::fingerprint::Fingerprint;
use crate::protocol::generation::Dep;
use crate::registry::{Instance, ResourceRef, Site};
use crate::store::Payload;

/// A call with its key.
#[derive(Debug)]
pub(super) enum KeyedCall<'a> {
    PreparedCall(EngineRef<'a>, Box<PreparedCall>),
    Call(Arc<Call>),
}

impl PreparedCall {
    /// Prepares a call of an annotated function. Returns `None` if the resource's name is invalid.
    #[inline(always)]
    pub(super) fn planned<P: FnOnce(&mut ReadPlan) -> &mut ReadPlan>(
        cache: &Engine,
        site: &'static Site,
        resource: &'static str,
        plan: P,
    ) -> Option<Box<Self>> {
        let mut planned = ReadPlan::new(cache, site, resource)?;
        planned.instance(Instance::of_closure::<P>());
        let held_back = scope::hold_key_back();
        plan(&mut planned);
        drop(held_back);
        Some(planned.finish())
    }

    pub(super) fn lookup<'c>(&'c self, cache: &'c Engine) -> LocalLookup<'c> {
        let options = &self.options;
        LocalLookup {
            cache,
            resource: &self.resource,
            key: self.key.text(),
            kind: options.kind(),
            op: options.op,
            deps: None,
            problem: options.problem,
            stale_policy: &options.stale_policy,
            local_options: &options.local_options,
            extras: &self.extras,
            version: options.version,
        }
    }
}

impl KeyedCall<'_> {
    /// Writes the text of the key, which all other ways to answer need.
    pub(super) fn write_key(&mut self) {
        if let Self::PreparedCall(cache, start) = self {
            start.write_key(cache);
        }
    }

    /// Notes that there was an entry in the process.
    pub(super) fn note_found<V: Cacheable>(&mut self) {
        if let Self::PreparedCall(cache, start) = self {
            start.note_found(cache, TypeId::of::<V>(), Fingerprint::of::<V>);
        }
    }

    /// Checks that the function may use its key.
    #[inline]
    pub(super) fn check(&mut self) {
        if let Self::PreparedCall(cache, start) = self {
            start.check(cache);
        }
    }

    /// Whether a hit of this call is to be audited. Asked once per call.
    #[inline]
    pub(super) fn draw(&self) -> Option<Draw> {
        match self {
            Self::PreparedCall(cache, start) if start.options.audit != 0 => {
                // An entry that is kept here only can't be looked at again in the store.
                let is_here_only = start.options.local_options.in_process && cache.local.is_some();
                match is_here_only {
                    true => None,
                    false => draw(cache, start.options.audit, start.key.text()),
                }
            }
            Self::PreparedCall(..) | Self::Call(_) => None,
        }
    }

    /// For a hit that is audited: the body runs, and is compared with this hit.
    pub(super) fn into_audited(self, audited: Audited) -> Arc<Call> {
        match self {
            Self::PreparedCall(cache, start) => {
                let mut call = start.into_call(cache.handle());
                call.audited = Some(Box::new(audited));
                Arc::new(call)
            }
            Self::Call(call) => call,
        }
    }

    /// Returns the call in the form that asks the store.
    pub(super) fn into_call(self) -> Arc<Call> {
        match self {
            Self::PreparedCall(cache, start) => Arc::new(start.into_call(cache.handle())),
            Self::Call(call) => call,
        }
    }

    /// Returns the key for manual operations.
    pub(super) fn key(&self) -> Result<Key, Error> {
        let lookup = self.lookup();
        match lookup.problem {
            Some(problem @ (BypassReason::Unkeyable | BypassReason::Claimed)) => {
                let text = format!("this call has no key of its own ({})", problem.as_str());
                Err(Error::new(ErrorKind::InvalidKey, text))
            }
            _ => Ok(lookup.key()),
        }
    }

    #[inline]
    fn lookup(&self) -> LocalLookup<'_> {
        match self {
            Self::PreparedCall(cache, start) => start.lookup(cache),
            Self::Call(call) => call.lookup(),
        }
    }

    /// The result that the request around the call remembers; counted and recorded.
    #[inline]
    pub(super) fn recall<R: Returns<S>, S>(&mut self) -> Option<R> {
        let Self::PreparedCall(cache, start) = self else {
            return None;
        };
        let options = &start.options;
        let recalled = memo::recall(options.memo, || {
            let key = start.key.text().to_owned();
            (cache.id, key, TypeId::of::<R::Value>(), options.version)
        });
        if matches!(recalled, Recalled::Nothing) {
            return None;
        }
        self.recalled(recalled)
    }

    #[cold]
    fn recalled<R: Returns<S>, S>(&mut self, recalled: Recalled) -> Option<R> {
        let Self::PreparedCall(cache, start) = self else {
            return None;
        };
        let options = &start.options;
        // Inside a body only Redis may answer: its result may be stored for others, and a write
        // sees its own changes. Data that is read in an open transaction may never be committed.
        // What is `strict` is asked for each time.
        let is_remembered = options.problem.is_none()
            && (!options.local_options.strict || mutation::is_active("strict-from-the-memo"))
            && scope::mode() != Mode::Bypass
            && !enclosing::is_inside()
            && !transaction::is_open(cache);
        let is_usual = is_remembered && scope::mode() == Mode::Usual && !scope::is_strict();
        match recalled {
            Recalled::Answer(answer, _) if is_usual => {
                let value = match answer {
                    Some(value) => value.downcast().ok().map(R::from_value)?,
                    None => R::from_absence()?,
                };
                let lookup = self.lookup();
                match lookup.resource.function() {
                    Some(function) => function.recalled.add_one(),
                    None => lookup.resource.counters.hits.add_one(),
                }
                lookup.record("request", Duration::MAX);
                Some(value)
            }
            // A caller that asks anew gets a newer result, which replaces what is remembered: a
            // request never goes back in time.
            Recalled::Slot(slot) | Recalled::Answer(_, slot) if is_remembered => {
                start.recalled = Recalled::Slot(slot);
                None
            }
            _ => None,
        }
    }

    /// Tells the request around the call the local answer.
    #[inline]
    pub(super) fn remember<R: Returns<S>, S>(&self, returned: &R) {
        if let Self::PreparedCall(_, start) = self
            && let Recalled::Slot(slot) = &start.recalled
        {
            slot.remember_returned(returned);
        }
    }

    /// Returns the answer, if it is available without I/O.
    #[inline]
    pub(super) fn find<R: Returns<S>, S>(&self) -> Option<R> {
        let wanted = ExpectedValue {
            type_id: TypeId::of::<R::Value>(),
            fingerprint: Fingerprint::of::<R::Value>,
            absence: R::from_absence().is_some(),
        };
        match self.answer(&wanted)? {
            Some(value) => value.downcast().ok().map(R::from_value),
            None => R::from_absence(),
        }
    }

    /// Leaves the memory for the next call.
    #[inline]
    pub(super) fn leave(self) {
        if let Self::PreparedCall(_, start) = self {
            start.leave();
        }
    }

    #[inline]
    fn answer(&self, wanted: &ExpectedValue) -> Option<Option<AnyValue>> {
        match timing::is_drawn() {
            false => self.answer_now(wanted),
            true => self.answer_timed(wanted),
        }
    }

    #[cold]
    fn answer_timed(&self, wanted: &ExpectedValue) -> Option<Option<AnyValue>> {
        let (answer, nanos) = clock::timed(|| self.answer_now(wanted));
        if answer.is_some()
            && let Some(function) = self.lookup().resource.function()
        {
            function.local_lookup.record(nanos);
        }
        answer
    }

    /// Does not depend on the return type, so it is compiled once.
    fn answer_now(&self, wanted: &ExpectedValue) -> Option<Option<AnyValue>> {
        let lookup = self.lookup();
        match &lookup.cache.local {
            Some(local) => lookup.local_entry(local, wanted),
            None => lookup.glance(wanted, || match self {
                Self::PreparedCall(_, start) => {
                    start.fingerprint(wanted.type_id, wanted.fingerprint)
                }
                Self::Call(call) => (wanted.fingerprint)(call.version),
            }),
        }
    }
}

/// Not inside a transaction, whose rows nobody else sees. Inside another body the time would be
/// that body's.
#[cold]
pub(super) fn draw(cache: &Engine, part: u32, key: &str) -> Option<Draw> {
    let is_alone = !transaction::is_open(cache) && !enclosing::is_inside();
    if !is_alone || scope::mode() != Mode::Usual {
        return None;
    }
    let draw = cache.auditor.draw(part, key)?;
    cache.telemetry.note_invalidations();
    Some(draw)
}

/// What a call can return.
struct ExpectedValue {
    type_id: TypeId,
    fingerprint: fn(u32) -> Fingerprint,
    /// Whether the call can return an absence.
    absence: bool,
}

impl ExpectedValue {
    /// Returns true if the call can return this value.
    #[inline]
    fn is(&self, value: Option<&AnyValue>) -> bool {
        value.map_or(self.absence, |value| (**value).type_id() == self.type_id)
    }
}

/// The parts of a call that a lookup in the process needs.
pub(super) struct LocalLookup<'a> {
    cache: &'a Engine,
    resource: &'a ResourceRef,
    key: &'a str,
    kind: EntryKind,
    op: Option<&'static str>,
    /// All dependencies, if the list was built already.
    deps: Option<&'a Arc<[Arc<Dep>]>>,
    problem: Option<BypassReason>,
    stale_policy: &'a StalePolicy,
    local_options: &'a LocalOptions,
    extras: &'a [Dependency],
    version: u32,
}

impl LocalLookup<'_> {
    /// Returns true if the store must be asked, whatever the process holds.
    #[inline]
    fn is_exact(&self) -> bool {
        self.problem.is_some()
            || behind(self.cache, self.local_options).is_some()
            // A pending invalidation may concern this entry. The lookup in the store checks that in
            // detail.
            || self.cache.invalidations.is_degraded()
            || scope::mode() != Mode::Usual
            || transaction::is_open(self.cache)
    }

    /// Answers from a store in memory, if that needs no waiting. Counts and records the hit.
    #[inline]
    fn glance(
        &self,
        wanted: &ExpectedValue,
        fingerprint: impl FnOnce() -> Fingerprint,
    ) -> Option<Option<AnyValue>> {
        if self.is_exact() || enclosing::is_inside() {
            return None;
        }
        let fingerprint = fingerprint();
        let (seen, found) = (Cell::new(None), Cell::new(None));
        let see = |header: &Header, payload: &Payload, now| {
            if let Some(shown) = shown(header, payload, now, self.stale_policy)
                && header.fingerprint == fingerprint
                && wanted.is(shown.value)
            {
                seen.set(Some(shown.fresh));
                found.set(shown.value.cloned());
            }
        };
        let store = &self.cache.store;
        self.with_deps(|deps| store.glance(self.key, deps, &see));
        let ttl = seen.get()?;
        self.resource.hits().add_one();
        self.record(store.name(), ttl);
        Some(found.take())
    }

    /// Calls `use_them` with the dependencies of the entry, as far as they are known.
    #[inline]
    pub(super) fn with_deps<T>(&self, use_them: impl FnOnce(&[Arc<Dep>]) -> T) -> T {
        if let Some(deps) = self.deps {
            return use_them(deps);
        }
        let own = self.resource.deps(self.kind, self.op);
        let list = self.cache.learnt.list(self.key);
        if self.extras.is_empty() && list.is_none() {
            return use_them(&own);
        }
        let all = all_deps(self.cache, &own, self.extras);
        use_them(&extended(&all, list.as_deref().unwrap_or_default()))
    }

    /// Answers from a local entry, if there is one. Counts and records the hit.
    #[inline]
    fn local_entry(&self, local: &Local, wanted: &ExpectedValue) -> Option<Option<AnyValue>> {
        let (value, ttl) = self.find(local, wanted)?;
        self.record("local", ttl);
        Some(value)
    }

    /// Does the same without recording the hit, and also returns how long the value is fresh.
    #[inline]
    fn find(&self, local: &Local, wanted: &ExpectedValue) -> Option<(Option<AnyValue>, Duration)> {
        if self.local_options.strict
            || !self.local_options.kept
            || scope::is_strict()
            || self.is_exact()
        {
            return None;
        }
        let asked = Expected {
            type_id: wanted.type_id,
            version: self.version,
            extras: self.extras,
        };
        let found = local.find(self.key, &asked)?;
        if found.value.is_none() && !wanted.absence {
            return None;
        }
        local.note(self.resource.local_hits().count(), found.age);
        Some((found.value, found.ttl))
    }

    #[inline]
    pub(super) fn record(&self, store: &'static str, ttl: Duration) {
        if log::is_on() {
            self.log(store, ttl);
        }
        observe::record(|| Outcome {
            key: self.key.to_owned(),
            resource: self.resource.name.to_string(),
            store,
            status: Status::Hit { ttl },
        });
    }

    #[cold]
    fn log(&self, tier: &'static str, ttl: Duration) {
        let call = log::CallLine {
            key: self.key,
            resource: &self.resource.name,
            asker: match self.resource.function() {
                Some(function) => Asker::Function(&function.op),
                None => Asker::ByHand("get_or_load"),
            },
            tier,
        };
        log::call(&call, Status::Hit { ttl }, log::Times::default());
    }

    fn key(&self) -> Key {
        let prefix = &*self.resource.prefix;
        let rest = self.key.strip_prefix(prefix).unwrap_or_default();
        let (name, extras) = (&self.resource.name, self.extras.to_vec());
        let op = self.resource.function().map(|function| &*function.op);
        let op = op.filter(|_| self.kind == EntryKind::Derived);
        // A later use of the key adds it again.
        let version = self.version ^ self.resource.version_by_hand(op);
        Key::rendered(name, rest, self.kind, extras, version)
    }
}

/// An entry of the store in memory that may be served.
pub(super) struct Shown<'a> {
    /// `None` is an absence.
    pub(super) value: Option<&'a AnyValue>,
    /// How long it may be served without asking further.
    pub(super) lasts: Duration,
    /// How long it is fresh.
    pub(super) fresh: Duration,
}

/// Returns the content of an entry that is not near its end.
#[inline]
pub(super) fn shown<'a>(
    header: &Header,
    payload: &'a Payload,
    now: Millis,
    stale_policy: &StalePolicy,
) -> Option<Shown<'a>> {
    let value = match (header.content, payload) {
        (Content::Value, Payload::Decoded(value)) => Some(value),
        (Content::Absence, _) => None,
        // Decoding would take too long here.
        _ => return None,
    };
    // Near its end, one of many callers loads a new value. That is decided in the lookup loop.
    let fresh = header.left(now);
    let lasts = fresh.saturating_sub(stale_policy.last_time(header.took()));
    (!lasts.is_zero()).then_some(Shown {
        value,
        lasts,
        fresh,
    })
}

/// Returns why entries of this process must not be served to a call, if they follow the database's
/// outbox: they may be older than the commits of other processes.
#[inline]
fn behind(cache: &Engine, local_options: &LocalOptions) -> Option<BypassReason> {
    let freshness = cache.freshness.as_ref()?;
    if local_options.strict || scope::is_strict() {
        // Includes the calls inside a body, whose results may be written or stored.
        return Some(BypassReason::Strict);
    }
    let is_heard = freshness.age(ClockReading::now()).is_some();
    (!is_heard).then_some(BypassReason::Unavailable)
}

impl Call {
    /// Returns why entries of this process must not be served to this call.
    pub(crate) fn is_behind(&self) -> Option<BypassReason> {
        behind(&self.cache, &self.local_options)
    }

    fn lookup(&self) -> LocalLookup<'_> {
        LocalLookup {
            cache: &self.cache,
            resource: &self.resource,
            key: &self.own.key,
            kind: self.own.kind,
            op: None,
            deps: Some(&self.probe().deps),
            problem: self.problem,
            stale_policy: &self.stale_policy,
            local_options: &self.local_options,
            extras: &self.extras,
            version: self.version,
        }
    }

    /// Returns the local entry for one id of a batch, and how long it is fresh. Does not record the
    /// hit.
    pub(super) fn find<V: Cacheable>(&self) -> Option<(Option<Arc<V>>, Duration)> {
        let wanted = ExpectedValue {
            type_id: TypeId::of::<V>(),
            fingerprint: Fingerprint::of::<V>,
            absence: true,
        };
        let (value, ttl) = match timing::is_drawn() {
            false => self.find_now(&wanted),
            true => self.find_timed(&wanted),
        }?;
        match value {
            Some(value) => Some((Some(value.downcast().ok()?), ttl)),
            None => Some((None, ttl)),
        }
    }

    fn find_now(&self, wanted: &ExpectedValue) -> Option<(Option<AnyValue>, Duration)> {
        self.lookup().find(self.cache.local.as_ref()?, wanted)
    }

    #[cold]
    fn find_timed(&self, wanted: &ExpectedValue) -> Option<(Option<AnyValue>, Duration)> {
        let (found, nanos) = clock::timed(|| self.find_now(wanted));
        if found.is_some()
            && let Some(function) = self.resource.function()
        {
            function.local_lookup.record(nanos);
        }
        found
    }

    /// Returns the flags to take before the store is asked, if the answer may become a local entry.
    pub(super) fn read_token(&self) -> Option<ReadToken> {
        let local = self.cache.local.as_ref()?;
        let keeps = self.local_options.kept && !self.local_options.strict && self.problem.is_none();
        keeps.then(|| local.read_token(self.probe())).flatten()
    }

    /// Serves the store's answer, and stores it as a local entry.
    pub(super) fn serve_and_keep<R: Returns<S>, S>(
        &self,
        hit: &Hit,
        read_token: Option<ReadToken>,
    ) -> Option<R> {
        let returned = match (hit.content, read_token) {
            (Content::Value, Some(read_token)) => {
                let value = super::call::value_of::<R::Value>(hit.codec, &hit.payload)?;
                self.keep(hit, Some(&value), Some(read_token));
                R::from_value(value)
            }
            (content, read_token) => {
                let returned = super::call::restore(content, hit.codec, &hit.payload)?;
                self.keep::<R::Value>(hit, None, read_token);
                returned
            }
        };
        self.answered(Status::Hit { ttl: hit.ttl });
        Some(returned)
    }

    /// Stores the store's answer as a local entry, if flags were taken before the read.
    pub(super) fn keep<V: Cacheable>(
        &self,
        hit: &Hit,
        value: Option<&Arc<V>>,
        read_token: Option<ReadToken>,
    ) {
        let (Some(local), Some(read_token)) = (&self.cache.local, read_token) else {
            return;
        };
        // The holder of the lease is about to replace the entry.
        if !hit.past.is_zero() || hit.header.is_leased() {
            return;
        }
        // Near its end, one of many callers loads a new value. That is decided in the lookup loop.
        let early = self.stale_policy.last_time(hit.header.took());
        local.keep(
            read_token,
            NewLocalEntry {
                value: value.map(|value| Arc::clone(value) as Arc<dyn Any + Send + Sync>),
                type_id: TypeId::of::<V>(),
                version: self.version,
                extras: self.extras.as_slice().into(),
                ttl: hit.ttl,
                local_ttl: self.local_options.ttl.min(hit.ttl.saturating_sub(early)),
                encoded: match &hit.payload {
                    Payload::Encoded(bytes) => codec::length(hit.codec, bytes),
                    Payload::Empty | Payload::Decoded(_) => 0,
                },
                stamp: None,
            },
        );
    }
}
