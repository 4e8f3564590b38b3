//! Entity or derived.

/// Whether an entry holds one row under its primary identity, or anything else computed from the resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EntryKind {
    /// One row: `users:1`. Depends on the generation of its resource.
    Entity,
    /// A list, a filter, a look-up by another column. Depends on the resource's derived generation as well.
    Derived,
}

impl EntryKind {
    /// The kind's name as it stands in logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Entity => "entity",
            Self::Derived => "derived",
        }
    }
}
