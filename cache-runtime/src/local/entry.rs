//! One copy: the value, and until when and to whom it may be served.

use std::any::{Any, TypeId};
use std::sync::Arc;
use std::time::Duration;

use super::ReadToken;
use super::cells::Cell;
use super::tick::Tick;
use crate::base::entry_map;
use crate::key::Dependency;

/// What an entry takes besides its value: itself, its cells with their places, its place in the table, reference counts.
pub(super) const OVERHEAD: u64 = 384;

/// A value behind an `Arc` of its own type.
pub(crate) type Shared = Arc<dyn Any + Send + Sync>;

/// What a read has brought, to be kept.
pub(crate) struct Copy {
    /// `None` for an absence.
    pub(crate) value: Option<Shared>,
    pub(crate) type_id: TypeId,
    pub(crate) version: u32,
    pub(crate) extras: Box<[Dependency]>,
    /// For how long the value is fresh.
    pub(crate) ttl: Duration,
    /// For how long it may be served from here.
    pub(crate) local_ttl: Duration,
    /// The length of the encoded value.
    pub(crate) encoded: usize,
}

/// Who asks: another type, version or list of tags is another value.
pub(crate) struct Asked<'a> {
    pub(crate) type_id: TypeId,
    pub(crate) version: u32,
    pub(crate) extras: &'a [Dependency],
}

/// A copy that may be served.
pub(crate) struct Found {
    /// `None` for an absence.
    pub(crate) value: Option<Shared>,
    /// For how long the value is fresh.
    pub(crate) ttl: Duration,
    /// How old the last heartbeat is.
    pub(crate) age: Duration,
}

pub(super) struct Entry {
    key: Box<str>,
    /// `None` for an absence.
    pub(super) value: Option<Shared>,
    type_id: TypeId,
    version: u32,
    extras: Box<[Dependency]>,
    cells: Box<[Arc<Cell>]>,
    pub(super) epoch: u64,
    /// Until when it may be served.
    until: Tick,
    /// Until when the value is fresh.
    fresh: Tick,
    weight: u64,
}

impl Entry {
    /// `None` if its time is over before it has begun.
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
            epoch,
            until: read.after(lasts),
            fresh: read.after(copy.ttl),
        })
    }

    /// Whether nothing has been heard of its keys since they were asked for.
    #[inline]
    pub(super) fn is_quiet(&self) -> bool {
        self.cells.iter().all(|cell| cell.is_quiet())
    }

    /// Whether it may be served to who asks.
    #[inline]
    pub(super) fn fits(&self, asked: &Asked<'_>, now: Tick) -> bool {
        now < self.until
            && self.type_id == asked.type_id
            && self.version == asked.version
            && same_extras(&self.extras, asked.extras)
    }

    /// For how long the value is fresh.
    #[inline]
    pub(super) fn ttl(&self, now: Tick) -> Duration {
        self.fresh.since(now)
    }
}

/// Mostly there are none.
#[inline]
fn same_extras(a: &[Dependency], b: &[Dependency]) -> bool {
    a.len() == b.len() && (a.is_empty() || a == b)
}

/// It weighs the lengths of its key and its encoded value, and a fixed overhead. A decoded value may take more, and nobody can
/// ask it how much; with its encoding it grows, and that is known for nothing.
impl entry_map::Entry for Entry {
    fn key(&self) -> &str {
        &self.key
    }

    fn weight(&self) -> u64 {
        self.weight
    }
}
