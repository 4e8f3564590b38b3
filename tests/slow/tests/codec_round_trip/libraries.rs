//! What each codec keeps of the types of other libraries: dates, UUIDs, decimals, bytes, raw JSON.

use std::collections::{BTreeMap, HashMap};

use cache_runtime::{Cache, cached};
use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, TimeZone as _, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::codecs::values;
use crate::{Tiers, check};

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Raw {
    id: u8,
    body: Box<RawValue>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct MaybeRaw {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    body: Option<Box<RawValue>>,
}

/// Serde buffers the fields of such a variant, and a raw value is not read from its buffer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type")]
enum TaggedRaw {
    One { body: Box<RawValue> },
}

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).expect("JSON")
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Blob {
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
    #[serde(with = "serde_bytes")]
    maybe: Option<Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
enum Part {
    Blob { bytes: ByteBuf },
    Day { day: NaiveDate, id: Uuid },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Either {
    Day(NaiveDate),
    Id(Uuid),
    Price(Decimal),
    Text(String),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Seconds {
    #[serde(with = "chrono::serde::ts_seconds")]
    at: DateTime<Utc>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Nanoseconds {
    #[serde(with = "chrono::serde::ts_nanoseconds_option")]
    at: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Compact {
    #[serde(with = "uuid::serde::compact")]
    id: Uuid,
    #[serde(with = "uuid::serde::simple")]
    simple: Uuid,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Texts {
    #[serde(with = "rust_decimal::serde::str")]
    price: Decimal,
    #[serde(with = "rust_decimal::serde::str_option")]
    discount: Option<Decimal>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Floats {
    #[serde(with = "rust_decimal::serde::float")]
    price: Decimal,
}

/// As an ordinary backend has them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Order {
    id: Uuid,
    placed: DateTime<Utc>,
    due: Option<NaiveDate>,
    #[serde(with = "rust_decimal::serde::str")]
    total: Decimal,
    #[serde(with = "serde_bytes")]
    signature: Vec<u8>,
}

const ID: Uuid = Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);

fn day() -> NaiveDate {
    NaiveDate::from_ymd_opt(2024, 2, 29).expect("a leap day")
}

/// To the nanosecond.
fn instant() -> DateTime<Utc> {
    Utc.timestamp_opt(1_700_000_000, 123_456_789).unwrap()
}

/// The 61st second of a minute.
fn leap_second() -> NaiveTime {
    NaiveTime::from_hms_nano_opt(23, 59, 59, 1_500_000_000).expect("a leap second")
}

fn decimal(text: &str) -> Decimal {
    text.parse().expect("a decimal")
}

/// Values, and what becomes of each in JSON, MessagePack and postcard.
macro_rules! kept_or_lost {
    ($($name:ident: $type:ty = $value:expr => $json:ident $msgpack:ident $postcard:ident;)*) => {
        values! { $($name: $type = $value;)* }

        #[tokio::test]
        async fn types_of_libraries_in_json() {
            use json::*;
            check!(Tiers::new().await, $($name is $json,)*);
        }

        #[tokio::test]
        async fn types_of_libraries_in_message_pack() {
            use msgpack::*;
            check!(Tiers::new().await, $($name is $msgpack,)*);
        }

        #[tokio::test]
        async fn types_of_libraries_in_postcard() {
            use postcard::*;
            check!(Tiers::new().await, $($name is $postcard,)*);
        }
    };
}

kept_or_lost! {
    raw_object: Box<RawValue> = raw(r#"{ "b": 1.50, "a": [ 1e3, null ] }"#) => kept lost lost;
    raw_lines: Box<RawValue> = raw("[\n  1,\n\t2\n]") => kept lost lost;
    raw_number: Box<RawValue> = raw("12345678901234567890.123456789012345678901234567890") => kept lost lost;
    raw_null: Box<RawValue> = raw("null") => kept lost lost;
    raw_field: Raw = Raw { id: 1, body: raw(r#"{"b":1.50, "a":2}"#) } => kept lost lost;
    raw_fields: Vec<Raw> =
        vec![Raw { id: 1, body: raw("[1, 2]") }, Raw { id: 2, body: raw("\"x\"") }] => kept lost lost;
    raw_absent: MaybeRaw = MaybeRaw { body: None } => kept kept lost;
    raw_optional: MaybeRaw = MaybeRaw { body: Some(raw("{}")) } => kept lost lost;
    raw_optional_null: MaybeRaw = MaybeRaw { body: Some(raw("null")) } => lost lost lost;
    raw_tagged: TaggedRaw = TaggedRaw::One { body: raw("{}") } => lost lost lost;
    byte_buf: ByteBuf = ByteBuf::from(vec![0, 255, 128, 10]) => kept kept kept;
    no_bytes: ByteBuf = ByteBuf::new() => kept kept kept;
    byte_array: ByteArray<4> = ByteArray::new([0, 255, 128, 10]) => kept kept kept;
    blob: Blob = Blob { bytes: vec![0, 255], maybe: Some(vec![1]) } => kept kept kept;
    empty_blob: Blob = Blob { bytes: Vec::new(), maybe: None } => kept kept kept;
    tagged_bytes: Part = Part::Blob { bytes: ByteBuf::from(vec![0, 255]) } => kept kept lost;
    tagged_day: Part = Part::Day { day: day(), id: ID } => kept kept lost;
    date: NaiveDate = day() => kept kept kept;
    earliest: NaiveDate = NaiveDate::MIN => kept kept kept;
    time: NaiveTime = leap_second() => kept kept kept;
    local: NaiveDateTime = day().and_time(leap_second()) => kept kept kept;
    moment: DateTime<Utc> = instant() => kept kept kept;
    latest: DateTime<Utc> = DateTime::<Utc>::MAX_UTC => kept kept kept;
    elsewhere: DateTime<FixedOffset> =
        instant().with_timezone(&FixedOffset::east_opt(5 * 3600 + 1800).expect("an offset")) => kept kept kept;
    odd_offset: DateTime<FixedOffset> =
        instant().with_timezone(&FixedOffset::east_opt(3601).expect("an offset")) => lost lost lost;
    weekday: chrono::Weekday = chrono::Weekday::Sun => kept kept kept;
    month: chrono::Month = chrono::Month::May => kept kept kept;
    difference: chrono::TimeDelta = chrono::TimeDelta::nanoseconds(-1) => kept kept kept;
    whole_seconds: Seconds = Seconds { at: DateTime::from_timestamp(7, 0).expect("in range") } => kept kept kept;
    cut_seconds: Seconds = Seconds { at: instant() } => lost lost lost;
    nanoseconds: Nanoseconds = Nanoseconds { at: Some(instant()) } => kept kept kept;
    no_nanoseconds: Nanoseconds = Nanoseconds { at: None } => kept kept kept;
    id: Uuid = ID => kept kept kept;
    nil: Option<Uuid> = Some(Uuid::nil()) => kept kept kept;
    ids: BTreeMap<Uuid, u8> = [(ID, 1)].into() => kept kept kept;
    blobs: HashMap<Uuid, ByteBuf> = [(ID, ByteBuf::from(vec![0]))].into() => kept kept kept;
    by_day: BTreeMap<NaiveDate, Texts> =
        [(day(), Texts { price: decimal("2.50"), discount: None })].into() => kept kept kept;
    by_moment: BTreeMap<DateTime<Utc>, u8> = [(instant(), 1)].into() => kept kept kept;
    compact: Compact = Compact { id: ID, simple: ID } => kept kept kept;
    price: Decimal = decimal("1.10") => kept kept lost;
    most_digits: Decimal = Decimal::MAX => kept kept lost;
    smallest: Decimal = decimal("-0.0000000000000000000000000001") => kept kept lost;
    price_as_text: Texts = Texts { price: decimal("1.10"), discount: Some(decimal("0.00")) } => kept kept kept;
    price_as_float: Floats = Floats { price: decimal("0.5") } => kept kept lost;
    price_scale_lost_as_float: Floats = Floats { price: decimal("1.10") } => lost lost lost;
    price_lost_as_float: Floats = Floats { price: decimal("0.1000000000000000000000000001") } => lost lost lost;
    either_day: Either = Either::Day(day()) => kept kept lost;
    either_id: Either = Either::Id(ID) => kept kept lost;
    either_price: Either = Either::Price(decimal("1.10")) => kept kept lost;
    either_text_like_a_price: Either = Either::Text("1.10".into()) => lost lost lost;
    order: Order = Order {
        id: ID,
        placed: instant(),
        due: Some(day()),
        total: decimal("19.90"),
        signature: vec![0, 255],
    } => kept kept kept;
}
