//! Entity or derived entry.

/// Whether an entry holds one row under its primary id, or anything else computed from the
/// resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EntryKind {
    /// One row: `users:1`. Depends on the generation of its resource.
    Entity,
    /// A list, a filter, a lookup by another column. Also depends on the resource's derived
    /// generation.
    Derived,
}

impl EntryKind {
    /// The kind's name in logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Entity => "entity",
            Self::Derived => "derived",
        }
    }
}
