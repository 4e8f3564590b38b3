//! Single-flight within the process: one caller loads, the others wait for its value.
//!
//! A load is found by the token of its lease. A reader knows that token only from the entry that it
//! has just read, with exactly the stamp that it has just computed. So a load is joined by lease
//! and stamp, never by key alone: a reader that starts after an acknowledged invalidation can't get
//! a load that began before it.
//!
//! Loads of other processes are listed as well. Their leader is the first reader here that met the
//! lease. The leader polls the store, and the others wait for its result instead of polling
//! themselves.

use std::any::Any;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::base::clock::{self, Instant};
use crate::base::nonce::Nonce;
use crate::base::sync::{Mutex, time};

/// The result of a load, for its waiters.
#[derive(Clone)]
pub(crate) enum LoadResult {
    /// An `Arc` of the function's value type.
    Value(Arc<dyn Any + Send + Sync>),
    Absence,
    /// The function failed. Its error is not shared.
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

/// Whether a load waits for a permit of `max_loads`.
#[derive(Debug, Clone, Copy, Default)]
enum PermitState {
    /// It needs none, or has not asked for one.
    #[default]
    Unknown,
    Queued,
    /// It has got one, at this time.
    Since(Instant),
}

/// How far a load has come.
#[derive(Debug, Default)]
struct Progress {
    turn: PermitState,
    load_result: Option<LoadResult>,
}

impl Progress {
    fn has_ended(&self) -> bool {
        self.load_result.is_some()
    }
}

/// Receives the progress of a load.
type ProgressReceiver = watch::Receiver<Progress>;

/// A load that may be joined.
#[derive(Debug, Clone)]
struct Flight {
    completion: ProgressReceiver,
    /// Whether its value is only for the callers that wait already.
    is_closed: bool,
}

impl Flight {
    fn new(completion: ProgressReceiver) -> Self {
        Self {
            completion,
            is_closed: false,
        }
    }
}

/// The loads in this process, and the loads elsewhere that a reader here polls, by the token of
/// their lease.
#[derive(Debug, Default)]
pub(crate) struct SingleFlight {
    by_token: Mutex<HashMap<Nonce, Flight>>,
    /// Leases that nobody in this process holds any more, until they expire. The store may not know
    /// yet, or never learn it, for example if it was away.
    given_up: Mutex<HashMap<Nonce, Instant>>,
}

/// Past this number, expired ones are removed.
const GIVEN_UP: usize = 1024;

impl SingleFlight {
    /// Records that the holder of a lease has gone, so that readers that meet the lease need not
    /// wait for it to expire.
    pub(crate) fn give_up(&self, token: Nonce, expires: Instant) {
        let mut given_up = self.given_up.lock();
        if given_up.len() >= GIVEN_UP {
            let now = clock::now();
            given_up.retain(|_, expires| *expires > now);
            if given_up.len() >= GIVEN_UP {
                return;
            }
        }
        given_up.insert(token, expires);
    }

    pub(crate) fn is_given_up(&self, token: Nonce) -> bool {
        self.given_up.lock().contains_key(&token)
    }

    /// Registers a load. It ends when the leader is dropped, with or without a value.
    pub(crate) fn start(self: &Arc<Self>, token: Nonce) -> Leader {
        let (leader, completion) = self.leader(token);
        self.by_token.lock().insert(token, Flight::new(completion));
        leader
    }

    fn leader(self: &Arc<Self>, token: Nonce) -> (Leader, ProgressReceiver) {
        let (progress, completion) = watch::channel(Progress::default());
        let single_flight = Arc::clone(self);
        let leader = Leader {
            single_flight,
            token,
            progress,
        };
        (leader, completion)
    }

    /// Returns a waiter for the load under this lease, if this process knows the load.
    pub(crate) fn join(&self, token: Nonce) -> Option<Waiter> {
        let flight = self.by_token.lock().get(&token)?.clone();
        Some(Waiter { flight })
    }

