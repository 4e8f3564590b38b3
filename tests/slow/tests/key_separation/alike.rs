//! Arguments that serialise alike, or nearly so, and are different all the same.

#![allow(
    unused_variables,
    reason = "the cache of a function stands in its attribute, and not in its body"
)]
#![allow(clippy::ptr_arg, reason = "each type is an argument as it is")]

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use cache_runtime::testing::TestCache;
use cache_runtime::{BypassReason, Cache, Key, Status, cached};
use indexmap::{IndexMap, IndexSet};
use serde::ser::SerializeSeq as _;
use serde::{Serialize, Serializer};
use serde_json::Value;

use silent::{Consent, Grade, Level};

use super::{is_hit, status};

const UNKEYABLE: Status = Status::Bypass(BypassReason::InvalidKey);

/// Calls a function with each value, twice in turn. `as id` makes it the id of a row. At the end
/// the last call is a hit (`kept`), or runs without the cache (`bypassed`).
macro_rules! alike {
    ($($name:ident: $type:ty, $tell:expr, [$($value:expr),+ $(,)?] $end:ident $(as $id:ident)?;)*) => {$(
        #[tokio::test]
        async fn $name() {
            #[cached(resource = "alike", cache = cache, skip(cache))]
            async fn read(cache: &Cache, value: &$type) -> String {
                let tell: fn(&$type) -> String = $tell;
                tell(value)
            }
            #[allow(dead_code, reason = "some are no ids")]
            #[cached(resource = "alike-rows", cache = cache, skip(cache))]
            async fn row(cache: &Cache, id: &$type) -> String {
                let tell: fn(&$type) -> String = $tell;
                tell(id)
            }
            let tell: fn(&$type) -> String = $tell;
            let cache = TestCache::new();
            let values: Vec<$type> = vec![$($value),+];
            for _ in 0..3 {
                for value in &values {
                    assert_eq!(read(&cache, value).await, tell(value));
                    $(alike!(@row $id cache value tell row);)?
                }
            }
            let last = values.last().expect("there are some");
            let end = status(read(&cache, last)).await;
            assert!(alike!(@is $end end), "{end:?}");
            $(
                let _ = stringify!($id);
                let end = status(row(&cache, last)).await;
                assert!(alike!(@is $end end), "{end:?} as an id");
            )?
        }
    )*};
    (@row id $cache:ident $value:ident $tell:ident $row:ident) => {
        assert_eq!($row(&$cache, $value).await, $tell($value), "as an id");
    };
    (@is kept $end:ident) => { is_hit($end) };
    (@is bypassed $end:ident) => { $end == UNKEYABLE };
}

fn shown<T: std::fmt::Debug>(value: &T) -> String {
    format!("{value:?}")
}

type Order = IndexMap<String, bool>;

fn by<const N: usize>(names: [&str; N]) -> Order {
    names.map(|name| (name.to_owned(), true)).into()
}

fn up() -> Order {
    by(["name", "age", "id"])
}

fn down() -> Order {
    by(["id", "age", "name"])
}

#[derive(Serialize, Clone, Debug, PartialEq)]
struct Query {
    by: Order,
    limit: u8,
}

#[derive(Serialize, Clone, Debug, PartialEq)]
enum Sort {
    By(Order),
    Fields { by: Order },
    Pair(u8, Order),
}

#[derive(Serialize, Clone, Debug, PartialEq)]
struct Named(Order);

#[derive(Serialize, Clone, Debug, PartialEq)]
#[serde(transparent)]
struct Thin {
    by: Order,
}

#[derive(Serialize, Clone, Debug, PartialEq)]
struct Flat {
    limit: u8,
    #[serde(flatten)]
    by: Order,
}

#[derive(Serialize, Clone, Debug, PartialEq)]
#[serde(tag = "kind")]
enum Tagged {
    Sort { by: Order },
    Wrap(Thin),
}

#[derive(Serialize, Clone, Debug, PartialEq)]
#[serde(untagged)]
enum Untagged {
    Sort(Order),
}

/// The map is not in the key, and its order is to be told apart all the same.
#[derive(Serialize, Clone, Debug)]
struct Skipped {
    id: u8,
    set: HashSet<u32>,
    #[serde(skip)]
    by: Order,
    #[serde(skip)]
    of: IndexSet<u8>,
}

fn skipped(by: Order, of: [u8; 2]) -> Skipped {
    Skipped {
        id: 1,
        set: (0..40).collect(),
        by,
        of: of.into(),
    }
}

/// A list of pairs that is written as a map, as `serde_json::Map` does it.
#[derive(Clone)]
struct ByHand(Vec<(&'static str, u8)>);

impl std::fmt::Debug for ByHand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.0.iter().copied()).finish()
    }
}

impl Serialize for ByHand {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// A set with an order, whose name ends as that of a set without.
#[derive(Clone, Debug)]
struct LinkedHashSet(Vec<u8>);

impl<'a> IntoIterator for &'a LinkedHashSet {
    type Item = &'a u8;
    type IntoIter = std::slice::Iter<'a, u8>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl Serialize for LinkedHashSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self)
    }
}

