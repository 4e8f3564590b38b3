//! The dependencies of an entry besides its own resource: other resources, and tags.

use std::sync::Arc;

use crate::engine::Engine;
use crate::key::NamedDependency;
use crate::protocol::generation::Dependency;
use crate::registry::Resource;

/// The dependency of a tag. Its name can't be that of a resource.
pub(crate) fn tag_dep(cache: &Engine, tag: &str) -> Arc<Dependency> {
    Dependency::new(cache.space.tag(tag))
}

/// Each write of the resource replaces one of these.
pub(crate) fn all_of(resource: &Resource) -> [Arc<Dependency>; 3] {
    let [whole, derived] = [&resource.whole, &resource.derived].map(Arc::clone);
    [whole, derived, resource.any_op()]
}

/// All dependencies of an entry: first those of its resource (`own`), then the others, in the same
/// order for all who read and fill the entry.
pub(crate) fn all_deps(
    cache: &Engine,
    own: &Arc<[Arc<Dependency>]>,
    extras: &[NamedDependency],
) -> Arc<[Arc<Dependency>]> {
    if extras.is_empty() {
        return Arc::clone(own);
    }
    let mut more = Vec::with_capacity(2 * extras.len());
    for extra in extras {
        match extra {
            NamedDependency::Tag(tag) => more.push(tag_dep(cache, tag)),
            // An invalidation of one row there replaces the derived generation only, or that of all
            // ops.
            NamedDependency::Resource(name) => {
                more.extend(all_of(&cache.unregistered_resource(name)))
            }
            NamedDependency::Row(row) => {
                let other = cache.unregistered_resource(row.resource);
                more.extend([Arc::clone(&other.whole), other.row(&row.id)]);
            }
        }
    }
    more.sort();
    more.dedup();
    more.retain(|dep| !own.contains(dep));
    own.iter().cloned().chain(more).collect()
}
