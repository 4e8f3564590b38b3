//! A call that is answered by the entry that its thread was last served.

use std::any::TypeId;
use std::time::Duration;

use super::front::Wanted;
use super::local_lookup::shown;
use super::prepared::PreparedCall;
use super::timing;
use crate::base::clock;
use crate::base::marks::Marks;
use crate::base::mutation;
use crate::call::log;
use crate::call::returns::Returns;
use crate::engine::Engine;
use crate::key::IdForm;
use crate::local::{Again, Asked};
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
        if log::is_on() || Marks::now().has(Marks::OBSERVED) {
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
    ) -> Option<Again<'_>> {
        let (found, nanos) = clock::timed(move || self.find_again(cache, type_id));
        if found.is_some() {
            function.local_lookup.record(nanos);
        }
        found
    }

    #[cold]
    fn record_again(&mut self, cache: &Engine, ttl: Duration) {
        self.write_key(cache);
        self.asking(cache).record("local", ttl);
    }

    /// Answers from the entry that this thread was last served for an equal call of the same
    /// function. So the key, and all that [`check`](Self::check) finds out, is known; the rest is
    /// checked here.
    #[inline(always)]
    fn find_again(&mut self, cache: &Engine, type_id: TypeId) -> Option<Again<'_>> {
        /// Scopes in which a call needs more than its entry.
        const AROUND: Marks = Marks::MODE
            .and(Marks::STRICT)
            .and(Marks::TRANSACTION)
            .and(Marks::MEMO_OF_ALL);

        let ResourceRef::Known(known) = self.resource else {
            return None;
        };
        let options = &self.options;
        let marks = Marks::now();
        let is_usual = options.problem.is_none()
            && !options.copies.strict
            && options.copies.kept
            && (options.audit == 0 || mutation::is_active("front-not-audited"))
            && !marks.has(AROUND)
            && !(options.memo && marks.has(Marks::REQUEST))
            && !cache.delivery.is_degraded()
            && !cache.telemetry.switches.is_any_off();
        if !is_usual {
            return None;
        }
        let wanted = Wanted {
            known,
            given: self.key.given(|| IdForm::mark(self.form.as_ref())),
            version: options.version,
            type_id,
            options,
            extras: &self.extras,
        };
        if let Some(local) = &cache.local {
            return self.front.find(&**local, &wanted);
        }
        // What a body reads may be stored, or is what it has just written: that asks the store.
        if marks.has(Marks::BODY) {
            return None;
        }
        self.front.find(&cache.in_memory()?, &wanted)
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
        let mut front = std::mem::take(&mut self.front);
        let wanted = Wanted {
            known,
            given: self.key.given(|| IdForm::mark(self.form.as_ref())),
            version: self.declared,
            type_id,
            options: &self.options,
            extras: &self.extras,
        };
        if let Some(local) = &cache.local {
            let asked = Asked {
                type_id,
                version: self.options.version,
                extras: &self.extras,
            };
            front.note(&wanted, |beside| {
                local.kept(self.key.text(), &asked, beside)
            });
        } else if let Some(memory) = cache.in_memory() {
            let asking = self.asking(cache);
            let serves = |header: &_, payload: &_, now| {
                let shown = shown(header, payload, now, &self.options.grace)?;
                let is_it = header.fingerprint == self.fingerprint(type_id, fingerprint);
                is_it.then(|| (shown.value.cloned(), [shown.lasts, shown.fresh]))
            };
            front.note(&wanted, |beside| {
                let key = self.key.text();
                asking.with_deps(|deps| memory.kept(key, deps, beside, serves))
            });
        }
        self.front = front;
    }
}