/// The lists of a map without an order: each keeps its own.
#[derive(Clone, Debug)]
struct Joined(HashMap<u8, Vec<u8>>);

impl Serialize for Joined {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.values().flatten())
    }
}

#[derive(Clone, Debug)]
struct Chained(HashSet<u8>, Vec<u8>);

impl Serialize for Chained {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().chain(&self.1))
    }
}

alike! {
    order_in_an_option: Option<Order>, shown, [Some(up()), Some(down())] kept;
    order_in_a_struct: Query, shown, [Query { by: up(), limit: 1 }, Query { by: down(), limit: 1 }] kept;
    order_in_a_newtype: Named, shown, [Named(up()), Named(down())] kept;
    order_in_a_transparent_type: Thin, shown, [Thin { by: up() }, Thin { by: down() }] kept;
    order_in_a_flattened_part: Flat, shown, [Flat { by: up(), limit: 1 }, Flat { by: down(), limit: 1 }] kept;
    order_in_variants: Sort, shown, [
        Sort::By(up()), Sort::By(down()),
        Sort::Fields { by: up() }, Sort::Fields { by: down() },
        Sort::Pair(1, up()), Sort::Pair(1, down()),
    ] kept;
    order_in_tagged_variants: Tagged, shown, [
        Tagged::Sort { by: up() }, Tagged::Sort { by: down() },
        Tagged::Wrap(Thin { by: up() }), Tagged::Wrap(Thin { by: down() }),
    ] kept;
    order_in_an_untagged_variant: Untagged, shown, [Untagged::Sort(up()), Untagged::Sort(down())] kept;
    order_in_a_cow: Cow<'static, Order>, shown, [Cow::Owned(up()), Cow::Owned(down())] kept;
    order_in_a_box: Box<Option<Order>>, shown, [Box::new(Some(up())), Box::new(Some(down()))] kept;
    order_in_an_arc: Arc<Order>, shown, [Arc::new(up()), Arc::new(down())] kept;
    order_in_a_tuple: (u8, Order), shown, [(1, up()), (1, down())] kept;
    order_in_a_list: Vec<Option<Order>>, shown, [vec![Some(up())], vec![Some(down())]] kept;
    order_in_a_map: HashMap<u8, Order>, shown, [[(1, up())].into(), [(1, down())].into()] kept;
    order_of_a_map_by_hand: ByHand, shown, [
        ByHand(vec![("a", 1), ("bb", 2)]), ByHand(vec![("bb", 2), ("a", 1)]),
    ] kept;
    order_of_a_map_by_hand_in_an_option: Option<ByHand>, shown, [
        Some(ByHand(vec![("a", 1), ("bb", 2)])), Some(ByHand(vec![("bb", 2), ("a", 1)])),
    ] kept;
    order_of_a_set_of_any_name: LinkedHashSet, shown, [LinkedHashSet(vec![1, 2]), LinkedHashSet(vec![2, 1])] kept as id;
    order_within_a_map_of_lists: Joined, shown, [
        Joined([(1, vec![1, 2])].into()), Joined([(1, vec![2, 1])].into()),
    ] kept as id;
    order_behind_a_set: Chained, shown, [
        Chained([1].into(), vec![2, 3]), Chained([1].into(), vec![3, 2]), Chained([2].into(), vec![1, 3]),
    ] kept as id;
    order_of_what_is_skipped: Skipped, |value| format!("{:?} {:?}", value.by, value.of), [
        skipped(up(), [1, 2]), skipped(down(), [1, 2]), skipped(down(), [2, 1]),
    ] kept;
}

/// `Rc` can't be in a future that is `Send`, and in one that is not it can.
#[tokio::test]
async fn order_in_an_rc() {
    #[cached(resource = "alike", cache = cache, skip(cache))]
    async fn read(cache: &Cache, value: Rc<Order>) -> String {
        shown(&value)
    }
    let cache = TestCache::new();
    for _ in 0..2 {
        for value in [up(), down()] {
            assert_eq!(read(&cache, Rc::new(value.clone())).await, shown(&value));
        }
    }
    assert!(is_hit(status(read(&cache, Rc::new(down()))).await));
}

#[derive(Serialize, Clone, Debug, Default)]
struct Sets {
    set: HashSet<u32>,
    maybe: Option<HashMap<u32, Kind>>,
    both: HashMap<u8, HashSet<u32>>,
    #[serde(skip)]
    tenant: u8,
}

#[derive(Serialize, Clone, Debug)]
enum Kind {
    One,
    Two(f64),
}

