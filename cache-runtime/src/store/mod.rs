//! The protocol's verbs, as a trait that any backend can implement.
//!
//! A store keeps entries (a [`Header`] and a payload) and generations, and compares and replaces them
//! atomically per verb. It decides nothing: what a stamp means, who waits and who loads is the caller's part.

mod connection;
mod glob;
mod memory;
#[cfg(feature = "redis")]
mod redis;
mod survey;

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;

pub(crate) use self::connection::ConnectionStatus;
pub use self::connection::ConnectionWatch;
pub(crate) use self::glob::literal as glob_literal;
pub use self::memory::MemoryStore;
#[cfg(feature = "redis")]
pub use self::redis::RedisStore;
#[cfg(all(feature = "redis", feature = "testing"))]
pub(crate) use self::redis::given as given_names;
pub use self::survey::{Inquiry, Survey};
use crate::base::clock::CLOCK_ERROR;
pub use crate::base::clock::Millis;
use crate::base::error::{Error, ErrorKind};
pub use crate::base::nonce::Nonce;
use crate::key::EntryKind;
use crate::protocol::entry::MAX_TOOK;
pub use crate::protocol::entry::{CodecId, Content, Fingerprint, Header, Stamp};
pub use crate::protocol::generation::{Dep, Generation, StampBase};

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
}

/// Whether a store is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Circuit {
    /// It answers, and is asked.
    Closed,
    /// It did not answer; nobody asks until the pause is over.
    Open,
    /// It is being tried. Calls still go without it.
    HalfOpen,
    /// It answers reads and refuses writes, invalidations among them, so that what it has may be stale. Nobody asks until
    /// it takes writes again.
    ReadsOnly,
}

impl Circuit {
    /// The state's name as it stands in logs and statistics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
            Self::ReadsOnly => "reads-only",
        }
    }
}

/// Word of a key's next change.
pub struct Word(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Word {
    /// Word that comes when the future is over. It may come without a change, and late, but then it is heard late.
    pub fn new(change: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Box::pin(change))
    }

    /// Returns when word has come. It comes once: what happens after that is heard by nobody, and this is not to be awaited again.
    ///
    /// # Cancel safety
    /// Dropped before it returns, word can still be heard.
    pub async fn heard(&mut self) {
        self.0.as_mut().await;
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Word")
    }
}

