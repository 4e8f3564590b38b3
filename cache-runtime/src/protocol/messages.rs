//! The requests that callers send to stores, and the answers, as plain data.

use std::any::Any;
use std::collections::{BTreeSet, HashSet};
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
use crate::protocol::generation::Dependency;

/// An entry's key and what the entry depends on.
#[derive(Debug, Clone)]
pub struct EntryRef {
    /// The full key, with its namespace.
    pub key: String,
    /// Entity or derived.
    pub kind: EntryKind,
    /// The generations the entry depends on: without duplicates, in one order for all readers and
    /// writers.
    pub deps: Arc<[Arc<Dependency>]>,
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

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Encoded(bytes) => write!(f, "Encoded({} bytes)", bytes.len()),
            Self::Decoded(_) => f.write_str("Decoded"),
        }
    }
}

/// The form in which a store keeps values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Representation {
    /// As bytes, encoded by the caller.
    Encoded,
    /// As they are.
    Decoded,
}

/// The answer to [`Store::look`](crate::store::Store::look).
#[derive(Debug)]
pub struct LookupReply {
    /// The entry under the key.
    pub found: Found,
    /// The stamp of the key under the current generations. An entry with another stamp is dead.
    pub stamp: Stamp,
    /// The last deadline of the write intents on the entry or a dependency, in the store's time.
    /// While there is one, past or not, nothing is served and nothing is stored. Only
    /// [`Store::prune`](crate::store::Store::prune) decides that a deadline is past.
    pub intents_until: Option<Millis>,
    /// The store's time.
    pub now: Millis,
}

impl LookupReply {
    /// Whether the last intent has expired, as far as this process knows the store's clock. A
    /// deadline further ahead than an intent lasts was set before that clock was set back; it
    /// counts as expired too.
    pub(crate) fn has_expired_intents(&self, longest: Duration) -> bool {
        !crate::base::mutation::is_active("intents-not-pruned")
            && self.intents_until.is_some_and(|until| {
                until < self.now || until > self.now.after(longest + CLOCK_ERROR)
            })
    }
}

/// The callback to which [`Store::try_lookup`](crate::store::Store::try_lookup) shows an entry in
/// place, with the store's time. The store may be locked during the call.
pub type OnEntry<'s> = &'s dyn Fn(&Header, &Payload, Millis);

/// The value under a key.
#[derive(Debug, Clone)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// An entry of this framework, whatever its stamp.
    Entry(Header, Payload),
    /// A value of another program. It is never overwritten and never removed.
    Foreign,
}

/// The state of the key that a lease may replace.
#[derive(Debug, Clone)]
pub enum Expected {
    /// Nothing was there.
    Nothing,
    /// This header was there, with a useless stamp or content. Its deadline may have moved since.
    Entry(Header),
    /// This header was there, with a live stamp, and is expired or soon will be. Its content stays
    /// under the lease, to be served in place of a slow or failing load.
    Past(Header),
    /// Another caller's live lease was there; the new lease may replace it only once expired.
    /// Content of the same stamp and type stays.
    Leased,
    /// Any state: the caller vouches for the value that it will store. Content of the same stamp
    /// and type counts as expired from then on. It stays for as long as it may be served in place
    /// of a slow or failing load.
    Anything,
}

impl Expected {
    /// Whether the lease may keep content, and whether it is taken by force.
    pub(crate) fn keeps(&self) -> Option<bool> {
        match self {
            Self::Nothing | Self::Entry(_) => None,
            Self::Past(_) | Self::Leased => Some(false),
            Self::Anything => Some(true),
        }
    }
}

/// A request to hold an entry's place while its value is loaded.
#[derive(Debug, Clone)]
pub struct LeaseRequest {
    /// The state that may be replaced.
    pub expected: Expected,
    /// The lease's id, fresh for each request.
    pub token: Nonce,
    /// The generations as the caller read them.
    pub stamp: Stamp,
    /// The type that will be stored.
    pub fingerprint: Fingerprint,
    /// How long the lease lasts unless renewed.
    pub length: Duration,
}

impl LeaseRequest {
    /// Whether the lease may replace what is there, as the caller has seen it.
    pub(crate) fn may_replace(&self, there: &Header, now: Millis) -> bool {
        let is_over = there.is_leased() && there.deadline < now;
        is_over
            || match &self.expected {
                Expected::Anything => true,
                // The holder of the lease may have renewed it since.
                Expected::Entry(expected) | Expected::Past(expected) => {
                    Header {
                        deadline: there.deadline,
                        ..*expected
                    } == *there
                }
                Expected::Nothing | Expected::Leased => false,
            }
    }

