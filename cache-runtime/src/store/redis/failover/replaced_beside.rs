//! The generations that a new primary has replaced while it refused others.
//!
//! Until a row that it refuses has ended there, other processes read the old row, and make lists of
//! it after the generations of these were replaced. Nobody replaces them again by himself. So when
//! something refused is done, all that was replaced beside it is replaced once more.

use std::collections::HashSet;
use std::sync::Arc;

use crate::base::mutation;
use crate::protocol::generation::Dependency;
use crate::store::{Invalidation, PartlyInvalidated};

/// What has to be replaced once more.
#[derive(Debug, Default)]
pub(crate) struct ReplacedBeside(HashSet<Arc<Dependency>>);

impl ReplacedBeside {
    /// What is to be sent after a repetition of which this was the outcome: if some of it is done
    /// that was refused before, all that was replaced beside that.
    pub(crate) fn once_more(
        &mut self,
        repeated: &Invalidation,
        outcome: &PartlyInvalidated,
    ) -> Option<Invalidation> {
        let nothing = Invalidation::default();
        let undone = outcome
            .undone
            .as_ref()
            .map_or(&nothing, |(undone, _)| undone);
        let done = repeated.without(undone);
        if done.is_empty() {
            return None;
        }
        let replaced = Dependency::in_order(self.0.iter().cloned());
        if outcome.undone.is_some() {
            self.0.extend(done.rotates);
        }
        let is_due = !replaced.is_empty() && !mutation::is_active("repeated-rows-end-alone");
        is_due.then(|| repeated.part(Vec::new(), replaced))
    }

    /// Nothing that was refused is left.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// The outcome of a repetition after which this was sent: all of it is left if that has failed.
pub(crate) fn with_once_more(
    repeated: &Invalidation,
    outcome: PartlyInvalidated,
    again: PartlyInvalidated,
) -> PartlyInvalidated {
    match again.undone {
        None => outcome,
        Some((_, error)) => PartlyInvalidated::partly(outcome.done, repeated.clone(), error),
    }
}
