//! A call that is answered by the entry that its thread was last served.

use std::any::TypeId;
use std::time::Duration;

use super::super::prepared::PreparedCall;
use super::super::returnable::Returnable;
use super::super::timing;
use super::shown::shown;
use super::thread_cache::ThreadLookup;
use crate::base::clock;
use crate::base::mutation;
use crate::base::scope_flags::ScopeFlags;
use crate::call::log;
use crate::engine::Engine;
use crate::key::IdForm;
use crate::local::{AnyValue, ExpectedEntry, KeptHit};
use crate::registry::{KnownResource, ResourceRef};
use crate::telemetry::function::FunctionCounters;

impl PreparedCall {
    /// Answers from the entry that this thread was last served, if it may be served again. Counts
    /// and records the hit. `Some(None)` is an absence.
    ///
    /// There is a short path for a call by a number, of the function that this thread called last,
    /// outside of all scopes. It is compiled once, and its variables fit into the registers. In one
    /// function with the long path, a hit took 549 instructions instead of 494.
    // Not inlined, since it does not depend on the function's types.
    #[inline(never)]
    pub(in super::super) fn again(
        &mut self,
        cache: &Engine,
        returnable: Returnable,
    ) -> Option<Option<AnyValue>> {
        let ResourceRef::Known(known) = self.resource else {
            return None;
        };
        self.lookups = self.lookups.wrapping_add(1);
        let is_plain = ScopeFlags::now() == ScopeFlags::NONE
            && self.options.problem.is_none()
            && !self.options.is_special
            && self.extras.is_empty()
            && !timing::is_drawn_in_thread_cache(self.lookups)
            && !is_watched(cache);
        if is_plain && let Some(number) = self.key.natural() {
            let version = self.options.version;
            let found = match &cache.local {
                Some(local) => self
                    .thread_cache
                    .find_natural(&**local, known, number, version),
                None => self
                    .thread_cache
                    .find_natural(&cache.in_memory()?, known, number, version),
            };
            if let Some(found) = found
                && let value = found.value()
                && (value.is_some() || returnable.absence)
            {
                note(cache, known.function(), found.age);
                return Some(value);
            }
        }
        self.again_in_full(cache, known, returnable)
    }

    /// The same for all calls.
    #[inline(never)]
    fn again_in_full(
        &mut self,
        cache: &Engine,
        known: &'static KnownResource,
        returnable: Returnable,
    ) -> Option<Option<AnyValue>> {
        let found = match timing::is_drawn_in_thread_cache(self.lookups) {
            false => self.find_again(cache, known, (returnable.value_type)().id),
            true => self.find_again_timed(cache, known, (returnable.value_type)().id),
        }?;
        let (value, ttl) = (found.value(), found.ttl());
        if value.is_none() && !returnable.absence {
            return None;
        }
        note(cache, known.function(), found.age);
        if log::is_on() || ScopeFlags::now().has(ScopeFlags::OBSERVED) {
            self.record_again(cache, ttl);
        }
        Some(value)
    }

    #[cold]
    fn find_again_timed(
        &mut self,
        cache: &Engine,
        known: &'static KnownResource,
        type_id: TypeId,
    ) -> Option<KeptHit<'_>> {
        let (found, nanos) = clock::timed(move || self.find_again(cache, known, type_id));
        if found.is_some() {
            known.function().local_lookup.record(nanos);
        }
        found
    }

    #[cold]
    fn record_again(&mut self, cache: &Engine, ttl: Duration) {
        self.write_key(cache);
        self.lookup(cache).record("local", ttl);
    }

    /// Finds the entry that this thread was last served for an equal call of the same function. So
    /// the key, and all that [`check`](Self::check) finds out, is known; the rest is checked here.
    fn find_again(
        &mut self,
        cache: &Engine,
        known: &'static KnownResource,
        type_id: TypeId,
    ) -> Option<KeptHit<'_>> {
        /// Scopes in which a call needs more than its entry.
        const AROUND: ScopeFlags = ScopeFlags::MODE
            .and(ScopeFlags::STRICT)
            .and(ScopeFlags::BODY)
            .and(ScopeFlags::TRANSACTION)
            .and(ScopeFlags::MEMO_OF_ALL)
            .and(ScopeFlags::KEY);

        let options = &self.options;
        let scope_flags = ScopeFlags::now();
        let is_usual = options.problem.is_none()
            && !options.local_options.strict
            && options.local_options.kept
            && (options.audit == 0 || mutation::is_active("thread-cache-not-audited"))
            && !scope_flags.has(AROUND)
            && !(options.memo && scope_flags.has(ScopeFlags::REQUEST))
            && !cache.invalidations.is_degraded()
            && !cache.telemetry.switches.is_any_off();
        if !is_usual {
            return None;
        }
        let wanted = ThreadLookup {
            known,
            given: self.key.given(|| IdForm::mark(self.form.as_ref())),
            version: options.version,
            type_id,
            options,
            extras: &self.extras,
        };
        if let Some(local) = &cache.local {
            return self.thread_cache.find(&**local, &wanted);
        }
        // A value that a body reads may be stored, or may have just been written by it. So such a
        // call asks the store.
        if scope_flags.has(ScopeFlags::BODY) {
            return None;
        }
        self.thread_cache.find(&cache.in_memory()?, &wanted)
    }

    /// Notes that the table had an entry for this call.
    pub(in super::super) fn note_found(&mut self, cache: &Engine, returnable: Returnable) {
        let ResourceRef::Known(known) = self.resource else {
            return;
        };
        let values = (returnable.value_type)();
        let mut thread_cache = std::mem::take(&mut self.thread_cache);
        let wanted = ThreadLookup {
            known,
            given: self.key.given(|| IdForm::mark(self.form.as_ref())),
            version: self.declared,
            type_id: values.id,
            options: &self.options,
            extras: &self.extras,
        };
        if let Some(local) = &cache.local {
            let asked = ExpectedEntry {
                type_id: values.id,
                version: self.options.version,
                extras: &self.extras,
            };
            thread_cache.note(&wanted, |beside| {
                local.kept(self.key.text(), &asked, beside)
            });
        } else if let Some(memory) = cache.in_memory() {
            let lookup = self.lookup(cache);
            let serves = |header: &_, payload: &_, now| {
                let shown = shown(header, payload, now, &self.options.stale_policy)?;
                let is_it = header.fingerprint == lookup.fingerprint(values);
                is_it.then(|| (shown.value.cloned(), [shown.lasts, shown.fresh]))
            };
            thread_cache.note(&wanted, |beside| {
                let key = self.key.text();
                lookup.with_deps(|deps| memory.kept(key, deps, beside, serves))
            });
        }
        self.thread_cache = thread_cache;
    }
}

/// Whether more than the entry has to be checked: an invalidation is pending, an operator has
/// switched something off, or each call is logged.
#[inline]
fn is_watched(cache: &Engine) -> bool {
    cache.invalidations.is_degraded() || cache.telemetry.switches.is_any_off() || log::is_on()
}

/// Counts a hit. `age` is that of the last heartbeat, in nanoseconds.
#[inline(always)]
fn note(cache: &Engine, function: &FunctionCounters, age: u64) {
    match &cache.local {
        Some(local) => local.note(function.local_hits.count(), age),
        None => function.hits.add_one(),
    }
}
