//! A lookup in the process: the answer from a local entry, or from a store in memory.
//!
//! A hit avoids contended and repeated work. It does not count references to the resource and its
//! dependencies, which all calls of a function share. It writes the call and its key into memory
//! that the thread keeps.

use std::any::TypeId;
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use super::super::dependencies::known::extended;
use super::super::prepared::PreparedCall;
use super::super::returnable::{Returnable, ValueType};
use super::super::{Call, all_deps, timing};
use super::local_options::LocalOptions;
use super::shown::shown;
use crate::base::clock;
use crate::base::error::{Error, ErrorKind};
use crate::base::policy::StalePolicy;
use crate::call::log::{self, Asker};
use crate::call::observe::{self, BypassReason, Outcome, Status};
use crate::call::scope::{self, Mode};
use crate::call::{enclosing, transaction};
use crate::engine::Engine;
use crate::key::{EntryKind, Key, NamedDependency};
use crate::local::{AnyValue, ClockReading, ExpectedEntry, Local};
use crate::protocol::entry::Header;
use crate::protocol::fingerprint::Fingerprint;
use crate::protocol::generation::Dependency;
use crate::registry::ResourceRef;
use crate::store::Payload;

/// The parts of a call that a lookup in the process needs.
pub(crate) struct LocalLookup<'a> {
    pub(crate) cache: &'a Engine,
    pub(crate) resource: &'a ResourceRef,
    key: &'a str,
    kind: EntryKind,
    op: Option<&'static str>,
    /// All dependencies, if the list was built already.
    deps: Option<&'a Arc<[Arc<Dependency>]>>,
    pub(crate) problem: Option<BypassReason>,
    stale_policy: &'a StalePolicy,
    local_options: &'a LocalOptions,
    extras: &'a [NamedDependency],
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

    /// Answers the call from the process, without I/O. Counts and records the hit. `Some(None)` is
    /// an absence.
    #[inline]
    pub(crate) fn answer(&self, returnable: Returnable) -> Option<Option<AnyValue>> {
        self.timed(|| match &self.cache.local {
            Some(local) => {
                let type_id = (returnable.value_type)().id;
                let (value, ttl) = self.find(local, type_id, returnable.absence)?;
                self.record("local", ttl);
                Some(value)
            }
            None if self.cache.shows_values => self.try_lookup(returnable),
            None => None,
        })
    }

    /// Runs a lookup in the process. Of some, it measures the time.
    #[inline]
    pub(crate) fn timed<T>(&self, lookup: impl FnOnce() -> Option<T>) -> Option<T> {
        if !timing::is_drawn() {
            return lookup();
        }
        let (found, nanos) = clock::timed(lookup);
        if found.is_some()
            && let Some(function) = self.resource.function()
        {
            function.local_lookup.record(nanos);
        }
        found
    }

    /// Answers from a store in memory, if that needs no waiting. Counts and records the hit.
    #[inline]
    fn try_lookup(&self, returnable: Returnable) -> Option<Option<AnyValue>> {
        if self.is_exact() || enclosing::is_inside() {
            return None;
        }
        let fingerprint = self.fingerprint((returnable.value_type)());
        let (seen, found) = (Cell::new(None), Cell::new(None));
        let see = |header: &Header, payload: &Payload, now| {
            if let Some(shown) = shown(header, payload, now, self.stale_policy)
                && header.fingerprint == fingerprint
                && returnable.takes(shown.value)
            {
                seen.set(Some(shown.fresh));
                found.set(shown.value.cloned());
            }
        };
        let store = &self.cache.store;
        self.with_deps(|deps| store.try_lookup(self.key, deps, &see));
        let ttl = seen.get()?;
        self.resource.hits().add_one();
        self.record(store.name(), ttl);
        Some(found.take())
    }

    /// The fingerprint of the function's values.
    #[inline]
    pub(crate) fn fingerprint(&self, values: ValueType) -> Fingerprint {
        let (version, find) = (self.version, values.find_fingerprint);
        self.resource.fingerprint(values.id, version, find).0
    }

    /// Calls `use_them` with the dependencies of the entry, as far as they are known.
    #[inline]
    pub(crate) fn with_deps<T>(&self, use_them: impl FnOnce(&[Arc<Dependency>]) -> T) -> T {
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

    /// Returns the local entry, if there is one, and how long it is fresh. Counts the hit, and does
    /// not record it.
    #[inline]
    pub(crate) fn find(
        &self,
        local: &Local,
        type_id: TypeId,
        absence: bool,
    ) -> Option<(Option<AnyValue>, Duration)> {
        if self.local_options.strict
            || !self.local_options.kept
            || scope::is_strict()
            || self.is_exact()
        {
            return None;
        }
        let asked = ExpectedEntry {
            type_id,
            version: self.version,
            extras: self.extras,
        };
        let found = local.find(self.key, &asked)?;
        if found.value.is_none() && !absence {
            return None;
        }
        local.note(self.resource.local_hits().count(), found.age);
        Some((found.value, found.ttl))
    }

    #[inline]
    pub(crate) fn record(&self, store: &'static str, ttl: Duration) {
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

    /// Returns the key for manual operations.
    pub(crate) fn key(&self) -> Result<Key, Error> {
        if let Some(problem @ (BypassReason::InvalidKey | BypassReason::KeyConflict)) = self.problem
        {
            let text = format!("this call has no key of its own ({})", problem.as_str());
            return Err(Error::new(ErrorKind::InvalidKey, text));
        }
        let prefix = &*self.resource.prefix;
        let rest = self.key.strip_prefix(prefix).unwrap_or_default();
        let (name, extras) = (&self.resource.name, self.extras.to_vec());
        let op = self.resource.function().map(|function| &*function.op);
        let op = op.filter(|_| self.kind == EntryKind::Derived);
        // A later use of the key adds it again.
        let version = self.version ^ self.resource.version_by_hand(op);
        let key = Key::rendered(name, rest, self.kind, extras, version);
        Ok(key.in_process(self.local_options.in_process))
    }
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
    let is_fresh = freshness.age(ClockReading::now()).is_some();
    (!is_fresh).then_some(BypassReason::Unavailable)
}

impl PreparedCall {
    pub(crate) fn lookup<'c>(&'c self, cache: &'c Engine) -> LocalLookup<'c> {
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

impl Call {
    /// Returns why entries of this process must not be served to this call.
    pub(crate) fn is_behind(&self) -> Option<BypassReason> {
        behind(&self.cache, &self.local_options)
    }

    pub(crate) fn lookup(&self) -> LocalLookup<'_> {
        LocalLookup {
            cache: &self.cache,
            resource: &self.resource,
            key: &self.own.key,
            kind: self.own.kind,
            op: None,
            deps: Some(&self.entry_ref().deps),
            problem: self.problem,
            stale_policy: &self.stale_policy,
            local_options: &self.local_options,
            extras: &self.extras,
            version: self.version,
        }
    }
}
