//! The shape of a type.

/// The shape of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schema {
    /// Equal in each process and build in which the type has this shape.
    pub(crate) hash: u64,
    /// Whether the type accepts any value and then decides what it is (untagged enums, `flatten`,
    /// values of any type). It may take one thing for another.
    pub(crate) guesses: bool,
}
