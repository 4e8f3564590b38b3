//! Reads that travel together.
//!
//! While few reads are on their way, one more goes alone: no other task has a hand in it. Past that, reads gather, and
//! drivers take turns to send what has gathered with a single `MGET`, each key in it once; so the more there is to read,
//! the less each read costs both ends. A driver lets the tasks that are ready go first, those above all whom it has just
//! answered: they are the ones who read next. What a read brings was asked for after the read began in either case.
//!
//! Other clients pipeline by themselves in the same way (rueidis is one); here the commands are merged as well, which is
//! what spares the server the generations.

#[path = "convoy/route.rs"] // Said, since it is not found beside a file that was itself named.
mod route;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::ops::Range;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::OptionFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::oneshot;

use self::route::{Route, Size};
use super::link::{Link, is_forbidden};
use super::reads::mget;
use crate::clock::{self, Instant};
use crate::error::{Error, ErrorKind};
use crate::store::{Look, Probe};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Mutex, Notify, time};

/// How many convoys are on their way at once: while one is answered, the next is read by the server. Where the way is
/// long there are more, one for each so much of it: nobody is to wait for a good part of a round trip before it begins.
const FEWEST_AT_ONCE: usize = DRIVERS;
const MOST_AT_ONCE: usize = 64;
const WAY_OF_ONE: Duration = Duration::from_micros(500);
/// The tasks that send them.
pub(super) const DRIVERS: usize = 2;
/// How many reads travel together, how many keys they ask for, and how many bytes are expected to come back, at most.
const MAX_READS: usize = 256;
const MAX_KEYS: usize = 2 * MAX_READS;
const MAX_BYTES: usize = 4 << 20;
/// How many travel together before it is known how much they bring.
const FIRST_READS: usize = 64;
/// What one more command costs both ends together. As many go alone as fit into a round trip: below that the processors
/// wait for the network anyway, and gathering would only add to it.
const COMMAND: Duration = Duration::from_micros(10);
const FEWEST_ALONE: usize = 8;
const MOST_ALONE: usize = 64;
/// In how many parts of the budget those who wait are looked after.
const ROUNDS: u32 = 8;

/// `None` for a read that has to be repeated alone.
type Answer = Result<Option<Look>, Error>;

/// The reads of one connection.
pub(super) struct Convoys {
    alone: AtomicUsize,
    /// How many may go alone.
    width: AtomicUsize,
    /// Convoys that gather, are on their way or have just come back. Written under the lock of those that gather.
    together: AtomicUsize,
    gathering: Mutex<Gathering>,
    gathered: Notify,
    /// Those whose convoy is on its way, by its place.
    aboard: Box<[Mutex<OnTheWay>]>,
    /// Whether somebody looks after those who wait.
    is_watched: AtomicBool,
    boarded: Notify,
}

/// The convoys that have not left, in the order in which they leave. Only the last takes more passengers.
struct Gathering {
    convoys: VecDeque<Convoy>,
    /// How many bytes an entry has, of late.
    usual: usize,
    /// The size of the last one that left; the next is likely to become as large.
    last: Size,
    is_over: bool,
}

impl Default for Gathering {
    fn default() -> Self {
        Self {
            convoys: VecDeque::new(),
            usual: MAX_BYTES / FIRST_READS,
            last: Size::default(),
            is_over: false,
        }
    }
}

struct Convoy {
    route: Route,
    aboard: Aboard,
}

impl Convoy {
    fn with_room_for(size: Size) -> Self {
        Self {
            route: Route::with_room_for(size),
            aboard: Aboard {
                passengers: VecDeque::with_capacity(size.reads),
                gone: 0,
            },
        }
    }

    fn add(&mut self, probe: &Probe, passenger: Passenger) {
        self.route.add(probe);
        self.aboard.passengers.push_back(passenger);
    }

    fn is_full(&self, usual: usize) -> bool {
        let reads = (MAX_BYTES / usual.max(1)).clamp(1, MAX_READS);
        self.route.len() >= reads || self.route.keys() >= MAX_KEYS
    }
}

/// Those who wait for a convoy's answer, in the order of its route.
#[derive(Default)]
struct Aboard {
    passengers: VecDeque<Passenger>,
    /// How many in front of them wait no longer.
    gone: usize,
}

struct Passenger {
    answer: oneshot::Sender<Answer>,
    since: Instant,
}

