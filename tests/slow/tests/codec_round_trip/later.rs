//! Values that come after many others, of which only some are decoded again: what is lost of them
//! is found all the same.

use std::fmt::Debug;
use std::sync::Arc;

use cache_runtime::{Cache, cached};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::Tiers;

/// Two of the first values, or more. The next one that is decoded in any case is the 32nd.
const USUAL: u64 = 20;
const LAST: u64 = 30;

/// Calls a function with usual values first, and then with the others. Each is called twice, and both
/// answers are the same.
macro_rules! later {
    ($($name:ident: $type:ty, $tell:expr, [$($usual:expr),+], [$($other:expr),+ $(,)?];)*) => {$(
        #[tokio::test]
        async fn $name() {
            #[cached(resource = "later", op = "json", cache = cache, key(id))]
            async fn json(cache: &Cache, id: u64, value: $type) -> $type { value }
            #[cached(resource = "later", op = "msgpack", codec = "msgpack", cache = cache, key(id))]
            async fn msgpack(cache: &Cache, id: u64, value: $type) -> $type { value }
            #[cached(resource = "later", op = "postcard", codec = "postcard", cache = cache, key(id))]
            async fn postcard(cache: &Cache, id: u64, value: $type) -> $type { value }

            let tiers = Tiers::verifying_a_few().await;
            for (tier, cache) in [("memory", &tiers.memory), ("redis", &tiers.redis)] {
                for id in 0..LAST {
                    let (usual, others): ([$type; _], [$type; _]) = ([$($usual),+], [$($other),+]);
                    let all = if id < USUAL { &usual[..] } else { &others[..] };
                    let value = || all[id as usize % all.len()].clone();
                    for _ in 0..2 {
                        let got = $tell(&json(cache, id, value()).await);
                        assert_eq!(got, $tell(&value()), "{id} in json, {tier}");
                        let got = $tell(&msgpack(cache, id, value()).await);
                        assert_eq!(got, $tell(&value()), "{id} in msgpack, {tier}");
                        let got = $tell(&postcard(cache, id, value()).await);
                        assert_eq!(got, $tell(&value()), "{id} in postcard, {tier}");
                    }
                }
            }
        }
    )*};
}

fn shown<T: Debug>(value: &T) -> String {
    format!("{value:?}")
}

fn round<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_i64(value.round() as i64)
}

fn unround<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    i64::deserialize(from).map(|n| n as f64)
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Whole(#[serde(serialize_with = "round", deserialize_with = "unround")] f64);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Pair(Option<i64>, Option<Whole>);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Either {
    Pair(Option<i64>, Option<Whole>),
}

/// Of a part that is left out, the next one is read in its place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Short(
    #[serde(default, skip_serializing_if = "is_small")] u8,
    #[serde(default)] u8,
);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Shorter {
    Short(
        #[serde(default, skip_serializing_if = "is_small")] u8,
        #[serde(default)] u8,
    ),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Blob {
    raw: Option<Arc<RawValue>>,
}

fn is_small(n: &u8) -> bool {
    *n < 3
}

fn is_nothing(n: &f64) -> bool {
    n.abs() < 1e-6
}

fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Skips {
    #[serde(default, skip_serializing_if = "is_small")]
    rank: u8,
    #[serde(default, skip_serializing_if = "is_nothing")]
    score: f64,
    #[serde(default, skip_serializing_if = "is_blank")]
    name: String,
}

fn skips(rank: u8, score: f64, name: &str) -> Skips {
    let name = name.to_owned();
    Skips { rank, score, name }
}

/// No `Debug`.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct Silent {
    id: u8,
    #[serde(default, skip_serializing_if = "is_small")]
    rank: u8,
}

