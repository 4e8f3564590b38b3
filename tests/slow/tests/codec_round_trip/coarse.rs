//! A `PartialEq` that sees less than there is, and what an order is worth.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use cache_runtime::{Cache, cached};
use indexmap::IndexMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Tiers, check};

/// Compared by its id alone, as rows often are.
#[allow(dead_code, reason = "only `Debug` shows the field")]
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Row {
    id: u64,
    #[serde(skip)]
    secret: String,
}

impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

/// The same without `Debug`, and with a field that is changed instead of left out.
#[derive(Clone, Serialize, Deserialize)]
struct Silent {
    id: u64,
    #[serde(with = "first")]
    names: Vec<String>,
}

impl PartialEq for Silent {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl std::fmt::Debug for SilentText<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.0.id, self.0.names)
    }
}
struct SilentText<'a>(&'a Silent);

/// Writes all names and reads one.
mod first {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(names: &[String], to: S) -> Result<S::Ok, S::Error> {
        names.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
        let names = Vec::<String>::deserialize(from)?;
        Ok(names.into_iter().take(1).collect())
    }
}

#[derive(Debug, Clone, Eq)]
struct Caseless(String);

impl PartialEq for Caseless {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Serialize for Caseless {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_lowercase())
    }
}

impl<'de> Deserialize<'de> for Caseless {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(Self)
    }
}

/// `==` of such maps ignores the order, which the callers of a function see.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Sorted {
    #[serde(with = "sorted")]
    by: IndexMap<String, u8>,
}

mod sorted {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        by: &IndexMap<String, u8>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        by.iter().collect::<BTreeMap<_, _>>().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<IndexMap<String, u8>, D::Error> {
        IndexMap::deserialize(from)
    }
}

/// Reads its numbers in another order. Neither `Debug` nor an exact `PartialEq` tells.
#[derive(Clone, Serialize)]
struct Backwards(Vec<u8>);

impl<'de> Deserialize<'de> for Backwards {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let numbers = Vec::<u8>::deserialize(from)?;
        Ok(Self(numbers.into_iter().rev().collect()))
    }
}

impl PartialEq for Backwards {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
    }
}

/// Reads its values under each other's names.
#[derive(Clone, Serialize)]
struct Swapped(BTreeMap<u8, u8>);

impl<'de> Deserialize<'de> for Swapped {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let map = BTreeMap::<u8, u8>::deserialize(from)?;
        let values: Vec<u8> = map.values().rev().copied().collect();
        Ok(Self(map.into_keys().zip(values).collect()))
    }
}

impl PartialEq for Swapped {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
    }
}

/// Sets and maps without an order, in every place where nothing names their type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Unordered {
    map: HashMap<String, HashMap<u8, u8>>,
    thin: Thin,
    #[serde(with = "pairs")]
    pairs: HashMap<u8, u8>,
    #[serde(flatten)]
    rest: HashMap<String, u8>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Thin(HashMap<String, u8>);

/// The same without `Debug`.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct SilentOrder {
    map: HashMap<String, HashMap<u8, u8>>,
    #[serde(with = "pairs")]
    pairs: HashMap<u8, u8>,
    list: Vec<u8>,
}

/// A map as a list of pairs.
mod pairs {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        map: &HashMap<u8, u8>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        map.iter().collect::<Vec<_>>().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<HashMap<u8, u8>, D::Error> {
        Vec::<(u8, u8)>::deserialize(from).map(|pairs| pairs.into_iter().collect())
    }
}

/// Its text is another one each time, and so proves nothing.
#[derive(Clone, Serialize, Deserialize)]
struct Numbered(u8);