/// Whatever the order in which they were filled.
#[tokio::test]
async fn sets_and_maps_without_an_order_have_one_key() {
    #[cached(resource = "alike", cache = cache, skip(cache))]
    async fn read(cache: &Cache, of: &Sets) -> usize {
        of.set.len() + usize::from(of.tenant)
    }
    fn sets(numbers: impl Iterator<Item = u32> + Clone, tenant: u8) -> Sets {
        let kind = |n: u32| match n % 2 {
            0 => Kind::One,
            _ => Kind::Two(-0.0),
        };
        Sets {
            set: numbers.clone().collect(),
            maybe: Some(numbers.clone().map(|n| (n, kind(n))).collect()),
            both: [(1, numbers.collect())].into(),
            tenant,
        }
    }
    let cache = TestCache::new();
    for tenant in [0, 1] {
        read(&cache, &sets(0..50, tenant)).await;
        for _ in 0..5 {
            let again = status(read(&cache, &sets((0..50).rev(), tenant))).await;
            assert!(is_hit(again), "{again:?}");
        }
        assert!(!is_hit(status(read(&cache, &sets(0..49, tenant))).await));
    }
    let keys = [sets(0..50, 0), sets((0..50).rev(), 0)];
    let keys = keys.map(|of| Key::args("alike", "read", &(of.set, of.maybe)).expect("a key"));
    assert_eq!(keys[0], keys[1]);
}

/// By hand, the same entry is meant.
#[tokio::test]
async fn values_told_apart_under_one_key_are_found_by_hand() {
    #[cached(resource = "by-hand", cache = cache, skip(cache))]
    async fn read(cache: &Cache, sort: Twins, by: ByHand, n: f64) -> String {
        format!("{sort:?} {by:?} {n:?}")
    }
    #[cached(resource = "by-hand-rows", cache = cache, skip(cache))]
    async fn row(cache: &Cache, id: (Twins, f64)) -> String {
        shown(&id)
    }
    let cache = TestCache::new();
    let order = || ByHand(vec![("bb", 2), ("a", 1)]);
    for sort in [Twins::One, Twins::Two, Twins::Of(1), Twins::At(1)] {
        let text = read(&cache, sort, order(), -0.0).await;
        let key = Key::args("by-hand", "read", &(sort, order(), -0.0)).expect("a key");
        assert_eq!(cache.get::<String>(&key).await, Some(text));
        let text = row(&cache, (sort, -0.0)).await;
        let key = Key::entity("by-hand-rows", (sort, -0.0)).expect("a key");
        assert_eq!(cache.get::<String>(&key).await, Some(text));
        let other = Key::entity("by-hand-rows", (sort, 0.0)).expect("a key");
        assert_eq!(cache.get::<String>(&other).await, None);
        // It is the same key.
        assert!(cache.delete(&other).await.expect("deleted"));
        assert!(!is_hit(status(row(&cache, (sort, -0.0))).await));
    }
}

#[derive(Serialize, Clone, Copy, Debug)]
enum Twins {
    #[serde(rename = "a")]
    One,
    #[serde(rename = "a")]
    Two,
    #[serde(rename = "b")]
    Of(u8),
    #[serde(rename = "b")]
    At(u8),
    #[serde(rename = "c")]
    From { id: u8 },
    #[serde(rename = "c")]
    To { id: u8 },
    #[serde(rename = "d")]
    Left(u8, u8),
    #[serde(rename = "d")]
    Right(u8, u8),
}

#[derive(Serialize, Clone, Debug)]
#[serde(rename_all = "lowercase")]
enum Lower {
    FooBar,
    Foobar,
}

#[derive(Serialize, Clone, Debug)]
#[serde(tag = "t")]
enum InternalTwins {
    #[serde(rename = "a")]
    One { id: u8 },
    #[serde(rename = "a")]
    Two { id: u8 },
    // As serde renames by a rule, and as a name of its own.
    #[serde(rename_all = "lowercase", rename = "b")]
    B { id: u8 },
    #[serde(rename = "b")]
    C { id: u8 },
    #[serde(rename = "u")]
    Nothing,
    #[serde(rename = "u")]
    Nobody,
}

#[derive(Serialize, Clone, Debug)]
#[serde(tag = "t", rename_all = "lowercase")]
enum InternalLower {
    FooBar { id: u8 },
    Foobar { id: u8 },
}

#[derive(Serialize, Clone, Debug)]
#[serde(tag = "t", content = "c")]
enum AdjacentTwins {
    #[serde(rename = "a")]
    One(u8),
    #[serde(rename = "a")]
    Two(u8),
    #[serde(rename = "u")]
    Nothing,
    #[serde(rename = "u")]
    Nobody,
}

/// The variant has the name of the type, and the tag stands where the field would.
#[derive(Serialize, Clone, Debug)]
#[serde(tag = "t")]
enum SameTag {
    SameTag {
        id: u64,
        #[serde(skip)]
        tenant: u64,
    },
}

/// The first variant has the name of the type.
#[derive(Serialize, Clone, Debug)]
#[serde(untagged)]
enum Same {
    Same { id: u64 },
    Other { id: u64 },
}

#[derive(Serialize, Clone, Debug)]
struct TwoFields {
    #[serde(rename = "x", skip_serializing_if = "Option::is_none")]
    a: Option<u8>,
    #[serde(rename = "x", skip_serializing_if = "Option::is_none")]
    b: Option<u8>,
}

#[derive(Serialize, Clone, Debug)]
enum TwoFieldsOf {
    Of {
        #[serde(rename = "x", skip_serializing_if = "Option::is_none")]
        a: Option<u8>,
        #[serde(rename = "x", skip_serializing_if = "Option::is_none")]
        b: Option<u8>,
    },
}

