//! A wait-for graph of the loads of one cache, to detect deadlocks before they happen.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;

/// The wait-for graph: for each key that is being loaded, the keys that its body waits for.
#[derive(Debug, Default)]
pub(crate) struct WaitGraph(Mutex<HashMap<String, Vec<String>>>);

/// The answer to a load that wants to wait for another.
#[derive(Debug)]
pub(crate) enum WaitDecision {
    /// It may wait. The edges stay in the graph as long as this is held. `None` if the caller is
    /// not part of a load, so that nobody can wait for it.
    Fine(Option<WaitEdges>),
    /// The other load waits for a load that the current task is part of.
    Cycle,
}

/// Keeps the edges of a waiting load in the graph.
pub(crate) type WaitEdges = Box<Edges>;

#[derive(Debug)]
pub(crate) struct Edges {
    waits: Arc<WaitGraph>,
    from: Vec<String>,
    to: String,
}

impl WaitGraph {
    /// Must be called before the body that loads `from` waits for the load of `key`.
    pub(crate) fn wait(self: &Arc<Self>, from: Vec<String>, key: &str) -> WaitDecision {
        if from.is_empty() || crate::base::mutation::is_active("cycles-over-tasks-waited-for") {
            return WaitDecision::Fine(None);
        }
        let mut waits = self.0.lock();
        if leads_to(&waits, key, &from) {
            return WaitDecision::Cycle;
        }
        for load in &from {
            waits.entry(load.clone()).or_default().push(key.to_owned());
        }
        WaitDecision::Fine(Some(Box::new(Edges {
            waits: Arc::clone(self),
            from,
            to: key.to_owned(),
        })))
    }
}

/// Returns true if the load of `key` waits for one of `loads`, directly or through others.
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
