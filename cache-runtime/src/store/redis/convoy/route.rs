//! Which keys a convoy asks for, and where in the answer each read finds its own.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::link::Link;
use super::super::miscounted;
use super::super::reads::{Sighting, Standing, Value, generation};
use crate::clock::Millis;
use crate::error::Error;
use crate::generation::Dep;
use crate::store::{Look, Probe};

/// Among so many lists of dependencies the same one is looked for: all reads of a function have it, unless they have tags.
const LATE_LISTS: usize = 8;

/// The reads of one convoy, in memory that convoys take over from each other.
#[derive(Default)]
pub(super) struct Route {
    /// The entries' keys, one behind the other.
    keys: String,
    reads: Vec<Read>,
    lists: Vec<Arc<[Arc<Dep>]>>,
}

struct Read {
    /// Where its key ends.
    end: usize,
    /// The place of its dependencies.
    list: usize,
}

impl Route {
    pub(super) fn len(&self) -> usize {
        self.reads.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.reads.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.keys.clear();
        self.reads.clear();
        self.lists.clear();
    }

    pub(super) fn add(&mut self, probe: &Probe) {
        self.keys.push_str(&probe.key);
        let late = self.lists.len().saturating_sub(LATE_LISTS);
        let known = self.lists.iter().skip(late);
        let known = known
            .enumerate()
            .find(|(_, list)| Arc::ptr_eq(list, &probe.deps));
        let list = match known {
            Some((at, _)) => late + at,
            None => {
                self.lists.push(Arc::clone(&probe.deps));
                self.lists.len() - 1
            }
        };
        let end = self.keys.len();
        self.reads.push(Read { end, list });
    }

    /// Moves all but the first reads into `rest`, which is empty.
    pub(super) fn split_off(&mut self, at: usize, rest: &mut Self) {
        let start = self.start(at);
        rest.keys
            .push_str(self.keys.get(start..).unwrap_or_default());
        self.keys.truncate(start);
        let reads = self.reads.drain(at..).map(|read| Read {
            end: read.end - start,
            list: read.list,
        });
        rest.reads.extend(reads);
        rest.lists.extend_from_slice(&self.lists);
    }

    fn start(&self, at: usize) -> usize {
        let before = at.checked_sub(1).and_then(|before| self.reads.get(before));
        before.map_or(0, |read| read.end)
    }

    fn key(&self, at: usize) -> &str {
        let end = self.reads.get(at).map_or(0, |read| read.end);
        self.keys.get(self.start(at)..end).unwrap_or_default()
    }

    /// What is asked for: each key once.
    pub(super) fn stops(&self) -> Stops<'_> {
        let mut stops = Stops {
            entries: Vec::with_capacity(self.len()),
            deps: Vec::new(),
            reads: Vec::with_capacity(self.len()),
            lists: Vec::with_capacity(self.lists.len()),
        };
        let mut entries = HashMap::with_capacity(self.len());
        for (at, read) in self.reads.iter().enumerate() {
            let key = self.key(at);
            let place = *entries.entry(key).or_insert_with(|| {
                stops.entries.push(Entry { key, readers: 0 });
                stops.entries.len() - 1
            });
            if let Some(entry) = stops.entries.get_mut(place) {
                entry.readers += 1;
            }
            stops.reads.push((place, read.list));
        }
        let mut deps: HashMap<&str, usize> = HashMap::new();
        for list in &self.lists {
            let places = list.iter().map(|dep| {
                *deps.entry(dep.key()).or_insert_with(|| {
                    stops.deps.push(dep.key());
                    stops.deps.len() - 1
                })
            });
            stops.lists.push(places.collect());
        }
        stops
    }
}

/// The keys of a convoy's command, and whose they are.
pub(super) struct Stops<'r> {
    entries: Vec<Entry<'r>>,
    deps: Vec<&'r str>,
    /// For each read, the places of its entry and of its list.
    reads: Vec<(usize, usize)>,
    /// The places of each list's dependencies.
    lists: Vec<Vec<usize>>,
}

struct Entry<'r> {
    key: &'r str,
    /// How many reads are yet to be answered with it.
    readers: usize,
}

