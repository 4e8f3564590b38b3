//! What callers and stores say to each other: requests and answers, as plain data.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use super::codec_id::CodecId;
use super::fingerprint::Fingerprint;
use super::glob;
use crate::base::clock::{CLOCK_ERROR, Millis};
use crate::base::error::Error;
use crate::base::nonce::Nonce;
use crate::key::EntryKind;
use crate::protocol::entry::{Content, Header, MAX_TOOK, Stamp};
use crate::protocol::generation::Dep;

/// An entry's key and what the entry depends on.
#[derive(Debug, Clone)]
pub struct Probe {
    /// The full key, with its namespace.
    pub key: String,
    /// Entity or derived.
    pub kind: EntryKind,
    /// The generations the entry depends on: without repeats, in one order for all who read and fill it.
    pub deps: Arc<[Arc<Dep>]>,
}

/// The content of an entry, in the form the store asks for.
#[derive(Clone)]
pub enum Payload {
    /// No content: a lease alone, or an absence.
    Empty,
    /// The encoded value.
    Encoded(Bytes),
    /// The value itself, behind an `Arc` of its own type.
    Decoded(Arc<dyn Any + Send + Sync>),
}

impl Payload {
    /// How many bytes the encoded value has; 0 where it is not encoded.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Encoded(bytes) => bytes.len(),
            Self::Empty | Self::Decoded(_) => 0,
        }
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Encoded(bytes) => write!(f, "Encoded({} bytes)", bytes.len()),
            Self::Decoded(_) => f.write_str("Decoded"),
        }
    }
}

/// In which form a store keeps values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As bytes, encoded by the caller.
    Encoded,
    /// As they are.
    Decoded,
}

/// What [`Store::look`] saw.
#[derive(Debug)]
pub struct Look {
    /// What lies under the key.
    pub found: Found,
    /// The stamp of the key and the generations as they are now: an entry with another one is dead.
    pub stamp: Stamp,
    /// Until when write intents stand on the entry or on a dependency, in the store's time: the last of their deadlines.
    /// While there is one, past or not, nothing is served and nothing stored; only [`Store::prune`] judges that it is past.
    pub intended: Option<Millis>,
    /// The store's time.
    pub now: Millis,
}

impl Look {
    /// Whether the last intent's time is over, as far as the store's clock is known here, or lies further ahead than an
    /// intent lasts: that is from before the clock was set back.
    pub(crate) fn has_expired_intents(&self, longest: Duration) -> bool {
        !crate::base::mutation::is_active("intents-not-pruned")
            && self.intended.is_some_and(|until| {
                until < self.now || until > self.now.after(longest + CLOCK_ERROR)
            })
    }
}

/// To whom [`Store::glance`] shows an entry where it lies, with the store's time. The store may be locked meanwhile.
pub type See<'s> = &'s dyn Fn(&Header, &Payload, Millis);

/// What lies under a key.
#[derive(Debug, Clone)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// An entry of this framework, whatever its stamp.
    Entry(Header, Payload),
    /// Somebody else's value, which is never overwritten and never removed.
    Foreign,
}

/// Which state of the key a lease may replace.
#[derive(Debug, Clone)]
pub enum Seen {
    /// Nothing was there.
    Nothing,
    /// This header was there, with a stamp or content of no use. Its deadline may have moved since.
    Entry(Header),
    /// This header was there, with a live stamp; it is past its time, or soon will be. Its content stays under the lease,
    /// to be served in place of a slow or failing load.
    Past(Header),
    /// A live lease of somebody else was there; only its expiry gives way. Content of the same stamp and type stays.
    Leased,
    /// Whatever is there: the caller vouches for what it is about to store.
    Anything,
}

/// A request to hold the place of an entry while it is loaded.
#[derive(Debug, Clone)]
pub struct LeaseRequest {
    /// What may be replaced.
    pub seen: Seen,
    /// The lease's name, fresh for each request.
    pub token: Nonce,
    /// The generations as the caller read them.
    pub stamp: Stamp,
    /// The type that will be stored.
    pub fingerprint: Fingerprint,
    /// How long the lease holds unless renewed.
    pub length: Duration,
}

impl LeaseRequest {
    /// The header that holds the place, if the lease is taken `now`.
    #[must_use]
    pub fn header(&self, kind: EntryKind, now: Millis) -> Header {
        Header {
            kind,
            content: Content::Nothing,
            codec: CodecId::default(),
            token: self.token,
            deadline: now.after(self.length),
            stamp: self.stamp,
            fingerprint: self.fingerprint,
            stored: now,
            fresh: Millis(0),
            stale: Millis(0),
            took: 0,
        }
    }
}

/// The answer to a [`LeaseRequest`].
#[derive(Debug, PartialEq, Eq)]
pub enum LeaseReply {
    /// The place is the caller's.
    Granted,
    /// Something else is there now.
    Taken(Header),
    /// Somebody else's value is there.
    Foreign,
    /// A write intent is there.
    Intended,
}

/// A write that is announced, since nobody knows yet whether it takes place.
///
/// Until it is [withdrawn](Invalidation::withdraws) or its time is over, readers of what it concerns go without the
/// store. It is named, and has a deadline of its own: a late or repeated message about one says nothing of another.
#[derive(Debug, Clone)]
pub struct Intent {
    /// Its name.
    pub token: Nonce,
    /// Entries of single rows.
    pub rows: Vec<IntentRow>,
    /// Generations.
    pub deps: Vec<Arc<Dep>>,
    /// For how long it stands, from when the store takes it.
    pub length: Duration,
}

