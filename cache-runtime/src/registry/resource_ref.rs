//! A reference to a resource, which costs no reference count if the function remembers it.

use std::any::TypeId;
use std::borrow::Cow;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use super::call_site::CallSite;
use super::instance::Instance;
use super::resource::Resource;
use crate::base::counters::Striped;
use crate::key::EntryKind;
use crate::protocol::fingerprint::Fingerprint;
use crate::protocol::generation::Dependency;
use crate::telemetry::function::FunctionCounters;

/// A reference to a resource, which costs no reference count if the function remembers it.
#[derive(Debug, Clone)]
pub(crate) enum ResourceRef {
    Known(&'static KnownResource),
    /// Includes the counters of the function, once they are known; not for manual operations.
    Own(Arc<Resource>, Option<Arc<FunctionCounters>>),
}

impl ResourceRef {
    /// The fingerprint of the function's value type, in the attribute's version, and whether the
    /// type's shape was known already. `of` computes both.
    pub(crate) fn fingerprint(
        &self,
        type_id: TypeId,
        version: u32,
        of: impl FnOnce(u32) -> (Fingerprint, bool),
    ) -> (Fingerprint, bool) {
        // All instantiations of a generic function share this memory, so the type is checked.
        if let Self::Known(known) = self
            && let Some((id, at, fingerprint)) = known.fingerprint.get()
            && *id == type_id
            && *at == version
        {
            return (*fingerprint, true);
        }
        let found = of(version);
        if let Self::Known(known) = self {
            // Another instance of a generic function may have been first.
            let _ = known.fingerprint.set((type_id, version, found.0));
        }
        found
    }
}

impl ResourceRef {
    /// Whether it is this one, which a function remembers.
    #[inline]
    pub(crate) fn is(&self, known: &'static KnownResource) -> bool {
        matches!(self, Self::Known(own) if std::ptr::eq(*own, known))
    }

    /// The dependencies of an entry of this kind and `op`, besides those that its function adds.
    #[inline]
    pub(crate) fn deps(
        &self,
        kind: EntryKind,
        op: Option<&'static str>,
    ) -> Cow<'_, Arc<[Arc<Dependency>]>> {
        if kind == EntryKind::Derived
            && let Self::Known(known) = self
            && same_op(known.op, op)
        {
            return Cow::Borrowed(&known.deps);
        }
        Resource::deps(self, kind, op)
    }

    /// For a call by hand.
    pub(crate) fn by_hand(resource: Arc<Resource>) -> Self {
        Self::Own(resource, None)
    }

    /// Says which function calls.
    pub(crate) fn attribute(&mut self, site: &'static CallSite, op: Option<&'static str>) {
        if let Self::Own(resource, function @ None) = self {
            *function = Some(resource.function(site, op));
        }
    }

    /// The counters of the function; `None` for a manual operation.
    #[inline]
    pub(crate) fn function(&self) -> Option<&Arc<FunctionCounters>> {
        match self {
            Self::Known(known) => Some(&known.function),
            Self::Own(_, function) => function.as_ref(),
        }
    }

    /// Where the store's hits are counted.
    #[inline]
    pub(crate) fn hits(&self) -> &Striped {
        match self.function() {
            Some(function) => &function.hits,
            None => &self.counters.hits,
        }
    }

    /// Where hits on local entries are counted.
    #[inline]
    pub(crate) fn local_hits(&self) -> &Striped {
        match self.function() {
            Some(function) => &function.local_hits,
            None => &self.counters.local_hits,
        }
    }

    /// Distinguishes the entries of this instance of the function from those of other instances.
    /// `types` is a hash of the names of the types that are already part of the key.
    #[inline]
    pub(crate) fn version_of(
        &self,
        site: &'static CallSite,
        op: Option<&'static str>,
        types: (u64, u32),
        instance: Instance,
    ) -> u32 {
        if let Self::Known(known) = self
            && let Some((known_types, id, version)) = known.instance.get()
            && *known_types == types.0
            && *id == instance.id
        {
            return *version;
        }
        let version = Resource::version_of(self, site, op, types, instance);
        if let Self::Known(known) = self {
            // Another instance may have been first. Then each call asks the resource.
            let _ = known.instance.set((types.0, instance.id, version));
        }
        version
    }
}

impl Deref for ResourceRef {
    type Target = Resource;

    fn deref(&self) -> &Resource {
        match self {
            Self::Known(known) => &known.resource,
            Self::Own(resource, _) => resource,
        }
    }
}

/// The data about a function in one cache, for one resource.
#[derive(Debug)]
pub(crate) struct KnownResource {
    pub(super) engine: u64,
    pub(super) name: &'static str,
    pub(super) op: Option<&'static str>,
    pub(super) shared: bool,
    pub(super) resource: Arc<Resource>,
    /// The dependencies of its derived entries.
    pub(super) deps: Arc<[Arc<Dependency>]>,
    pub(super) function: Arc<FunctionCounters>,
    pub(super) fingerprint: OnceLock<(TypeId, u32, Fingerprint)>,
    /// Its first instance: a hash of the types in the key, its type, its version.
    pub(super) instance: OnceLock<(u64, TypeId, u32)>,
}

impl KnownResource {
    /// The counters of the function.
    #[inline]
    pub(crate) fn function(&self) -> &FunctionCounters {
        &self.function
    }

    #[inline]
    pub(super) fn is(&self, engine: u64, name: &str) -> bool {
        // Compares pointers first: both are usually the same literal.
        self.engine == engine && (std::ptr::eq(self.name, name) || self.name == name)
    }
}

/// Mostly the very same literal, or none.
#[inline]
pub(super) fn same_op(a: Option<&'static str>, b: Option<&'static str>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => std::ptr::eq(a, b) || a == b,
        (None, None) => true,
        _ => false,
    }
}
