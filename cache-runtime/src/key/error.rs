//! Why an argument can't be part of a key.

use std::borrow::Cow;
use std::fmt;

/// Why an argument can't be part of a key.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(crate) struct KeyError(Cow<'static, str>);

pub(super) const TOO_LONG: &str =
    "too long for a cache key: the arguments of a call may have 1 MiB together, and an id 8 MiB";

impl KeyError {
    pub(super) fn unordered() -> Self {
        Self(Cow::Borrowed(
            "a set without an order can't be an id; use a `BTreeSet`, or give the function an `op`, \
             and the set is hashed",
        ))
    }

    pub(super) fn not_a_number() -> Self {
        Self(Cow::Borrowed(
            "NaN can't be in a cache key, because it is not equal to itself",
        ))
    }

    pub(super) fn too_long() -> Self {
        Self(Cow::Borrowed(TOO_LONG))
    }

    /// Whether the arguments are too long, which depends on the call and not on the type.
    pub(crate) fn is_too_long(&self) -> bool {
        self.0 == TOO_LONG
    }
}

/// Whether a collection is a set with no fixed order of iteration.
///
/// A serializer does not see the type of a value. But sets go through `Serializer::collect_seq`,
/// and the type of that iterator is the set's.
pub(super) fn is_unordered<I>() -> bool {
    let name = std::any::type_name::<I>();
    let modules = ["HashSet", "hash::set::", "hash::map::", "hashbrown::"];
    modules.iter().any(|module| name.contains(module))
}

impl serde::ser::Error for KeyError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(Cow::Owned(message.to_string()))
    }
}
