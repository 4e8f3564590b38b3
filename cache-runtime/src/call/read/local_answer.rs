//! The answer of the process to a call, before the store is asked. Compiled once for all functions.

use std::sync::Arc;
use std::time::Duration;

use super::Call;
use super::audit::audited_hit::{Audited, draw};
use super::prepared::PreparedCall;
use super::returnable::Returnable;
use crate::auditor::Draw;
use crate::base::mutation;
use crate::call::memo::{self, Recalled};
use crate::call::returns::Returns;
use crate::call::scope::{self, Mode};
use crate::call::{enclosing, transaction};
use crate::coalesce::single_flight::LoadResult;
use crate::engine::{Engine, EngineRef};
use crate::local::AnyValue;

/// The state of a call before anything is awaited. What it has found is a value of any type or an
/// absence, or the function's return value.
#[derive(Debug)]
pub(super) enum LocalAnswer<R = Option<AnyValue>> {
    /// The cache is off.
    Off,
    /// Only the key was wanted, and has been left for the caller.
    KeyTaken,
    /// Return this.
    Found(R),
    /// Ask the store.
    Ask(Arc<Call>),
}

impl LocalAnswer {
    /// The same with the return value of the function.
    #[inline]
    pub(super) fn typed<R: Returns<S>, S>(self) -> LocalAnswer<R> {
        let returned = match self {
            Self::Off => return LocalAnswer::Off,
            Self::KeyTaken => return LocalAnswer::KeyTaken,
            Self::Ask(call) => return LocalAnswer::Ask(call),
            Self::Found(Some(value)) => value.downcast().ok().map(R::from_value),
            Self::Found(None) => R::from_absence(),
        };
        // Only what the call can return is found.
        debug_assert!(returned.is_some(), "a value of another type was found");
        returned.map_or(LocalAnswer::Off, LocalAnswer::Found)
    }
}

impl PreparedCall {
    /// Answers a call that the thread's own memory does not answer. Looks for its key, in the
    /// memory of the request first.
    // Not inlined: compiled once, and a hit on the thread's own entry does not save its registers.
    #[inline(never)]
    pub(super) fn answer(
        mut self: Box<Self>,
        cache: EngineRef<'_>,
        returnable: Returnable,
    ) -> LocalAnswer {
        self.write_key(&cache);
        self.check(&cache);
        if scope::takes_key(|| self.lookup(&cache).key()) {
            self.leave();
            return LocalAnswer::KeyTaken;
        }
        if let Some(value) = self.recall(&cache, returnable) {
            // Not audited: a request may miss the writes of others.
            self.leave();
            return LocalAnswer::Found(value);
        }
        let Some(value) = self.lookup(&cache).answer(returnable) else {
            return LocalAnswer::Ask(Arc::new(self.into_call(cache.handle())));
        };
        if let Recalled::Slot(slot) = &self.recalled {
            slot.remember(value.clone());
        }
        if let Some(draw) = self.draw(&cache) {
            // The body runs, and is compared with this hit.
            let cached = value.map_or(LoadResult::Absence, LoadResult::Value);
            let mut call = self.into_call(cache.handle());
            call.audited = Some(Box::new(Audited { cached, draw }));
            return LocalAnswer::Ask(Arc::new(call));
        }
        self.note_found(&cache, returnable);
        self.leave();
        LocalAnswer::Found(value)
    }

    /// The result that the request around the call remembers; counted and recorded.
    fn recall(&mut self, cache: &Engine, returnable: Returnable) -> Option<Option<AnyValue>> {
        let recalled = memo::recall(self.options.memo, || {
            let type_id = (returnable.value_type)().id;
            let key = self.key.text().to_owned();
            (cache.id, key, type_id, self.options.version)
        });
        match recalled {
            Recalled::Nothing => None,
            recalled => self.recalled(cache, recalled, returnable),
        }
    }

    #[cold]
    fn recalled(
        &mut self,
        cache: &Engine,
        recalled: Recalled,
        returnable: Returnable,
    ) -> Option<Option<AnyValue>> {
        let options = &self.options;
        // Inside a body only Redis may answer: its result may be stored for others, and a write
        // sees its own changes. Data that is read in an open transaction may never be committed. A
        // `strict` function asks the store each time.
        let is_remembered = options.problem.is_none()
            && (!options.local_options.strict || mutation::is_active("strict-from-the-memo"))
            && (scope::mode() != Mode::Bypass || !mutation::is_active("bypass-leaves-the-memo"))
            && !enclosing::is_inside()
            && !transaction::is_open(cache);
        let is_usual = is_remembered && scope::mode() == Mode::Usual && !scope::is_strict();
        match recalled {
            Recalled::Answer(answer, _) if is_usual => {
                if !returnable.takes(answer.as_ref()) {
                    return None;
                }
                let lookup = self.lookup(cache);
                match lookup.resource.function() {
                    Some(function) => function.recalled.add_one(),
                    None => lookup.resource.counters.hits.add_one(),
                }
                lookup.record("request", Duration::MAX);
                Some(answer)
            }
            // A caller that asks anew gets a newer result, which replaces what is remembered: a
            // request never goes back in time.
            Recalled::Slot(mut slot) | Recalled::Answer(_, mut slot) if is_remembered => {
                if !is_usual {
                    slot.asks_anew();
                }
                self.recalled = Recalled::Slot(slot);
                None
            }
            _ => None,
        }
    }

    /// Whether a hit of this call is to be audited. Asked once per call.
    #[inline]
    fn draw(&self, cache: &Engine) -> Option<Draw> {
        if self.options.audit == 0 {
            return None;
        }
        // An entry that is kept here only can't be looked at again in the store.
        let is_here_only = self.options.local_options.in_process && cache.local.is_some();
        match is_here_only {
            true => None,
            false => draw(cache, self.options.audit, self.key.text()),
        }
    }
}

impl Call {
    /// The same for a manual operation.
    pub(super) fn answer_locally(self, returnable: Returnable) -> LocalAnswer {
        let lookup = self.lookup();
        if scope::takes_key(|| lookup.key()) {
            return LocalAnswer::KeyTaken;
        }
        match lookup.answer(returnable) {
            Some(value) => LocalAnswer::Found(value),
            None => LocalAnswer::Ask(Arc::new(self)),
        }
    }
}
