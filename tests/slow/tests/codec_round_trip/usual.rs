//! Usual types, of which all values come back: only some of their values are decoded again.
//!
//! Not those whose `Deserialize` takes any value, such as `Decimal` of rust_decimal: all of theirs
//! are.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cache_runtime::{Cache, cached};
use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use crate::Tiers;

const FILLS: u64 = 160;
/// The first ones, some with a part that none before had, and one in sixteen.
const MOST: u32 = 40;

thread_local! {
    static DECODED: Cell<u32> = const { Cell::new(0) };
}

/// Counts how often it is decoded.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Counted(u8);

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        DECODED.set(DECODED.get() + 1);
        u8::deserialize(from).map(Self)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Row<T> {
    counted: Counted,
    part: T,
}

macro_rules! usual {
    ($($name:ident: $type:ty, [$($value:expr),+ $(,)?];)*) => {$(
        #[tokio::test]
        async fn $name() {
            #[cached(resource = "usual", op = "json", cache = cache, key(id))]
            async fn json(cache: &Cache, id: u64, value: Row<$type>) -> Row<$type> { value }
            #[cached(resource = "usual", op = "msgpack", codec = "msgpack", cache = cache, key(id))]
            async fn msgpack(cache: &Cache, id: u64, value: Row<$type>) -> Row<$type> { value }
            #[cached(resource = "usual", op = "postcard", codec = "postcard", cache = cache, key(id))]
            async fn postcard(cache: &Cache, id: u64, value: Row<$type>) -> Row<$type> { value }

            let cache = Tiers::verifying_a_few().await.memory;
            let all: Vec<$type> = vec![$($value),+];
            let value = |id: u64| Row {
                counted: Counted(1),
                part: all[id as usize % all.len()].clone(),
            };
            for codec in ["json", "msgpack", "postcard"] {
                let before = DECODED.get();
                for id in 0..FILLS {
                    let got = match codec {
                        "json" => json(&cache, id, value(id)).await,
                        "msgpack" => msgpack(&cache, id, value(id)).await,
                        _ => postcard(&cache, id, value(id)).await,
                    };
                    assert_eq!(got, value(id));
                }
                let decoded = DECODED.get() - before;
                assert!(decoded > 0, "{codec}: nothing was compared");
                assert!(decoded <= MOST, "{codec}: {decoded} of {FILLS}");
            }
        }
    )*};
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Person {
    #[serde(rename = "ID")]
    person_id: i64,
    first_name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    born_on: Option<NaiveDate>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_admin: bool,
    role: Role,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Role {
    Reader,
    ChiefEditor,
    Of(u8),
    Both(u8, String),
    Since { day: u16 },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct UserId(i64);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Unit;

fn person(tags: &[&str], role: Role) -> Person {
    Person {
        person_id: 7,
        first_name: "Ada".to_owned(),
        born_on: (!tags.is_empty()).then(|| NaiveDate::from_ymd_opt(1815, 12, 10).expect("a day")),
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        is_admin: !tags.is_empty(),
        role,
    }
}

fn at(seconds: i64, nanoseconds: u32) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, nanoseconds).expect("a time")
}

usual! {
    numbers_and_texts: (i64, f64, String, char, bool),
        [(1, 1.5, "Ada".into(), 'a', true), (-1, -0.0, String::new(), 'ß', false)];
    parts_that_may_be_absent: (Option<i64>, Option<Option<u8>>, Option<String>),
        [(None, None, None), (Some(1), Some(Some(1)), Some("a".into()))];
    lists_and_maps: (Vec<u8>, HashMap<String, u8>, BTreeMap<u8, Vec<String>>),
        [
            (vec![], HashMap::new(), BTreeMap::new()),
            (vec![1], [("a".into(), 1)].into(), [(1, vec!["b".into()])].into()),
        ];
    pointers: (Box<str>, Arc<String>, Cow<'static, str>),
        [("a".into(), Arc::new("b".into()), "c".into())];
    arrays: ([u8; 4], [f64; 3]), [([1; 4], [1.5; 3])];
    people: Person,
        [
            person(&[], Role::Reader),
            person(&["a"], Role::ChiefEditor),
            person(&["b", "c"], Role::Of(1)),
            person(&[], Role::Both(1, "d".into())),
            person(&["d"], Role::Since { day: 1 }),
        ];
    ids: (UserId, Unit), [(UserId(1), Unit), (UserId(2), Unit)];
    times: (Duration, SystemTime, DateTime<Utc>, NaiveDate),
        [
            (
                Duration::from_millis(1_500),
                SystemTime::UNIX_EPOCH + Duration::from_nanos(1),
                at(1, 1),
                NaiveDate::from_ymd_opt(2024, 2, 29).expect("a day"),
            ),
            (
                Duration::ZERO,
                SystemTime::UNIX_EPOCH,
                at(0, 0),
                NaiveDate::from_ymd_opt(2024, 1, 1).expect("a day"),
            ),
        ];
    addresses_and_numbers_of_the_world: (Uuid, IpAddr),
        [
            (Uuid::from_u128(1), IpAddr::from([127, 0, 0, 1])),
            (Uuid::nil(), "::1".parse().expect("an address")),
        ];
}
