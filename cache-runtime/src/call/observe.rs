//! Reports what the cache did for the calls in a future: for response headers and for tests.

use std::fmt::Write as _;
use std::future::Future;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use crate::base::error::Error;
use crate::base::mutation;
use crate::base::scope_flags::{self, ScopeFlags};
use crate::base::unserved::Unserved;
use crate::invalidation::Acknowledgement;

tokio::task_local! {
    static OBSERVER: Arc<Observer>;
}

/// The observer around a task, with what it has been told.
#[derive(Debug)]
struct Observer {
    /// How many outcomes are kept. Further ones are only counted.
    most: usize,
    /// Whether it is the layer of a framework, which writes headers.
    is_layer: bool,
    seen: Mutex<Outcomes>,
    /// The observer that it is inside of, once its future has been polled.
    around: OnceLock<Arc<Observer>>,
}

impl Observer {
    /// This observer and those around it. A layer around another layer is left out, since the inner
    /// one writes the same headers into the same response, or is told not to show its calls.
    fn with_those_around(&self) -> impl Iterator<Item = &Self> {
        fn around<'o>(observer: &&'o Observer) -> Option<&'o Observer> {
            observer.around.get().map(Arc::as_ref)
        }
        let mut has_layer = false;
        std::iter::successors(Some(self), around).filter(move |observer| {
            let is_told = !(observer.is_layer && has_layer);
            has_layer |= observer.is_layer;
            is_told
        })
    }

    /// Whether it keeps one more outcome. It counts one that it does not keep.
    fn has_room(&self) -> bool {
        let mut seen = self.seen.lock();
        let has_room = seen.calls.len() < self.most || mutation::is_active("outcomes-unbounded");
        seen.more += usize::from(!has_room);
        has_room
    }
}

/// Why a cached function ran without the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BypassReason {
    /// No cache is configured.
    Disabled,
    /// The store is away, or did not answer within the command budget.
    Unavailable,
    /// An invalidation of this process has not reached the store yet.
    Pending,
    /// A write is announced by an intent, and its outcome is not known.
    WriteInProgress,
    /// A value of another program is stored under the key.
    Foreign,
    /// The key belongs to another function, or the resource's ids have another form.
    KeyConflict,
    /// An argument can't be part of a key.
    InvalidKey,
    /// The entry is being loaded as a value of another type.
    OtherType,
    /// Another caller was loading the value for longer than the wait limit.
    WaitLimit,
    /// Another caller was loading the value, and its load failed.
    LoadFailed,
    /// The attribute's `when` returned false.
    Condition,
    /// A transaction of this cache is open around the call; see
    /// [`Cache::after_commit`](crate::Cache::after_commit).
    Transaction,
    /// The caller asked for it, with [`bypass`](crate::bypass).
    Requested,
    /// The call is inside the body of a write that invalidates it. Only that body may see what it
    /// has written.
    OwnWrite,
    /// The call is inside a load of the same entry, and would wait for itself.
    OwnLoad,
    /// The call is inside a load, and the store is a Redis Cluster or Memcached, which an
    /// invalidation reaches key by key. A value that is made of other entries could be older than
    /// the invalidation that it has outlived, so it is made of the source.
    InsideLoad,
    /// The call is `strict`, and entries of this process follow the database's outbox, so they may
    /// be slightly stale.
    Strict,
    /// A value that the key needs is not set around the call; see
    /// [`Cache::with_key`](crate::Cache::with_key).
    NoContext,
    /// The function is not `async`, and can't wait for the store's answer.
    Blocking,
    /// An operator has switched the reads off; see [`Cache::disable`](crate::Cache::disable).
    SwitchedOff,
    /// In a Redis Cluster: the slot has just got another owner, and the former one may still answer
    /// other processes.
    Fenced,
    /// In a Redis Cluster, or with Sentinels: nobody has confirmed for two seconds which server is
    /// the primary.
    Unconfirmed,
    /// The store's memory is full and it does not evict, so it takes no new entries. What it has is
    /// served and invalidated as usual.
    Full,
}

