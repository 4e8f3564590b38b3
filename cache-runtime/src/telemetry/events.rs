//! The events of a cache, for subscribers: rare ones only, never single hits or misses.
//!
//! A subscription is bounded and lossy: a subscriber that is too slow misses the oldest events, and
//! can read how many. The cache never waits for a subscriber.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::{Mutex, RwLock};
use serde::Serialize;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::audit::AuditFinding;
use super::function::STALE_REASONS;
use crate::base::clock::{self, Instant};
use crate::protocol::circuit::Circuit;

/// How many events a subscriber may be behind.
const CAPACITY: usize = 1024;

/// Stale hits of one resource and reason are one event in this time. There may be thousands of them
/// in a second, just when an operator wants to see what else has happened.
pub(crate) const STALE_INTERVAL: Duration = Duration::from_secs(1);

/// Something that happened in a cache.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Event {
    /// The time, by this machine's clock.
    #[serde(serialize_with = "unix_millis")]
    pub at: SystemTime,
    /// The event.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// The kind of an event.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// The store has acknowledged an invalidation of this process. Several that waited together
    /// are one event.
    Invalidated {
        /// Keys of the rows that were invalidated, or the pattern of `invalidate_pattern`.
        keys: Vec<String>,
        /// The other generations that were replaced: `users` for a whole resource, `users~derived`
        /// for its derived entries, and tags, by their names in keys.
        dependencies: Vec<String>,
        /// Whether the whole namespace was invalidated.
        everything: bool,
        /// How long the store took, in microseconds.
        took_us: u64,
    },
    /// Invalidations wait, since the store can't be reached. One event when that begins, and then
    /// at most one a second, if there are more or fewer of them.
    InvalidationPending {
        /// How many keys and dependencies wait.
        waiting: u64,
    },
    /// Expired entries were served, which had not been invalidated. One event at most for each
    /// resource and reason in a second.
    StaleServed {
        /// The key of the last of these entries.
        key: String,
        /// The resource.
        resource: String,
        /// How long ago that entry had expired, in milliseconds.
        past_ms: u64,
        /// Why: `revalidating`, `load-failed`, `load-slow` or `loads-busy`.
        reason: &'static str,
        /// How often that has happened since the last such event.
        count: u64,
    },
    /// The circuit breaker is in another state.
    CircuitChanged {
        /// The state before.
        from: Circuit,
        /// The state now.
        to: Circuit,
        /// Why the store is not asked, if that is known.
        reason: Option<String>,
    },
    /// All local entries were dropped: the connection was lost, or the server was flushed.
    LocalFlushed {
        /// How often that has happened in this process.
        flushes: u64,
    },
    /// Reads of a resource or a function were switched off or on.
    Switched {
        /// The resource, `resource:op`, or `*` for all.
        target: String,
        /// Whether the cache answers them from now on.
        enabled: bool,
        /// Whether it holds for all processes.
        everywhere: bool,
    },
    /// The auditor compared a hit with the current result of its function.
    Audited(AuditFinding),
}

fn unix_millis<S: serde::Serializer>(at: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    to.serialize_u64(since.map_or(0, |it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX)))
}

/// Where events are published.
#[derive(Debug, Default)]
pub(crate) struct EventBus {
    bus: Arc<Bus>,
    /// Stale hits, by resource and reason.
    stale: Mutex<HashMap<Box<str>, [StaleHits; STALE_REASONS]>>,
}

/// The stale hits of one resource and reason.
#[derive(Debug, Default)]
struct StaleHits {
    /// When there was an event last.
    told: Option<Instant>,
    /// Those since then: how many, and key and time past of the last one.
    held_back: Option<(u64, String, u64)>,
}

/// A stale hit, for the event about it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StaleHit<'a> {
    pub(crate) resource: &'a str,
    pub(crate) key: &'a str,
    pub(crate) past_ms: u64,
    /// The reason's number and name.
    pub(crate) reason: (usize, &'static str),
}

#[derive(Debug)]
struct Bus {
    /// `None` once the cache is closed.
    sender: RwLock<Option<broadcast::Sender<Event>>>,
    /// Spares publishers the lock, since usually nobody subscribes.
    subscribers: AtomicUsize,
}