/// The variant `A` has an index, and so the facts that are known of it are not those of `B`.
#[derive(Serialize, Clone, Debug)]
enum Holds {
    #[serde(rename = "a")]
    A,
    #[serde(rename = "a")]
    B(#[serde(skip)] u64),
}

/// Without `Debug`.
mod silent {
    use std::cmp::Reverse;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use serde::{Serialize, Serializer};
    use serde_json::Value;

    #[derive(Serialize, Clone, Copy)]
    pub(super) enum Twins {
        #[serde(rename = "a")]
        One,
        #[serde(rename = "a")]
        Two,
    }

    impl Twins {
        pub(super) fn name(self) -> &'static str {
            match self {
                Self::One => "one",
                Self::Two => "two",
            }
        }
    }

    #[derive(Serialize, Clone)]
    #[serde(tag = "t")]
    pub(super) enum Internal {
        #[serde(rename = "a")]
        One { id: u64 },
        #[serde(rename = "a")]
        Two { id: u64 },
    }

    #[derive(Serialize, Clone)]
    #[serde(tag = "t")]
    pub(super) enum Skips {
        Of {
            id: u64,
            #[serde(skip)]
            tenant: u64,
        },
    }

    #[derive(Serialize, Clone)]
    pub(super) struct Flat {
        #[serde(flatten)]
        pub(super) of: Skips,
        pub(super) limit: u64,
    }

    /// Skips more than one value.
    #[derive(Serialize, Clone)]
    pub(super) struct Small {
        pub(super) id: u8,
        #[serde(skip_serializing_if = "is_small")]
        pub(super) rank: u8,
    }

    fn is_small(rank: &u8) -> bool {
        *rank < 10
    }

    /// Always skips it.
    #[derive(Serialize, Clone)]
    pub(super) struct Never {
        pub(super) id: u8,
        #[serde(skip_serializing_if = "is_anything")]
        pub(super) rank: Option<u8>,
    }

    fn is_anything<T>(_: &T) -> bool {
        true
    }

    /// Skips more than one text, list, map and tuple.
    #[derive(Serialize, Clone)]
    pub(super) struct Short {
        #[serde(skip_serializing_if = "is_short")]
        pub(super) name: String,
        #[serde(skip_serializing_if = "has_few")]
        pub(super) ids: Vec<u8>,
        #[serde(skip_serializing_if = "knows_few")]
        pub(super) ranks: BTreeMap<u8, u8>,
        #[serde(skip_serializing_if = "begins_with_zero")]
        pub(super) pair: (u8, u8),
        #[serde(skip_serializing_if = "begins_so_too")]
        pub(super) array: [u8; 1],
    }

    fn is_short(name: &str) -> bool {
        name.len() < 3
    }

    fn has_few(ids: &[u8]) -> bool {
        ids.len() < 3
    }

    fn knows_few(ranks: &BTreeMap<u8, u8>) -> bool {
        ranks.len() < 3
    }

    fn begins_with_zero(pair: &(u8, u8)) -> bool {
        pair.0 == 0
    }

    fn begins_so_too(array: &[u8; 1]) -> bool {
        array[0] < 3
    }

    /// Skips a value that is low, and there are several.
    #[derive(Serialize, Clone)]
    pub(super) struct Higher<T: Low> {
        pub(super) id: u8,
        #[serde(skip_serializing_if = "Low::is_low")]
        pub(super) of: T,
    }

    pub(super) trait Low {
        fn is_low(&self) -> bool;
    }

    /// Written as a letter.
    #[derive(Clone, Debug)]
    pub(super) enum Grade {
        A,
        C,
        D,
    }

    impl Low for Grade {
        fn is_low(&self) -> bool {
            !matches!(self, Self::A)
        }
    }

    impl Serialize for Grade {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_str(&format_args!("{self:?}"))
        }
    }

    /// Written as a flag.
    #[derive(Clone, Debug)]
    pub(super) enum Consent {
        Given,
        Refused,
        Unasked,
    }

    impl Low for Consent {
        fn is_low(&self) -> bool {
            !matches!(self, Self::Given)
        }
    }

    impl Serialize for Consent {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_bool(!self.is_low())
        }
    }

    /// Written as `Some`.
    #[derive(Clone, Debug)]
    pub(super) struct Level(pub(super) u8);

    impl Low for Level {
        fn is_low(&self) -> bool {
            self.0 < 3
        }
    }

    impl Serialize for Level {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_some(&self.0)
        }
    }

    impl Low for Value {
        fn is_low(&self) -> bool {
            self.is_null() || *self == ""
        }
    }

    impl Low for Reverse<[u8; 1]> {
        fn is_low(&self) -> bool {
            self.0 < [3]
        }
    }

    /// Skips slices and texts that are empty, behind pointers.
    #[derive(Serialize, Clone)]
    pub(super) struct Pointed {
        #[serde(skip_serializing_if = "is_empty")]
        pub(super) boxed: Box<[u8]>,
        #[serde(skip_serializing_if = "is_empty")]
        pub(super) shared: Arc<[[u8; 2]]>,
        #[serde(skip_serializing_if = "is_no_text")]
        pub(super) name: Arc<str>,
    }

    fn is_empty<T>(list: &impl std::ops::Deref<Target = [T]>) -> bool {
        list.is_empty()
    }

    fn is_no_text(name: &Arc<str>) -> bool {
        name.is_empty()
    }

    #[derive(Serialize, Clone)]
    pub(super) struct Usual {
        #[serde(skip_serializing_if = "String::is_empty")]
        pub(super) name: String,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub(super) ids: Vec<u8>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        pub(super) is_all: bool,
    }

    #[derive(Serialize, Clone)]
    pub(super) struct Empty {
        pub(super) id: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(super) rank: Option<u64>,
    }
}