impl BypassReason {
    /// All of them, in order.
    #[cfg_attr(
        not(feature = "metrics"),
        expect(dead_code, reason = "only collectors go through all of them")
    )]
    pub(crate) const ALL: [Self; 23] = [
        Self::Disabled,
        Self::Unavailable,
        Self::Pending,
        Self::WriteInProgress,
        Self::Foreign,
        Self::KeyConflict,
        Self::InvalidKey,
        Self::OtherType,
        Self::WaitLimit,
        Self::LoadFailed,
        Self::Condition,
        Self::Transaction,
        Self::Requested,
        Self::OwnWrite,
        Self::OwnLoad,
        Self::InsideLoad,
        Self::Strict,
        Self::NoContext,
        Self::Blocking,
        Self::SwitchedOff,
        Self::Fenced,
        Self::Unconfirmed,
        Self::Full,
    ];

    /// Why a call can't use the store that has answered with this error.
    pub(crate) fn of(error: &Error) -> Self {
        match Unserved::of(error) {
            Some(Unserved::Fenced) => Self::Fenced,
            Some(Unserved::Unconfirmed) => Self::Unconfirmed,
            Some(Unserved::Full) => Self::Full,
            None => Self::Unavailable,
        }
    }

    /// The name of the reason, as used in logs, metrics and `Cache-Status`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Unavailable => "unavailable",
            Self::Pending => "pending",
            Self::WriteInProgress => "write-in-progress",
            Self::Foreign => "foreign",
            Self::KeyConflict => "key-conflict",
            Self::InvalidKey => "invalid-key",
            Self::OtherType => "other-type",
            Self::WaitLimit => "wait-limit",
            Self::LoadFailed => "load-failed",
            Self::Condition => "condition",
            Self::Transaction => "transaction",
            Self::Requested => "requested",
            Self::OwnWrite => "own-write",
            Self::OwnLoad => "own-load",
            Self::InsideLoad => "inside-load",
            Self::Strict => "strict",
            Self::NoContext => "no-context",
            Self::Blocking => "blocking",
            Self::SwitchedOff => "switched-off",
            Self::Fenced => "fenced",
            Self::Unconfirmed => "unconfirmed",
            Self::Full => "full",
        }
    }
}

/// Why an expired entry was served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StaleReason {
    /// A new value is being loaded (the attribute's `swr`).
    Revalidating,
    /// The load of a new value failed (the attribute's `stale_if_error`).
    LoadFailed,
    /// The load of a new value takes longer than the attribute's `timeout`, and goes on.
    LoadSlow,
    /// As many loads as allowed are running (the attribute's `max_loads` and `stale_if_error`).
    LoadsBusy,
}

impl StaleReason {
    /// All of them, in order.
    #[cfg_attr(
        not(feature = "metrics"),
        expect(dead_code, reason = "only collectors go through all of them")
    )]
    pub(crate) const ALL: [Self; 4] = [
        Self::Revalidating,
        Self::LoadFailed,
        Self::LoadSlow,
        Self::LoadsBusy,
    ];

    /// The name of the reason, as used in logs, metrics and `Cache-Status`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Revalidating => "revalidating",
            Self::LoadFailed => "load-failed",
            Self::LoadSlow => "load-slow",
            Self::LoadsBusy => "loads-busy",
        }
    }
}

/// How a cached call was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// From the cache.
    Hit {
        /// How long the entry will still be served. `Duration::MAX` if that is not known, for
        /// instance because the request remembered the result.
        ttl: Duration,
    },
    /// From the cache, with an entry that has expired but was not invalidated.
    Stale {
        /// How long ago it expired.
        past: Duration,
        /// Why it was served all the same.
        reason: StaleReason,
    },
    /// By the function.
    Miss {
        /// Whether the value is in the cache now.
        stored: bool,
        /// Whether another call in this process answered this one too (single-flight): by running
        /// the function, or with the result of a load elsewhere.
        joined: bool,
    },
    /// By the function, without the cache.
    Bypass(BypassReason),
}

