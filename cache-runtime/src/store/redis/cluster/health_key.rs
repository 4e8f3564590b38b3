//! The key that the health check of a node writes: it has to be in one of the node's slots.

use super::super::slots::{NodeView, SLOTS, slot_of, tag};
use super::node::{Node, SlotMap};
use crate::key::KeySpace;

/// A key in a slot that the node is used for.
pub(super) fn key_of_owner(space: &KeySpace, map: &SlotMap, node: &Node) -> Option<String> {
    let is_its = |slot: u16| map.owner(slot).is_some_and(|owner| owner.id == node.id);
    if let Some(key) = node.health.key().filter(|key| is_its(slot_of(key))) {
        return Some(key.as_str().to_owned());
    }
    key_in(space, is_its)
}

/// The same for a node that is not used for any slot yet: in a slot that others say it has.
///
/// Usually it has had that for long, and it is this process that is new. So a connection is used
/// once its server has taken a write, here as elsewhere. If the node takes its first slot only
/// later, the write is redirected, which counts as an answer. Then no entry in the slot is older than
/// the slot's arrival, since that has raised the epoch, and the next check comes within a second.
pub(super) fn key_of_named(
    space: &KeySpace,
    owners: &[Option<&NodeView>],
    node: &Node,
) -> Option<String> {
    if crate::base::mutation::is_active("new-node-not-written-to") {
        return None;
    }
    let is_its =
        |slot| owners[usize::from(slot)].is_some_and(|owner: &NodeView| owner.id == node.id);
    key_in(space, is_its)
}

/// A key that is in one of these slots.
fn key_in(space: &KeySpace, is_one: impl Fn(u16) -> bool) -> Option<String> {
    let key = |n: u32| space.generation(&format!("{{probe-{n}}}"));
    let is_in = |key: &String| is_one(slot_of(key));
    if tag(&space.namespace).is_some() {
        // All keys are in one slot, and no other part of the node is used.
        return Some(key(0)).filter(is_in);
    }
    let has_any = (0..SLOTS).any(&is_one);
    let tried = if has_any { 8 * u32::from(SLOTS) } else { 0 };
    (0..tried).map(key).find(is_in)
}