impl Default for Bus {
    fn default() -> Self {
        Self {
            sender: RwLock::new(Some(broadcast::Sender::new(CAPACITY))),
            subscribers: AtomicUsize::new(0),
        }
    }
}

impl EventBus {
    /// Publishes what `kind` makes, if anybody has subscribed.
    #[inline]
    pub(crate) fn publish(&self, kind: impl FnOnce() -> EventKind) {
        if self.has_subscribers() {
            self.send(kind());
        }
    }

    #[inline]
    fn has_subscribers(&self) -> bool {
        self.bus.subscribers.load(Ordering::Relaxed) > 0
    }

    /// Publishes a stale hit, unless there was an event about others within the last second. Then
    /// it is counted, and `true` asks the caller to call [`tell_held_back`](Self::tell_held_back)
    /// after [`STALE_INTERVAL`].
    pub(crate) fn served_stale(&self, hit: StaleHit<'_>) -> bool {
        if !self.has_subscribers() {
            return false;
        }
        let (mut stale, now) = (self.stale.lock(), clock::now());
        let Some(hits) = hits_of(&mut stale, hit.resource, hit.reason.0) else {
            return false;
        };
        let is_due = hits
            .told
            .is_none_or(|told| now.saturating_duration_since(told) >= STALE_INTERVAL);
        let before = hits.held_back.take();
        let count = before.as_ref().map_or(0, |before| before.0) + 1;
        if is_due || crate::base::mutation::is_active("each-stale-hit-an-event") {
            hits.told = Some(now);
            drop(stale);
            self.send(hit.event(count));
            return false;
        }
        let is_first = before.is_none();
        hits.held_back = Some((count, hit.key.to_owned(), hit.past_ms));
        is_first
    }

    /// Publishes the stale hits that were held back.
    pub(crate) fn tell_held_back(&self, resource: &str, reason: (usize, &'static str)) {
        let mut stale = self.stale.lock();
        let hits = hits_of(&mut stale, resource, reason.0);
        let Some((hits, held_back)) = hits.and_then(|hits| {
            let held_back = hits.held_back.take()?;
            Some((hits, held_back))
        }) else {
            return;
        };
        hits.told = Some(clock::now());
        drop(stale);
        let (count, key, past_ms) = held_back;
        let hit = StaleHit {
            resource,
            key: &key,
            past_ms,
            reason,
        };
        self.publish(|| hit.event(count));
    }

    fn send(&self, kind: EventKind) {
        if let Some(sender) = &*self.bus.sender.read() {
            let at = SystemTime::now();
            // An error means that the last subscriber has just gone.
            let _ = sender.send(Event { at, kind });
        }
    }

    /// Subscribes to what is published from now on.
    pub(crate) fn subscribe(&self) -> Events {
        let sender = self.bus.sender.read();
        self.bus.subscribers.fetch_add(1, Ordering::Relaxed);
        Events {
            receiver: sender.as_ref().map(broadcast::Sender::subscribe),
            lost: 0,
            bus: Some(Arc::clone(&self.bus)),
        }
    }

    /// Ends all subscriptions, once their subscribers have taken what there is.
    pub(crate) fn close(&self) {
        *self.bus.sender.write() = None;
    }
}

impl StaleHit<'_> {
    fn event(&self, count: u64) -> EventKind {
        EventKind::StaleServed {
            key: self.key.to_owned(),
            resource: self.resource.to_owned(),
            past_ms: self.past_ms,
            reason: self.reason.1,
            count,
        }
    }
}

fn hits_of<'s>(
    stale: &'s mut HashMap<Box<str>, [StaleHits; STALE_REASONS]>,
    resource: &str,
    reason: usize,
) -> Option<&'s mut StaleHits> {
    if !stale.contains_key(resource) {
        stale.insert(resource.into(), Default::default());
    }
    stale.get_mut(resource)?.get_mut(reason)
}

/// A subscription to what happens in a cache; see [`Cache::events`](crate::Cache::events).
#[derive(Debug)]
pub struct Events {
    receiver: Option<broadcast::Receiver<Event>>,
    lost: u64,
    bus: Option<Arc<Bus>>,
}

