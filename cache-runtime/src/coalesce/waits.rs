//! Which loads of one cache wait for which others: a wait-for graph, to find circles before they form.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;

/// Which loads of one cache wait for which: by key, the keys that a body which loads it waits for.
#[derive(Debug, Default)]
pub(crate) struct Waits(Mutex<HashMap<String, Vec<String>>>);

/// What it would mean to wait for a load.
#[derive(Debug)]
pub(crate) enum Wait {
    /// Nothing to others, since no load needs it. Else they know of it as long as this is held.
    Fine(Option<Noted>),
    /// That load waits for one that the current task is a part of.
    Circular,
}

/// That a load waits, for as long as it does.
pub(crate) type Noted = Box<Edges>;

#[derive(Debug)]
pub(crate) struct Edges {
    waits: Arc<Waits>,
    from: Vec<String>,
    to: String,
}

impl Waits {
    /// To be called before a body that loads `from` waits for the load of `key`.
    pub(crate) fn wait(self: &Arc<Self>, from: Vec<String>, key: &str) -> Wait {
        if from.is_empty() || crate::base::mutation::is_active("circles-over-tasks-waited-for") {
            return Wait::Fine(None);
        }
        let mut waits = self.0.lock();
        if leads_to(&waits, key, &from) {
            return Wait::Circular;
        }
        for load in &from {
            waits.entry(load.clone()).or_default().push(key.to_owned());
        }
        Wait::Fine(Some(Box::new(Edges {
            waits: Arc::clone(self),
            from,
            to: key.to_owned(),
        })))
    }
}

/// Whether the load of `key` waits for one of these, if only through others.
fn leads_to(waits: &HashMap<String, Vec<String>>, key: &str, loads: &[String]) -> bool {
    let (mut next, mut seen) = (vec![key], HashSet::new());
    while let Some(key) = next.pop() {
        if loads.iter().any(|load| load == key) {
            return true;
        }
        if seen.insert(key) {
            next.extend(waits.get(key).into_iter().flatten().map(String::as_str));
        }
    }
    false
}

impl Drop for Edges {
    fn drop(&mut self) {
        let mut waits = self.waits.0.lock();
        for load in &self.from {
            let Some(keys) = waits.get_mut(load) else {
                continue;
            };
            if let Some(place) = keys.iter().position(|key| *key == self.to) {
                keys.swap_remove(place);
            }
            if keys.is_empty() {
                waits.remove(load);
            }
        }
    }
}