fn short() -> silent::Short {
    silent::Short {
        name: "ada".into(),
        ids: vec![1, 2, 3],
        ranks: [(1, 1), (2, 2), (3, 3)].into(),
        pair: (1, 1),
        array: [3],
    }
}

fn higher<T: silent::Low>(of: impl Into<T>) -> silent::Higher<T> {
    let of = of.into();
    silent::Higher { id: 1, of }
}

fn pointed(boxed: &[u8], shared: &[[u8; 2]], name: &str) -> silent::Pointed {
    silent::Pointed {
        boxed: boxed.into(),
        shared: shared.into(),
        name: name.into(),
    }
}

fn usual(name: &str, ids: &[u8], is_all: bool) -> silent::Usual {
    silent::Usual {
        name: name.into(),
        ids: ids.into(),
        is_all,
    }
}

alike! {
    a_number_that_is_skipped_if_small: silent::Small, |it| it.rank.to_string(), [
        silent::Small { id: 1, rank: 20 }, silent::Small { id: 1, rank: 3 }, silent::Small { id: 1, rank: 4 },
    ] bypassed as id;
    a_part_that_is_always_skipped: silent::Never, |it| shown(&it.rank), [
        silent::Never { id: 1, rank: Some(1) }, silent::Never { id: 1, rank: None },
    ] bypassed as id;
    a_text_that_is_skipped_if_short: silent::Short, |it| it.name.clone(), [
        short(), silent::Short { name: "a".into(), ..short() }, silent::Short { name: "b".into(), ..short() },
    ] bypassed as id;
    a_list_that_is_skipped_if_short: silent::Short, |it| format!("{:?}", it.ids), [
        short(), silent::Short { ids: vec![1], ..short() }, silent::Short { ids: vec![2], ..short() },
    ] bypassed as id;
    a_map_that_is_skipped_if_small: silent::Short, |it| format!("{:?}", it.ranks), [
        short(), silent::Short { ranks: [(1, 1)].into(), ..short() }, silent::Short { ranks: [(2, 1)].into(), ..short() },
    ] bypassed as id;
    a_tuple_that_is_skipped_if_it_begins_so: silent::Short, |it| format!("{:?}", it.pair), [
        short(), silent::Short { pair: (0, 1), ..short() }, silent::Short { pair: (0, 2), ..short() },
    ] bypassed as id;
    an_array_that_is_skipped_if_it_begins_so: silent::Short, |it| format!("{:?}", it.array), [
        short(), silent::Short { array: [1], ..short() }, silent::Short { array: [2], ..short() },
    ] bypassed as id;
    a_letter_of_its_own_that_is_skipped_if_low: silent::Higher<Grade>, |it| shown(&it.of), [
        higher(Grade::A), higher(Grade::C), higher(Grade::D),
    ] bypassed as id;
    a_flag_of_its_own_that_is_skipped_if_low: silent::Higher<Consent>, |it| shown(&it.of), [
        higher(Consent::Given), higher(Consent::Refused), higher(Consent::Unasked),
    ] bypassed as id;
    an_option_of_its_own_that_is_skipped_if_low: silent::Higher<Level>, |it| shown(&it.of), [
        higher(Level(3)), higher(Level(1)), higher(Level(2)),
    ] bypassed as id;
    a_json_value_that_is_skipped_if_low: silent::Higher<Value>, |it| it.of.to_string(), [
        higher("a"), higher(vec![1]), higher(true), higher(()), higher(""),
    ] bypassed as id;
    an_array_in_a_wrapper_that_is_skipped_if_low: silent::Higher<Reverse<[u8; 1]>>, |it| shown(&it.of), [
        higher(Reverse([3])), higher(Reverse([1])), higher(Reverse([2])),
    ] bypassed as id;
    slices_behind_pointers_that_are_skipped_if_empty: silent::Pointed,
        |it| format!("{:?} {:?} {}", it.boxed, it.shared, it.name), [
        pointed(&[1], &[[1, 2]], "a"), pointed(&[1], &[[1, 2]], ""),
        pointed(&[], &[[1, 2]], "a"), pointed(&[1], &[], "a"),
    ] kept;
    parts_that_are_skipped_if_empty: silent::Usual, |it| format!("{} {:?} {}", it.name, it.ids, it.is_all), [
        usual("a", &[1], true), usual("", &[1], true), usual("a", &[], true), usual("a", &[1], false),
    ] kept;
    variants_renamed_alike: Twins, shown, [
        Twins::One, Twins::Two, Twins::Of(1), Twins::At(1),
        Twins::From { id: 1 }, Twins::To { id: 1 }, Twins::Left(1, 2), Twins::Right(1, 2),
    ] kept as id;
    variants_renamed_alike_in_a_list: Vec<Twins>, shown, [vec![Twins::One, Twins::Two], vec![Twins::Two, Twins::One]] kept as id;
    variants_renamed_alike_in_a_tuple: (u8, Twins, Twins), shown, [(1, Twins::One, Twins::Two), (1, Twins::Two, Twins::One)] kept as id;
    variants_renamed_by_a_rule: Lower, shown, [Lower::FooBar, Lower::Foobar] kept as id;
    variants_with_one_internal_tag: InternalTwins, shown, [
        InternalTwins::One { id: 1 }, InternalTwins::Two { id: 1 },
        InternalTwins::B { id: 1 }, InternalTwins::C { id: 1 },
        InternalTwins::Nothing, InternalTwins::Nobody,
    ] kept as id;
    variants_with_one_internal_tag_by_a_rule: InternalLower, shown, [
        InternalLower::FooBar { id: 1 }, InternalLower::Foobar { id: 1 },
    ] kept as id;
    variants_with_one_adjacent_tag: AdjacentTwins, shown, [
        AdjacentTwins::One(1), AdjacentTwins::Two(1), AdjacentTwins::Nothing, AdjacentTwins::Nobody,
    ] kept as id;
    a_tagged_variant_named_like_its_type: SameTag, shown, [
        SameTag::SameTag { id: 1, tenant: 1 }, SameTag::SameTag { id: 1, tenant: 2 },
    ] kept as id;
    a_variant_named_like_its_type: Same, shown, [Same::Same { id: 1 }, Same::Other { id: 1 }] kept as id;
    fields_renamed_alike: TwoFields, shown, [
        TwoFields { a: Some(1), b: None }, TwoFields { a: None, b: Some(1) },
    ] kept as id;
    fields_of_a_variant_renamed_alike: TwoFieldsOf, shown, [
        TwoFieldsOf::Of { a: Some(1), b: None }, TwoFieldsOf::Of { a: None, b: Some(1) },
    ] kept as id;
    a_variant_that_holds_what_is_skipped: Holds, shown, [Holds::A, Holds::B(1), Holds::B(2)] kept as id;
    silent_variants_renamed_alike: silent::Twins, |it| it.name().into(), [silent::Twins::One, silent::Twins::Two] kept as id;
    silent_variants_with_one_internal_tag: silent::Internal, |it| match it {
        silent::Internal::One { id } => format!("one {id}"),
        silent::Internal::Two { id } => format!("two {id}"),
    }, [silent::Internal::One { id: 1 }, silent::Internal::Two { id: 1 }] bypassed as id;
    a_silent_variant_that_skips: silent::Skips, |silent::Skips::Of { id, tenant }| format!("{id} {tenant}"), [
        silent::Skips::Of { id: 1, tenant: 1 }, silent::Skips::Of { id: 1, tenant: 2 },
    ] bypassed as id;
    a_silent_flattened_variant_that_skips: silent::Flat, |it| {
        let silent::Skips::Of { id, tenant } = it.of;
        format!("{id} {tenant} {}", it.limit)
    }, [
        silent::Flat { of: silent::Skips::Of { id: 1, tenant: 1 }, limit: 1 },
        silent::Flat { of: silent::Skips::Of { id: 1, tenant: 2 }, limit: 1 },
    ] bypassed;
    a_silent_option_that_is_left_out: silent::Empty, |it| format!("{} {:?}", it.id, it.rank), [
        silent::Empty { id: 1, rank: Some(1) }, silent::Empty { id: 1, rank: None },
    ] kept as id;
}

