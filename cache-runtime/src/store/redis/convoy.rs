//! Reads that travel together.
//!
//! While few reads are on their way, one more goes alone: no other task has a hand in it. Past that, reads gather, and two
//! drivers take turns to send what has gathered with a single `MGET`, each key in it once; so the more there is to read,
//! the less each read costs both ends. What a read brings was asked for after the read began in either case.
//!
//! Rueidis pipelines automatically in the same way; here the commands themselves are merged, which is what spares the
//! server the generations.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use redis::Value;
use tokio::sync::{Notify, oneshot};

use super::link::Link;
use super::miscounted;
use super::reads::{Sighting, Standing, generation, mget};
use crate::error::{Error, ErrorKind};
use crate::generation::Dep;
use crate::store::{Look, Probe};

/// How many convoys are on their way at once: while one is answered, the next is read by the server.
pub(super) const DRIVERS: usize = 2;
/// How many keys travel together, and how many bytes of values are expected to come back at most.
const MAX_KEYS: usize = 256;
const MAX_BYTES: usize = 4 << 20;
/// What one more command costs both ends together. As many go alone as fit into a round trip: below that the processors
/// are waiting for the network anyway, and gathering would only add to it.
const COMMAND: Duration = Duration::from_micros(10);
const FEWEST_ALONE: usize = 2;
const MOST_ALONE: usize = 64;

/// `None` for a read that has to be repeated alone.
type Answer = Result<Option<Look>, Error>;

/// The reads of one connection.
pub(super) struct Convoys {
    alone: AtomicUsize,
    /// How many may go alone.
    width: AtomicUsize,
    waiting: Mutex<Waiting>,
    gathered: Notify,
}

#[derive(Default)]
struct Waiting {
    reads: VecDeque<Passenger>,
    /// How many bytes a read brings, of late.
    usual: usize,
    is_over: bool,
}

struct Passenger {
    key: String,
    deps: Arc<[Arc<Dep>]>,
    answer: oneshot::Sender<Answer>,
}

/// How a read goes.
pub(super) enum Boarding<'c> {
    /// By itself; to be held until it is answered.
    Alone(Alone<'c>),
    /// With others.
    Together(oneshot::Receiver<Answer>),
}

/// A read on its way by itself.
pub(super) struct Alone<'c>(&'c Convoys);

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.0.alone.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for Convoys {
    fn default() -> Self {
        Self {
            alone: AtomicUsize::new(0),
            width: AtomicUsize::new(FEWEST_ALONE),
            waiting: Mutex::default(),
            gathered: Notify::new(),
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

    pub(super) fn board(&self, probe: &Probe) -> Boarding<'_> {
        let others = self.alone.fetch_add(1, Ordering::Relaxed);
        let alone = Alone(self);
        if others < self.width.load(Ordering::Relaxed) {
            return Boarding::Alone(alone);
        }
        let (answer, receiver) = oneshot::channel();
        let passenger = Passenger {
            key: probe.key.clone(),
            deps: Arc::clone(&probe.deps),
            answer,
        };
        let is_first = {
            let mut waiting = self.waiting.lock();
            if waiting.is_over {
                return Boarding::Alone(alone);
            }
            waiting.reads.push_back(passenger);
            waiting.reads.len() == 1
        };
        if is_first {
            self.gathered.notify_one();
        }
        Boarding::Together(receiver)
    }

    /// The next reads to travel together; `None` when the connection is given up.
    async fn gather(&self) -> Option<Vec<Passenger>> {
        loop {
            // Made first: the end that comes after a look at what waits is heard all the same.
            let gathered = self.gathered.notified();
            if let Some(reads) = self.take()? {
                return Some(reads);
            }
            gathered.await;
        }
    }

    fn take(&self) -> Option<Option<Vec<Passenger>>> {
        let mut waiting = self.waiting.lock();
        if waiting.is_over {
            return None;
        }
        let most = (MAX_BYTES / waiting.usual.max(1)).clamp(1, MAX_KEYS);
        let mut reads = Vec::with_capacity(waiting.reads.len().min(most));
        let mut keys = 0;
        while reads.len() < most
            && let Some(read) = waiting.reads.pop_front()
        {
            // Whoever has given up wants no answer.
            if read.answer.is_closed() {
                continue;
            }
            keys += 1 + read.deps.len();
            reads.push(read);
            // At worst: most of them have their generations in common.
            if keys >= 2 * MAX_KEYS {
                break;
            }
        }
        if !waiting.reads.is_empty() {
            self.gathered.notify_one();
        }
        Some((!reads.is_empty()).then_some(reads))
    }

    fn arrived(&self, bytes: usize, reads: usize) {
        let mut waiting = self.waiting.lock();
        waiting.usual = (3 * waiting.usual + bytes / reads.max(1)) / 4;
    }

    /// The connection is given up: those who wait are told, and whoever comes goes alone.
    pub(super) fn end(&self) {
        let reads = {
            let mut waiting = self.waiting.lock();
            waiting.is_over = true;
            std::mem::take(&mut waiting.reads)
        };
        drop(reads);
        self.gathered.notify_waiters();
    }
}

/// Sends what has gathered. However it ends, nobody waits for it any more.
pub(super) struct Driver {
    link: Arc<Link>,
    budget: Duration,
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.link.convoys().end();
    }
}

