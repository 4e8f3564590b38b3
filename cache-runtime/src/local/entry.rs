//! One local entry: the value, how long it may be served, and to which callers.

use std::any::{Any, TypeId};
use std::sync::Arc;
use std::time::Duration;

use super::ReadToken;
use super::cells::Cell;
use super::tick::Tick;
use crate::base::entry_map;
use crate::key::Dependency;
use crate::protocol::entry::Stamp;

/// Bytes of an entry besides its key and value: the struct, its flags with their map slots, its
/// slot in the map, reference counts.
pub(super) const OVERHEAD: u64 = 384;

/// A value behind an `Arc`, with its type erased.
pub(crate) type Shared = Arc<dyn Any + Send + Sync>;

/// A value read from Redis, to be stored as a local entry.
pub(crate) struct Copy {
    /// `None` caches the absence of a value.
    pub(crate) value: Option<Shared>,
    pub(crate) type_id: TypeId,
    pub(crate) version: u32,
    pub(crate) extras: Box<[Dependency]>,
    /// How long the value stays fresh.
    pub(crate) ttl: Duration,
    /// How long the local tier may serve it.
    pub(crate) local_ttl: Duration,
    /// Length of the encoded value in bytes.
    pub(crate) encoded: usize,
    /// The stamp from before the load, if the value was loaded here.
    pub(crate) stamp: Option<Stamp>,
}

/// What a caller expects. Another type, version or list of tags means another value.
pub(crate) struct Asked<'a> {
    pub(crate) type_id: TypeId,
    pub(crate) version: u32,
    pub(crate) extras: &'a [Dependency],
}

/// A local entry that may be served.
pub(crate) struct Found {
    /// `None` caches the absence of a value.
    pub(crate) value: Option<Shared>,
    /// How long the value stays fresh.
    pub(crate) ttl: Duration,
    /// Age of the last heartbeat, in nanoseconds.
    pub(crate) age: u64,
}

pub(super) struct Entry {
    key: Box<str>,
    /// `None` caches the absence of a value.
    pub(super) value: Option<Shared>,
    type_id: TypeId,
    version: u32,
    extras: Box<[Dependency]>,
    pub(super) cells: Box<[Arc<Cell>]>,
    /// Boxed, since few entries have one: it would be a tenth of the others.
    stamp: Option<Box<Stamp>>,
    pub(super) epoch: u64,
    /// When it may no longer be served.
    pub(super) until: Tick,
    /// When the value stops being fresh.
    pub(super) fresh: Tick,
    weight: u64,
}

impl Entry {
    /// Returns `None` if it would have expired already.
    pub(super) fn new(read_token: ReadToken, copy: Copy) -> Option<Self> {
        let ReadToken {
            key,
            cells,
            epoch,
            at: read,
        } = read_token;
        let lasts = copy.ttl.min(copy.local_ttl);
        (!lasts.is_zero()).then(|| Self {
            weight: (copy.encoded + key.len()) as u64 + OVERHEAD,
            key,
            value: copy.value,
            type_id: copy.type_id,
            version: copy.version,
            extras: copy.extras,
            cells,
            stamp: copy.stamp.map(Box::new),
            epoch,
            until: read.after(lasts),
            fresh: read.after(copy.ttl),
        })
    }

    /// Returns true while none of its keys has changed since the read was sent.
    #[inline]
    pub(super) fn is_quiet(&self) -> bool {
        self.cells.iter().all(|cell| cell.is_quiet())
    }

    /// Whether it was loaded here under this stamp.
    pub(super) fn is_under(&self, stamp: Stamp) -> bool {
        self.stamp.as_deref() == Some(&stamp)
    }

    /// Returns true if it has not expired and is the value that the caller expects.
    #[inline]
    pub(super) fn fits(&self, asked: &Asked<'_>, now: Tick) -> bool {
        now < self.until && self.is_for(asked)
    }

    /// Whether it is the value that the caller expects.
    #[inline]
    pub(super) fn is_for(&self, asked: &Asked<'_>) -> bool {
        self.version == asked.version
            && self.type_id == asked.type_id
            && same_extras(&self.extras, asked.extras)
    }

    /// How long the value stays fresh.
    #[inline]
    pub(super) fn ttl(&self, now: Tick) -> Duration {
        self.fresh.since(now)
    }
}

/// Checks for empty lists first, because most are empty.
#[inline]
fn same_extras(a: &[Dependency], b: &[Dependency]) -> bool {
    a.len() == b.len() && (a.is_empty() || a == b)
}

/// The weight is the length of the key and of the encoded value, plus a fixed overhead. The decoded
/// value may be larger, but there is no way to measure it. The encoded length grows with it and is
/// known at no cost.
impl entry_map::Entry for Entry {
    fn key(&self) -> &str {
        &self.key
    }

    fn weight(&self) -> u64 {
        self.weight
    }
}
