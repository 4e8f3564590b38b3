//! What the store has refused.

use std::collections::HashSet;
use std::sync::Arc;

use crate::protocol::generation::Dep;

/// The keys and generations that were refused last time. They wait in the queue like all others,
/// and are forgotten here once everything is delivered.
#[derive(Debug, Default)]
pub(super) struct Refused {
    pub(super) kills: HashSet<String>,
    pub(super) bumps: HashSet<Arc<Dep>>,
    /// The store's reason.
    pub(super) reason: String,
}
