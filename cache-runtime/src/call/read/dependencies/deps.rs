//! The dependencies of an entry besides its own resource: other resources, and tags.

use std::sync::Arc;

use crate::engine::Engine;
use crate::key::Dependency;
use crate::protocol::generation::Dep;
use crate::registry::Resource;

/// The dependency of a tag. Its name can't be that of a resource.
pub(crate) fn tag_dep(cache: &Engine, tag: &str) -> Arc<Dep> {
    Dep::new(cache.space.tag(tag))
}

/// Each write of the resource replaces one of these.
pub(crate) fn all_of(resource: &Resource) -> [Arc<Dep>; 3] {
    let [whole, derived] = [&resource.whole, &resource.derived].map(Arc::clone);
    [whole, derived, resource.any_op()]
}

/// All dependencies of an entry: first those of its resource (`own`), then the others, in the same
/// order for all who read and fill the entry.
pub(crate) fn all_deps(
    cache: &Engine,
    own: &Arc<[Arc<Dep>]>,
    extras: &[Dependency],
) -> Arc<[Arc<Dep>]> {
    if extras.is_empty() {
        return Arc::clone(own);
    }
    let mut more = Vec::with_capacity(2 * extras.len());
    for extra in extras {
        match extra {
            Dependency::Tag(tag) => more.push(tag_dep(cache, tag)),
            // An invalidation of one row there replaces the derived generation only, or that of all
            // ops.
            Dependency::Resource(name) => more.extend(all_of(&cache.unregistered_resource(name))),
            Dependency::Row(row) => {
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
