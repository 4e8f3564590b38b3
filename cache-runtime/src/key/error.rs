//! Why an argument can't be part of a key.

use std::borrow::Cow;
use std::fmt;

/// Why an argument can't be part of a key.
#[derive(Debug, Clone)]
pub(crate) struct KeyError(Cow<'static, str>);

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for KeyError {}

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

/// Whether the order of a collection's elements is a part of its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ElementOrder {
    /// It is arbitrary: a `HashMap`, a `HashSet`.
    None,
    /// It follows from the elements: a `BTreeMap`, a `BTreeSet`.
    Sorted,
    /// It may be a part of the value: any other type, such as a `Vec` or an `IndexMap`.
    Kept,
}

/// Types whose order is arbitrary, by the beginnings of their paths. A type's own name says
/// nothing: a `LinkedHashSet` has an order.
const UNORDERED: &[&str] = &[
    "std::collections::hash::",
    "hashbrown::",
    "im::hash::",
    "imbl::hash::",
    "papaya::",
    "flurry::",
    "scc::hash_",
];

/// Iterators that hand on the elements of another one, one for one and in its order. Of two
/// iterators in one (`chain`, `zip`), and of lists in a map (`flatten`), some have an order.
const ADAPTERS: &[&str] = &[
    "core::iter::adapters::cloned::Cloned",
    "core::iter::adapters::copied::Copied",
    "core::iter::adapters::filter::Filter",
    "core::iter::adapters::filter_map::FilterMap",
    "core::iter::adapters::map::Map",
];

impl ElementOrder {
    /// The order of a collection, or of an iterator over one.
    ///
    /// A serializer does not see the type of a value. But sets and maps go through
    /// `Serializer::collect_seq` and `collect_map`, and the type of that iterator is the set's. It
    /// is the collection itself that counts, and not its elements: a list of maps has an order.
    pub(crate) fn of<I>() -> Self {
        let mut name = std::any::type_name::<I>();
        loop {
            name = name
                .trim_start_matches(['&', ' '])
                .trim_start_matches("mut ");
            let (path, rest) = name.split_once('<').unwrap_or((name, ""));
            if ADAPTERS.contains(&path) {
                name = rest;
                continue;
            }
            let is_of = |modules: &[&str]| modules.iter().any(|module| path.starts_with(module));
            return match () {
                () if is_of(UNORDERED) => Self::None,
                () if is_of(&["alloc::collections::btree::"]) => Self::Sorted,
                () => Self::Kept,
            };
        }
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

    #[test]
    fn only_the_collection_itself_may_have_no_order() {
        fn order<I>(_: &I) -> ElementOrder {
            ElementOrder::of::<I>()
        }
        fn of<I>(collection: &I) -> bool {
            order(collection) == ElementOrder::None
        }
        let (set, map) = (HashSet::from([vec![1]]), HashMap::from([(1, 2)]));
        assert!(of(&&set) && of(&set.iter()) && of(&set.iter().map(Vec::len)));
        assert!(of(&map.keys()) && of(&map.values()) && of(&map.iter()));
        assert!(!of(&vec![map.clone()]) && !of(&vec![(1, map.clone())]));
        let pair = [set.clone(), set.clone()];
        assert!(!of(&pair) && !of(&&pair[..]));
        let sorted = BTreeMap::from([(1, set.clone())]);
        assert_eq!(order(&sorted), ElementOrder::Sorted);
        assert_eq!(order(&sorted.keys()), ElementOrder::Sorted);
        assert_eq!(order(&&vec![1]), ElementOrder::Kept);
        assert_eq!(order(&&others::LinkedHashSet), ElementOrder::Kept);
        // Two in one.
        assert!(!of(&set.iter().chain(&set)) && !of(&set.iter().zip([1])));
        assert!(!of(&set.iter().flatten()) && !of(&set.iter().enumerate()));
        let list = [HashSet::from([1])];
        assert!(!of(&list.iter().map(HashSet::len)));
    }

    mod others {
        pub(super) struct LinkedHashSet;
    }
}
