//! The outcome of an invalidation whose keys are sent one by one, since the user may not write
//! some.

use super::connection::errors::graver;
use crate::base::clock::Millis;
use crate::base::error::Error;
use crate::store::{Invalidated, Invalidation, PartlyInvalidated};

/// The parts of an invalidation that are done, and those that are not.
#[derive(Debug)]
pub(super) struct KeyByKey {
    pub(super) done: Invalidated,
    pub(super) undone: Invalidation,
    /// The gravest error; set if and only if something is undone.
    pub(super) fault: Option<Error>,
}

impl KeyByKey {
    /// Nothing of it was sent yet.
    pub(super) fn new(invalidation: &Invalidation) -> Self {
        let done = Invalidated {
            at: Millis(0),
            removed: 0,
        };
        Self {
            done,
            undone: invalidation.part(Vec::new(), Vec::new()),
            fault: None,
        }
    }

    pub(super) fn of(PartlyInvalidated { done, undone }: PartlyInvalidated) -> Self {
        let (undone, fault) = undone.map_or_else(
            || (Invalidation::default(), None),
            |(undone, error)| (undone, Some(error)),
        );
        Self {
            done,
            undone,
            fault,
        }
    }

    pub(super) fn into_partly(self) -> PartlyInvalidated {
        let undone = self.undone;
        PartlyInvalidated {
            done: self.done,
            undone: self.fault.map(|error| (undone, error)),
        }
    }

    pub(super) fn succeeds(&mut self, step: Invalidated) {
        self.done.at = self.done.at.max(step.at);
        self.done.removed += step.removed;
    }

    pub(super) fn fails(&mut self, part: &Invalidation, error: Error) {
        self.undone.extend(part);
        self.fault = Some(graver(self.fault.take(), error));
    }
}
