//! Single-flight within the process: who loads, and who waits for it.
//!
//! A flight is found by its lease's token, and a reader knows that token only from the entry it has just read,
//! with the very stamp it has just computed. So a flight is joined by lease and stamp, never by key alone: a
//! reader that starts after an acknowledged invalidation can't get a load that began before it.
//!
//! A load of another process is a flight as well, whose pilot is the first reader here that met its lease: that one looks
//! after it, and the others wait for what it finds instead of asking the store themselves.

use std::any::Any;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

use crate::clock::{self, Instant};
use crate::nonce::Nonce;
use crate::sync::{Mutex, time};

/// What a load brought, for those who wait for it.
#[derive(Clone)]
pub(crate) enum Landed {
    /// An `Arc` of the function's value type.
    Value(Arc<dyn Any + Send + Sync>),
    Absence,
    /// The function failed; its error is not shared.
    Failure,
}

impl fmt::Debug for Landed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Value(_) => "Value",
            Self::Absence => "Absence",
            Self::Failure => "Failure",
        })
    }
}

/// Where those who wait hear of a flight's end.
type Landing = watch::Receiver<Option<Landed>>;

/// The loads under way in this process, and those elsewhere that somebody here looks after, by the token of their lease.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    by_token: Mutex<HashMap<Nonce, Landing>>,
    /// Leases that nobody of this process holds any more, until they lapse. The store may not have heard of it yet, or may
    /// never hear of it, as when it was away.
    given_up: Mutex<HashMap<Nonce, Instant>>,
}

/// Past so many, those that have lapsed are forgotten.
const GIVEN_UP: usize = 1024;

impl Flights {
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

    /// Starts a flight. It ends when the pilot is dropped, with or without a value.
    pub(crate) fn start(self: &Arc<Self>, token: Nonce) -> Pilot {
        let (pilot, landing) = self.pilot(token);
        self.by_token.lock().insert(token, landing);
        pilot
    }

    fn pilot(self: &Arc<Self>, token: Nonce) -> (Pilot, Landing) {
        let (landed, landing) = watch::channel(None);
        let flights = Arc::clone(self);
        let pilot = Pilot {
            flights,
            token,
            landed,
        };
        (pilot, landing)
    }

    /// A ticket for the flight under this lease, if there is one in this process.
    pub(crate) fn join(&self, token: Nonce) -> Option<Ticket> {
        let landed = self.by_token.lock().get(&token)?.clone();
        Some(Ticket { landed })
    }

    /// The flight under a lease that somebody else holds: to be joined, or to be looked after if nobody does.
    pub(crate) fn follow(self: &Arc<Self>, token: Nonce) -> Followed {
        match self.by_token.lock().entry(token) {
            Entry::Occupied(flight) => Followed::Ticket(Ticket {
                landed: flight.get().clone(),
            }),
            Entry::Vacant(place) => {
                let (pilot, landing) = self.pilot(token);
                if !crate::mutation::is_active("each-looks-after-a-load-elsewhere") {
                    place.insert(landing);
                }
                Followed::Pilot(pilot)
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
pub(crate) enum Followed {
    Ticket(Ticket),
    Pilot(Pilot),
}

/// Held by the one who loads, or looks after a load elsewhere.
#[derive(Debug)]
pub(crate) struct Pilot {
    flights: Arc<Flights>,
    token: Nonce,
    landed: watch::Sender<Option<Landed>>,
}

impl Pilot {
    pub(crate) fn token(&self) -> Nonce {
        self.token
    }

    /// Hands the value to all who wait; `value` is made only if somebody does.
    pub(crate) fn land(&self, value: impl FnOnce() -> Option<Landed>) {
        // One receiver is the table's own.
        if self.landed.receiver_count() > 1 {
            self.landed.send_replace(value());
        }
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        self.flights.by_token.lock().remove(&self.token);
    }
}

/// Held by one who waits.
#[derive(Debug)]
pub(crate) struct Ticket {
    landed: Landing,
}

/// How waiting ended.
#[derive(Debug)]
pub(crate) enum Arrival {
    Landed(Landed),
    /// Whoever loaded, or looked after a load elsewhere, has gone, or had finished before anybody waited: look again.
    Gone,
    TimedOut,
}

impl Ticket {
    pub(crate) async fn wait(mut self, deadline: Instant) -> Arrival {
        match time::timeout_at(deadline, self.landed.wait_for(Option::is_some)).await {
            Ok(Ok(landed)) => landed.clone().map_or(Arrival::Gone, Arrival::Landed),
            Ok(Err(_)) => Arrival::Gone,
            Err(_) => Arrival::TimedOut,
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
        let flights = Arc::new(Flights::default());
        let token = Nonce::fresh();
        let pilot = flights.start(token);
        let ticket = flights.join(token).expect("under way");
        pilot.land(|| Some(Landed::Value(Arc::new(7u8))));
        drop(pilot);
        let Arrival::Landed(Landed::Value(value)) = ticket.wait(soon()).await else {
            panic!("no value")
        };
        assert_eq!(value.downcast_ref(), Some(&7u8));
        assert_eq!(flights.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_pilot_wakes_them() {
        let flights = Arc::new(Flights::default());
        let token = Nonce::fresh();
        let pilot = flights.start(token);
        let ticket = flights.join(token).expect("under way");
        drop(pilot);
        assert!(matches!(ticket.wait(soon()).await, Arrival::Gone));
        assert!(flights.join(token).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let flights = Arc::new(Flights::default());
        let token = Nonce::fresh();
        let _pilot = flights.start(token);
        let ticket = flights.join(token).expect("under way");
        assert!(matches!(ticket.wait(soon()).await, Arrival::TimedOut));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_given_up_is_forgotten_when_it_has_lapsed() {
        let flights = Flights::default();
        let first = Nonce::fresh();
        flights.give_up(first, soon());
        assert!(flights.is_given_up(first));
        for _ in 1..GIVEN_UP {
            flights.give_up(Nonce::fresh(), soon());
        }
        time::advance(Duration::from_secs(2)).await;
        let last = Nonce::fresh();
        flights.give_up(last, soon());
        assert!(flights.is_given_up(last) && !flights.is_given_up(first));
    }

    #[test]
    fn nothing_is_shared_when_nobody_waits() {
        let flights = Arc::new(Flights::default());
        flights
            .start(Nonce::fresh())
            .land(|| panic!("nobody waits"));
    }
}
