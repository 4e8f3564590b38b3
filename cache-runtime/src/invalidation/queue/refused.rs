//! Requests that the store has refused while it answers, such as keys that its user may not write.

use std::collections::HashSet;
use std::sync::Arc;

use crate::base::error::{Error, ErrorKind};
use crate::invalidation::batch::InvalidationRequest;
use crate::protocol::generation::Dependency;
use crate::store::Invalidation;

/// The keys and generations that were refused last time. They wait in the queue like all others,
/// and are forgotten here once everything is delivered, or if they are too many.
#[derive(Debug, Default)]
pub(super) struct Refused {
    deletes: HashSet<String>,
    rotates: HashSet<Arc<Dependency>>,
    /// The generations that were replaced meanwhile, by invalidations that name something of the
    /// above. What others load before that is done may be made of it, so they are replaced once
    /// more then.
    replaced: HashSet<Arc<Dependency>>,
    /// The store's reason.
    reason: String,
}

impl Refused {
    pub(super) fn is_empty(&self) -> bool {
        self.deletes.is_empty() && self.rotates.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.deletes.len() + self.rotates.len() + self.replaced.len()
    }

    /// The store has answered, and has refused this part of what was sent.
    pub(super) fn record(&mut self, sent: &Invalidation, undone: &Invalidation, error: &Error) {
        if crate::base::mutation::is_active("refusals-forgotten") {
            return;
        }
        self.deletes.extend(undone.deletes.iter().cloned());
        self.rotates.extend(undone.rotates.iter().cloned());
        self.replaced.extend(sent.rotates.iter().cloned());
        self.reason = error.to_string();
    }

    /// An invalidation has come. What it names is replaced before what is refused of it.
    pub(super) fn entered<'d>(
        &mut self,
        deletes: impl IntoIterator<Item = &'d String>,
        rotates: impl IntoIterator<Item = &'d Arc<Dependency>, IntoIter: Clone>,
    ) {
        if self.is_empty() {
            return;
        }
        let rotates = rotates.into_iter();
        if deletes.into_iter().any(|key| self.deletes.contains(key))
            || rotates.clone().any(|dep| self.rotates.contains(dep))
        {
            self.replaced.extend(rotates.cloned());
        }
    }

    /// The generations to replace once more when a refused request is done; those of rows and tags
    /// last.
    pub(super) fn replaced(&self) -> Vec<Arc<Dependency>> {
        if crate::base::mutation::is_active("refused-rows-end-alone") {
            return Vec::new();
        }
        let replaced = self.replaced.iter();
        Dependency::in_order(replaced.filter(|dep| !self.rotates.contains(*dep)).cloned())
    }

    /// The store has taken this.
    pub(super) fn forget(&mut self, done: &Invalidation) {
        if self.is_empty() {
            return;
        }
        for key in &done.deletes {
            self.deletes.remove(key);
        }
        for dep in &done.rotates {
            self.rotates.remove(dep);
        }
        if self.is_empty() {
            self.replaced = HashSet::new();
        }
    }

    /// Whether something is among it that a request names.
    pub(super) fn names_any_of(&self, request: &InvalidationRequest) -> bool {
        request.deletes.iter().any(|key| self.deletes.contains(key))
            || request.rotates.iter().any(|dep| self.rotates.contains(dep))
    }

    /// The last refusal, as an error for who is not sent now.
    pub(super) fn error(&self) -> Error {
        Error::new(ErrorKind::Store, self.reason.clone())
    }

    /// Takes out of an invalidation what was refused last time. With that go the generations of
    /// rows and tags that may not be replaced before it.
    pub(super) fn taken_out_of(&self, invalidation: &mut Invalidation) -> Invalidation {
        if self.is_empty() || crate::base::mutation::is_active("refused-sent-with-others") {
            return Invalidation::default();
        }
        let windows = Dependency::windows(&self.rotates);
        let is_refused = |key: &mut String| self.deletes.contains(&*key);
        let waits =
            |dep: &mut Arc<Dependency>| self.rotates.contains(&*dep) || dep.waits_for(&windows);
        let deletes = invalidation.deletes.extract_if(.., is_refused).collect();
        let rotates = invalidation.rotates.extract_if(.., waits).collect();
        invalidation.part(deletes, rotates)
    }
}