    /// The header of the lease if it is granted at `now` and keeps the content that is there.
    /// `None` if that may not be served any more.
    pub(crate) fn header_over(&self, there: &Header, now: Millis) -> Option<Header> {
        let is_by_force = self.expected.keeps()?;
        let kept = there.kept_by(self.stamp, self.fingerprint, is_by_force, now)?;
        Some(Header {
            token: self.token,
            deadline: now.after(self.length),
            ..kept
        })
    }

    /// The header of the lease if it is granted at `now`.
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
    /// The caller holds the lease.
    Granted,
    /// Something else is there now.
    Taken(Header),
    /// A value of another program is there.
    Foreign,
    /// A write intent is there.
    WriteInProgress,
}

/// An announced write: it is not known yet whether the write takes place.
///
/// Until the intent is [withdrawn](Invalidation::ends) or expires, readers of the entries it
/// concerns bypass the store. Each intent has an id and a deadline of its own, so a late or
/// repeated message about one does not affect another.
#[derive(Debug, Clone)]
pub struct Intent {
    /// The intent's id.
    pub token: Nonce,
    /// Entries of single rows.
    pub rows: Vec<IntentRow>,
    /// Generations.
    pub deps: Vec<Arc<Dependency>>,
    /// How long the intent lasts, counted from when the store accepts it.
    pub length: Duration,
}

/// One row that an intent concerns.
#[derive(Debug, Clone)]
pub struct IntentRow {
    /// The entity's key.
    pub key: String,
    /// The whole resource. If a foreign value lies under the key, the intent is set here instead.
    pub whole: Arc<Dependency>,
}

/// The answer to an [`Intent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntentReply {
    /// When it took effect, in the store's time. Entries stored earlier are dead.
    pub at: Millis,
    /// Whether it was set on the whole resource of a row, because a foreign value lies under the
    /// row's key.
    pub on_whole: bool,
}

/// A value to store under a lease.
#[derive(Debug)]
pub struct Fill {
    /// The lease. The value is stored only if the key still holds it.
    pub token: Nonce,
    /// The stamp computed before the load. It is stored unchanged, never computed again.
    pub stamp: Stamp,
    /// The value's type.
    pub fingerprint: Fingerprint,
    /// Value or absence.
    pub content: Content,
    /// The value, in the store's [`Representation`].
    pub payload: Payload,
    /// The codec of the payload.
    pub codec: CodecId,
    /// The weight of the entry in bytes: the length of its encoded value.
    pub size: usize,
    /// How long the value is served.
    pub fresh_for: Duration,
    /// How long after that the value may be served in place of a slow or failing load.
    pub stale_for: Duration,
    /// How long the load took.
    pub took: Duration,
    /// The shortest time that the generations it depends on must live from now.
    pub generation_ttl: Duration,
}

impl Fill {
    /// The header of the filled entry if it is stored at `now`.
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
    /// The lease is gone: the entry was invalidated, evicted or taken over during the load.
    Refused,
}

/// Entries to remove and generations to replace, in one step.
#[derive(Debug, Clone, Default)]
pub struct Invalidation {
    /// Keys of entries to delete, with their leases. Foreign values stay.
    pub deletes: Vec<String>,
    /// Generations that get a new nonce: all at once, or in this order.
    pub rotates: Vec<Arc<Dependency>>,
    /// Intents that end with this, wherever among the keys above they are or were set. Other
    /// intents stay.
    pub ends: Vec<Nonce>,
}

impl Invalidation {
    /// How many entries and generations it names.
    pub(crate) fn len(&self) -> usize {
        self.deletes.len() + self.rotates.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds the entries and generations of another one.
    #[cfg(feature = "redis")]
    pub(crate) fn extend(&mut self, other: &Self) {
        self.deletes.extend(other.deletes.iter().cloned());
        self.rotates.extend(other.rotates.iter().cloned());
    }

    /// These of its entries and generations, with all that it withdraws.
    pub(crate) fn part(&self, deletes: Vec<String>, rotates: Vec<Arc<Dependency>>) -> Self {
        Self {
            deletes,
            rotates,
            ends: self.ends.clone(),
        }
    }

    /// Its entries and generations without those of a part.
    pub(crate) fn without(&self, part: &Self) -> Self {
        let deletes: HashSet<&str> = part.deletes.iter().map(String::as_str).collect();
        let rotates: HashSet<&str> = part.rotates.iter().map(|dep| dep.key()).collect();
        let kept = self
            .deletes
            .iter()
            .filter(|key| !deletes.contains(key.as_str()));
        let deletes = kept.cloned().collect();
        let kept = self
            .rotates
            .iter()
            .filter(|dep| !rotates.contains(dep.key()));
        self.part(deletes, kept.cloned().collect())
    }
}

/// The answer to an [`Invalidation`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invalidated {
    /// When it took effect, in the store's time. Entries stored earlier are dead.
    pub at: Millis,
    /// How many of the deleted keys held an entry.
    pub removed: u64,
}