impl PartialEq for Numbered {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl std::fmt::Debug for Numbered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        write!(f, "Numbered({})", NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

fn names<K: std::hash::Hash + Eq, V, S: std::hash::BuildHasher + Default>(
    entries: impl Iterator<Item = (K, V)>,
) -> HashMap<K, V, S> {
    entries.collect()
}

macro_rules! values {
    ($($name:ident: $type:ty = $value:expr;)*) => {$(
        #[cached(resource = "coarse", cache = cache, skip(cache))]
        async fn $name(cache: &Cache) -> $type { $value }
    )*};
}

fn row(secret: &str) -> Row {
    let secret = secret.into();
    Row { id: 1, secret }
}

values! {
    a_secret: Row = row("hash");
    no_secret: Row = row("");
    in_a_list: Vec<Row> = vec![row(""), row("hash")];
    upper_case: Caseless = Caseless("BOB".into());
    lower_case: Caseless = Caseless("bob".into());
    out_of_order: Sorted = Sorted { by: [("b".into(), 1), ("a".into(), 2)].into() };
    in_order: Sorted = Sorted { by: [("a".into(), 1), ("b".into(), 2)].into() };
    silent_order: SilentOrder = SilentOrder {
        map: names((0..20u8).map(|n| (n.to_string(), names((0..20).map(|n| (n, n)))))),
        pairs: names((0..20).map(|n| (n, n))),
        list: vec![2, 1],
    };
    without_order: Unordered = Unordered {
        map: names((0..20u8).map(|n| (n.to_string(), names((0..20).map(|n| (n, n)))))),
        thin: Thin(names((0..20u8).map(|n| (n.to_string(), n)))),
        pairs: names((0..20).map(|n| (n, n))),
        rest: names((0..20u8).map(|n| (format!("r{n}"), n))),
    };
}

#[tokio::test]
async fn parts_that_an_equality_ignores_are_not_lost() {
    check!(Tiers::new().await,
        a_secret is lost,
        no_secret is kept,
        in_a_list is lost,
        upper_case is lost,
        lower_case is kept,
        out_of_order is lost,
        in_order is kept,
    );
}

#[cached(resource = "coarse-silent", cache = cache, skip(cache))]
async fn silent(cache: &Cache, names: &[&str]) -> Silent {
    let names = names.iter().copied().map(String::from).collect();
    Silent { id: 1, names }
}

#[cached(resource = "coarse-backwards", cache = cache, skip(cache))]
async fn backwards(cache: &Cache, numbers: &[u8]) -> Backwards {
    Backwards(numbers.to_vec())
}

#[cached(resource = "coarse-swapped", cache = cache, skip(cache))]
async fn swapped(cache: &Cache, values: &[u8]) -> Swapped {
    Swapped((1..).zip(values.iter().copied()).collect())
}

#[cached(resource = "coarse-numbered", cache = cache, skip(cache))]
async fn numbered(cache: &Cache) -> Numbered {
    Numbered(1)
}

#[tokio::test]
async fn rows_written_again_are_compared_as_well() {
    use crate::{NOT_STORED, STORED, status};

    for (tier, cache) in Tiers::new().await.all() {
        for _ in 0..2 {
            let (kept, value) = status(silent(&cache, &["a", "b"])).await;
            assert_eq!(format!("{:?}", SilentText(&value)), "1 [\"a\", \"b\"]");
            assert_eq!(kept, NOT_STORED, "{tier}");
            let (kept, value) = status(backwards(&cache, &[1, 2])).await;
            assert_eq!((kept, value.0), (NOT_STORED, vec![1, 2]), "{tier}");
            let (kept, value) = status(swapped(&cache, &[1, 2])).await;
            assert_eq!((kept, value.0[&1]), (NOT_STORED, 1), "{tier}");
        }
        assert_eq!(status(silent(&cache, &["a"])).await.0, STORED, "{tier}");
        assert_eq!(status(backwards(&cache, &[1, 1])).await.0, STORED, "{tier}");
        assert_eq!(status(swapped(&cache, &[1, 1])).await.0, STORED, "{tier}");
        assert_eq!(status(numbered(&cache)).await.0, STORED, "{tier}");
        let (kept, value) = status(without_order(&cache)).await;
        assert_eq!(kept, STORED, "{tier}");
        assert_eq!(without_order(&cache).await, value, "{tier}");
        let (kept, value) = status(silent_order(&cache)).await;
        assert_eq!(kept, STORED, "{tier}");
        assert!(silent_order(&cache).await == value, "{tier}");
    }
}
