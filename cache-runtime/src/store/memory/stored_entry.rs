//! An entry of the store in memory, and the generations that it depends on.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::packed::PackedHeader;
use crate::base::entry_map;
use crate::base::nonce::Nonce;
use crate::key::EntryKind;
use crate::local::InvalidationFlag;
use crate::protocol::generation::Dependency;
use crate::protocol::glob;
use crate::protocol::messages::{Payload, ScanFilter};

pub(super) struct StoredEntry {
    pub(super) key: Box<str>,
    pub(super) header: PackedHeader,
    pub(super) payload: Payload,
    /// Of a value that is allowed, which is far below 4 GB.
    pub(super) weight: u32,
    /// The generations that its stamp was computed from, if they were still current when it was
    /// stored.
    pub(super) under: Option<Arc<UsedGenerations>>,
}

/// The dependencies of entries, and the flags of their generations. Entries with the same list
/// share it: one for each entry took 64 bytes.
pub(super) struct UsedGenerations {
    pub(super) deps: Arc<[Arc<Dependency>]>,
    pub(super) flags: Box<[Arc<InvalidationFlag>]>,
}

impl UsedGenerations {
    /// Whether none of the generations has been replaced.
    pub(super) fn is_current(&self) -> bool {
        self.flags.iter().all(|flag| flag.is_valid())
    }
}

/// The current generation of a dependency. It ends when it is removed from the table, by whatever
/// operation.
pub(super) struct CurrentGeneration {
    pub(super) nonce: Nonce,
    /// Shared with the entries that depend on it.
    pub(super) flag: Arc<InvalidationFlag>,
    /// The last list of dependencies that begins with this one.
    pub(super) used: Mutex<Weak<UsedGenerations>>,
}

impl CurrentGeneration {
    pub(super) fn fresh() -> Self {
        Self {
            nonce: Nonce::fresh(),
            flag: Arc::default(),
            used: Mutex::default(),
        }
    }
}

impl Drop for CurrentGeneration {
    fn drop(&mut self) {
        if !crate::base::mutation::is_active("generation-over-unseen") {
            self.flag.invalidate();
        }
    }
}

impl StoredEntry {
    /// Whether the stamp of these dependencies, computed now, would equal its own.
    pub(super) fn is_under(&self, deps: &[Arc<Dependency>]) -> bool {
        self.under.as_ref().is_some_and(|under| {
            // All readers of a resource without tags share one list.
            (std::ptr::eq(&*under.deps, deps) || *under.deps == *deps) && under.is_current()
        })
    }

    pub(super) fn fits(&self, filter: &ScanFilter) -> bool {
        (!filter.derived_only || self.header.kind == EntryKind::Derived)
            && filter
                .stored_before
                .is_none_or(|before| self.header.stored() < before)
            && glob::matches(filter.pattern.as_bytes(), self.key.as_bytes())
    }
}

impl entry_map::Entry for StoredEntry {
    fn key(&self) -> &str {
        &self.key
    }

    fn weight(&self) -> u64 {
        self.weight.into()
    }
}
