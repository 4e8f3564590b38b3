//! How much is known of what a value leaves out.

/// Whether a value leaves something out, from the weakest statement to the strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Completeness {
    No,
    /// This one does not, by its numbers and texts. Nothing follows for others.
    Once,
    /// This one does not.
    This,
    /// No value of its type does.
    All,
}

impl Completeness {
    pub(super) fn and(self, other: Self) -> Self {
        self.min(other)
    }

    /// Limits the verdict to this value.
    pub(super) fn this(self) -> Self {
        self.min(Self::This)
    }
}
