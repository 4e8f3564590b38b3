//! What the store has refused while it answers, such as keys that its user may not write.

use std::collections::HashSet;
use std::sync::Arc;

use super::Queue;
use super::refused::Refused;
use crate::base::error::{Error, ErrorKind};
use crate::invalidation::batch::InvalidationRequest;
use crate::protocol::generation::Dep;
use crate::store::Invalidation;

impl Queue {
    /// The store has answered to `sent`, and has refused `undone` of it.
    pub(in crate::invalidation) fn refuse(
        &mut self,
        sent: &Invalidation,
        undone: &Invalidation,
        error: Option<&Error>,
    ) {
        let is_all = undone.len() == sent.len();
        if is_all && crate::base::mutation::is_active("refusals-of-all-forgotten") {
            return;
        }
        let Refused {
            kills,
            bumps,
            reason,
        } = &mut self.refused;
        if !kills.is_empty() || !bumps.is_empty() {
            for key in &sent.kills {
                kills.remove(key);
            }
            for dep in &sent.bumps {
                bumps.remove(dep);
            }
        }
        kills.extend(undone.kills.iter().cloned());
        bumps.extend(undone.bumps.iter().cloned());
        if let Some(error) = error {
            *reason = error.to_string();
        }
    }

    /// Returns true if the store has refused to invalidate something that a request names.
    pub(in crate::invalidation) fn refuses(&self, request: &InvalidationRequest) -> bool {
        let Refused { kills, bumps, .. } = &self.refused;
        request.kills.iter().any(|key| kills.contains(key))
            || request.bumps.iter().any(|dep| bumps.contains(dep))
    }

    /// The last refusal, as an error for who is not sent now.
    pub(in crate::invalidation) fn refusal(&self) -> Error {
        Error::new(ErrorKind::Store, self.refused.reason.clone())
    }

    /// Divides an invalidation into what may be taken, and what was refused last time. With that
    /// go the generations of rows and tags that may not be replaced before it. `None` if nothing
    /// of it was refused.
    pub(in crate::invalidation) fn divide(
        &self,
        invalidation: &Invalidation,
    ) -> Option<(Invalidation, Invalidation)> {
        let Refused { kills, bumps, .. } = &self.refused;
        if kills.is_empty() && bumps.is_empty() {
            return None;
        }
        let unopened: HashSet<&str> = bumps.iter().filter_map(|dep| dep.opens()).collect();
        let is_refused = |dep: &Arc<Dep>| {
            bumps.contains(dep) || dep.goes_by().is_some_and(|it| unopened.contains(it))
        };
        let (refused_kills, kills): (Vec<_>, Vec<_>) = invalidation
            .kills
            .iter()
            .cloned()
            .partition(|key| kills.contains(key));
        let (refused_bumps, bumps): (Vec<_>, Vec<_>) =
            invalidation.bumps.iter().cloned().partition(is_refused);
        let with = |kills, bumps| Invalidation {
            kills,
            bumps,
            withdraws: invalidation.withdraws.clone(),
        };
        let refused = with(refused_kills, refused_bumps);
        (!refused.is_empty()).then(|| (with(kills, bumps), refused))
    }
}