    /// Joins the load under a lease that another process holds. The first caller becomes the
    /// leader, which polls the store.
    pub(crate) fn follow(self: &Arc<Self>, token: Nonce) -> FlightRole {
        match self.by_token.lock().entry(token) {
            Entry::Occupied(flight) => FlightRole::Waiter(Waiter {
                flight: flight.get().clone(),
            }),
            Entry::Vacant(place) => {
                let (leader, completion) = self.leader(token);
                if !crate::base::mutation::is_active("each-looks-after-a-load-elsewhere") {
                    place.insert(Flight::new(completion));
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

/// The role of a caller that meets a load of another process.
#[derive(Debug)]
pub(crate) enum FlightRole {
    Waiter(Waiter),
    Leader(Leader),
}

/// Held by the caller that loads, or that polls for a load elsewhere.
#[derive(Debug)]
pub(crate) struct Leader {
    single_flight: Arc<SingleFlight>,
    token: Nonce,
    progress: watch::Sender<Progress>,
}

impl Leader {
    pub(crate) fn token(&self) -> Nonce {
        self.token
    }

    /// Callers that join from now on wait for the end of the load, and look up again. They have
    /// compared fewer dependencies than its value has by now.
    pub(crate) fn takes_no_more(&self) {
        if let Some(flight) = self.single_flight.by_token.lock().get_mut(&self.token) {
            flight.is_closed = true;
        }
    }

    /// The load waits for a permit, or has got one. Waiters that would have to wait for a permit
    /// themselves don't give up meanwhile.
    pub(crate) fn queues(&self, is_queued: bool) {
        self.progress.send_if_modified(|progress| {
            progress.turn = match is_queued {
                true => PermitState::Queued,
                false => PermitState::Since(clock::now()),
            };
            // They look at it when their time is over.
            false
        });
    }

    /// Whether there are waiters.
    pub(crate) fn is_awaited(&self) -> bool {
        // One receiver belongs to the map.
        self.progress.receiver_count() > 1
    }

    /// Hands the value to all waiters. `value` is called only if there are any.
    pub(crate) fn complete(&self, value: impl FnOnce() -> Option<LoadResult>) {
        if self.is_awaited() {
            let load_result = value();
            self.progress
                .send_modify(|progress| progress.load_result = load_result);
        }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.single_flight.by_token.lock().remove(&self.token);
    }
}

/// Held by a caller that waits.
#[derive(Debug)]
pub(crate) struct Waiter {
    flight: Flight,
}

/// The result of waiting.
#[derive(Debug)]
pub(crate) enum WaitResult {
    LoadResult(LoadResult),
    /// The leader has gone, or had finished before anybody waited: look up the entry again.
    Gone,
    TimedOut,
}

impl Waiter {
    /// Waits until the deadline. With `in_turn`, for a caller that would wait for a permit of
    /// `max_loads` itself: while the leader waits for its permit the deadline does not count, and
    /// from then on it is so far ahead.
    pub(crate) async fn wait(mut self, deadline: Instant, in_turn: Option<Duration>) -> WaitResult {
        let mut deadline = deadline;
        let completion = &mut self.flight.completion;
        if self.flight.is_closed {
            let end = async { while completion.changed().await.is_ok() {} };
            return match time::timeout_at(deadline, end).await {
                Ok(()) => WaitResult::Gone,
                Err(_) => WaitResult::TimedOut,
            };
        }
        loop {
            let ended = completion.wait_for(Progress::has_ended);
            match time::timeout_at(deadline, ended).await {
                Ok(Ok(progress)) => {
                    let load_result = progress.load_result.clone();
                    return load_result.map_or(WaitResult::Gone, WaitResult::LoadResult);
                }
                Ok(Err(_)) => return WaitResult::Gone,
                Err(_) => {}
            }
            let turn = completion.borrow().turn;
            let next = in_turn.and_then(|in_turn| match turn {
                PermitState::Unknown => None,
                PermitState::Queued => Some(clock::now() + in_turn),
                PermitState::Since(since) => Some(since + in_turn),
            });
            match next {
                Some(next) if next > clock::now() => deadline = next,
                _ => return WaitResult::TimedOut,
            }
        }
    }
}

#[cfg(all(test, cache_shuttle))]
mod schedules;
#[cfg(test)]
mod tests {
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
        let WaitResult::LoadResult(LoadResult::Value(value)) = waiter.wait(soon(), None).await
        else {
            panic!("no value")
        };
        assert_eq!(value.downcast_ref(), Some(&7u8));
        assert_eq!(single_flight.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn callers_after_the_closing_get_no_value() {
        let single_flight = Arc::new(SingleFlight::default());
        let token = Nonce::fresh();
        let leader = single_flight.start(token);
        let early = single_flight.join(token).expect("under way");
        leader.takes_no_more();
        let late = single_flight.join(token).expect("under way");
        let FlightRole::Waiter(later) = single_flight.follow(token) else {
            panic!("it is known here")
        };
        leader.complete(|| Some(LoadResult::Absence));
        assert!(matches!(
            early.wait(soon(), None).await,
            WaitResult::LoadResult(_)
        ));
        let waits = [late, later].map(|waiter| tokio::spawn(waiter.wait(soon(), None)));
        tokio::task::yield_now().await;
        assert!(waits.iter().all(|waits| !waits.is_finished()));
        drop(leader);
        for waits in waits {
            assert!(matches!(waits.await, Ok(WaitResult::Gone)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_leader_wakes_them() {
        let single_flight = Arc::new(SingleFlight::default());
        let token = Nonce::fresh();
        let leader = single_flight.start(token);
        let waiter = single_flight.join(token).expect("under way");
        drop(leader);
        assert!(matches!(waiter.wait(soon(), None).await, WaitResult::Gone));
        assert!(single_flight.join(token).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn no_call_waits_for_ever() {
        let single_flight = Arc::new(SingleFlight::default());
        let token = Nonce::fresh();
        let _leader = single_flight.start(token);
        let waiter = single_flight.join(token).expect("under way");
        assert!(matches!(
            waiter.wait(soon(), None).await,
            WaitResult::TimedOut
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_in_the_queue_does_not_count() {
        let single_flight = Arc::new(SingleFlight::default());
        let token = Nonce::fresh();
        let leader = single_flight.start(token);
        leader.queues(true);
        let join = || single_flight.join(token).expect("under way");
        let in_turn = Some(Duration::from_secs(2));
        let impatient = tokio::spawn(join().wait(soon(), None));
        let patient = tokio::spawn(join().wait(soon(), in_turn));
        time::sleep(Duration::from_secs(60)).await;
        assert!(matches!(impatient.await, Ok(WaitResult::TimedOut)));
        leader.queues(false);
        time::sleep(Duration::from_secs(1)).await;
        assert!(!patient.is_finished());
        assert!(
            matches!(patient.await, Ok(WaitResult::TimedOut)),
            "it runs for too long"
        );
        let patient = tokio::spawn(join().wait(soon(), in_turn));
        time::sleep(Duration::from_millis(500)).await;
        leader.complete(|| Some(LoadResult::Absence));
        assert!(matches!(patient.await, Ok(WaitResult::LoadResult(_))));
        leader.queues(true);
        let patient = tokio::spawn(join().wait(soon(), in_turn));
        drop(leader);
        assert!(matches!(
            patient.await,
            Ok(WaitResult::LoadResult(_) | WaitResult::Gone)
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn lapsed_requests_are_forgotten() {
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
