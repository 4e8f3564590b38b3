//! Single-flight within the process: who loads, and who waits for it.
//!
//! A flight is found by its lease's token, and a reader knows that token only from the entry it has just read,
//! with the very stamp it has just computed. So a flight is joined by lease and stamp, never by key alone: a
//! reader that starts after an acknowledged invalidation can't get a load that began before it.
//!
//! A load of another process is a flight as well, whose leader is the first reader here that met its lease: that one looks
//! after it, and the others wait for what it finds instead of asking the store themselves.

use std::any::Any;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

use crate::base::clock::{self, Instant};
use crate::base::nonce::Nonce;
use crate::base::sync::{Mutex, time};

/// What a load brought, for those who wait for it.
#[derive(Clone)]
pub(crate) enum LoadResult {
    /// An `Arc` of the function's value type.
    Value(Arc<dyn Any + Send + Sync>),
    Absence,
    /// The function failed; its error is not shared.
    Failure,
}

impl fmt::Debug for LoadResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Value(_) => "Value",
            Self::Absence => "Absence",
            Self::Failure => "Failure",
        })
    }
}

/// Where those who wait hear of a flight's end.
type Completion = watch::Receiver<Option<LoadResult>>;

/// The loads under way in this process, and those elsewhere that somebody here looks after, by the token of their lease.
#[derive(Debug, Default)]
pub(crate) struct SingleFlight {
    by_token: Mutex<HashMap<Nonce, Completion>>,
    /// Leases that nobody of this process holds any more, until they lapse. The store may not have heard of it yet, or may
    /// never hear of it, as when it was away.
    given_up: Mutex<HashMap<Nonce, Instant>>,
}

/// Past so many, those that have lapsed are forgotten.
const GIVEN_UP: usize = 1024;

impl SingleFlight {
    /// Says that whoever held this lease has gone, so that those who meet it need not wait for it to lapse.
    pub(crate) fn give_up(&self, token: Nonce, lapses: Instant) {
        let mut given_up = self.given_up.lock();
        if given_up.len() >= GIVEN_UP {
            let now = clock::now();
            given_up.retain(|_, lapses| *lapses > now);
            if given_up.len() >= GIVEN_UP {
                return;
            }
        }
        given_up.insert(token, lapses);
    }

    pub(crate) fn is_given_up(&self, token: Nonce) -> bool {
        self.given_up.lock().contains_key(&token)
    }

    /// Starts a flight. It ends when the leader is dropped, with or without a value.
    pub(crate) fn start(self: &Arc<Self>, token: Nonce) -> Leader {
        let (leader, completion) = self.leader(token);
        self.by_token.lock().insert(token, completion);
        leader
    }

    fn leader(self: &Arc<Self>, token: Nonce) -> (Leader, Completion) {
        let (load_result, completion) = watch::channel(None);
        let single_flight = Arc::clone(self);
        let leader = Leader {
            single_flight,
            token,
            load_result,
        };
        (leader, completion)
    }

    /// A waiter for the flight under this lease, if there is one in this process.
    pub(crate) fn join(&self, token: Nonce) -> Option<Waiter> {
        let load_result = self.by_token.lock().get(&token)?.clone();
        Some(Waiter { load_result })
    }

    /// The flight under a lease that somebody else holds: to be joined, or to be looked after if nobody does.
    pub(crate) fn follow(self: &Arc<Self>, token: Nonce) -> FlightRole {
        match self.by_token.lock().entry(token) {
            Entry::Occupied(flight) => FlightRole::Waiter(Waiter {
                load_result: flight.get().clone(),
            }),
            Entry::Vacant(place) => {
                let (leader, completion) = self.leader(token);
                if !crate::base::mutation::is_active("each-looks-after-a-load-elsewhere") {
                    place.insert(completion);
                }
                FlightRole::Leader(leader)
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.by_token.lock().len()
    }
}

/// A flight that began elsewhere, for one who meets it.
#[derive(Debug)]
pub(crate) enum FlightRole {
    Waiter(Waiter),
    Leader(Leader),
}

/// Held by the one who loads, or looks after a load elsewhere.
#[derive(Debug)]
pub(crate) struct Leader {
    single_flight: Arc<SingleFlight>,
    token: Nonce,
    load_result: watch::Sender<Option<LoadResult>>,
}

impl Leader {
    pub(crate) fn token(&self) -> Nonce {
        self.token
    }

    /// Hands the value to all who wait; `value` is made only if somebody does.
    pub(crate) fn complete(&self, value: impl FnOnce() -> Option<LoadResult>) {
        // One receiver is the table's own.
        if self.load_result.receiver_count() > 1 {
            self.load_result.send_replace(value());
        }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.single_flight.by_token.lock().remove(&self.token);
    }
}

/// Held by one who waits.
#[derive(Debug)]
pub(crate) struct Waiter {
    load_result: Completion,
}

/// How waiting ended.
#[derive(Debug)]
pub(crate) enum WaitResult {
    LoadResult(LoadResult),
    /// Whoever loaded, or looked after a load elsewhere, has gone, or had finished before anybody waited: look again.
    Gone,
    TimedOut,
}

impl Waiter {
    pub(crate) async fn wait(mut self, deadline: Instant) -> WaitResult {
        match time::timeout_at(deadline, self.load_result.wait_for(Option::is_some)).await {
            Ok(Ok(load_result)) => load_result
                .clone()
                .map_or(WaitResult::Gone, WaitResult::LoadResult),
            Ok(Err(_)) => WaitResult::Gone,
            Err(_) => WaitResult::TimedOut,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(1)
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_get_the_value() {
        let single_flight = Arc::new(SingleFlight::default());
        let token = Nonce::fresh();
        let leader = single_flight.start(token);
        let waiter = single_flight.join(token).expect("under way");
        leader.complete(|| Some(LoadResult::Value(Arc::new(7u8))));
        drop(leader);
        let WaitResult::LoadResult(LoadResult::Value(value)) = waiter.wait(soon()).await else {
            panic!("no value")
        };
        assert_eq!(value.downcast_ref(), Some(&7u8));
        assert_eq!(single_flight.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_leader_wakes_them() {
        let single_flight = Arc::new(SingleFlight::default());
        let token = Nonce::fresh();
        let leader = single_flight.start(token);
        let waiter = single_flight.join(token).expect("under way");
        drop(leader);
        assert!(matches!(waiter.wait(soon()).await, WaitResult::Gone));
        assert!(single_flight.join(token).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let single_flight = Arc::new(SingleFlight::default());
        let token = Nonce::fresh();
        let _leader = single_flight.start(token);
        let waiter = single_flight.join(token).expect("under way");
        assert!(matches!(waiter.wait(soon()).await, WaitResult::TimedOut));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_given_up_is_forgotten_when_it_has_lapsed() {
        let single_flight = SingleFlight::default();
        let first = Nonce::fresh();
        single_flight.give_up(first, soon());
        assert!(single_flight.is_given_up(first));
        for _ in 1..GIVEN_UP {
            single_flight.give_up(Nonce::fresh(), soon());
        }
        time::advance(Duration::from_secs(2)).await;
        let last = Nonce::fresh();
        single_flight.give_up(last, soon());
        assert!(single_flight.is_given_up(last) && !single_flight.is_given_up(first));
    }

    #[test]
    fn nothing_is_shared_when_nobody_waits() {
        let single_flight = Arc::new(SingleFlight::default());
        single_flight
            .start(Nonce::fresh())
            .complete(|| panic!("nobody waits"));
    }
}
