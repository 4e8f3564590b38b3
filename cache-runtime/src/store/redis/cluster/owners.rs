//! The owner of each slot, by the answers of one round, compared with the slot map in use.

use super::super::slots::{NodeView, SLOTS};
use super::answers::Answers;
use super::node::{Node, SlotMap};

pub(super) struct Owners<'v> {
    /// Whom the answers name as the owner of each slot.
    pub(super) named: Vec<Option<&'v NodeView>>,
    /// All nodes that are named, also those that are not used for any slot yet.
    pub(super) primaries: Vec<&'v NodeView>,
    /// For each slot the place in `primaries` of the node that is used for it.
    pub(super) places: Vec<Option<usize>>,
}

impl<'v> Owners<'v> {
    pub(super) fn of(answers: &'v Answers, before: &SlotMap) -> Self {
        let named = answers.named();
        let mut primaries: Vec<&NodeView> = Vec::new();
        let places = (0..SLOTS)
            .zip(&named)
            .map(|(slot, owner)| {
                let owner = (*owner)?;
                let known = primaries.iter().position(|it| it.id == owner.id);
                let place = known.unwrap_or_else(|| {
                    primaries.push(owner);
                    primaries.len() - 1
                });
                let was_its = before.owner(slot).is_some_and(|node| node.id == owner.id);
                answers.may_be_used(owner, was_its).then_some(place)
            })
            .collect();
        Self {
            named,
            primaries,
            places,
        }
    }

    /// The place in the map of each primary that is there already, at the same address.
    pub(super) fn known_in(
        &self,
        map: &SlotMap,
        is_at: impl Fn(&Node, &NodeView) -> bool,
    ) -> Vec<Option<usize>> {
        let place_of = |primary: &&NodeView| map.nodes().iter().position(|it| is_at(it, primary));
        self.primaries.iter().map(place_of).collect()
    }

    /// Whether the map has the same owners, whose places in it are `known`.
    pub(super) fn are_those_of(&self, map: &SlotMap, known: &[Option<usize>]) -> bool {
        map.nodes().len() == self.primaries.len()
            && known.iter().all(Option::is_some)
            && (0..SLOTS).zip(&self.places).all(|(slot, place)| {
                let node = place.and_then(|place| known[place]);
                map.place_of(slot) == node
            })
    }
}
