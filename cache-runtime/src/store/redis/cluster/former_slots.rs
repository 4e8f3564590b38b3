//! Which slots a node may still answer for that it no longer has.

use std::collections::HashSet;
use std::sync::Arc;

use super::super::slots::{ClusterView, NodeView, SLOTS, SlotSet};
use super::node::{Node, SlotMap};

/// The slots that each node had before, and has no longer.
pub(super) fn slots_that_left<'m>(
    before: &'m SlotMap,
    map: &SlotMap,
) -> Vec<(&'m Arc<Node>, SlotSet)> {
    let is_its = |map: &SlotMap, slot, node| {
        let owner = map.owner(slot);
        owner.is_some_and(|owner| Arc::ptr_eq(owner, node))
    };
    let left = before.nodes().iter().map(|node| {
        let left =
            (0..SLOTS).filter(|slot| is_its(before, *slot, node) && !is_its(map, *slot, node));
        (node, set_of(left))
    });
    left.filter_map(|(node, left)| Some((node, left?)))
        .collect()
}

/// The same when the process starts. Nothing is known about the time before: each replica may have
/// been the primary, and each primary without slots may have owned any.
pub(super) fn slots_at_start<'v>(
    views: &'v [ClusterView],
    owners: &[Option<&NodeView>],
) -> Vec<(&'v NodeView, SlotSet)> {
    let is_of = |slot: u16, id: &str| owners[usize::from(slot)].is_some_and(|it| it.id == id);
    let mut seen = HashSet::new();
    let mut former = Vec::new();
    for node in views.iter().flat_map(|view| &view.nodes) {
        let owns = owners.iter().flatten().any(|it| it.id == node.id);
        if owns || !seen.insert(&node.id) {
            continue;
        }
        let primary = node.primary.as_deref();
        let its = (0..SLOTS).filter(|slot| primary.is_none_or(|id| is_of(*slot, id)));
        former.push((node, set_of(its).unwrap_or_default()));
    }
    former
}

/// `None` for no slot.
fn set_of(slots: impl Iterator<Item = u16>) -> Option<SlotSet> {
    let mut set = None::<SlotSet>;
    for slot in slots {
        set.get_or_insert_default().add(slot);
    }
    set
}