fn ranks(all: &[Silent]) -> String {
    let all: Vec<_> = all.iter().map(|it| (it.id, it.rank)).collect();
    shown(&all)
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Event {
    Day { at: Option<Whole> },
    Time { at: Option<i64> },
    On(Option<Whole>, u8),
    At(Option<i64>, u8),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Measured {
    id: u8,
    #[serde(serialize_with = "round", deserialize_with = "unround")]
    score: f64,
}

/// Written as another type, which has less.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "Seconds", from = "Seconds")]
struct Long {
    seconds: u32,
    nanoseconds: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Seconds {
    seconds: u32,
}

impl From<Long> for Seconds {
    fn from(long: Long) -> Self {
        let seconds = long.seconds;
        Self { seconds }
    }
}

impl From<Seconds> for Long {
    fn from(short: Seconds) -> Self {
        let (seconds, nanoseconds) = (short.seconds, 0);
        Self {
            seconds,
            nanoseconds,
        }
    }
}

fn long(nanoseconds: u32) -> Option<Long> {
    Some(Long {
        seconds: 1,
        nanoseconds,
    })
}

/// Written by hand, in whole cents.
#[derive(Debug, Clone, PartialEq)]
struct Price {
    mills: u64,
}

impl Serialize for Price {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(self.mills / 10)
    }
}

impl<'de> Deserialize<'de> for Price {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let cents = u64::deserialize(from)?;
        Ok(Self { mills: cents * 10 })
    }
}

fn measured(score: f64) -> Vec<Measured> {
    vec![Measured { id: 1, score }]
}

later! {
    a_number_that_is_rounded: Vec<Measured>, shown,
        [measured(1.0), measured(2.0)], [measured(1.5)];
    a_number_that_is_rounded_in_a_newtype: Whole, shown,
        [Whole(1.0)], [Whole(1.5)];
    what_is_written_as_another_type: Option<Long>, shown,
        [long(0)], [long(5)];
    what_is_rounded_by_hand: Vec<Price>, shown,
        [vec![Price { mills: 10 }]], [vec![Price { mills: 15 }]];
    parts_of_a_tuple: (Option<i64>, Option<Whole>), shown,
        [(Some(1), None)], [(None, Some(Whole(1.5)))];
    parts_of_a_tuple_struct: Pair, shown,
        [Pair(Some(1), None)], [Pair(None, Some(Whole(1.5)))];
    parts_of_a_tuple_variant: Either, shown,
        [Either::Pair(Some(1), None)], [Either::Pair(None, Some(Whole(1.5)))];
    fields_of_variants: Event, shown,
        [Event::Time { at: Some(1) }, Event::Day { at: None }], [Event::Day { at: Some(Whole(1.5)) }];
    parts_of_variants: Event, shown,
        [Event::At(Some(1), 1), Event::On(None, 1)], [Event::On(Some(Whole(1.5)), 1)];
    a_tuple_struct_that_is_shorter: Short, shown,
        [Short(5, 2)], [Short(0, 5), Short(5, 3), Short(0, 0)];
    a_tuple_variant_that_is_shorter: Shorter, shown,
        [Shorter::Short(5, 2)], [Shorter::Short(0, 5), Shorter::Short(5, 3)];
    a_number_that_is_skipped: Skips, shown,
        [skips(0, 1.0, "Ada")], [skips(2, 1.0, "Ada")];
    a_float_that_is_skipped: Skips, shown,
        [skips(4, 0.0, "Ada")], [skips(4, 1e-9, "Ada")];
    a_text_that_is_skipped: Skips, shown,
        [skips(4, 1.0, "")], [skips(4, 1.0, " ")];
    a_number_that_nobody_sees: Vec<Silent>, ranks,
        [vec![Silent { id: 1, rank: 0 }]], [vec![Silent { id: 1, rank: 2 }]];
    a_raw_null: Blob, shown,
        [blob("1")], [blob("null")];
}

fn blob(text: &str) -> Blob {
    let raw = RawValue::from_string(text.to_owned()).expect("JSON");
    Blob {
        raw: Some(Arc::from(raw)),
    }
}