impl Events {
    /// Of a cache that is off: it ends at once.
    pub(crate) fn none() -> Self {
        Self {
            receiver: None,
            lost: 0,
            bus: None,
        }
    }

    /// The next event; `None` once the cache has been shut down.
    ///
    /// # Cancel safety
    /// Dropping the future loses no event.
    pub async fn next(&mut self) -> Option<Event> {
        let receiver = self.receiver.as_mut()?;
        loop {
            match receiver.recv().await {
                Ok(event) => return Some(event),
                Err(RecvError::Lagged(missed)) => self.lost += missed,
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// The next event if there is one already.
    pub fn try_next(&mut self) -> Option<Event> {
        let receiver = self.receiver.as_mut()?;
        loop {
            match receiver.try_recv() {
                Ok(event) => return Some(event),
                Err(TryRecvError::Lagged(missed)) => self.lost += missed,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return None,
            }
        }
    }

    /// The next event, waited for no longer than `limit`.
    ///
    /// # Cancel safety
    /// As [`next`](Self::next).
    pub async fn next_within(&mut self, limit: Duration) -> Option<Event> {
        crate::base::time::timeout(limit, self.next())
            .await
            .ok()
            .flatten()
    }

    /// How many events this subscriber has missed, because it was more than 1,024 behind.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        if let Some(bus) = &self.bus {
            bus.subscribers.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flushed(flushes: u64) -> EventKind {
        EventKind::LocalFlushed { flushes }
    }

    #[tokio::test]
    async fn a_slow_subscriber_misses_the_oldest_and_is_told_how_many() {
        let bus = EventBus::default();
        bus.publish(|| panic!("nobody has subscribed"));
        let mut events = bus.subscribe();
        let sent = CAPACITY as u64 + 5;
        (0..sent).for_each(|n| bus.publish(|| flushed(n)));
        let first = events.next().await.expect("an event");
        assert_eq!((first.kind, events.lost()), (flushed(5), 5));
        drop(events);
        bus.publish(|| panic!("nobody is left"));
    }

    #[tokio::test(start_paused = true)]
    async fn many_stale_hits_are_few_events() {
        let bus = EventBus::default();
        let hit = |resource, reason| StaleHit {
            resource,
            key: "k",
            past_ms: 7,
            reason,
        };
        let (slow, failed) = ((2, "load-slow"), (1, "load-failed"));
        assert!(!bus.served_stale(hit("users", slow)), "nobody listens");
        let mut events = bus.subscribe();
        let mut counts = || -> Vec<u64> {
            let next = std::iter::from_fn(|| events.try_next());
            let counts = next.map(|event| match event.kind {
                EventKind::StaleServed { count, .. } => count,
                other => panic!("{other:?}"),
            });
            counts.collect()
        };
        let to_tell: Vec<_> = (0..5)
            .map(|_| bus.served_stale(hit("users", slow)))
            .collect();
        assert_eq!(to_tell, [false, true, false, false, false]);
        bus.served_stale(hit("users", failed));
        bus.served_stale(hit("teams", slow));
        assert_eq!(counts(), [1, 1, 1], "each resource and reason by itself");
        bus.tell_held_back("users", slow);
        bus.tell_held_back("users", slow);
        bus.tell_held_back("nobody", slow);
        assert_eq!(counts(), [4]);
        // The event that was held back is not published yet: the next hit does it.
        bus.served_stale(hit("users", slow));
        tokio::time::advance(STALE_INTERVAL).await;
        assert!(!bus.served_stale(hit("users", slow)));
        assert_eq!(counts(), [2]);
    }

    #[tokio::test]
    async fn a_subscription_ends_with_the_cache() {
        let bus = EventBus::default();
        let mut events = bus.subscribe();
        bus.publish(|| flushed(1));
        bus.close();
        assert_eq!(events.next().await.map(|it| it.kind), Some(flushed(1)));
        assert_eq!(events.next().await, None);
        assert_eq!(bus.subscribe().next().await, None);
    }
}