/// One row that an intent concerns.
#[derive(Debug, Clone)]
pub struct IntentRow {
    /// The entity's key.
    pub key: String,
    /// What the intent stands on in its place where a foreign value lies under the key: the whole resource.
    pub whole: Arc<Dep>,
}

/// The answer to an [`Intent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intended {
    /// When it took place, in the store's time: entries stored before are dead.
    pub at: Millis,
    /// Whether it stands on the whole resource of a row, because a foreign value lies under the row's key.
    pub on_whole: bool,
}

/// A value to store under a lease.
#[derive(Debug)]
pub struct Fill {
    /// The lease; the fill takes place only if the key still holds it.
    pub token: Nonce,
    /// The stamp computed before the load. It is stored as it is, never computed again.
    pub stamp: Stamp,
    /// The value's type.
    pub fingerprint: Fingerprint,
    /// Value or absence.
    pub content: Content,
    /// The value, in the store's [`Form`].
    pub payload: Payload,
    /// How the payload is encoded.
    pub codec: CodecId,
    /// What the entry weighs, in bytes: the length of its encoded value.
    pub size: usize,
    /// For how long the value is served.
    pub fresh_for: Duration,
    /// For how long after that it may be served in place of a slow or failing load.
    pub stale_for: Duration,
    /// How long the load took.
    pub took: Duration,
    /// How long the generations it depends on have to live from now, at least.
    pub generation_ttl: Duration,
}

impl Fill {
    /// The header of the filled entry, if it is stored `now`.
    #[must_use]
    pub fn header(&self, kind: EntryKind, now: Millis) -> Header {
        let fresh = now.after(self.fresh_for);
        Header {
            kind,
            content: self.content,
            codec: self.codec,
            token: Nonce::NONE,
            deadline: Millis(0),
            stamp: self.stamp,
            fingerprint: self.fingerprint,
            stored: now,
            fresh,
            stale: fresh.after(self.stale_for),
            took: u32::try_from(self.took.as_millis())
                .unwrap_or(MAX_TOOK)
                .min(MAX_TOOK),
        }
    }
}

/// The answer to a [`Fill`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filled {
    /// The value is stored.
    Stored,
    /// The lease is gone: the entry was invalidated, evicted or taken over while it was loaded.
    Refused,
}

/// Entries to remove and generations to replace, together.
#[derive(Debug, Clone, Default)]
pub struct Invalidation {
    /// Keys of entries; what lies there goes, its lease with it, unless it is foreign.
    pub kills: Vec<String>,
    /// Generations that get a new nonce.
    pub bumps: Vec<Arc<Dep>>,
    /// Intents that end with this, wherever among the keys above they stand, or stood. Those of others stay.
    pub withdraws: Vec<Nonce>,
}

/// The answer to an [`Invalidation`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invalidated {
    /// When it took place, in the store's time: entries stored before are dead.
    pub at: Millis,
    /// How many of the killed keys held an entry.
    pub removed: u64,
}

/// How far an [`Invalidation`] has come in a store that consists of several servers, some of which may be away.
#[derive(Debug)]
pub struct PartlyInvalidated {
    /// What was done.
    pub done: Invalidated,
    /// What was not, to be asked for again, and why.
    pub undone: Option<(Invalidation, Error)>,
}

impl PartlyInvalidated {
    /// All of it was done.
    #[must_use]
    pub fn whole(done: Invalidated) -> Self {
        Self { done, undone: None }
    }

    /// A part of it was done.
    #[must_use]
    pub fn partly(done: Invalidated, undone: Invalidation, error: Error) -> Self {
        Self {
            done,
            undone: Some((undone, error)),
        }
    }
}

/// Which entries [`Store::remove_matching`] removes. Only entries of this framework ever are.
#[derive(Debug, Clone)]
pub struct Matching {
    /// A pattern as Redis's `SCAN MATCH` takes it, namespace included.
    pub pattern: String,
    /// Only derived entries.
    pub derived_only: bool,
    /// Only entries stored before this point of the store's time.
    pub stored_before: Option<Millis>,
    /// Remove nothing if the store holds more keys than this.
    pub unless_larger_than: Option<u64>,
    /// Nobody waits for it: others come first.
    pub is_leisurely: bool,
}

impl Matching {
    /// Every entry of the namespace whose key goes on as the pattern says.
    pub(crate) fn all(namespace: &str, pattern: &str) -> Self {
        Self {
            pattern: format!("{}{pattern}", glob::literal(namespace)),
            derived_only: false,
            stored_before: None,
            unless_larger_than: None,
            is_leisurely: false,
        }
    }
}

/// What the server says of itself; `None` where it does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ServerFacts {
    /// Number of keys in the database, everybody's included.
    pub total_keys: Option<u64>,
    /// Memory in use, as the server writes it for people.
    pub used_memory: Option<String>,
    /// Seconds since the server started.
    pub uptime_seconds: Option<u64>,
    /// Connections to the server.
    pub connected_clients: Option<u64>,
    /// Each primary of a cluster, of which the above are the sums; empty elsewhere.
    pub nodes: Vec<NodeFacts>,
}

/// What a primary of a cluster says of itself; `None` where it does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct NodeFacts {
    /// Where it is.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether it answers.
    pub connected: bool,
    /// Number of keys in it, everybody's included.
    pub total_keys: Option<u64>,
    /// Memory in use, as it writes it for people.
    pub used_memory: Option<String>,
    /// Connections to it.
    pub connected_clients: Option<u64>,
}
