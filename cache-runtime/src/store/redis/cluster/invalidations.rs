//! Invalidations in a cluster: divided by slot, and each part sent to the node that has the slot.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::connection::errors::{graver, is_forbidden};
use super::super::key_by_key::KeyByKey;
use super::super::limits::STEP;
use super::super::reply::millis;
use super::super::scripts;
use super::super::slots::slot_of;
use super::routing::{ScriptCall, routed};
use super::sending::{OnAsk, StepResult, typed};
use super::state::{Cluster, is_apart};
use crate::base::clock::Millis;
use crate::base::mutation;
use crate::base::nonce::Nonce;
use crate::base::unserved::{Unserved, copied};
use crate::store::{Invalidated, Invalidation, PartlyInvalidated};

/// A part of an invalidation: its slot, and the indexes of its entries and generations.
type SlotPart<'i> = (u16, &'i [usize], &'i [usize]);

/// The indexes of an invalidation's entries and generations, by their slot.
type BySlot = HashMap<u16, (Vec<usize>, Vec<usize>)>;

fn by_slot(invalidation: &Invalidation) -> BySlot {
    let mut by_slot = BySlot::new();
    for (at, key) in invalidation.deletes.iter().enumerate() {
        by_slot.entry(slot_of(key)).or_default().0.push(at);
    }
    for (at, dep) in invalidation.rotates.iter().enumerate() {
        by_slot.entry(routed(dep).1).or_default().1.push(at);
    }
    by_slot
}

/// Parts of so many keys at most.
fn parts(by_slot: &BySlot, most: usize) -> Vec<SlotPart<'_>> {
    by_slot
        .iter()
        .flat_map(|(slot, (deletes, rotates))| divided((*slot, deletes, rotates), most))
        .collect()
}

/// The part as parts of so many keys at most, each with entries or generations.
fn divided<'i>(
    (slot, deletes, rotates): SlotPart<'i>,
    most: usize,
) -> impl Iterator<Item = SlotPart<'i>> {
    let deletes = deletes.chunks(most).map(move |it| (slot, it, &[][..]));
    let rotates = rotates.chunks(most).map(move |it| (slot, &[][..], it));
    deletes.chain(rotates)
}

impl Cluster {
    pub(in crate::store::redis) async fn invalidate(
        &self,
        invalidation: &Invalidation,
    ) -> PartlyInvalidated {
        // First, so that a task that repeats recent invalidations at a new owner includes this one.
        self.recent.remember(invalidation);
        self.invalidate_by_slot(invalidation).await
    }

    /// The same, but keys that the user may not write end with their whole resource where that is
    /// permitted.
    pub(in crate::store::redis) async fn invalidate_permitted(
        &self,
        invalidation: &Invalidation,
    ) -> PartlyInvalidated {
        self.recent.remember(invalidation);
        self.invalidate_again(invalidation).await
    }

    /// Repeats it, for a new owner of slots.
    pub(super) async fn invalidate_again(&self, invalidation: &Invalidation) -> PartlyInvalidated {
        let mut outcome = KeyByKey::of(self.invalidate_by_slot(invalidation).await);
        if let Some(instead) = self.wholes.in_place_of(&outcome) {
            let sent = KeyByKey::of(self.invalidate_by_slot(&instead).await);
            self.wholes.apply_wholes(&mut outcome, instead, sent);
        }
        outcome.into_partly()
    }

    async fn invalidate_by_slot(&self, invalidation: &Invalidation) -> PartlyInvalidated {
        let ends: Vec<_> = invalidation.ends.iter().map(Nonce::to_string).collect();
        let by_slot = by_slot(invalidation);
        let done = self
            .run_parts(invalidation, &ends, &parts(&by_slot, STEP))
            .await;
        let done = self.run_apart(invalidation, &ends, done).await;
        let slots: Vec<_> = by_slot.keys().copied().collect();
        let fenced = self.fences.active(&slots).await;
        self.summed_up(invalidation, done, &fenced)
    }

