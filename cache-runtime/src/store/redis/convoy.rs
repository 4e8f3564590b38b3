//! Reads that travel together.
//!
//! While few reads are on their way, one more goes alone: no other task has a hand in it. Past that, reads gather, and two
//! drivers take turns to send what has gathered with a single `MGET`, each key in it once; so the more there is to read,
//! the less each read costs both ends. What a read brings was asked for after the read began in either case.
//!
//! Other clients pipeline by themselves in the same way (rueidis is one); here the commands are merged as well, which is
//! what spares the server the generations.

#[path = "convoy/route.rs"] // Said, since it is not found beside a file that was itself named.
mod route;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use self::route::Route;
use super::link::Link;
use super::reads::mget;
use crate::clock::{self, Instant};
use crate::error::{Error, ErrorKind};
use crate::store::{Look, Probe};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Mutex, Notify, time};

/// How many convoys are on their way at once: while one is answered, the next is read by the server.
pub(super) const DRIVERS: usize = 2;
/// How many reads travel together, and how many bytes of values are expected to come back at most.
const MAX_READS: usize = 256;
const MAX_BYTES: usize = 4 << 20;
/// What one more command costs both ends together. As many go alone as fit into a round trip: below that the processors
/// wait for the network anyway, and gathering would only add to it.
const COMMAND: Duration = Duration::from_micros(10);
const FEWEST_ALONE: usize = 8;
const MOST_ALONE: usize = 64;
/// In how many parts of the budget those who wait are looked after.
const ROUNDS: u32 = 8;

/// `None` for a read that has to be repeated alone.
type Answer = Result<Option<Look>, Error>;
type Passengers = Vec<oneshot::Sender<Answer>>;

/// The reads of one connection.
pub(super) struct Convoys {
    alone: AtomicUsize,
    /// How many may go alone.
    width: AtomicUsize,
    /// Convoys on their way, and one more while one gathers.
    together: AtomicUsize,
    gathering: Mutex<Gathering>,
    gathered: Notify,
    /// Those whose convoy is on its way, by driver.
    aboard: [Mutex<Aboard>; DRIVERS],
    /// Whether somebody looks after those who wait.
    is_watched: AtomicBool,
    boarded: Notify,
}

/// A convoy before it leaves.
#[derive(Default)]
struct Gathering {
    route: Route,
    aboard: Aboard,
    /// How many bytes a read brings, of late.
    usual: usize,
    is_over: bool,
}

/// Those who wait for an answer.
#[derive(Default)]
struct Aboard {
    passengers: Passengers,
    /// When the first of them came.
    since: Option<Instant>,
}

impl Aboard {
    /// Whether the first has waited for so long.
    fn is_late(&self, time: Duration, now: Instant) -> bool {
        self.since.is_some_and(|since| since + time <= now)
    }
}

/// How a read goes.
pub(super) enum Boarding {
    /// By itself.
    Alone(Alone),
    /// With others. It is answered within the budget, if only by the sender's end.
    Together(oneshot::Receiver<Answer>),
}

/// A read on its way by itself, for as long as this is held.
pub(super) struct Alone(Arc<Link>);

