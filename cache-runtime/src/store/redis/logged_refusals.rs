//! Tells operators once of each resource whose keys the user may not write.

use std::collections::HashSet;

use parking_lot::Mutex;

use crate::base::error::Error;
use crate::protocol::generation::Dependency;

/// How many resources are remembered as logged. Their names may come from callers.
const MOST_LOGGED: usize = 1_000;

/// The resources for which it was logged that keys are refused.
#[derive(Debug, Default)]
pub(super) struct LoggedRefusals(Mutex<HashSet<String>>);

impl LoggedRefusals {
    pub(super) fn log(&self, namespace: &str, whole: &Dependency, error: &Error) {
        let mut logged = self.0.lock();
        if logged.len() < MOST_LOGGED && logged.insert(whole.key().to_owned()) {
            drop(logged);
            tracing::warn!(
                resource = whole.name(),
                %error,
                "the Redis user may not write all keys of this resource, so invalidations of its \
                 rows invalidate the whole resource; permit `{namespace}{}:*`",
                whole.name(),
            );
        }
    }
}
