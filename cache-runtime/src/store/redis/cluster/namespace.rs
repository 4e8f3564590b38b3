//! Invalidates the whole namespace: replaces all its generations, each at the node that has its
//! slot.
//!
//! The parts of the store are the slots. If a node does not answer, its slots are left, and only
//! they are asked for again, at whichever node has them then.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::connection::Connection;
use super::super::connection::dial::cluster_nodes;
use super::super::connection::errors::graver;
use super::super::limits::STEP;
use super::super::reply::millis;
use super::super::scripts;
use super::super::slots::{ClusterView, SLOTS, slot_of, tag};
use super::super::walk::{Walk, scan};
use super::node::SlotMap;
use super::routing::ScriptCall;
use super::sending::OnAsk;
use super::state::Cluster;
use crate::base::clock::Millis;
use crate::base::error::Error;
use crate::base::join;
use crate::base::nonce::Nonce;
use crate::base::unserved::{Unserved, copied};
use crate::protocol::glob;
use crate::store::{NamespaceInvalidated, Parts};

/// How often slots that have moved meanwhile are walked again, before they are left.
const ATTEMPTS: usize = 3;

/// The slots that a walk has not done.
#[derive(Default)]
struct RemainingSlots {
    /// Since the walk began they have had, or may have had, another owner.
    moved: BTreeSet<u16>,
    failed: BTreeSet<u16>,
    fault: Option<Error>,
}

impl RemainingSlots {
    fn fail(&mut self, slot: u16, fault: &Error) {
        self.failed.insert(slot);
        self.fault = Some(graver(self.fault.take(), copied(fault)));
    }

    fn fail_all(&mut self, slots: impl IntoIterator<Item = u16>, fault: &Error) {
        slots.into_iter().for_each(|slot| self.fail(slot, fault));
    }
}

/// The nodes that have some of the slots, each with its connection; `None` for other nodes.
type NodeConnections = Vec<Option<Result<Arc<Connection>, Error>>>;

impl Cluster {
    pub(in crate::store::redis) async fn invalidate_namespace(
        &self,
        namespace: &str,
        parts: &Parts,
    ) -> NamespaceInvalidated {
        let slots = slots_of(namespace, parts);
        let (at, mut left) = self.rotate_in(namespace, slots.clone(), true).await;
        let slots: Vec<u16> = slots.into_iter().collect();
        let fenced = self.fences.active(&slots).await;
        left.fail_all(fenced, &Unserved::Fenced.into());
        if let Err(error) = self.confirmed() {
            left.fail_all(slots, &error);
        }
        NamespaceInvalidated {
            at,
            undone: left.fault.map(|fault| (Parts::Only(left.failed), fault)),
        }
    }

    /// Repeats it, for a new owner of slots. Nobody waits for that, so no fence is waited for.
    /// Returns the undone parts, and the gravest reason.
    pub(super) async fn invalidate_namespace_again(
        &self,
        namespace: &str,
        parts: &Parts,
    ) -> Option<(Parts, Error)> {
        let slots = slots_of(namespace, parts);
        let (_, left) = self.rotate_in(namespace, slots, false).await;
        left.fault.map(|fault| (Parts::Only(left.failed), fault))
    }

    /// Replaces the generations in these slots. Returns when it began, in the store's time, and the
    /// slots that are left.
    async fn rotate_in(
        &self,
        namespace: &str,
        mut slots: BTreeSet<u16>,
        is_new: bool,
    ) -> (Option<Millis>, RemainingSlots) {
        let pattern = format!("{}@gen:*", glob::literal(namespace));
        let mut at = None;
        let mut left = RemainingSlots::default();
        for _ in 0..ATTEMPTS {
            let map = self.map.load_full();
            let connections = links_to(&map, &slots);
            let known: Vec<_> = connections.iter().flatten().flatten().collect();
            if is_new && !known.is_empty() {
                // First, so that a task that repeats recent invalidations at a new owner includes
                // this one.
                self.recent.remember_everything();
            }
            at = at.or(known.iter().map(|connection| connection.clock.now()).min());
            let (pattern, walked_in) = (&pattern, &slots);
            let walks = connections.into_iter().map(|connection| async move {
                match connection {
                    Some(Ok(connection)) => {
                        Some(self.rotate_at(&connection, pattern, walked_in).await)
                    }
                    Some(Err(error)) => Some(Err(error)),
                    None => None,
                }
            });
            let walked = join::all(walks).await;
            self.judge(&map, &slots, &walked, &mut left);
            slots = std::mem::take(&mut left.moved);
            if slots.is_empty() {
                break;
            }
        }
        let moving = Error::unavailable("the cluster's slots are being moved");
        left.fail_all(slots, &moving);
        (at, left)
    }

