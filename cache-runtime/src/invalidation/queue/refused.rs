//! What the store has refused while it answers, such as keys that its user may not write.

use std::collections::HashSet;
use std::sync::Arc;

use crate::base::error::{Error, ErrorKind};
use crate::invalidation::batch::InvalidationRequest;
use crate::protocol::generation::Dep;
use crate::store::Invalidation;

/// The keys and generations that were refused last time. They wait in the queue like all others,
/// and are forgotten here once everything is delivered.
#[derive(Debug, Default)]
pub(super) struct Refused {
    kills: HashSet<String>,
    bumps: HashSet<Arc<Dep>>,
    /// The store's reason.
    reason: String,
}

impl Refused {
    pub(super) fn is_empty(&self) -> bool {
        self.kills.is_empty() && self.bumps.is_empty()
    }

    /// The store has answered to `sent`, and has refused `undone` of it.
    pub(super) fn record(
        &mut self,
        sent: &Invalidation,
        undone: &Invalidation,
        error: Option<&Error>,
    ) {
        let is_all = undone.len() == sent.len();
        if is_all && crate::base::mutation::is_active("refusals-of-all-forgotten") {
            return;
        }
        if !self.is_empty() {
            for key in &sent.kills {
                self.kills.remove(key);
            }
            for dep in &sent.bumps {
                self.bumps.remove(dep);
            }
        }
        self.kills.extend(undone.kills.iter().cloned());
        self.bumps.extend(undone.bumps.iter().cloned());
        if let Some(error) = error {
            self.reason = error.to_string();
        }
    }

    /// Whether something is among it that a request names.
    pub(super) fn names_any_of(&self, request: &InvalidationRequest) -> bool {
        request.kills.iter().any(|key| self.kills.contains(key))
            || request.bumps.iter().any(|dep| self.bumps.contains(dep))
    }

    /// The last refusal, as an error for who is not sent now.
    pub(super) fn error(&self) -> Error {
        Error::new(ErrorKind::Store, self.reason.clone())
    }

    /// Divides an invalidation into what may be taken, and what was refused last time. With that
    /// go the generations of rows and tags that may not be replaced before it. `None` if nothing
    /// of it was refused.
    pub(super) fn divide(
        &self,
        invalidation: &Invalidation,
    ) -> Option<(Invalidation, Invalidation)> {
        if self.is_empty() || crate::base::mutation::is_active("refused-sent-with-others") {
            return None;
        }
        let windows = Dep::windows(&self.bumps);
        let waits = |dep: &Arc<Dep>| self.bumps.contains(dep) || dep.waits_for(&windows);
        let kills = invalidation.kills.iter().cloned();
        let (refused_kills, kills) = kills.partition(|key| self.kills.contains(key));
        let bumps = invalidation.bumps.iter().cloned();
        let (refused_bumps, bumps) = bumps.partition(waits);
        let refused = invalidation.part(refused_kills, refused_bumps);
        (!refused.is_empty()).then(|| (invalidation.part(kills, bumps), refused))
    }
}