impl Aboard {
    /// Moves those who came by that time into `late`; says whether all have.
    fn give_up(&mut self, by: Instant, late: &mut Vec<Passenger>) -> bool {
        let is_late = |passenger: &Passenger| passenger.since <= by;
        while self.passengers.front().is_some_and(is_late) {
            late.extend(self.passengers.pop_front());
            self.gone += 1;
        }
        self.passengers.is_empty()
    }

    /// Whether nobody wants the answer any more.
    fn is_deserted(&self) -> bool {
        self.passengers
            .iter()
            .all(|passenger| passenger.answer.is_closed())
    }
}

/// A convoy on its way.
#[derive(Default)]
struct OnTheWay {
    aboard: Aboard,
    sent: Option<Instant>,
    /// How often it has been overdue.
    overdue: u32,
}

/// How a convoy has fared.
enum Fared {
    /// It has brought so many entries, with so many bytes.
    Brought { entries: usize, bytes: usize },
    /// It has not come back in time, or not at all.
    Unanswered { reads: usize },
    /// It was refused, or has not been sent.
    Empty,
}

/// How a read goes.
pub(super) enum Boarding {
    /// By itself.
    Alone(Alone),
    /// With others, since then. It is answered within the budget, if only by the sender's end.
    Together(oneshot::Receiver<Answer>, Instant),
}

/// A read on its way by itself, for as long as this is held.
pub(super) struct Alone(Arc<Link>);

