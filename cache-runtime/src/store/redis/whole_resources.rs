//! Invalidates the whole resource where the user may not write a key of it.
//!
//! The stamp of each entry covers the generation of its whole resource, and that of each resource
//! whose rows it depends on. So if an access list permits the generations, and not `users:1`, the
//! old row is served by nobody once the generation of `users` was replaced. Otherwise all processes
//! but this one would go on reading it until its TTL ends. It costs a miss for every entry of the
//! resource.

use std::sync::Arc;

use super::connection::errors::is_forbidden;
use super::key_by_key::KeyByKey;
use super::logged_refusals::LoggedRefusals;
use crate::base::mutation;
use crate::protocol::generation::Dependency;
use crate::store::Invalidation;

/// Finds the whole resources of what was refused.
#[derive(Debug)]
pub(super) struct WholeResources {
    namespace: String,
    refusals: LoggedRefusals,
}

impl WholeResources {
    pub(super) fn new(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            refusals: LoggedRefusals::default(),
        }
    }

    fn of_key(&self, key: &str) -> Option<Arc<Dependency>> {
        Dependency::whole_of_entry(&self.namespace, key)
    }

    /// The resources to invalidate in place of the refused parts; `None` if there are none.
    pub(super) fn in_place_of(&self, outcome: &KeyByKey) -> Option<Invalidation> {
        if !outcome.fault.as_ref().is_some_and(is_forbidden)
            || mutation::is_active("refused-rows-left-to-others")
        {
            return None;
        }
        let undone = &outcome.undone;
        let keys = undone.deletes.iter().filter_map(|key| self.of_key(key));
        let deps = undone.rotates.iter().filter_map(|dep| dep.whole());
        let mut wholes: Vec<_> = keys.chain(deps).collect();
        wholes.sort();
        wholes.dedup();
        (!wholes.is_empty()).then(|| undone.part(Vec::new(), wholes))
    }

    /// A refused part is done if its whole resource is: `sent` is the outcome of `instead`. The
    /// parts that are left belong to no resource, or their whole resource is refused, too. Returns
    /// the generations of those that are done.
    pub(super) fn apply_wholes(
        &self,
        outcome: &mut KeyByKey,
        instead: Invalidation,
        sent: KeyByKey,
    ) -> Vec<Arc<Dependency>> {
        let is_left = |whole: &Arc<Dependency>| sent.undone.rotates.contains(whole);
        let (left, done): (Vec<_>, Vec<_>) = instead.rotates.into_iter().partition(is_left);
        if let Some(error) = &outcome.fault {
            done.iter()
                .for_each(|whole| self.refusals.log(&self.namespace, whole, error));
        }
        let is_done = |whole: Option<Arc<Dependency>>| whole.is_some_and(|it| !left.contains(&it));
        let undone = &mut outcome.undone;
        undone.deletes.retain(|key| !is_done(self.of_key(key)));
        undone.rotates.retain(|dep| !is_done(dep.whole()));
        outcome.succeeds(sent.done);
        if let Some(error) = sent.fault {
            outcome.fails(&Invalidation::default(), error);
        }
        if outcome.undone.is_empty() {
            outcome.fault = None;
        }
        done
    }
}
