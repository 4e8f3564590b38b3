//! The dependencies of an entry besides its own resource: other resources, and tags.

use std::sync::Arc;

use crate::engine::Engine;
use crate::key::{Dependency, EntryKind};
use crate::protocol::generation::Dep;
use crate::registry::Resource;

/// The dependency for a tag. Resource names can't look like it.
pub(crate) fn tag_dep(cache: &Engine, tag: &str) -> Arc<Dep> {
    Dep::new(cache.space.tag(tag))
}

/// Returns everything that an entry depends on: first the dependencies of its own resource, then
/// the others, sorted. So all readers and writers of the entry use the same order, however they
/// name them.
pub(crate) fn all_deps(
    cache: &Engine,
    resource: &Resource,
    kind: EntryKind,
    extras: &[Dependency],
) -> Arc<[Arc<Dep>]> {
    let own = resource.deps(kind);
    if extras.is_empty() {
        return Arc::clone(own);
    }
    let mut more = Vec::with_capacity(2 * extras.len());
    for extra in extras {
        match extra {
            Dependency::Tag(tag) => more.push(tag_dep(cache, tag)),
            // An invalidation of one row there replaces only the derived generation.
            Dependency::Resource(name) => {
                more.extend_from_slice(cache.visitor(name).deps(EntryKind::Derived))
            }
        }
    }
    more.sort();
    more.dedup();
    more.retain(|dep| !own.contains(dep));
    own.iter().cloned().chain(more).collect()
}