impl Alone {
    pub(super) fn on(link: &Arc<Link>) -> Self {
        link.convoys().alone.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(link))
    }

    pub(super) fn link(&self) -> &Link {
        &self.0
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.0.convoys().alone.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Finds out how a read goes.
pub(super) fn board(link: &Arc<Link>, probe: &Probe) -> Boarding {
    let convoys = link.convoys();
    if convoys.is_quiet() || link.set_aside().concerns(probe) {
        return Boarding::Alone(Alone::on(link));
    }
    let since = clock::now();
    match convoys.join(probe, since) {
        Some(answer) => Boarding::Together(answer, since),
        None => Boarding::Alone(Alone::on(link)),
    }
}

/// How many are on their way at once over a connection whose answers take that long.
fn at_once(round_trip: Duration) -> usize {
    let ways = round_trip.as_nanos() / WAY_OF_ONE.as_nanos();
    let ways = usize::try_from(ways).unwrap_or(MOST_AT_ONCE);
    ways.clamp(FEWEST_AT_ONCE, MOST_AT_ONCE)
}

impl Default for Convoys {
    fn default() -> Self {
        Self {
            alone: AtomicUsize::new(0),
            width: AtomicUsize::new(FEWEST_ALONE),
            together: AtomicUsize::new(0),
            gathering: Mutex::default(),
            gathered: Notify::new(),
            aboard: (0..MOST_AT_ONCE).map(|_| Mutex::default()).collect(),
            is_watched: AtomicBool::new(false),
            boarded: Notify::new(),
        }
    }
}

impl Convoys {
    /// The round trip of a command while there is nothing else to do.
    pub(super) fn set_round_trip(&self, round_trip: Duration) {
        let fit = round_trip.as_nanos() / COMMAND.as_nanos();
        let fit = usize::try_from(fit).unwrap_or(MOST_ALONE);
        let width = fit.clamp(FEWEST_ALONE, MOST_ALONE);
        self.width.store(width, Ordering::Relaxed);
    }

    /// Whether so few reads are on their way that one more may go alone. It may turn out to be a few more.
    fn is_quiet(&self) -> bool {
        // Whoever comes while a convoy is on its way need not wait longer than for that one.
        self.together.load(Ordering::Relaxed) == 0
            && self.alone.load(Ordering::Relaxed) < self.width.load(Ordering::Relaxed)
    }

    /// `None` when the connection has been given up.
    fn join(&self, probe: &Probe, since: Instant) -> Option<oneshot::Receiver<Answer>> {
        let (answer, receiver) = oneshot::channel();
        let passenger = Passenger { answer, since };
        if self.take_aboard(probe, passenger)? {
            self.gathered.notify_one();
            if !self.is_watched.swap(true, Ordering::SeqCst) {
                self.boarded.notify_one();
            }
        }
        Some(receiver)
    }

    /// Says whether it is the first of its convoy.
    fn take_aboard(&self, probe: &Probe, passenger: Passenger) -> Option<bool> {
        let mut gathering = self.gathering.lock();
        if gathering.is_over {
            return None;
        }
        let usual = gathering.usual;
        let last = gathering.convoys.back_mut();
        let open = last.filter(|convoy| !convoy.is_full(usual));
        let is_first = open.is_none();
        match open {
            Some(convoy) => convoy.add(probe, passenger),
            None => {
                let mut convoy = Convoy::with_room_for(gathering.last);
                convoy.add(probe, passenger);
                gathering.convoys.push_back(convoy);
                self.together.fetch_add(1, Ordering::SeqCst);
            }
        }
        Some(is_first)
    }

    /// The route of the next convoy, whose passengers are aboard; `None` when the connection is given up.
    async fn leave(&self, place: usize) -> Option<Route> {
        loop {
            // Made first: the end that comes after a look at what has gathered is heard all the same.
            let gathered = self.gathered.notified();
            if let Some(route) = self.take(place)? {
                return Some(route);
            }
            gathered.await;
            // Whoever boarded first has woken this task, which would run next, and leave with that one alone.
            others_first().await;
        }
    }

    fn take(&self, place: usize) -> Option<Option<Route>> {
        let mut gathering = self.gathering.lock();
        if gathering.is_over {
            return None;
        }
        let Some(Convoy { route, aboard }) = gathering.convoys.pop_front() else {
            return Some(None);
        };
        gathering.last = route.size();
        // With the lock of those that gather: whoever looks for passengers finds them in one place.
        *self.aboard.get(place)?.lock() = OnTheWay {
            aboard,
            sent: Some(clock::now()),
            overdue: 0,
        };
        Some(Some(route))
    }

    /// Whether there is nobody to send a convoy for.
    fn is_deserted(&self, place: usize) -> bool {
        let aboard = self.aboard.get(place);
        aboard.is_none_or(|on_the_way| on_the_way.lock().aboard.is_deserted())
    }

    /// Those who are still aboard, now that their convoy has come back.
    fn arrive(&self, place: usize, fared: &Fared) -> Aboard {
        let mut gathering = self.gathering.lock();
        match *fared {
            Fared::Brought { entries, bytes } => {
                gathering.usual = (3 * gathering.usual + bytes / entries.max(1)) / 4;
            }
            // It may have been too much.
            Fared::Unanswered { reads } => {
                let least = MAX_BYTES / reads.max(1);
                gathering.usual = (2 * gathering.usual).clamp(least, MAX_BYTES.max(least));
            }
            Fared::Empty => {}
        }
        if gathering.is_over {
            return Aboard::default();
        }
        let on_the_way = self.aboard.get(place);
        on_the_way.map_or_else(Aboard::default, |it| std::mem::take(&mut *it.lock()).aboard)
    }

    /// Whoever comes now does not find the convoy that has come back.
    fn disband(&self) {
        let gathering = self.gathering.lock();
        if !gathering.is_over {
            self.together.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Sees to it that nobody waits longer than the budget, whatever keeps the drivers: one timer for all of them. Calls
    /// `overdue` for each budget that a convoy is late, since the driver who should end it does not.
    pub(super) async fn watch(&self, budget: Duration, overdue: impl Fn()) -> Infallible {
        let round = (budget / ROUNDS).max(Duration::from_millis(1));
        loop {
            self.boarded.notified().await;
            while self.is_busy() {
                time::sleep(round).await;
                self.give_up_after(budget.saturating_sub(round));
                if self.is_overdue(budget, round) {
                    overdue();
                }
            }
        }
    }

    fn is_busy(&self) -> bool {
        // First, so that whoever boards behind the look at the counter says so.
        self.is_watched.store(false, Ordering::SeqCst);
        self.together.load(Ordering::SeqCst) > 0
    }

    /// Ends the waiting of those who have waited for so long.
    fn give_up_after(&self, time: Duration) {
        let Some(by) = clock::now().checked_sub(time) else {
            return;
        };
        let mut late = Vec::new();
        {
            let mut gathering = self.gathering.lock();
            while let Some(convoy) = gathering.convoys.front_mut() {
                if !convoy.aboard.give_up(by, &mut late) {
                    break;
                }
                gathering.convoys.pop_front();
                self.together.fetch_sub(1, Ordering::SeqCst);
            }
        }
        for on_the_way in self.aboard.iter() {
            on_the_way.lock().aboard.give_up(by, &mut late);
        }
    }

    /// Whether a convoy has been on its way for one more budget than it may.
    fn is_overdue(&self, budget: Duration, round: Duration) -> bool {
        let now = clock::now();
        let mut is_overdue = false;
        for on_the_way in self.aboard.iter() {
            let mut on_the_way = on_the_way.lock();
            let most = budget * (on_the_way.overdue + 1) + round;
            if on_the_way.sent.is_some_and(|sent| sent + most <= now) {
                on_the_way.overdue += 1;
                is_overdue = true;
            }
        }
        is_overdue
    }

    /// The connection is given up: those who wait are told, and whoever comes goes alone.
    pub(super) fn end(&self) {
        let mut left = Vec::new();
        let gathered = {
            let mut gathering = self.gathering.lock();
            gathering.is_over = true;
            self.together.store(0, Ordering::SeqCst);
            for on_the_way in self.aboard.iter() {
                left.push(std::mem::take(&mut *on_the_way.lock()));
            }
            std::mem::take(&mut gathering.convoys)
        };
        drop((left, gathered));
        self.gathered.notify_waiters();
    }
}

/// Sends what has gathered. However it ends, nobody waits for it any more.
pub(super) struct Driver {
    link: Arc<Link>,
    /// The places of its convoys among those that are on their way.
    places: Range<usize>,
    budget: Duration,
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.link.abandon();
    }
}

impl Driver {
    /// One of [`DRIVERS`], on a connection whose answers take that long.
    pub(super) fn new(
        link: Arc<Link>,
        number: usize,
        round_trip: Duration,
        budget: Duration,
    ) -> Self {
        let each = at_once(round_trip) / DRIVERS;
        Self {
            link,
            places: number * each..(number + 1) * each,
            budget,
        }
    }

    pub(super) async fn drive(self) {
        let mut free: Vec<_> = self.places.clone().collect();
        let mut on_their_way = FuturesUnordered::new();
        loop {
            let place = free.last().copied();
            tokio::select! {
                biased;
                Some(place) = on_their_way.next() => free.push(place),
                Some(left) = OptionFuture::from(place.map(|place| self.link.convoys().leave(place))) => {
                    let (Some(route), Some(place)) = (left, free.pop()) else {
                        return;
                    };
                    on_their_way.push(self.travel(place, route));
                }
            }
        }
    }

    /// Sends a convoy; returns its place, which is free again.
    async fn travel(&self, place: usize, route: Route) -> usize {
        self.send(place, route).await;
        // They read again, most likely: each by itself, if the convoy were gone by then.
        others_first().await;
        self.link.convoys().disband();
        place
    }

    /// Hands their answers to those aboard.
    async fn send(&self, place: usize, route: Route) {
        let link = &self.link;
        let convoys = link.convoys();
        if convoys.is_deserted(place) {
            convoys.arrive(place, &Fared::Empty);
            return;
        }
        let stops = route.stops();
        let answer = mget(link, self.budget, stops.keys()).await;
        match answer.and_then(|values| stops.arrive(link, values)) {
            Ok(mut arrival) => {
                let Aboard { passengers, gone } = convoys.arrive(place, &arrival.fared());
                for at in 0..gone {
                    arrival.look(at);
                }
                for (at, passenger) in passengers.into_iter().enumerate() {
                    // Whoever has given up wants no answer.
                    let _ = passenger.answer.send(Ok(arrival.look(gone + at)));
                }
            }
            Err(error) => {
                let fared = match error.kind() {
                    ErrorKind::Unavailable => Fared::Unanswered { reads: route.len() },
                    _ => Fared::Empty,
                };
                for passenger in convoys.arrive(place, &fared).passengers {
                    let _ = passenger.answer.send(match is_forbidden(&error) {
                        // It is the fault of one key, and perhaps of another one than this.
                        true => Ok(None),
                        false => Err(Error::new(error.kind(), error.to_string())),
                    });
                }
            }
        }
    }
}

/// Returns when the tasks that are ready on this thread have run: behind them, and without asking the network first, as the
/// runtime's own way to yield does.
async fn others_first() {
    let mut has_waited = false;
    poll_fn(|context| {
        if has_waited {
            return Poll::Ready(());
        }
        has_waited = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests;