/// The command's answer.
pub(super) struct Arrival<'r> {
    stops: Stops<'r>,
    sightings: Vec<Option<Sighting>>,
    /// By list; `None` where a generation is missing, which whoever reads alone makes.
    standings: Vec<Option<Standing>>,
    now: Millis,
}

impl Arrival<'_> {
    /// How many bytes of entries have come.
    pub(super) fn bytes(&self) -> usize {
        self.sightings.iter().flatten().map(Sighting::len).sum()
    }

    /// What the next read sees; `None` if it has to be repeated alone. In the order in which they were added, and once for
    /// each: what has come is handed on, and copied only where several have read the same.
    pub(super) fn look(&mut self, read: usize) -> Option<Look> {
        let (entry, list) = *self.stops.reads.get(read)?;
        let readers = &mut self.stops.entries.get_mut(entry)?.readers;
        *readers = readers.saturating_sub(1);
        let sighting = self.sightings.get_mut(entry)?;
        let sighting = match *readers {
            0 => sighting.take(),
            _ => sighting.clone(),
        };
        let standing = self.standings.get(list)?.as_ref()?;
        Some(sighting?.look(standing, self.now))
    }
}

impl<'r> Stops<'r> {
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        let entries = self.entries.iter().map(|entry| entry.key);
        entries.chain(self.deps.iter().copied())
    }

    pub(super) fn arrive(self, link: &Link, mut values: Vec<Value>) -> Result<Arrival<'r>, Error> {
        if values.len() != self.entries.len() + self.deps.len() {
            return Err(miscounted());
        }
        let generations = values.split_off(self.entries.len());
        let generations: Vec<_> = generations.iter().map(generation).collect();
        let standing = |places: &Vec<usize>| {
            let own = places
                .iter()
                .map(|at| generations.get(*at).copied().flatten());
            let own: Option<Vec<_>> = own.collect();
            own.map(|own| Standing::of(link.server, own))
        };
        Ok(Arrival {
            standings: self.lists.iter().map(standing).collect(),
            sightings: values.into_iter().map(Sighting::of).map(Some).collect(),
            now: link.clock.now(),
            stops: self,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::EntryKind;

    fn probe(key: &str, deps: &Arc<[Arc<Dep>]>) -> Probe {
        Probe {
            key: key.into(),
            kind: EntryKind::Entity,
            deps: Arc::clone(deps),
        }
    }

    fn deps(keys: &[&str]) -> Arc<[Arc<Dep>]> {
        keys.iter().map(|key| Dep::new((*key).into())).collect()
    }

    #[test]
    fn each_key_is_asked_for_once() {
        let (users, lists) = (
            deps(&["@gen:users"]),
            deps(&["@gen:users", "@gen:users~derived"]),
        );
        let mut route = Route::default();
        for (key, deps) in [
            ("users:1", &users),
            ("users:list", &lists),
            ("users:1", &users),
        ] {
            route.add(&probe(key, deps));
        }
        let stops = route.stops();
        let keys: Vec<_> = stops.keys().collect();
        assert_eq!(
            keys,
            ["users:1", "users:list", "@gen:users", "@gen:users~derived"]
        );
        assert_eq!(stops.reads, [(0, 0), (1, 1), (0, 0)]);
        assert_eq!(stops.lists, [vec![0], vec![0, 1]]);
    }

    #[test]
    fn those_who_do_not_fit_go_with_the_next() {
        let (users, teams) = (deps(&["@gen:users"]), deps(&["@gen:teams"]));
        let (mut route, mut rest) = (Route::default(), Route::default());
        for (key, deps) in [
            ("users:1", &users),
            ("teams:20", &teams),
            ("users:300", &users),
        ] {
            route.add(&probe(key, deps));
        }
        route.split_off(1, &mut rest);
        assert_eq!((route.len(), rest.len()), (1, 2));
        assert_eq!(route.key(0), "users:1");
        assert_eq!([rest.key(0), rest.key(1)], ["teams:20", "users:300"]);
        assert_eq!(rest.stops().reads, [(0, 1), (1, 0)]);
        rest.clear();
        assert!(rest.is_empty());
    }
}
