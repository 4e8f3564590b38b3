//! What each codec keeps and what it would lose.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::marker::PhantomData;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cache_runtime::{Cache, cached};
use serde::{Deserialize, Serialize};

use crate::{Tiers, check};

/// A function for each value, in each codec that is named with what becomes of the value in it.
macro_rules! values {
    ($($name:ident: $type:ty = $value:expr;)*) => {
        mod json {
            use super::*;
            $(#[cached(resource = "json", cache = cache, skip(cache))]
            pub(super) async fn $name(cache: &Cache) -> $type { $value })*
        }
        mod msgpack {
            use super::*;
            $(#[cached(resource = "msgpack", codec = "msgpack", cache = cache, skip(cache))]
            pub(super) async fn $name(cache: &Cache) -> $type { $value })*
        }
        mod postcard {
            use super::*;
            $(#[cached(resource = "postcard", codec = "postcard", cache = cache, skip(cache))]
            pub(super) async fn $name(cache: &Cache) -> $type { $value })*
        }
    };
}
pub(crate) use values;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Nothing;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Holder<T> {
    value: T,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Small(u8),
    Large(u64),
    Text(String),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
enum Tagged {
    One { id: u64 },
    Two,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Flattened {
    id: u8,
    #[serde(flatten)]
    rest: BTreeMap<String, u128>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Hidden {
    name: String,
    #[serde(skip)]
    secret: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Sparse {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    one: Option<u8>,
    two: u8,
}

/// Seconds with a part that is cut off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Rounded {
    #[serde(with = "whole")]
    seconds: f64,
}

mod whole {
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
    pub(super) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(*value as i64)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        i64::deserialize(from).map(|value| value as f64)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Tree(Vec<Tree>);

fn tree(depth: usize) -> Tree {
    (1..depth).fold(Tree(Vec::new()), |inner, _| Tree(vec![inner]))
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Ordinary {
    cow: Cow<'static, str>,
    boxed: Box<str>,
    shared: Arc<[u8]>,
    marker: PhantomData<u8>,
    duration: Duration,
    time: SystemTime,
    address: IpAddr,
    signed: i128,
    optional: Vec<Option<u8>>,
    #[serde(rename = "letter", alias = "char")]
    character: char,
    float: f32,
    by_number: BTreeMap<u8, bool>,
    map: BTreeMap<String, f64>,
    unit: (),
    nothing: Nothing,
    result: Result<u8, String>,
}

fn ordinary() -> Ordinary {
    Ordinary {
        cow: "Ada".into(),
        boxed: "Lovelace".into(),
        shared: [1, 2].into(),
        marker: PhantomData,
        duration: Duration::new(3, 141_592_653),
        time: SystemTime::UNIX_EPOCH + Duration::new(7, 5),
        address: [127, 0, 0, 1].into(),
        signed: i128::MIN,
        optional: vec![None, Some(1)],
        character: 'é',
        float: 0.1,
        by_number: [(7, true)].into(),
        map: (0..50)
            .map(|n| (n.to_string(), 0.1 * f64::from(n)))
            .collect(),
        unit: (),
        nothing: Nothing,
        result: Err("no".into()),
    }
}

/// Compared by what serde writes, in whatever order, since there is no `PartialEq`.
#[derive(Clone, Serialize, Deserialize)]
struct Unequal {
    set: HashSet<u32>,
    map: HashMap<String, Holder<Option<f64>>>,
}

impl std::fmt::Debug for Unequal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.set.len(), self.map.len())
    }
}

fn unequal() -> Unequal {
    let entries = (0..50).map(|n| (n.to_string(), Holder { value: Some(0.1) }));
    Unequal {
        set: (0..50).collect(),
        map: entries.collect(),
    }
}

values! {
    infinite: f64 = f64::INFINITY;
    infinite_single: Holder<f32> = Holder { value: f32::NEG_INFINITY };
    no_number: f64 = f64::NAN;
    no_number_deep: Vec<Holder<Option<f64>>> = vec![Holder { value: Some(f64::NAN) }];
    some_none: Holder<Option<Option<u8>>> = Holder { value: Some(None) };
    some_unit: Holder<Option<()>> = Holder { value: Some(()) };
    some_nothing: Holder<Option<Nothing>> = Holder { value: Some(Nothing) };
    some_some: Holder<Option<Option<u8>>> = Holder { value: Some(Some(1)) };
    no_option: Holder<Option<Option<u8>>> = Holder { value: None };
    untagged_taken_for_another: Untagged = Untagged::Large(5);
    untagged: Untagged = Untagged::Text("5".into());
    tagged: Tagged = Tagged::One { id: 7 };
    tagged_unit: Tagged = Tagged::Two;
    flattened_large: Flattened = Flattened { id: 1, rest: [("a".into(), u128::MAX)].into() };
    hidden: Hidden = Hidden { name: "Ada".into(), secret: "hash".into() };
    hidden_default: Hidden = Hidden { name: "Ada".into(), secret: String::new() };
    sparse: Sparse = Sparse { one: None, two: 2 };
    rounded: Rounded = Rounded { seconds: 1.5 };
    rounded_whole: Rounded = Rounded { seconds: 2.0 };
    deep: Tree = tree(130);
    shallow: Tree = tree(100);
    pairs_as_keys: BTreeMap<(u8, u8), u8> = [((1, 2), 3)].into();
    large: u128 = u128::MAX;
    any: serde_json::Value = serde_json::json!({"a": [1, null, {"b": 1.5}]});
    everyday: Ordinary = ordinary();
    hashed: Unequal = unequal();
}

#[tokio::test]
async fn in_json() {
    use json::*;
    check!(Tiers::new().await,
        infinite is lost,
        infinite_single is lost,
        no_number is lost,
        no_number_deep is lost,
        some_none is lost,
        some_unit is lost,
        some_nothing is lost,
        some_some is kept,
        no_option is kept,
        untagged_taken_for_another is lost,
        untagged is kept,
        tagged is kept,
        tagged_unit is kept,
        flattened_large is lost,
        hidden is lost,
        hidden_default is kept,
        sparse is kept,
        rounded is lost,
        rounded_whole is kept,
        deep is lost,
        shallow is kept,
        pairs_as_keys is lost,
        large is kept,
        any is kept,
        everyday is kept,
        hashed is kept,
    );
}

#[tokio::test]
async fn in_message_pack() {
    use msgpack::*;
    check!(Tiers::new().await,
        infinite is kept,
        infinite_single is kept,
        no_number is kept,
        no_number_deep is kept,
        some_none is lost,
        some_unit is lost,
        some_nothing is kept,
        some_some is kept,
        no_option is kept,
        untagged_taken_for_another is lost,
        untagged is kept,
        tagged is kept,
        tagged_unit is kept,
        flattened_large is lost,
        hidden is lost,
        hidden_default is kept,
        sparse is kept,
        rounded is lost,
        rounded_whole is kept,
        deep is lost,
        shallow is kept,
        pairs_as_keys is kept,
        large is kept,
        any is kept,
        everyday is kept,
        hashed is kept,
    );
}

#[tokio::test]
async fn in_postcard() {
    use postcard::*;
    check!(Tiers::new().await,
        infinite is kept,
        infinite_single is kept,
        no_number is kept,
        no_number_deep is kept,
        some_none is kept,
        some_unit is kept,
        some_nothing is kept,
        some_some is kept,
        no_option is kept,
        untagged_taken_for_another is lost,
        untagged is lost,
        tagged is lost,
        tagged_unit is lost,
        flattened_large is lost,
        hidden is lost,
        hidden_default is kept,
        sparse is lost,
        rounded is lost,
        rounded_whole is kept,
        deep is kept,
        shallow is kept,
        pairs_as_keys is kept,
        large is kept,
        any is lost,
        everyday is kept,
        hashed is kept,
    );
}
