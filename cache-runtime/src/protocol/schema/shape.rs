//! The shape of a type.

/// The shape of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schema {
    /// Equal in each process and build in which the type has this shape.
    pub(crate) hash: u64,
    /// Whether the type accepts any value and then decides what it is (untagged enums, `flatten`,
    /// values of any type). It may take one thing for another.
    pub(crate) guesses: bool,
    /// Whether its `Deserialize` asks for itself without end, for some values: to decode one of
    /// them would exhaust the stack. So no value of the type is stored.
    pub(crate) is_endless: bool,
}

impl Schema {
    /// The schema of a type that could not be probed.
    pub(super) const NONE: Self = Self {
        hash: 0,
        guesses: true,
        is_endless: false,
    };
}
