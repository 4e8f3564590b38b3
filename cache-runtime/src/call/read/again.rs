//! A call that is answered by the entry that its thread was last served.

use std::any::TypeId;
use std::time::Duration;

use super::local_lookup::shown;
use super::prepared::PreparedCall;
use super::thread_cache::ThreadLookup;
use super::timing;
use crate::base::clock;
use crate::base::mutation;
use crate::base::scope_flags::ScopeFlags;
use crate::call::log;
use crate::call::returns::Returns;
use crate::engine::Engine;
use crate::key::IdForm;
use crate::local::{Expected, KeptHit};
use crate::protocol::fingerprint::Fingerprint;
use crate::registry::ResourceRef;
use crate::telemetry::function::FunctionStats;

impl PreparedCall {
    /// Answers from the entry that this thread was last served, if it may be served again. Counts
    /// and records the hit.
    #[inline(always)]
    pub(super) fn answer_again<R: Returns<S>, S>(&mut self, cache: &Engine) -> Option<R> {
        let ResourceRef::Known(known) = self.resource else {
            return None;
        };
        let type_id = TypeId::of::<R::Value>();
        let found = match timing::is_drawn_in_front() {
            false => self.find_again(cache, type_id),
            true => self.find_again_timed(cache, type_id, known.function()),
        }?;
        let value = match found.value() {
            Some(value) => value.downcast().ok().map(R::from_value)?,
            None => R::from_absence()?,
        };
        match &cache.local {
            Some(local) => local.note(known.function().local_hits.count(), found.age),
            None => known.function().hits.add_one(),
        }
        if log::is_on() || ScopeFlags::now().has(ScopeFlags::OBSERVED) {
            let ttl = found.ttl();
            self.record_again(cache, ttl);
        }
        Some(value)
    }

    #[cold]
    #[inline(never)]
    fn find_again_timed(
        &mut self,
        cache: &Engine,
        type_id: TypeId,
        function: &FunctionStats,
    ) -> Option<KeptHit<'_>> {
        let (found, nanos) = clock::timed(move || self.find_again(cache, type_id));
        if found.is_some() {
            function.local_lookup.record(nanos);
        }
        found
    }

    #[cold]
    fn record_again(&mut self, cache: &Engine, ttl: Duration) {
        self.write_key(cache);
        self.lookup(cache).record("local", ttl);
    }

    /// Answers from the entry that this thread was last served for an equal call of the same
    /// function. So the key, and all that [`check`](Self::check) finds out, is known; the rest is
    /// checked here.
    #[inline(always)]
    fn find_again(&mut self, cache: &Engine, type_id: TypeId) -> Option<KeptHit<'_>> {
        /// Scopes in which a call needs more than its entry.
        const AROUND: ScopeFlags = ScopeFlags::MODE
            .and(ScopeFlags::STRICT)
            .and(ScopeFlags::TRANSACTION)
            .and(ScopeFlags::MEMO_OF_ALL);

        let ResourceRef::Known(known) = self.resource else {
            return None;
        };
        let options = &self.options;
        let scope_flags = ScopeFlags::now();
        let is_usual = options.problem.is_none()
            && !options.local_options.strict
            && options.local_options.kept
            && (options.audit == 0 || mutation::is_active("front-not-audited"))
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
        // What a body reads may be stored, or is what it has just written: that asks the store.
        if scope_flags.has(ScopeFlags::BODY) {
            return None;
        }
        self.thread_cache.find(&cache.in_memory()?, &wanted)
    }

    /// Notes that the table had an entry for this call.
    pub(super) fn note_found(
        &mut self,
        cache: &Engine,
        type_id: TypeId,
        fingerprint: fn(u32) -> Fingerprint,
    ) {
        let ResourceRef::Known(known) = self.resource else {
            return;
        };
        let mut thread_cache = std::mem::take(&mut self.thread_cache);
        let wanted = ThreadLookup {
            known,
            given: self.key.given(|| IdForm::mark(self.form.as_ref())),
            version: self.declared,
            type_id,
            options: &self.options,
            extras: &self.extras,
        };
        if let Some(local) = &cache.local {
            let asked = Expected {
                type_id,
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
                let is_it = header.fingerprint == self.fingerprint(type_id, fingerprint);
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