impl Alone {
    fn counted(link: &Arc<Link>) -> Self {
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
    if convoys.is_quiet() {
        return Boarding::Alone(Alone::counted(link));
    }
    match convoys.join(probe) {
        Some(answer) => Boarding::Together(answer),
        None => Boarding::Alone(Alone::counted(link)),
    }
}

impl Default for Convoys {
    fn default() -> Self {
        Self {
            alone: AtomicUsize::new(0),
            width: AtomicUsize::new(FEWEST_ALONE),
            together: AtomicUsize::new(0),
            gathering: Mutex::default(),
            gathered: Notify::new(),
            aboard: Default::default(),
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
    fn join(&self, probe: &Probe) -> Option<oneshot::Receiver<Answer>> {
        let (answer, receiver) = oneshot::channel();
        let is_first = {
            let mut gathering = self.gathering.lock();
            if gathering.is_over {
                return None;
            }
            gathering.route.add(probe);
            gathering.aboard.passengers.push(answer);
            let is_first = gathering.aboard.since.is_none();
            if is_first {
                gathering.aboard.since = Some(clock::now());
                self.together.fetch_add(1, Ordering::SeqCst);
            }
            is_first
        };
        if is_first {
            self.gathered.notify_one();
            if !self.is_watched.swap(true, Ordering::SeqCst) {
                self.boarded.notify_one();
            }
        }
        Some(receiver)
    }

    /// The route of the next convoy, whose passengers are aboard; `None` when the connection is given up. `spare` is
    /// memory for the one after it.
    async fn leave(&self, driver: usize, mut spare: Route) -> Option<Route> {
        loop {
            // Made first: the end that comes after a look at what has gathered is heard all the same.
            let gathered = self.gathered.notified();
            match self.take(driver, spare)? {
                Ok(route) => return Some(route),
                Err(unused) => spare = unused,
            }
            gathered.await;
        }
    }

    fn take(&self, driver: usize, mut spare: Route) -> Option<Result<Route, Route>> {
        let mut gathering = self.gathering.lock();
        if gathering.is_over {
            return None;
        }
        if gathering.route.is_empty() {
            return Some(Err(spare));
        }
        let most = (MAX_BYTES / gathering.usual.max(1)).clamp(1, MAX_READS);
        let mut rest = Aboard::default();
        if gathering.route.len() > most {
            // They stay, and have waited no less.
            gathering.route.split_off(most, &mut spare);
            rest.passengers = gathering.aboard.passengers.split_off(most);
            rest.since = gathering.aboard.since;
            self.together.fetch_add(1, Ordering::SeqCst);
            self.gathered.notify_one();
        }
        let route = std::mem::replace(&mut gathering.route, spare);
        let aboard = std::mem::replace(&mut gathering.aboard, rest);
        drop(gathering);
        *self.aboard.get(driver)?.lock() = aboard;
        Some(Ok(route))
    }

    /// Those who are still aboard, now that their convoy has come back.
    fn arrive(&self, driver: usize, bytes: usize, reads: usize) -> Passengers {
        self.together.fetch_sub(1, Ordering::SeqCst);
        {
            let mut gathering = self.gathering.lock();
            gathering.usual = (3 * gathering.usual + bytes / reads.max(1)) / 4;
        }
        let Some(aboard) = self.aboard.get(driver) else {
            return Passengers::new();
        };
        let mut aboard = aboard.lock();
        aboard.since = None;
        std::mem::take(&mut aboard.passengers)
    }

    /// Sees to it that nobody waits longer than the budget, whatever keeps the drivers: one timer for all of them.
    pub(super) async fn watch(&self, budget: Duration) -> Infallible {
        let round = (budget / ROUNDS).max(Duration::from_millis(1));
        let most = budget.saturating_sub(round);
        loop {
            self.boarded.notified().await;
            while self.is_busy() {
                time::sleep(round).await;
                self.give_up_after(most);
            }
        }
    }

    fn is_busy(&self) -> bool {
        // First, so that whoever boards behind the look at the counter says so.
        self.is_watched.store(false, Ordering::SeqCst);
        self.together.load(Ordering::SeqCst) > 0
    }

    /// Ends the waiting of those whose first has waited for so long.
    fn give_up_after(&self, time: Duration) {
        let now = clock::now();
        let mut late = Vec::new();
        {
            let mut gathering = self.gathering.lock();
            if gathering.aboard.is_late(time, now) {
                gathering.route.clear();
                late.push(std::mem::take(&mut gathering.aboard));
                self.together.fetch_sub(1, Ordering::SeqCst);
            }
        }
        for aboard in &self.aboard {
            let mut aboard = aboard.lock();
            if aboard.is_late(time, now) {
                late.push(std::mem::take(&mut *aboard));
            }
        }
    }

    /// The connection is given up: those who wait are told, and whoever comes goes alone.
    pub(super) fn end(&self) {
        let aboard = {
            let mut gathering = self.gathering.lock();
            gathering.is_over = true;
            std::mem::take(&mut gathering.aboard)
        };
        drop(aboard);
        self.gathered.notify_waiters();
    }
}

/// Sends what has gathered. However it ends, nobody waits for it any more.
pub(super) struct Driver {
    link: Arc<Link>,
    number: usize,
    budget: Duration,
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.link.convoys().end();
    }
}

impl Driver {
    pub(super) fn new(link: Arc<Link>, number: usize, budget: Duration) -> Self {
        Self {
            link,
            number,
            budget,
        }
    }

    pub(super) async fn drive(self) {
        let (link, number) = (&self.link, self.number);
        let mut spare = Route::default();
        while let Some(mut route) = link.convoys().leave(number, spare).await {
            let stops = route.stops();
            let answer = mget(link, self.budget, stops.keys()).await;
            match answer.and_then(|values| stops.arrive(link, values)) {
                Ok(mut arrival) => {
                    let passengers = link.convoys().arrive(number, arrival.bytes(), route.len());
                    for (at, passenger) in passengers.into_iter().enumerate() {
                        // Whoever has given up wants no answer.
                        let _ = passenger.send(Ok(arrival.look(at)));
                    }
                }
                Err(error) => {
                    for passenger in link.convoys().arrive(number, 0, route.len()) {
                        let _ = passenger.send(match error.kind() {
                            ErrorKind::Unavailable => Err(Error::unavailable(error.to_string())),
                            // It may be the fault of one key, such as one that we may not read.
                            _ => Ok(None),
                        });
                    }
                }
            }
            route.clear();
            spare = route;
        }
    }
}
