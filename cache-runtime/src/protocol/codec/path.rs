//! The place in a value that is being serialized.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};

/// One step from a value to a part of it.
#[derive(Clone, Copy)]
pub(super) enum Step<'a> {
    Root,
    Field(&'static str),
    /// An element of a list.
    Index(usize),
    /// A part of a tuple, which has a type of its own.
    Part(usize),
    /// The value of a map's entry, with a function that writes the key.
    Entry(&'a dyn Fn() -> String),
    Key,
    Variant(&'static str),
}

/// The path from the root to a part: a linked list of steps on the stack. Most values are stored
/// without anybody asking for the names, so nothing is allocated.
#[derive(Clone, Copy)]
pub(super) struct ValuePath<'a> {
    parent: Option<&'a ValuePath<'a>>,
    step: Step<'a>,
    /// A hash of the path. All elements of a list, and all entries of a map, have the same one.
    /// The parts of a tuple have their own: each may lose something else.
    pub(super) hash: u64,
    /// The same, with the positions in lists and the keys of entries.
    pub(super) exact: u64,
    pub(super) depth: u32,
    /// How many values the part is in, with those that are no step, such as options and newtypes.
    pub(super) levels: u32,
    /// Whether the part is what a `Some` holds, with nothing written in between.
    pub(super) is_in_some: bool,
}

/// The first of the numbers that stand for parts of tuples in a hash. A tuple has at most sixteen;
/// an array, which is written like one, may have more, all of one type.
const PARTS: u64 = 16;
const DISTINCT: usize = 15;

impl<'a> ValuePath<'a> {
    pub(super) const ROOT: ValuePath<'static> = ValuePath {
        parent: None,
        step: Step::Root,
        hash: 0x9e37_79b9_7f4a_7c15,
        exact: 0x9e37_79b9_7f4a_7c15,
        depth: 0,
        levels: 0,
        is_in_some: false,
    };

    pub(super) fn step(&'a self, step: Step<'a>) -> ValuePath<'a> {
        let salt = match step {
            Step::Root => 1,
            Step::Index(_) => 2,
            Step::Entry(_) => 3,
            Step::Key => 4,
            Step::Part(_) if crate::base::mutation::is_active("parts-looked-at-alike") => 2,
            Step::Part(index) => PARTS + index.min(DISTINCT) as u64,
            Step::Field(name) => hash_of(&(5, name)),
            Step::Variant(name) => hash_of(&(6, name)),
        };
        ValuePath {
            parent: Some(self),
            step,
            hash: mix(self.hash, salt),
            exact: mix(self.exact, salt),
            depth: self.depth + 1,
            levels: self.levels,
            is_in_some: false,
        }
    }

    /// The same place, told from others of its kind by a position or a key.
    pub(super) fn at(self, exactly: u64) -> Self {
        Self {
            exact: mix(self.exact, exactly),
            ..self
        }
    }

    /// The same place, one value further inside.
    pub(super) fn inside(self) -> Self {
        Self {
            levels: self.levels + 1,
            ..self
        }
    }

    /// The same place, in this variant of an enum: its parts are others than those of another one.
    pub(super) fn in_variant(&self, name: &'static str) -> ValuePath<'a> {
        if crate::base::mutation::is_active("parts-looked-at-alike") {
            return *self;
        }
        let salt = hash_of(&(6, name));
        ValuePath {
            hash: mix(self.hash, salt),
            exact: mix(self.exact, salt),
            ..*self
        }
    }

    pub(super) fn in_some(&self) -> ValuePath<'a> {
        ValuePath {
            hash: mix(self.hash, 7),
            exact: mix(self.exact, 7),
            is_in_some: true,
            ..*self
        }
    }

    /// Whether this is the text of a `RawValue` of serde_json, directly in a `Some`.
    pub(super) fn is_raw_in_some(&self) -> bool {
        matches!(self.step, Step::Field("$serde_json::private::RawValue"))
            && self.parent.is_some_and(|it| it.is_in_some)
            && !crate::base::mutation::is_active("encoder-loses")
    }

    /// The value that this is a part of.
    pub(super) fn around(&self) -> ValuePath<'a> {
        self.parent.copied().unwrap_or(*self)
    }

    /// The path as in Rust, such as `users[3].score`.
    pub(super) fn path(&self) -> String {
        let mut path = self.parent.map(Self::path).unwrap_or_default();
        let dot = if path.is_empty() { "" } else { "." };
        let _ = match self.step {
            Step::Root => Ok(()),
            Step::Field(name) | Step::Variant(name) => write!(path, "{dot}{name}"),
            Step::Index(index) | Step::Part(index) => write!(path, "[{index}]"),
            Step::Entry(key) => write!(path, "[{}]", key()),
            Step::Key => write!(path, "{dot}(key)"),
        };
        path
    }
}

pub(super) fn mix(a: u64, b: u64) -> u64 {
    (a.rotate_left(23) ^ b).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

pub(super) fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