/// A place where entries and generations are kept.
///
/// All verbs are bounded in time by the store itself. They are safe to drop at any point: what was sent may
/// still take place.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// The store's name, as it stands in logs, metrics and `Cache-Status`.
    fn name(&self) -> &'static str;

    /// In which form values are kept.
    fn form(&self) -> Form;

    /// Whether the store is asked now; the answer costs nothing.
    fn circuit(&self) -> Circuit {
        Circuit::Closed
    }

    /// Why the store is not asked now, in words; `None` while it is, and where there is no more to say.
    fn reason(&self) -> Option<String> {
        None
    }

    /// What is known of the store's connection, if it makes one by itself: then writes wait for a fresh one, for as long as
    /// [`ConnectionWatch`] says. `None` where there is nothing to wait for.
    fn connection(&self) -> Option<ConnectionWatch> {
        None
    }

    /// Shows what [`look`](Store::look) would see now, if there is an entry with the stamp of the generations, no intent, and
    /// to find out takes no longer than a call without the cache: before a call waits for anything, it glances. To show
    /// nothing says nothing.
    ///
    /// `see` is to be called once at most. A value that is [`Encoded`](Payload::Encoded) is passed over, since decoding it takes
    /// time: the call looks then.
    fn glance(&self, key: &str, deps: &[Arc<Dep>], see: See<'_>) {
        let _ = (key, deps, see);
    }

    /// Reads an entry and the generations it depends on, in any order. A generation that is missing is
    /// created, so that the stamp is always whole. Entry and generations come from one server.
    async fn look(&self, probe: &Probe) -> Result<Look, Error>;

    /// Reads many entries and the generations they depend on: all of them the same ones. As if each were
    /// [looked](Store::look) at, in fewer round trips.
    async fn look_many(&self, probes: &[Probe]) -> Result<Vec<Look>, Error> {
        let mut looks = Vec::with_capacity(probes.len());
        for probe in probes {
            looks.push(self.look(probe).await?);
        }
        Ok(looks)
    }

    /// Takes the entry's place for a load, by compare-and-set. An expired lease always gives way.
    async fn lease(&self, probe: &Probe, request: &LeaseRequest) -> Result<LeaseReply, Error>;

    /// Takes the places of many entries, as if each were [leased](Store::lease), in fewer round trips. After an error some
    /// of them may be leased.
    async fn lease_many(
        &self,
        requests: &[(&Probe, LeaseRequest)],
    ) -> Result<Vec<LeaseReply>, Error> {
        let mut replies = Vec::with_capacity(requests.len());
        for (probe, request) in requests {
            replies.push(self.lease(probe, request).await?);
        }
        Ok(replies)
    }

    /// Asks for word of a key's next change, for one who waits for another process: whoever looks after this has answered
    /// misses no change. `None` where the store sends no word; the key is then looked at from time to time.
    async fn listen(&self, key: &str) -> Result<Option<Word>, Error> {
        let _ = key;
        Ok(None)
    }

    /// Moves the deadline of a lease; `false` if the lease is gone.
    async fn renew(&self, key: &str, token: Nonce, length: Duration) -> Result<bool, Error>;

    /// Moves the deadlines of many leases, as if each were [renewed](Store::renew), in fewer round trips.
    async fn renew_many(&self, leases: &[(String, Nonce)], length: Duration) -> Result<(), Error> {
        for (key, token) in leases {
            self.renew(key, *token, length).await?;
        }
        Ok(())
    }

    /// Gives a lease back; without effect if it is gone.
    async fn release(&self, key: &str, token: Nonce) -> Result<(), Error>;

    /// Stores a value, by compare-and-set on the lease.
    async fn fill(&self, probe: &Probe, fill: Fill) -> Result<Filled, Error>;

    /// Stores many values whose entries depend on the same generations, as if each were [filled](Store::fill), in fewer
    /// round trips. One that can't be stored is refused, and the others are stored all the same.
    async fn fill_many(&self, fills: Vec<(&Probe, Fill)>) -> Result<Vec<Filled>, Error> {
        let mut filled = Vec::with_capacity(fills.len());
        for (probe, fill) in fills {
            filled.push(match self.fill(probe, fill).await {
                Err(error) if error.kind() == ErrorKind::Unstorable => Filled::Refused,
                answer => answer?,
            });
        }
        Ok(filled)
    }

    /// Announces a write, by adding its intent to those of others: kills the rows, replaces the generations.
    async fn intend(&self, intent: &Intent) -> Result<Intended, Error>;

    /// Moves the deadline of an intent, and changes nothing else where it still stands; where it doesn't, as
    /// [`intend`](Store::intend).
    async fn renew_intent(&self, intent: &Intent) -> Result<Intended, Error>;

    /// Ends the intents on an entry and its dependencies whose time is over; what they stood on gets a new generation.
    async fn prune(&self, probe: &Probe) -> Result<(), Error>;

    /// Removes entries and replaces generations. Repeating it is harmless. Intents that are not withdrawn stay until their
    /// time is over.
    async fn invalidate(&self, invalidation: &Invalidation) -> Result<Invalidated, Error>;

    /// Removes entries of this framework by pattern, in bounded steps; returns how many.
    async fn remove_matching(&self, matching: &Matching) -> Result<u64, Error>;

    /// Replaces every generation of the namespace, which makes every entry in it dead; returns when, in the
    /// store's time.
    async fn invalidate_namespace(&self, namespace: &str) -> Result<Millis, Error>;

    /// Asks for a sign of life: whether reads and writes would be answered now.
    async fn ping(&self) -> Result<(), Error>;

    /// Asks the server about itself.
    async fn facts(&self) -> Result<ServerFacts, Error>;

    /// Looks at how the server is set up, without changing anything and in bounded time however much it holds; for
    /// [`Cache::checkup`](crate::Cache::checkup). A store without a server has nothing to say.
    async fn survey(&self, inquiry: &Inquiry) -> Result<Survey, Error> {
        let _ = inquiry;
        Ok(Survey::default())
    }

    /// Ends connections and tasks. Everything fails as unavailable afterwards. It may be called more than once.
    async fn close(&self) {}
}
