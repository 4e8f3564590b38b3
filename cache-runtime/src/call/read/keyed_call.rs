//! A call with its key, before the store is asked.

use std::any::{Any, TypeId};
use std::sync::Arc;
use std::time::Duration;

use super::audit::audited_hit::{Audited, draw};
use super::local::again::Returnable;
use super::local::local_lookup::{ExpectedValue, LocalLookup};
use super::prepared::PreparedCall;
use super::{Call, timing};
use crate::auditor::Draw;
use crate::base::clock;
use crate::base::error::{Error, ErrorKind};
use crate::base::mutation;
use crate::call::memo::{self, Recalled};
use crate::call::observe::BypassReason;
use crate::call::returns::Returns;
use crate::call::scope::{self, Mode};
use crate::call::{enclosing, transaction};
use crate::engine::EngineRef;
use crate::key::Key;
use crate::local::AnyValue;
use crate::protocol::cacheable::Cacheable;
use crate::protocol::fingerprint::Fingerprint;

/// A call with its key.
#[derive(Debug)]
pub(super) enum KeyedCall<'a> {
    PreparedCall(EngineRef<'a>, Box<PreparedCall>),
    Call(Arc<Call>),
}

impl KeyedCall<'_> {
    /// Writes the text of the key, which all other ways to answer need.
    pub(super) fn write_key(&mut self) {
        if let Self::PreparedCall(cache, call) = self {
            call.write_key(cache);
        }
    }

    /// Notes that there was an entry in the process.
    pub(super) fn note_found<V: Cacheable>(&mut self) {
        if let Self::PreparedCall(cache, call) = self {
            call.note_found(cache, TypeId::of::<V>(), Fingerprint::of::<V>);
        }
    }

    /// Checks that the function may use its key.
    #[inline]
    pub(super) fn check(&mut self) {
        if let Self::PreparedCall(cache, call) = self {
            call.check(cache);
        }
    }

    /// Whether a hit of this call is to be audited. Asked once per call.
    #[inline]
    pub(super) fn draw(&self) -> Option<Draw> {
        match self {
            Self::PreparedCall(cache, call) if call.options.audit != 0 => {
                // An entry that is kept here only can't be looked at again in the store.
                let is_here_only = call.options.local_options.in_process && cache.local.is_some();
                match is_here_only {
                    true => None,
                    false => draw(cache, call.options.audit, call.key.text()),
                }
            }
            Self::PreparedCall(..) | Self::Call(_) => None,
        }
    }

    /// For a hit that is audited: the body runs, and is compared with this hit.
    pub(super) fn into_audited(self, audited: Audited) -> Arc<Call> {
        match self {
            Self::PreparedCall(cache, call) => {
                let mut call = call.into_call(cache.handle());
                call.audited = Some(Box::new(audited));
                Arc::new(call)
            }
            Self::Call(call) => call,
        }
    }

    /// Returns the call in the form that asks the store.
    pub(super) fn into_call(self) -> Arc<Call> {
        match self {
            Self::PreparedCall(cache, call) => Arc::new(call.into_call(cache.handle())),
            Self::Call(call) => call,
        }
    }

    /// Returns the key for manual operations.
    pub(super) fn key(&self) -> Result<Key, Error> {
        let lookup = self.lookup();
        match lookup.problem {
            Some(problem @ (BypassReason::InvalidKey | BypassReason::KeyConflict)) => {
                let text = format!("this call has no key of its own ({})", problem.as_str());
                Err(Error::new(ErrorKind::InvalidKey, text))
            }
            _ => Ok(lookup.key()),
        }
    }

    #[inline]
    fn lookup(&self) -> LocalLookup<'_> {
        match self {
            Self::PreparedCall(cache, call) => call.lookup(cache),
            Self::Call(call) => call.lookup(),
        }
    }

    /// The result that the request around the call remembers; counted and recorded.
    #[inline]
    pub(super) fn recall<R: Returns<S>, S>(&mut self) -> Option<R> {
        let returnable = Returnable {
            type_id: TypeId::of::<R::Value>,
            absence: R::from_absence().is_some(),
        };
        match self.recall_any(returnable)? {
            Some(value) => value.downcast().ok().map(R::from_value),
            None => R::from_absence(),
        }
    }

    /// The same for a call that can return these values.
    fn recall_any(&mut self, returnable: Returnable) -> Option<Option<AnyValue>> {
        let Self::PreparedCall(cache, call) = self else {
            return None;
        };
        let options = &call.options;
        let recalled = memo::recall(options.memo, || {
            let key = call.key.text().to_owned();
            (cache.id, key, (returnable.type_id)(), options.version)
        });
        if matches!(recalled, Recalled::Nothing) {
            return None;
        }
        self.recalled(recalled, returnable)
    }

    #[cold]
    fn recalled(&mut self, recalled: Recalled, returnable: Returnable) -> Option<Option<AnyValue>> {
        let Self::PreparedCall(cache, call) = self else {
            return None;
        };
        let options = &call.options;
        // Inside a body only Redis may answer: its result may be stored for others, and a write
        // sees its own changes. Data that is read in an open transaction may never be committed. A
        // `strict` function asks the store each time.
        let is_remembered = options.problem.is_none()
            && (!options.local_options.strict || mutation::is_active("strict-from-the-memo"))
            && scope::mode() != Mode::Bypass
            && !enclosing::is_inside()
            && !transaction::is_open(cache);
        let is_usual = is_remembered && scope::mode() == Mode::Usual && !scope::is_strict();
        match recalled {
            Recalled::Answer(answer, _) if is_usual => {
                let is_returnable = match &answer {
                    Some(value) => Any::type_id(&**value) == (returnable.type_id)(),
                    None => returnable.absence,
                };
                if !is_returnable {
                    return None;
                }
                let lookup = self.lookup();
                match lookup.resource.function() {
                    Some(function) => function.recalled.add_one(),
                    None => lookup.resource.counters.hits.add_one(),
                }
                lookup.record("request", Duration::MAX);
                Some(answer)
            }
            // A caller that asks anew gets a newer result, which replaces what is remembered: a
            // request never goes back in time.
            Recalled::Slot(slot) | Recalled::Answer(_, slot) if is_remembered => {
                call.recalled = Recalled::Slot(slot);
                None
            }
            _ => None,
        }
    }

    /// Tells the request around the call the local answer.
    #[inline]
    pub(super) fn remember<R: Returns<S>, S>(&self, returned: &R) {
        if let Self::PreparedCall(_, call) = self
            && let Recalled::Slot(slot) = &call.recalled
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
        if let Self::PreparedCall(_, call) = self {
            call.leave();
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
            None => lookup.try_lookup(wanted, || match self {
                Self::PreparedCall(_, call) => call.fingerprint(wanted.type_id, wanted.fingerprint),
                Self::Call(call) => (wanted.fingerprint)(call.version),
            }),
        }
    }
}
