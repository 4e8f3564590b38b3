//! The slots of keys, and the steps that are sent there.

use std::sync::Arc;

use super::super::scripts::Lua;
use super::super::slots::{slot_of, tagged};
use crate::protocol::generation::Dependency;

/// The key of a generation in the cluster, and its slot.
pub(in crate::store::redis) fn routed(dep: &Dependency) -> (&str, u16) {
    let (key, slot) = dep.routed(|key| {
        let key = tagged(key);
        let slot = slot_of(&key);
        (key, slot)
    });
    (key, *slot)
}

/// The generations of one slot.
pub(super) struct SlotGroup<'p> {
    pub(super) slot: u16,
    /// The key of each, and its index among the dependencies.
    pub(super) deps: Vec<(&'p str, usize)>,
}

impl<'p> SlotGroup<'p> {
    pub(super) fn keys(&self) -> Vec<&'p str> {
        self.deps.iter().map(|(key, _)| *key).collect()
    }
}

/// Groups the dependencies by slot.
pub(super) fn groups<'p>(
    deps: impl IntoIterator<Item = &'p Arc<Dependency>>,
) -> Vec<SlotGroup<'p>> {
    let mut groups: Vec<SlotGroup<'p>> = Vec::with_capacity(1);
    for (at, dep) in deps.into_iter().enumerate() {
        let (key, slot) = routed(dep);
        match groups.iter_mut().find(|group| group.slot == slot) {
            Some(group) => group.deps.push((key, at)),
            None => groups.push(SlotGroup {
                slot,
                deps: vec![(key, at)],
            }),
        }
    }
    groups
}

/// One call of a script, over keys of one slot.
pub(super) struct ScriptCall<'k> {
    pub(super) slot: u16,
    pub(super) script: &'static Lua,
    pub(super) keys: Vec<&'k str>,
    pub(super) args: Vec<Vec<u8>>,
}
