//! The shape of a type.

/// The shape of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schema {
    /// The same in each process and build in which the type has this shape.
    pub(crate) hash: u64,
    /// Whether the type takes what comes and finds out then what it is (untagged enums, `flatten`, values of any type). It
    /// may take one thing for another.
    pub(crate) guesses: bool,
}
