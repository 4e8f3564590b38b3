//! One local entry: the value, how long it may be served, and to which callers.

use std::any::{Any, TypeId};
use std::sync::Arc;
use std::time::Duration;

use super::ReadToken;
use super::coarse_clock::CoarseInstant;
use super::flags::InvalidationFlag;
use crate::base::entry_map;
use crate::key::NamedDependency;
use crate::protocol::entry::Stamp;

/// Bytes of an entry besides its key and value: the struct, its flags with their map slots, its
/// slot in the map, reference counts.
pub(super) const OVERHEAD: u64 = 384;

/// A value behind an `Arc`, with its type erased.
pub(crate) type AnyValue = Arc<dyn Any + Send + Sync>;

/// A value read from Redis, to be stored as a local entry.
pub(crate) struct NewLocalEntry {
    /// `None` caches the absence of a value.
    pub(crate) value: Option<AnyValue>,
    pub(crate) type_id: TypeId,
    pub(crate) version: u32,
    pub(crate) extras: Box<[NamedDependency]>,
    /// How long the value stays fresh.
    pub(crate) ttl: Duration,
    /// How long the local tier may serve it.
    pub(crate) local_ttl: Duration,
    /// Length of the encoded value in bytes.
    pub(crate) encoded: usize,
    /// The stamp from before the load, if the value was loaded here.
    pub(crate) stamp: Option<Stamp>,
}

/// The value that a caller expects. Another type, version or list of tags means another value.
pub(crate) struct ExpectedEntry<'a> {
    pub(crate) type_id: TypeId,
    pub(crate) version: u32,
    pub(crate) extras: &'a [NamedDependency],
}

/// A local entry that may be served.
pub(crate) struct LocalHit {
    /// `None` caches the absence of a value.
    pub(crate) value: Option<AnyValue>,
    /// How long the value stays fresh.
    pub(crate) ttl: Duration,
    /// Age of the last heartbeat, in nanoseconds.
    pub(crate) age: u64,
}

pub(super) struct Entry {
    key: Box<str>,
    /// `None` caches the absence of a value.
    pub(super) value: Option<AnyValue>,
    type_id: TypeId,
    version: u32,
    extras: Box<[NamedDependency]>,
    pub(super) flags: Box<[Arc<InvalidationFlag>]>,
    /// Boxed, since few entries have one: it would be a tenth of the others.
    stamp: Option<Box<Stamp>>,
    pub(super) epoch: u64,
    /// When it may no longer be served.
    pub(super) until: CoarseInstant,
    /// When the value stops being fresh.
    pub(super) fresh: CoarseInstant,
    weight: u64,
}

impl Entry {
    /// Returns `None` if it would have expired already.
    pub(super) fn new(read_token: ReadToken, new: NewLocalEntry) -> Option<Self> {
        let ReadToken {
            key,
            flags,
            epoch,
            at: read,
        } = read_token;
        let lasts = new.ttl.min(new.local_ttl);
        (!lasts.is_zero()).then(|| Self {
            weight: (new.encoded + key.len()) as u64 + OVERHEAD,
            key,
            value: new.value,
            type_id: new.type_id,
            version: new.version,
            extras: new.extras,
            flags,
            stamp: new.stamp.map(Box::new),
            epoch,
            until: read.after(lasts),
            fresh: read.after(new.ttl),
        })
    }

    /// Returns true while none of its keys has changed since the read was sent.
    #[inline]
    pub(super) fn is_valid(&self) -> bool {
        self.flags.iter().all(|flag| flag.is_valid())
    }

    /// Whether it was loaded here under this stamp.
    pub(super) fn is_under(&self, stamp: Stamp) -> bool {
        self.stamp.as_deref() == Some(&stamp)
    }

    /// Returns true if it has not expired and is the value that the caller expects.
    #[inline]
    pub(super) fn fits(&self, expected: &ExpectedEntry<'_>, now: CoarseInstant) -> bool {
        now < self.until && self.is_for(expected)
    }

    /// Whether it is the value that the caller expects.
    #[inline]
    pub(super) fn is_for(&self, expected: &ExpectedEntry<'_>) -> bool {
        self.version == expected.version
            && self.type_id == expected.type_id
            && same_extras(&self.extras, expected.extras)
    }

    /// How long the value stays fresh.
    #[inline]
    pub(super) fn ttl(&self, now: CoarseInstant) -> Duration {
        self.fresh.since(now)
    }
}

/// Checks for empty lists first, because most are empty.
#[inline]
fn same_extras(a: &[NamedDependency], b: &[NamedDependency]) -> bool {
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
