//! The place of an annotated function, and what is known of it.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use super::call_site::{CallSite, Role};
use super::resource_ref::{KnownResource, ResourceRef, same_op};
use crate::key::EntryKind;

/// The static of an annotated function: its call site, and what its first calls found out.
#[derive(Debug)]
pub struct Site {
    at: CallSite,
    /// The findings of the first calls, so that later ones need not lock the registry. There is a
    /// place for each of a few caches or resources.
    known: [OnceLock<KnownResource>; REMEMBERED],
}

pub(super) const REMEMBERED: usize = 4;

impl std::fmt::Display for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.at.fmt(f)
    }
}

impl Deref for Site {
    type Target = CallSite;

    fn deref(&self) -> &CallSite {
        &self.at
    }
}

/// Every annotated function of the program; the linker places them next to each other.
#[cfg(feature = "map")]
#[linkme::distributed_slice]
pub static SITES: [Site];

impl Site {
    /// A site at the caller's source location.
    #[track_caller]
    pub(crate) const fn new(role: Role, function: &'static str, description: &'static str) -> Self {
        Self {
            at: CallSite::new(role, function, description),
            known: [const { OnceLock::new() }; REMEMBERED],
        }
    }

    /// Adds the name of a closure's type in the function's static.
    pub(crate) const fn declared(mut self, name: fn() -> &'static str) -> Self {
        self.at.declared = Some(name);
        self
    }

    /// The findings about the function's calls in this cache, with the resource of this name.
    #[inline]
    pub(crate) fn knows(&'static self, engine: u64, name: &str) -> Option<&'static KnownResource> {
        let mut known = self.known.iter().map_while(OnceLock::get);
        known.find(|known| known.is(engine, name))
    }

    /// As [`Resource::claim`].
    #[inline]
    pub(crate) fn claims(
        &'static self,
        engine: u64,
        name: &'static str,
        resource: &ResourceRef,
        op: Option<&'static str>,
        shared: bool,
    ) -> bool {
        if let ResourceRef::Known(known) = resource
            && known.shared == shared
            && same_op(known.op, op)
        {
            // A claim that was granted is not taken back.
            return true;
        }
        self.claims_first(engine, name, resource, op, shared)
    }

    fn claims_first(
        &'static self,
        engine: u64,
        name: &'static str,
        resource: &ResourceRef,
        op: Option<&'static str>,
        shared: bool,
    ) -> bool {
        let is_granted = resource.claim(op, self, shared);
        if let (true, ResourceRef::Own(resource, function)) = (is_granted, resource) {
            let function = function.clone();
            self.know(KnownResource {
                engine,
                name,
                op,
                shared,
                deps: Arc::clone(&*resource.deps(EntryKind::Derived, op)),
                function: function.unwrap_or_else(|| resource.function(self, op)),
                resource: Arc::clone(resource),
                fingerprint: OnceLock::new(),
                instance: OnceLock::new(),
            });
        }
        is_granted
    }

    /// Takes a place if there is one.
    fn know(&self, mut known: KnownResource) {
        for place in &self.known {
            let (engine, name) = (known.engine, known.name);
            match place.set(known) {
                Ok(()) => return,
                Err(_) if place.get().is_some_and(|first| first.is(engine, name)) => return,
                Err(back) => known = back,
            }
        }
    }
}
