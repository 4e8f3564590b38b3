//! The known dependencies that loads have named, as plain data; see `learnt.rs`.

use std::sync::Arc;

use crate::base::mutation;
use crate::key::KeySpace;
use crate::protocol::entry::Stamp;
use crate::protocol::generation::Dependency;
use crate::registry::learnt::Named;
use crate::store::EntryRef;

/// The most dependencies that one load may name. A value with more is not stored.
pub(crate) const MOST: usize = 256;

/// The dependencies of an entry besides those that its function names.
#[derive(Debug)]
pub(crate) struct KnownDependencies {
    pub(crate) list: Arc<[Arc<Dependency>]>,
    /// All dependencies.
    pub(crate) entry_ref: EntryRef,
}

impl KnownDependencies {
    pub(crate) fn new(own: &EntryRef, list: Arc<[Arc<Dependency>]>) -> Self {
        let entry_ref = EntryRef {
            key: own.key.clone(),
            kind: own.kind,
            deps: extended(&own.deps, &list),
        };
        Self { list, entry_ref }
    }
}

/// The dependencies of a function's entry, followed by those that its load has named. The order is
/// the same for all readers.
pub(crate) fn extended(
    own: &Arc<[Arc<Dependency>]>,
    list: &[Arc<Dependency>],
) -> Arc<[Arc<Dependency>]> {
    if list.is_empty() || mutation::is_active("learnt-dependency-not-stamped") {
        return Arc::clone(own);
    }
    let more = list.iter().filter(|dep| !own.contains(dep));
    own.iter().chain(more).cloned().collect()
}

/// The generations of which each write of a tag replaces one.
pub(crate) fn any_tag(space: &KeySpace) -> Arc<Dependency> {
    // No tag can have this name.
    Dependency::new(space.generation("~~"))
}

/// The generations that were read before a load.
#[derive(Debug)]
pub(crate) struct Window {
    pub(crate) named: Named,
    pub(crate) entry_ref: EntryRef,
    pub(crate) stamp: Stamp,
}

/// Proof that the named generations are as they were before the load.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) known: KnownDependencies,
    /// The stamp over all generations, as they were before the load.
    pub(crate) stamp: Stamp,
}

impl Verified {
    pub(crate) fn entry_ref(&self) -> &EntryRef {
        &self.known.entry_ref
    }

    pub(crate) fn list(&self) -> &Arc<[Arc<Dependency>]> {
        &self.known.list
    }
}

/// The line with the list, in front of a payload.
pub(crate) fn with_list(list: &[Arc<Dependency>], payload: &[u8]) -> Vec<u8> {
    let names: Vec<&str> = list.iter().map(|dep| dep.name()).collect();
    [names.join(" ").as_bytes(), b"\n", payload].concat()
}