/// The outcome of one call of a cached function.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// The entry's key with its namespace. Empty if the call has no key.
    pub key: String,
    /// The resource. Empty if the cache is off.
    pub resource: String,
    /// Where the entry is stored: `local`, `redis`, `memcached` or the name of another store;
    /// `request` if the request remembered the result. Empty if the cache is off.
    pub store: &'static str,
    /// How the call was answered.
    pub status: Status,
}

impl Outcome {
    /// Returns the outcome as a `Cache-Status` item
    /// ([RFC 9211](https://www.rfc-editor.org/rfc/rfc9211)), such as
    /// `cache-runtime; hit; ttl=295; key="users:1"; detail=redis`.
    #[must_use]
    pub fn cache_status(&self) -> String {
        let mut item = String::with_capacity(64 + self.key.len());
        item.push_str("cache-runtime");
        match self.status {
            Status::Hit { ttl: Duration::MAX } => item.push_str("; hit"),
            Status::Hit { ttl } => {
                let _ = write!(item, "; hit; ttl={}", ttl.as_secs());
            }
            // RFC 9211 expresses stale entries by a negative TTL.
            Status::Stale { past, .. } => {
                let _ = write!(item, "; hit; ttl=-{}", past.as_secs().max(1));
            }
            Status::Miss { stored, joined } => {
                item.push_str("; fwd=miss");
                item.push_str(if stored { "; stored" } else { "" });
                item.push_str(if joined { "; collapsed" } else { "" });
            }
            Status::Bypass(_) => item.push_str("; fwd=bypass"),
        }
        if !self.key.is_empty() {
            item.push_str("; key=");
            push_string(&mut item, &self.key);
        }
        let detail = match self.status {
            Status::Bypass(reason) => reason.as_str(),
            Status::Stale { reason, .. } => reason.as_str(),
            _ => self.store,
        };
        if !detail.is_empty() {
            item.push_str("; detail=");
            match is_token(detail) {
                true => item.push_str(detail),
                false => push_string(&mut item, detail),
            }
        }
        item
    }
}

/// Whether a text is a token of structured fields (RFC 9651, 3.3.4). The name of a program's own
/// store may be any text.
fn is_token(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte);
    let begins = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '*');
    (begins && text.bytes().all(fits)) || mutation::is_active("details-taken-for-tokens")
}

/// Writes a text as a string of structured fields, which is ASCII: other bytes are escaped as in a
/// URL.
fn push_string(item: &mut String, text: &str) {
    let is_plain = |byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
    item.push('"');
    if text.bytes().all(is_plain) {
        item.push_str(text);
    } else {
        for byte in text.bytes() {
            match byte {
                b'"' | b'\\' => item.extend(['\\', char::from(byte)]),
                b' '..=b'~' => item.push(char::from(byte)),
                _ => {
                    let _ = write!(item, "%{byte:02X}");
                }
            }
        }
    }
    item.push('"');
}

/// The outcomes of the cached calls inside [`observe`], in the order in which they were answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcomes {
    calls: Vec<Outcome>,
    /// The number of further calls, of which nothing else is kept.
    more: usize,
    invalidation: Option<Acknowledgement>,
}

impl Outcomes {
    /// The result of the invalidations that were made: the worst result of any of them, so it is
    /// [`Delivered`](Acknowledgement::Delivered) only if each one was. `None` if there were none.
    #[must_use]
    pub fn invalidation(&self) -> Option<Acknowledgement> {
        self.invalidation
    }

    /// The number of further calls, whose outcomes are not kept.
    #[cfg(any(feature = "actix", feature = "poem", feature = "tower", test))]
    pub(crate) fn more(&self) -> usize {
        self.more
    }

    /// The same as the value of a `Cache-Invalidation` header: `delivered`, `pending` or `lost`.
    /// `None` if nothing was invalidated, for instance because the cache is off.
    #[must_use]
    pub fn cache_invalidation(&self) -> Option<&'static str> {
        match self.invalidation? {
            Acknowledgement::Delivered => Some("delivered"),
            Acknowledgement::Pending => Some("pending"),
            Acknowledgement::Lost => Some("lost"),
            // The enclosing block reports it when it has ended.
            Acknowledgement::Deferred | Acknowledgement::Disabled => None,
        }
    }
}