/// The progress of an [`Invalidation`], a part of which may fail: one of several servers is away,
/// or some keys are refused.
#[derive(Debug)]
pub struct PartlyInvalidated {
    /// The part that was done.
    pub done: Invalidated,
    /// The part that was not done and has to be repeated, with the error.
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

    /// The result of a store that does all of it or nothing.
    #[must_use]
    pub fn all_or_nothing(result: Result<Invalidated, Error>, invalidation: &Invalidation) -> Self {
        match result {
            Ok(done) => Self::whole(done),
            Err(error) => {
                let none = Invalidated {
                    at: Millis(0),
                    removed: 0,
                };
                Self::partly(none, invalidation.clone(), error)
            }
        }
    }
}

/// Parts of a store of several servers, by the numbers of
/// [`Store::part_of`](crate::store::Store::part_of).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parts {
    /// The whole store.
    All,
    /// These.
    Only(BTreeSet<u16>),
}

impl Parts {
    /// Whether this part is among them.
    #[must_use]
    pub fn has(&self, part: u16) -> bool {
        match self {
            Self::All => true,
            Self::Only(parts) => parts.contains(&part),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Only(parts) if parts.is_empty())
    }
}

/// The progress of an invalidation of the whole namespace in a store of several servers, some of
/// which may be away.
#[derive(Debug)]
pub struct NamespaceInvalidated {
    /// When its first step took effect, in the store's time; `None` if none did.
    pub at: Option<Millis>,
    /// The parts that were not done and have to be repeated, with the error.
    pub undone: Option<(Parts, Error)>,
}

impl NamespaceInvalidated {
    /// The result of a store that does all `parts` or none.
    #[must_use]
    pub fn all_or_nothing(result: Result<Millis, Error>, parts: &Parts) -> Self {
        match result {
            Ok(at) => Self {
                at: Some(at),
                undone: None,
            },
            Err(error) => Self {
                at: None,
                undone: Some((parts.clone(), error)),
            },
        }
    }
}

/// The filter of [`Store::remove_matching`](crate::store::Store::remove_matching). It never removes
/// values of other programs.
#[derive(Debug, Clone)]
pub struct ScanFilter {
    /// A pattern in the syntax of Redis's `SCAN MATCH`, namespace included.
    pub pattern: String,
    /// Only derived entries.
    pub derived_only: bool,
    /// Only entries stored before this point of the store's time.
    pub stored_before: Option<Millis>,
    /// Remove nothing if the store holds more keys than this.
    pub unless_larger_than: Option<u64>,
    /// Low priority: no caller waits for it, so other requests go first.
    pub is_low_priority: bool,
}

impl ScanFilter {
    /// Every entry of the namespace whose key matches `pattern` after the namespace.
    pub(crate) fn all(namespace: &str, pattern: &str) -> Self {
        Self {
            pattern: format!("{}{pattern}", glob::literal(namespace)),
            derived_only: false,
            stored_before: None,
            unless_larger_than: None,
            is_low_priority: false,
        }
    }
}

/// The entries of a store that are in this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct StoreUsage {
    /// Their number.
    pub entries: u64,
    /// Their total weight, in bytes.
    pub bytes: u64,
    /// How many of them made room for others since the store was created.
    pub evictions: u64,
}

/// The server's report about itself; `None` for figures that it does not report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ServerInfo {
    /// The number of keys in the database, those of other programs included.
    pub total_keys: Option<u64>,
    /// Memory in use, in the server's human-readable form.
    pub used_memory: Option<String>,
    /// Seconds since the server started.
    pub uptime_seconds: Option<u64>,
    /// The number of connections to the server.
    pub connected_clients: Option<u64>,
    /// Each primary of a cluster; the fields above are their sums. Empty without a cluster.
    pub nodes: Vec<NodeInfo>,
}

/// The report of a cluster's primary about itself; `None` for figures that it does not report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct NodeInfo {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether it answers.
    pub connected: bool,
    /// The number of its keys, those of other programs included.
    pub total_keys: Option<u64>,
    /// Memory in use, in its human-readable form.
    pub used_memory: Option<String>,
    /// The number of connections to it.
    pub connected_clients: Option<u64>,
}