/// Types that write less than they hold, and have no `Debug`.
macro_rules! rounding {
    ($($name:ident: $holds:ty, $write:expr;)*) => {$(
        #[derive(Clone)]
        struct $name($holds);

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                ($write)(self, serializer)
            }
        }
    )*};
}

rounding! {
    Whole: f64, |it: &Self, to: S| to.serialize_i64(it.0 as i64);
    Caseless: String, |it: &Self, to: S| to.serialize_str(&it.0.to_lowercase());
    WholeList: Vec<f64>, |it: &Self, to: S| to.collect_seq(it.0.iter().map(|n| *n as i64));
    WholeOption: Option<f64>, |it: &Self, to: S| match it.0 {
        Some(n) => to.serialize_some(&(n as i64)),
        None => to.serialize_none(),
    };
    WholeTuple: [f64; 2], |it: &Self, to: S| {
        let mut list = to.serialize_seq(Some(2))?;
        for n in &it.0 {
            list.serialize_element(&(*n as i64))?;
        }
        list.end()
    };
    WholeNewtype: f64, |it: &Self, to: S| to.serialize_newtype_struct("Whole", &(it.0 as i64));
}

#[derive(Serialize, Clone)]
struct Measured {
    id: u64,
    of: Whole,
}

alike! {
    a_number_that_is_rounded: Whole, |it| it.0.to_string(), [Whole(1.2), Whole(1.3)] bypassed as id;
    a_number_that_is_rounded_in_a_struct: Measured, |it| format!("{} {}", it.id, it.of.0), [
        Measured { id: 1, of: Whole(1.2) }, Measured { id: 1, of: Whole(1.3) },
    ] bypassed as id;
    a_number_that_is_rounded_in_a_list: Vec<Whole>, |it| it[0].0.to_string(), [vec![Whole(1.2)], vec![Whole(1.3)]] bypassed as id;
    a_text_in_lower_case: Caseless, |it| it.0.clone(), [Caseless("a".into()), Caseless("A".into())] bypassed as id;
    a_list_that_is_rounded: WholeList, |it| shown(&it.0), [WholeList(vec![1.2]), WholeList(vec![1.3])] bypassed as id;
    an_option_that_is_rounded: WholeOption, |it| shown(&it.0), [WholeOption(Some(1.2)), WholeOption(Some(1.3))] bypassed as id;
    an_array_that_is_rounded: WholeTuple, |it| shown(&it.0), [WholeTuple([1.2, 2.0]), WholeTuple([1.3, 2.0])] bypassed as id;
    a_newtype_that_is_rounded: WholeNewtype, |it| shown(&it.0), [WholeNewtype(1.2), WholeNewtype(1.3)] bypassed as id;
}