    /// Which of these slots are done, now that the nodes of this map have been walked over.
    ///
    /// A slot is done if its owner was walked over and has had it all the time. If the slot is on its
    /// way, so that the walk has missed a generation, that generation is dead where it is now: the
    /// nodes have different identities. If it has left its owner and returned, the walk may have
    /// missed it too, and other processes may not know the owner's new epoch yet.
    fn judge(
        &self,
        map: &SlotMap,
        slots: &BTreeSet<u16>,
        walked: &[NodeOutcome],
        left: &mut RemainingSlots,
    ) {
        for walk in walked.iter().flatten().flatten() {
            for (slot, fault) in &walk.failures {
                left.fail(*slot, fault);
            }
        }
        let after = self.map.load();
        for slot in slots {
            let Some(node) = map.place_of(*slot) else {
                left.fail(*slot, &self.nobody(map));
                continue;
            };
            match walked.get(node) {
                Some(Some(Err(fault))) => left.fail(*slot, fault),
                Some(Some(Ok(walk))) if walk.has_gained => {
                    left.moved.insert(*slot);
                }
                _ if after
                    .owner(*slot)
                    .is_none_or(|owner| !Arc::ptr_eq(owner, &map.nodes()[node])) =>
                {
                    left.moved.insert(*slot);
                }
                _ => {}
            }
        }
        left.moved.retain(|slot| !left.failed.contains(slot));
    }

    fn nobody(&self, map: &SlotMap) -> Error {
        match map.nodes().is_empty() {
            true => self.unknown(),
            false => Error::unavailable("no node of the cluster has the slot"),
        }
    }

    /// Replaces the generations in these slots that a node has.
    async fn rotate_at(
        &self,
        connection: &Connection,
        pattern: &str,
        slots: &BTreeSet<u16>,
    ) -> Result<NodeWalk, Error> {
        let epoch = connection.epoch.load(Ordering::Acquire);
        let mut failures = Vec::new();
        let mut walk = Walk::new(pattern.to_owned(), false);
        while let Some(mut keys) = scan(connection, self.budget, &mut walk).await? {
            keys.retain(|key| slots.contains(&slot_of(key)));
            for keys in keys.chunks(STEP) {
                failures.extend(self.rotate(keys).await);
            }
        }
        let nodes = connection.ask(self.budget, cluster_nodes).await?;
        let now = ClusterView::parse(&nodes).and_then(|view| view.epoch());
        // So that the next walk begins with it.
        connection
            .epoch
            .fetch_max(now.unwrap_or_default(), Ordering::AcqRel);
        Ok(NodeWalk {
            failures,
            has_gained: now.is_none_or(|now| now > epoch)
                && !crate::base::mutation::is_active("returned-slots-not-walked"),
        })
    }

    /// Replaces generations, each with a nonce of its own. Returns those that failed.
    async fn rotate(&self, keys: &[String]) -> Vec<(u16, Error)> {
        let ttl = millis(self.default_generation_ttl);
        let steps = keys.iter().map(|key| ScriptCall {
            slot: slot_of(key),
            script: &scripts::INVALIDATE,
            keys: vec![key],
            args: vec![
                b"0".into(),
                ttl.clone(),
                Vec::new(),
                Nonce::fresh().to_string().into_bytes(),
            ],
        });
        let steps: Vec<_> = steps.collect();
        let done = self.run(&steps, OnAsk::Follow).await;
        self.changed(&steps);
        let failures = steps.iter().zip(done);
        failures
            .filter_map(|(step, done)| Some((step.slot, done.err()?)))
            .collect()
    }
}

/// A walk over a node.
struct NodeWalk {
    /// The slots with a generation that was not replaced.
    failures: Vec<(u16, Error)>,
    /// Whether the node has gained a slot meanwhile. Its epoch rises with that.
    has_gained: bool,
}

/// `None` if the node has none of the slots.
type NodeOutcome = Option<Result<NodeWalk, Error>>;

/// The slots that hold generations of the namespace.
fn slots_of(namespace: &str, parts: &Parts) -> BTreeSet<u16> {
    match (parts, tag(namespace)) {
        (Parts::Only(slots), _) => slots.clone(),
        // All its keys are in one slot.
        (Parts::All, Some(_)) => BTreeSet::from([slot_of(namespace)]),
        (Parts::All, None) => (0..SLOTS).collect(),
    }
}

fn links_to(map: &SlotMap, slots: &BTreeSet<u16>) -> NodeConnections {
    let mut has_any = vec![false; map.nodes().len()];
    for node in slots.iter().filter_map(|slot| map.place_of(*slot)) {
        has_any[node] = true;
    }
    let nodes = map.nodes().iter().zip(has_any);
    nodes
        .map(|(node, has_any)| has_any.then(|| node.connections.current()))
        .collect()
}
