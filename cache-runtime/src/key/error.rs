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
///
/// It is the collection itself that counts, and not its elements: a list of maps has an order.
pub(super) fn is_unordered<I>() -> bool {
    let mut name = std::any::type_name::<I>();
    loop {
        name = name
            .trim_start_matches(['&', ' '])
            .trim_start_matches("mut ");
        // A slice or a tuple.
        if name.starts_with(['[', '(']) {
            return false;
        }
        let (path, rest) = name.split_once('<').unwrap_or((name, ""));
        // An iterator over another one, `set.iter().map(..)`, has the order of that one.
        if path.starts_with("core::iter::") && !rest.is_empty() {
            name = rest;
            continue;
        }
        return path.ends_with("HashSet")
            || path.starts_with("hashbrown::")
            || [
                "::hash::set::",
                "::hash::map::",
                "::hash_set::",
                "::hash_map::",
            ]
            .iter()
            .any(|module| path.contains(module));
    }
}

impl serde::ser::Error for KeyError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(Cow::Owned(message.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap, HashSet};

    use super::*;

    struct HashSetId;

    #[test]
    fn only_the_collection_itself_may_have_no_order() {
        fn of<I: IntoIterator>(_: &I) -> bool {
            is_unordered::<I>()
        }
        let (set, map) = (HashSet::from([vec![1]]), HashMap::from([(1, 2)]));
        assert!(of(&&set) && of(&set.iter()) && of(&set.iter().map(Vec::len)));
        assert!(of(&map.keys()) && of(&map.values()) && of(&map.iter()));
        assert!(is_unordered::<&others::AHashSet>());
        assert!(!is_unordered::<&Vec<HashMap<u8, u8>>>());
        assert!(!is_unordered::<&[HashSet<u8>]>());
        assert!(!is_unordered::<Vec<(u8, HashMap<u8, u8>)>>());
        assert!(!is_unordered::<BTreeMap<u8, HashSet<u8>>>());
        assert!(!is_unordered::<&Vec<HashSetId>>());
        let list = [HashSet::from([1])];
        assert!(!of(&list.iter().map(HashSet::len)));
    }

    mod others {
        pub(super) struct AHashSet;
    }
}