impl Driver {
    pub(super) fn new(link: Arc<Link>, budget: Duration) -> Self {
        Self { link, budget }
    }

    pub(super) async fn drive(self) {
        let convoys = self.link.convoys();
        while let Some(reads) = convoys.gather().await {
            let route = Route::of(&reads);
            let answer = mget(&self.link, self.budget, route.keys(&reads)).await;
            match answer.and_then(|values| route.arrive(&self.link, values)) {
                Ok(arrival) => {
                    convoys.arrived(arrival.bytes, reads.len());
                    for (read, look) in reads.into_iter().zip(arrival.looks) {
                        // Whoever has given up wants no answer.
                        let _ = read.answer.send(Ok(look));
                    }
                }
                Err(error) => {
                    for read in reads {
                        let _ = read.answer.send(match error.kind() {
                            ErrorKind::Unavailable => Err(Error::unavailable(error.to_string())),
                            // It may be the fault of one key, such as one that we may not read.
                            _ => Ok(None),
                        });
                    }
                }
            }
        }
    }
}

/// Which keys are asked for, and where in the answer each read finds its own.
#[derive(Default)]
struct Route {
    /// The reads whose keys are asked for: the first of each key.
    entries: Vec<usize>,
    deps: Vec<Arc<Dep>>,
    /// The lists of dependencies, by their places in `deps`.
    lists: Vec<Vec<usize>>,
    /// For each read, the place of its entry and of its list.
    places: Vec<(usize, usize)>,
}

struct Arrival {
    looks: Vec<Option<Look>>,
    bytes: usize,
}

impl Route {
    fn of(reads: &[Passenger]) -> Self {
        let mut route = Self::default();
        let mut entries = HashMap::with_capacity(reads.len());
        let mut deps: HashMap<&Dep, usize> = HashMap::new();
        // Reads of one function have the very same list, unless they have tags.
        let mut lists: Vec<&Arc<[Arc<Dep>]>> = Vec::new();
        for (at, read) in reads.iter().enumerate() {
            let entry = *entries.entry(read.key.as_str()).or_insert_with(|| {
                route.entries.push(at);
                route.entries.len() - 1
            });
            let known = lists.iter().position(|list| Arc::ptr_eq(list, &read.deps));
            let list = known.unwrap_or_else(|| {
                let places = read.deps.iter().map(|dep| {
                    *deps.entry(dep).or_insert_with(|| {
                        route.deps.push(Arc::clone(dep));
                        route.deps.len() - 1
                    })
                });
                route.lists.push(places.collect());
                lists.push(&read.deps);
                lists.len() - 1
            });
            route.places.push((entry, list));
        }
        route
    }

    fn keys<'k>(&'k self, reads: &'k [Passenger]) -> impl Iterator<Item = &'k str> {
        let entries = self.entries.iter().filter_map(|at| reads.get(*at));
        let entries = entries.map(|read| read.key.as_str());
        entries.chain(self.deps.iter().map(|dep| dep.key()))
    }

    /// What the answer holds for each read.
    fn arrive(&self, link: &Link, mut values: Vec<Value>) -> Result<Arrival, Error> {
        if values.len() != self.entries.len() + self.deps.len() {
            return Err(miscounted());
        }
        let generations = values.split_off(self.entries.len());
        let generations: Vec<_> = generations.iter().map(generation).collect();
        let standings: Vec<_> = self
            .lists
            .iter()
            .map(|list| {
                // Where one is missing, whoever reads alone makes it.
                let own: Option<Vec<_>> = list
                    .iter()
                    .map(|at| generations.get(*at).copied().flatten())
                    .collect();
                own.map(|own| Standing::of(link.server, own))
            })
            .collect();
        let sightings: Vec<_> = values.into_iter().map(Sighting::of).collect();
        let bytes = sightings.iter().map(Sighting::len).sum();
        let now = link.clock.now();
        let looks = self.places.iter().map(|(entry, list)| {
            let standing = standings.get(*list)?.as_ref()?;
            Some(sightings.get(*entry)?.clone().look(standing, now))
        });
        Ok(Arrival {
            looks: looks.collect(),
            bytes,
        })
    }
}
