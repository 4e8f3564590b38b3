//! The events of a cache, for subscribers: rare ones only, never single hits or misses.
//!
//! A subscription is bounded and lossy: a subscriber that is too slow misses the oldest events, and
//! can read how many. The cache never waits for a subscriber.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::RwLock;
use serde::Serialize;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::audit::Finding;
use crate::protocol::circuit::Circuit;

/// How many events a subscriber may be behind.
const CAPACITY: usize = 1024;

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

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// The store has acknowledged an invalidation of this process. Several that waited together
    /// are one event.
    Invalidated {
        /// Keys of the rows that were invalidated.
        keys: Vec<String>,
        /// The other generations that were replaced: `users` for a whole resource, `users~derived`
        /// for its derived entries, and tags, by their names in keys.
        dependencies: Vec<String>,
        /// Whether the whole namespace was invalidated.
        everything: bool,
        /// How long the store took, in microseconds.
        took_us: u64,
    },
    /// Invalidations wait, since the store can't be reached.
    InvalidationPending {
        /// How many keys and dependencies wait.
        waiting: u64,
    },
    /// An expired entry was served, which had not been invalidated.
    StaleServed {
        /// The entry's key.
        key: String,
        /// The resource.
        resource: String,
        /// How long ago it had expired, in milliseconds.
        past_ms: u64,
        /// Why: `revalidating`, `load-failed`, `load-slow` or `loads-busy`.
        reason: &'static str,
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
    Audited(Finding),
}

fn unix_millis<S: serde::Serializer>(at: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    to.serialize_u64(since.map_or(0, |it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX)))
}

/// Where events are published.
#[derive(Debug, Default)]
pub(crate) struct EventBus(Arc<Bus>);

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
        if self.0.subscribers.load(Ordering::Relaxed) > 0 {
            self.send(kind());
        }
    }

    fn send(&self, kind: EventKind) {
        if let Some(sender) = &*self.0.sender.read() {
            let at = SystemTime::now();
            // An error means that the last subscriber has just gone.
            let _ = sender.send(Event { at, kind });
        }
    }

    /// Subscribes to what is published from now on.
    pub(crate) fn subscribe(&self) -> Events {
        let sender = self.0.sender.read();
        self.0.subscribers.fetch_add(1, Ordering::Relaxed);
        Events {
            receiver: sender.as_ref().map(broadcast::Sender::subscribe),
            lost: 0,
            bus: Some(Arc::clone(&self.0)),
        }
    }

    /// Ends all subscriptions, once their subscribers have taken what there is.
    pub(crate) fn close(&self) {
        *self.0.sender.write() = None;
    }
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
        tokio::time::timeout(limit, self.next())
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