    /// Runs the parts again, key by key, that could not be invalidated as a whole. If a slot is
    /// being moved, its keys may be on two nodes. And the user may not write one of the keys.
    async fn run_apart<'i>(
        &self,
        invalidation: &'i Invalidation,
        ends: &[String],
        mut done: Vec<(SlotPart<'i>, StepResult)>,
    ) -> Vec<(SlotPart<'i>, StepResult)> {
        let apart: Vec<_> = done
            .extract_if(.., |((_, deletes, rotates), done)| {
                let holds_up_others = deletes.len() + rotates.len() > 1
                    && !mutation::is_active("forbidden-keys-hold-up-others");
                done.as_ref()
                    .is_err_and(|error| is_apart(error) || is_forbidden(error) && holds_up_others)
            })
            .collect();
        if apart.is_empty() || mutation::is_active("tryagain-as-a-whole") {
            done.extend(apart);
            return done;
        }
        let parts: Vec<_> = apart
            .iter()
            .flat_map(|(part, _)| divided(*part, 1))
            .collect();
        done.extend(self.run_parts(invalidation, ends, &parts).await);
        done
    }

    /// What was invalidated of it, and what was not.
    fn summed_up(
        &self,
        invalidation: &Invalidation,
        done: Vec<(SlotPart<'_>, StepResult)>,
        fenced: &[u16],
    ) -> PartlyInvalidated {
        let mut invalidated = Invalidated {
            at: Millis(0),
            removed: 0,
        };
        let confirmed = self.confirmed();
        let mut undone = Invalidation::default();
        let mut fault = None;
        for ((slot, deletes, rotates), done) in done {
            let done = match &confirmed {
                Err(error) => Err(copied(error)),
                Ok(()) if fenced.contains(&slot) => Err(Unserved::Fenced.into()),
                Ok(()) => typed::<(u64, u64)>(done),
            };
            match done {
                Ok(((at, removed), _)) => {
                    invalidated.at = invalidated.at.max(Millis(at));
                    invalidated.removed += removed;
                }
                Err(error) => {
                    fault = Some(graver(fault.take(), error));
                    let deletes = deletes.iter().map(|at| invalidation.deletes[*at].clone());
                    undone.deletes.extend(deletes);
                    let rotates = rotates
                        .iter()
                        .map(|at| Arc::clone(&invalidation.rotates[*at]));
                    undone.rotates.extend(rotates);
                }
            }
        }
        match fault {
            None => PartlyInvalidated::whole(invalidated),
            Some(error) => {
                undone.deletes.dedup();
                undone.rotates.dedup();
                undone.ends.clone_from(&invalidation.ends);
                PartlyInvalidated::partly(invalidated, undone, error)
            }
        }
    }

    /// Invalidates each of these parts. Each is returned with its answers, one for each round of
    /// tokens.
    async fn run_parts<'i>(
        &self,
        invalidation: &'i Invalidation,
        ends: &[String],
        parts: &[SlotPart<'i>],
    ) -> Vec<(SlotPart<'i>, StepResult)> {
        // Without tokens there is still one round.
        let rounds = ends.len().div_ceil(STEP).max(1);
        let mut steps = Vec::with_capacity(parts.len() * rounds);
        let mut concerned = Vec::with_capacity(parts.len() * rounds);
        for (slot, deletes, rotates) in parts {
            for round in 0..rounds {
                let ends = ends.iter().skip(round * STEP).take(STEP);
                let ends = ends.map(String::as_str).collect::<Vec<_>>().join(" ");
                let keys = deletes.iter().map(|at| invalidation.deletes[*at].as_str());
                let rotates_of = || rotates.iter().map(|at| &invalidation.rotates[*at]);
                let args = [
                    deletes.len().to_string().into_bytes(),
                    millis(self.default_generation_ttl),
                    ends.into(),
                ];
                let nonces = rotates_of().map(|dep| scripts::fresh_nonce(dep));
                steps.push(ScriptCall {
                    slot: *slot,
                    script: &scripts::INVALIDATE,
                    keys: keys.chain(rotates_of().map(|dep| routed(dep).0)).collect(),
                    args: args.into_iter().chain(nonces).collect(),
                });
                concerned.push((*slot, *deletes, *rotates));
            }
        }
        let done = self.run(&steps, OnAsk::Follow).await;
        self.changed(&steps);
        concerned.into_iter().zip(done).collect()
    }
}