/// No `Debug`, and written as a variant of an enum that has fewer.
#[derive(Serialize, Clone, Copy)]
#[serde(into = "Coarse")]
enum Fine {
    Low,
    Middle,
    High,
}

#[derive(Serialize)]
enum Coarse {
    Low,
    High,
}

impl From<Fine> for Coarse {
    fn from(fine: Fine) -> Self {
        match fine {
            Fine::Low => Self::Low,
            Fine::Middle | Fine::High => Self::High,
        }
    }
}

/// No `Debug`, and written as if there were nothing in it.
#[derive(Serialize, Clone, Copy)]
#[serde(into = "Nothing")]
struct Something(u8);

#[derive(Serialize)]
struct Nothing;

impl From<Something> for Nothing {
    fn from(_: Something) -> Self {
        Self
    }
}

alike! {
    a_variant_of_another_enum: Fine, |it| (*it as u8).to_string(), [Fine::Low, Fine::Middle, Fine::High] bypassed as id;
    a_variant_of_another_enum_in_an_option: Option<Fine>, |it| shown(&it.map(|it| it as u8)), [
        Some(Fine::Low), Some(Fine::Middle), Some(Fine::High),
    ] bypassed as id;
    something_written_as_a_unit: Something, |it| it.0.to_string(), [Something(1), Something(2)] bypassed as id;
}

#[derive(Serialize, Clone, Debug)]
struct Search {
    limit: u64,
    #[serde(flatten)]
    page: Option<Between>,
    #[serde(flatten)]
    others: BTreeMap<String, u8>,
}

#[derive(Serialize, Clone, Copy, Debug)]
struct Between {
    from: u8,
    to: u8,
}

fn search<const N: usize>(page: Option<Between>, others: [(&str, u8); N]) -> Search {
    Search {
        limit: 1,
        page,
        others: others.map(|(name, n)| (name.to_owned(), n)).into(),
    }
}

#[derive(Serialize, Clone, Debug)]
#[serde(transparent)]
struct Labels(BTreeMap<String, u8>);

// `Debug` shows all of them, also what is empty and not written at all.
alike! {
    parts_that_are_flattened_and_empty: Search, shown, [
        search(Some(Between { from: 1, to: 2 }), []), search(None, [("from", 1), ("to", 2)]),
        search(None, [("from", 1)]), search(None, []),
    ] kept;
    a_transparent_map_that_is_empty: Labels, shown, [
        Labels([("a".to_owned(), 1)].into()), Labels([].into()),
    ] kept;
}

fn address(flow: u32, scope: u32) -> SocketAddrV6 {
    SocketAddrV6::new(Ipv6Addr::LOCALHOST, 80, flow, scope)
}

fn told(it: &SocketAddrV6) -> String {
    format!("{it} {} {}", it.flowinfo(), it.scope_id())
}

#[derive(Serialize, Clone, Debug, PartialEq, Eq, Hash)]
struct Peer {
    address: SocketAddr,
}

#[derive(Serialize, Clone, Debug)]
struct Unhashed {
    address: Option<SocketAddrV6>,
    rank: f64,
}

#[derive(Serialize, Clone, Debug)]
#[serde(untagged)]
enum Float {
    Single(f32),
    Double(f64),
}