impl Deref for Outcomes {
    type Target = [Outcome];

    fn deref(&self) -> &[Outcome] {
        &self.calls
    }
}

impl IntoIterator for Outcomes {
    type Item = Outcome;
    type IntoIter = std::vec::IntoIter<Outcome>;

    fn into_iter(self) -> Self::IntoIter {
        self.calls.into_iter()
    }
}

/// Runs `future` and returns what the cache did for it. Calls in tasks that `future` spawns are not
/// reported. Another `observe` inside of it, or a layer of a framework, hides nothing from it.
///
/// # Cancel safety
/// As cancel safe as `future` is.
pub fn observe<F: Future>(future: F) -> impl Future<Output = (F::Output, Outcomes)> {
    observe_as(false, usize::MAX, future)
}

/// Does the same for the layer of a framework, and keeps so many outcomes at most: one request may
/// make a million calls. With none, the calls are not even looked at.
#[cfg(any(feature = "actix", feature = "poem", feature = "tower", test))]
pub(crate) fn observe_first<F: Future>(
    most: usize,
    future: F,
) -> impl Future<Output = (F::Output, Outcomes)> {
    observe_as(true, most, future)
}

// Not an `async fn`, which would hold the future once more.
fn observe_as<F: Future>(
    is_layer: bool,
    most: usize,
    future: F,
) -> impl Future<Output = (F::Output, Outcomes)> {
    let observer = Arc::new(Observer {
        most,
        is_layer,
        seen: Mutex::default(),
        around: OnceLock::new(),
    });
    let flag = match most {
        0 => ScopeFlags::NONE,
        _ => ScopeFlags::OBSERVED,
    };
    let future = OBSERVER.scope(Arc::clone(&observer), future);
    let future = scope_flags::flagged(flag, future);
    async move {
        if let Ok(around) = OBSERVER.try_with(Arc::clone)
            && !mutation::is_active("observers-hide-what-is-inside")
        {
            let _ = observer.around.set(around);
        }
        let output = future.await;
        let outcomes = std::mem::take(&mut *observer.seen.lock());
        (output, outcomes)
    }
}

/// Hands an outcome to the observers around the current task, if there are any.
#[inline]
pub(crate) fn record(outcome: impl FnOnce() -> Outcome) {
    if ScopeFlags::now().has(ScopeFlags::OBSERVED) {
        defer(outcome);
    }
}

/// Tells the observers around the current task the result of an invalidation.
pub(crate) fn record_invalidation(acknowledgement: Acknowledgement) {
    /// The order from best to worst.
    fn rank(acknowledgement: Acknowledgement) -> u8 {
        match acknowledgement {
            Acknowledgement::Disabled => 0,
            Acknowledgement::Deferred => 1,
            Acknowledgement::Delivered => 2,
            Acknowledgement::Pending => 3,
            Acknowledgement::Lost => 4,
        }
    }
    // Also while a future is dropped, when there are no flags.
    let _ = OBSERVER.try_with(|observer| {
        for observer in observer.with_those_around() {
            let known = &mut observer.seen.lock().invalidation;
            let is_worse = known.is_none_or(|known| rank(known) < rank(acknowledgement));
            if is_worse {
                *known = Some(acknowledgement);
            }
        }
    });
}

// A function of its own, so that the callers stay small.
#[inline(never)]
fn defer(outcome: impl FnOnce() -> Outcome) {
    // An error means that there is no observer.
    let Ok(observer) = OBSERVER.try_with(Arc::clone) else {
        return;
    };
    let mut keeping = observer.with_those_around().filter(|it| it.has_room());
    let Some(first) = keeping.next() else {
        return;
    };
    let outcome = outcome();
    for other in keeping {
        other.seen.lock().calls.push(outcome.clone());
    }
    first.seen.lock().calls.push(outcome);
}

/// Records a call whose cache is off.
#[inline]
pub(crate) fn record_disabled() {
    record(|| Outcome {
        key: String::new(),
        resource: String::new(),
        store: "",
        status: Status::Bypass(BypassReason::Disabled),
    });
}

#[cfg(test)]
mod tests;