alike! {
    an_address_with_a_scope: SocketAddrV6, told, [address(0, 1), address(0, 2), address(3, 0), address(4, 0)] kept as id;
    an_address_with_a_scope_in_a_struct: Peer, |it| match it.address {
        SocketAddr::V6(address) => told(&address),
        SocketAddr::V4(address) => address.to_string(),
    }, [
        Peer { address: address(0, 1).into() }, Peer { address: address(0, 2).into() },
        Peer { address: address(3, 0).into() }, Peer { address: address(4, 0).into() },
        Peer { address: ([127, 0, 0, 1], 80).into() },
    ] kept;
    an_address_that_nothing_tells_apart: Unhashed, |it| told(&it.address.expect("there is one")), [
        Unhashed { address: Some(address(3, 0)), rank: 1.0 }, Unhashed { address: Some(address(4, 0)), rank: 1.0 },
    ] bypassed as id;
    an_address_of_version_four: SocketAddr, shown, [([127, 0, 0, 1], 80).into(), ([127, 0, 0, 1], 81).into()] kept as id;
    zeros: f64, shown, [0.0, -0.0] kept as id;
    zeros_in_a_pair: (f64, f64), shown, [(0.0, -0.0), (-0.0, 0.0), (0.0, 0.0), (-0.0, -0.0)] kept as id;
    zeros_in_a_list: Vec<f32>, shown, [vec![0.0, -0.0], vec![-0.0, 0.0]] kept as id;
    floats_of_two_widths: Float, shown, [Float::Single(1.5), Float::Double(1.5)] kept as id;
}

/// It has no text, so it can't be in a key.
#[tokio::test]
async fn a_path_that_is_no_text_goes_past_the_cache() {
    use std::os::unix::ffi::OsStringExt as _;

    #[cached(resource = "paths", cache = cache, skip(cache))]
    async fn read(cache: &Cache, path: PathBuf) -> String {
        format!("{path:?}")
    }
    let cache = TestCache::new();
    let path = |byte| PathBuf::from(std::ffi::OsString::from_vec(vec![byte]));
    for byte in [0xff, 0xfe] {
        assert_eq!(read(&cache, path(byte)).await, shown(&path(byte)));
        assert_eq!(status(read(&cache, path(byte))).await, UNKEYABLE);
    }
}

trait By: Send + Sync {
    fn column(&self) -> &'static str;
    fn text(&self) -> &str;
}

struct Name(String);
struct Mail(String);

impl By for Name {
    fn column(&self) -> &'static str {
        "name"
    }
    fn text(&self) -> &str {
        &self.0
    }
}

impl By for Mail {
    fn column(&self) -> &'static str {
        "mail"
    }
    fn text(&self) -> &str {
        &self.0
    }
}

impl Serialize for dyn By {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text())
    }
}

impl std::fmt::Debug for dyn By {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.text())
    }
}

impl std::hash::Hash for dyn By {
    fn hash<H: std::hash::Hasher>(&self, hasher: &mut H) {
        self.text().hash(hasher);
    }
}

#[derive(Serialize, Debug, Hash)]
struct Find<T: ?Sized> {
    limit: u8,
    by: Box<T>,
}

// The attribute sees no `dyn` in these.
type AnyBy = Box<dyn By>;
type SharedBy = Arc<dyn By>;
type FindAny = Find<dyn By>;
type FindRef = Find<&'static dyn By>;

fn name() -> AnyBy {
    Box::new(Name("x".into()))
}

fn mail() -> AnyBy {
    Box::new(Mail("x".into()))
}

/// A `dyn` that neither serde nor `Debug` shows.
#[derive(Serialize)]
#[serde(transparent)]
struct Ranked {
    by: Box<dyn Rank>,
}

trait Rank {
    fn rank(&self) -> u8;
    fn of(&self) -> &'static str;
}

impl Rank for u8 {
    fn rank(&self) -> u8 {
        *self
    }

    fn of(&self) -> &'static str {
        "u8"
    }
}

impl Rank for u16 {
    fn rank(&self) -> u8 {
        self.to_le_bytes()[0]
    }

    fn of(&self) -> &'static str {
        "u16"
    }
}

impl Serialize for dyn Rank {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.rank())
    }
}

impl std::fmt::Debug for Ranked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.by.rank())
    }
}

alike! {
    a_trait_that_is_shown_as_a_number: Ranked, |it| it.by.of().into(), [
        Ranked { by: Box::new(1_u8) }, Ranked { by: Box::new(1_u16) },
    ] bypassed as id;
    a_boxed_trait: AnyBy, |it| it.column().into(), [name(), mail()] bypassed as id;
    a_shared_trait: Option<SharedBy>, |it| it.as_ref().map_or("", |it| it.column()).into(), [
        Some(name().into()), Some(mail().into()),
    ] bypassed as id;
    traits_in_a_list: Vec<AnyBy>, |it| it[0].column().into(), [vec![name()], vec![mail()]] bypassed as id;
    a_trait_in_a_struct: FindAny, |it| it.by.column().into(), [
        Find { limit: 1, by: name() }, Find { limit: 1, by: mail() },
    ] bypassed as id;
    a_trait_behind_a_reference: FindRef, |it| it.by.column().into(), [
        Find { limit: 1, by: Box::new(&*Box::leak(name())) }, Find { limit: 1, by: Box::new(&*Box::leak(mail())) },
    ] bypassed as id;
}
