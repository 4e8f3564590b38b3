#![expect(dead_code, reason = "fields that only `Debug` shows")]

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::marker::PhantomData;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::*;

/// The results at first, and once the types are known.
macro_rules! found {
    ($value:expr) => {{
        let value = $value;
        let first = argument(&value).__known().check(WrittenFor::Programs);
        let again = argument(&value).__known().check(WrittenFor::Programs);
        assert_eq!(first, again);
        first
    }};
}

mod hidden;
mod without_debug;

#[track_caller]
fn assert_apart(a: &ArgumentCheck, b: &ArgumentCheck) {
    match (a, b) {
        (ArgumentCheck::Apart(a, _), ArgumentCheck::Apart(b, _)) => assert_ne!(a, b),
        (ArgumentCheck::Whole, ArgumentCheck::Apart(..))
        | (ArgumentCheck::Apart(..), ArgumentCheck::Whole) => {}
        other => panic!("{other:?}"),
    }
}

#[derive(Serialize, Debug, Clone)]
struct Skips {
    id: u64,
    #[serde(skip)]
    tenant: u64,
}

#[derive(Serialize, Debug, Clone)]
struct SkipsSmall {
    id: u64,
    a: u8,
    #[serde(skip_serializing)]
    flag: bool,
}

#[derive(Serialize, Debug, Clone)]
struct SkipsInTuple(u64, #[serde(skip)] u64);

#[derive(Serialize, Debug, Clone)]
enum Variants {
    Nothing,
    One(Skips),
    Two {
        id: u64,
        #[serde(skip)]
        by: u8,
    },
    Three(u64, #[serde(skip)] u8),
    Four(#[serde(skip)] u64),
}

#[derive(Serialize, Debug, Clone)]
#[serde(untagged)]
enum Alike {
    A(u64),
    B(u64),
    C { id: u64 },
    D { id: u64 },
    E(String, u8),
    F(String, u8),
    G,
    H,
}

#[derive(Serialize, Debug, Clone)]
#[serde(tag = "kind")]
enum Tagged {
    A {
        id: u64,
    },
    B {
        id: u64,
        #[serde(skip)]
        by: u8,
    },
    C,
}

#[test]
fn a_field_that_is_skipped_tells_values_apart() {
    let of = |tenant| found!(Skips { id: 1, tenant });
    assert_apart(&of(1), &of(2));
    let ArgumentCheck::Apart(_, Some(text)) = of(1) else {
        panic!("{:?}", of(1))
    };
    assert!(text.contains("`tenant`"), "{text}");
    let of = |flag| found!(SkipsSmall { id: 1, a: 1, flag });
    assert_apart(&of(true), &of(false));
    assert_apart(&found!(SkipsInTuple(1, 1)), &found!(SkipsInTuple(1, 2)));
}

#[test]
fn so_it_does_inside_of_others() {
    let of = |tenant| Skips { id: 1, tenant };
    assert_apart(&found!(vec![of(1)]), &found!(vec![of(2)]));
    assert_apart(&found!(Some(of(1))), &found!(Some(of(2))));
    assert_apart(&found!((1, of(1))), &found!((1, of(2))));
    assert_apart(&found!(Arc::new(of(1))), &found!(Arc::new(of(2))));
    assert_apart(
        &found!(BTreeMap::from([(1, of(1))])),
        &found!(BTreeMap::from([(1, of(2))])),
    );
    assert_apart(&found!(Variants::One(of(1))), &found!(Variants::One(of(2))));
    let two = |by| Variants::Two { id: 1, by };
    assert_apart(&found!(two(1)), &found!(two(2)));
    assert_apart(
        &found!(Variants::Three(1, 1)),
        &found!(Variants::Three(1, 2)),
    );
    assert_eq!(found!(Variants::Nothing), ArgumentCheck::Whole);
    let tagged = |by| Tagged::B { id: 1, by };
    // The known facts are not applied to the other variant.
    assert_eq!(found!(Tagged::A { id: 1 }), ArgumentCheck::Whole);
    assert_apart(&found!(tagged(1)), &found!(tagged(2)));
    assert_eq!(found!(Tagged::C), ArgumentCheck::Whole);
}

#[test]
fn variants_that_look_alike_are_told_apart() {
    use Alike::*;
    assert_apart(&found!(A(1)), &found!(B(1)));
    assert_apart(&found!(C { id: 1 }), &found!(D { id: 1 }));
    assert_apart(&found!(E("x".into(), 1)), &found!(F("x".into(), 1)));
    assert_apart(&found!(G), &found!(H));
    assert_apart(&found!(vec![A(1)]), &found!(vec![B(1)]));
    assert_apart(&found!(Some(&A(1))), &found!(Some(&B(1))));
}

#[derive(Debug)]
struct Lower(String);

impl Serialize for Lower {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_lowercase())
    }
}

#[derive(Debug)]
struct Major {
    major: u64,
    minor: u64,
}

impl Serialize for Major {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let _ = self.minor;
        serializer.serialize_u64(self.major)
    }
}

fn rounded<S: Serializer>(n: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_i64(*n as i64)
}

fn is_small(n: &u8) -> bool {
    *n < 10
}

#[derive(Serialize, Debug)]
struct Rounds {
    #[serde(serialize_with = "rounded")]
    n: f64,
}

#[derive(Serialize, Debug)]
struct SkipsIf {
    #[serde(skip_serializing_if = "is_small")]
    n: u8,
}

/// A struct whose `Serialize` creates a part.
#[derive(Debug)]
struct Lowers {
    name: String,
    limit: u8,
}

impl Serialize for Lowers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut fields = serializer.serialize_struct("Lowers", 2)?;
        fields.serialize_field("name", &self.name.to_lowercase())?;
        fields.serialize_field("limit", &self.limit)?;
        fields.end()
    }
}

#[derive(Serialize, Debug)]
struct Inner {
    id: u64,
    a: u8,
    #[serde(skip)]
    flag: u8,
}

#[derive(Serialize, Debug)]
#[serde(transparent)]
struct Around {
    inner: Inner,
}

#[test]
fn a_part_that_is_made_for_the_key_is_compared_each_time() {
    let of = |name: &str| {
        found!(Lowers {
            name: name.into(),
            limit: 1
        })
    };
    assert_eq!(of("bob"), ArgumentCheck::Whole);
    assert_apart(&of("bob"), &of("Bob"));
    assert_eq!(of("bob"), ArgumentCheck::Whole);
    let of = |flag| {
        found!(Around {
            inner: Inner { id: 1, a: 2, flag }
        })
    };
    assert_apart(&of(1), &of(2));
}

#[test]
fn values_written_otherwise_are_told_apart() {
    assert_eq!(found!(Lower("bob".into())), ArgumentCheck::Whole);
    assert_apart(&found!(Lower("bob".into())), &found!(Lower("BOB".into())));
    let of = |minor| found!(Major { major: 1, minor });
    assert_apart(&of(1), &of(2));
    assert_apart(&found!(Rounds { n: 1.2 }), &found!(Rounds { n: 1.3 }));
    assert_eq!(found!(SkipsIf { n: 20 }), ArgumentCheck::Whole);
    assert_eq!(found!(SkipsIf { n: 0 }), ArgumentCheck::Whole);
    assert_apart(&found!(SkipsIf { n: 0 }), &found!(SkipsIf { n: 2 }));
    assert_apart(&found!(SkipsIf { n: 1 }), &found!(SkipsIf { n: 2 }));
}

#[derive(Serialize, Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct UserId(i64);

#[derive(Serialize, Debug)]
#[serde(transparent)]
struct Slug {
    text: String,
}

#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase", rename = "filter")]
struct Filter<'a> {
    user_name: &'a str,
    age: Option<u8>,
    ids: Vec<UserId>,
    tags: HashSet<String>,
    by: HashMap<UserId, Kind>,
    kind: Kind,
    at: (f64, bool, char),
    of: PhantomData<UserId>,
    #[serde(skip)]
    also_of: PhantomData<UserId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    page: Option<UserId>,
}

#[derive(Serialize, Debug, Clone)]
#[serde(rename_all = "snake_case")]
enum Kind {
    All,
    One(UserId),
    Two { from: UserId, to: Box<Kind> },
    Pair(u8, UserId),
}

#[derive(Serialize, Debug)]
#[serde(tag = "t", content = "c")]
enum Adjacent {
    All,
    One(UserId),
    Two { from: UserId, to: u8 },
    Pair(u8, UserId),
}

#[derive(Serialize, Debug)]
struct Unit;

#[derive(Serialize, Debug)]
#[serde(tag = "type")]
struct Named {
    id: u8,
}

#[test]
fn arguments_that_are_whole_stay_as_they_are() {
    assert_eq!(found!(1i64), ArgumentCheck::Whole);
    assert_eq!(found!("a"), ArgumentCheck::Whole);
    assert_eq!(found!((1, "a", None::<u8>)), ArgumentCheck::Whole);
    assert_eq!(found!(UserId(1)), ArgumentCheck::Whole);
    assert_eq!(found!(Some(UserId(1))), ArgumentCheck::Whole);
    assert_eq!(found!(None::<UserId>), ArgumentCheck::Whole);
    assert_eq!(found!(Vec::<UserId>::new()), ArgumentCheck::Whole);
    assert_eq!(found!(vec![UserId(1), UserId(2)]), ArgumentCheck::Whole);
    assert_eq!(found!((UserId(1), "x")), ArgumentCheck::Whole);
    assert_eq!(found!([UserId(1)]), ArgumentCheck::Whole);
    assert_eq!(found!(BTreeSet::from([UserId(1)])), ArgumentCheck::Whole);
    let slug = |text: &str| Slug { text: text.into() };
    assert_eq!(found!(slug("a \"b\" {c} 'd")), ArgumentCheck::Whole);
    assert_eq!(found!(Unit), ArgumentCheck::Whole);
    assert_eq!(found!(Named { id: 1 }), ArgumentCheck::Whole);
    assert_eq!(
        found!(std::time::Duration::from_millis(1500)),
        ArgumentCheck::Whole
    );
    assert_eq!(found!(Some(1..5)), ArgumentCheck::Whole);
    assert_eq!(
        found!(serde_json::json!({"a": [1, 2.5, null]})),
        ArgumentCheck::Whole
    );
    for page in [None, Some(UserId(3))] {
        for kind in [
            Kind::All,
            Kind::One(UserId(1)),
            Kind::Pair(1, UserId(2)),
            Kind::Two {
                from: UserId(1),
                to: Box::new(Kind::One(UserId(2))),
            },
        ] {
            let filter = Filter {
                user_name: "x, y: { z }",
                age: Some(3),
                ids: vec![UserId(1)],
                tags: ["a", "b"].map(String::from).into(),
                by: [(UserId(1), Kind::All), (UserId(2), Kind::One(UserId(3)))].into(),
                kind,
                at: (1.0, true, '\''),
                of: PhantomData,
                also_of: PhantomData,
                page: page.clone(),
            };
            assert_eq!(found!(&filter), ArgumentCheck::Whole);
            assert_eq!(found!(vec![filter]), ArgumentCheck::Whole);
        }
    }
    assert_eq!(found!(Adjacent::All), ArgumentCheck::Whole);
    assert_eq!(found!(Adjacent::One(UserId(1))), ArgumentCheck::Whole);
    assert_eq!(found!(Adjacent::Pair(1, UserId(1))), ArgumentCheck::Whole);
    let (from, to) = (UserId(1), 2);
    assert_eq!(found!(Adjacent::Two { from, to }), ArgumentCheck::Whole);
}

struct Redacted {
    id: u64,
    secret: u64,
}

impl Serialize for Redacted {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut fields = serializer.serialize_struct("Redacted", 1)?;
        fields.serialize_field("id", &self.id)?;
        fields.end()
    }
}

impl fmt::Debug for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redacted").field("id", &self.id).finish()
    }
}

#[test]
fn parts_that_debug_hides_too_are_not_told_apart() {
    let redacted = Redacted { id: 1, secret: 2 };
    assert!(matches!(found!(redacted), ArgumentCheck::Unknown(_)));
}

#[test]
fn the_order_of_a_set_does_not_count() {
    #[derive(Serialize, Debug)]
    struct Of {
        set: HashSet<u32>,
        #[serde(skip)]
        tenant: u8,
    }
    let of = |n: Vec<u32>| {
        found!(Of {
            set: n.into_iter().collect(),
            tenant: 1
        })
    };
    assert_eq!(of((0..50).collect()), of((0..50).rev().collect()));
}

#[test]
fn any_text_can_be_read() {
    for text in [
        "",
        "(",
        "A(",
        "A { a: ",
        "A { a: 1",
        "{1: }",
        "'",
        "\"",
        "\"\\",
        "1..2",
        "2024-01-01T00:00:00Z",
        "A { a: 2024-01-01T00:00:00Z, b: <x>, .. }",
        "é(ü, [)",
        "PhantomData<a::B<(u8, u8)>>",
        "<<<>>>",
        ",",
        "A { }",
        "b\"\\x00\"",
    ] {
        let _ = text_hash(text);
    }
}

proptest::proptest! {
    #[test]
    fn any_text_at_all_can_be_read(text in ".{0,40}", more in "[A(){}\\[\\], :'\"\\\\a.<>]{0,40}") {
        let _ = text_hash(&text);
        let _ = text_hash(&more);
    }
}

/// A newtype of another crate's type whose `Debug` is its text or hexadecimal.
#[test]
fn texts_shown_without_quotes_or_in_hexadecimal_are_whole() {
    struct Written(&'static str);
    impl fmt::Debug for Written {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }
    impl Serialize for Written {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_str(self.0)
        }
    }
    struct Bytes([u8; 3], &'static str);
    impl fmt::Debug for Bytes {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.1)
        }
    }
    impl Serialize for Bytes {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_bytes(&self.0)
        }
    }
    #[derive(Serialize, Debug)]
    #[serde(transparent)]
    struct Id<T>(T);

    assert_eq!(found!(Id(Written("1.5"))), ArgumentCheck::Whole);
    assert_eq!(
        found!(Id(Bytes([0, 0x1f, 0xff], "001f-ff"))),
        ArgumentCheck::Whole
    );
    assert_eq!(
        found!(Id(Bytes([0, 0x1f, 0xff], "001FFF"))),
        ArgumentCheck::Whole
    );
    for other in ["001f", "001fff00", "001ffe", "0x01fff", ""] {
        let finding = found!(Id(Bytes([0, 0x1f, 0xff], other)));
        assert!(matches!(finding, ArgumentCheck::Apart(..)), "{other}");
    }
    let escaped = found!(Id(Written(r"a\b")));
    assert!(matches!(escaped, ArgumentCheck::Apart(..)), "{escaped:?}");
}

/// `3..=3` after an iteration over `1..=3`: it is empty, and is serialised as if it held the 3.
#[test]
fn a_range_that_was_iterated_to_its_end_is_another_argument() {
    #[derive(Serialize, Debug)]
    struct Page {
        rows: std::ops::RangeInclusive<u32>,
    }
    let mut spent = 1..=3;
    spent.by_ref().for_each(drop);
    // A whole one first, by which the type may become known.
    for _ in 0..2 {
        let of = |rows: &std::ops::RangeInclusive<u32>| {
            [
                found!(rows.clone()),
                found!(Some(rows.clone())),
                found!(Page { rows: rows.clone() }),
                found!(vec![(7, rows.clone())]),
            ]
        };
        for (whole, spent) in of(&(3..=3)).into_iter().zip(of(&spent)) {
            assert_ne!(whole, spent);
            assert!(matches!(spent, ArgumentCheck::Apart(..)), "{spent:?}");
        }
    }
    // Nor is a value of such a type trusted: each is decoded again.
    let text = format!("{:?}", 1..=3);
    let node = record(&(1..=3), WrittenFor::Programs).expect("recorded");
    assert!(may_lose(&node, Some(&text)));
    assert_eq!(found!(1..3), ArgumentCheck::Whole);
}

/// By the names of their types, since they belong to other crates.
#[test]
fn types_of_other_crates_that_write_less_are_not_trusted() {
    for (ty, is_sure) in [
        ("chrono::datetime::DateTime<chrono::offset::utc::Utc>", true),
        ("alloc::vec::Vec<chrono::naive::date::NaiveDate>", true),
        ("core::net::socket_addr::SocketAddrV4", true),
        ("core::ops::range::Range<u32>", true),
        (
            "core::option::Option<core::ops::range::RangeInclusive<u32>>",
            false,
        ),
        (
            "chrono::datetime::DateTime<chrono::offset::fixed::FixedOffset>",
            false,
        ),
        (
            "core::option::Option<chrono::datetime::DateTime<chrono::offset::local::Local>>",
            false,
        ),
        (
            "(u8, chrono::datetime::DateTime<chrono_tz::timezones::Tz>)",
            false,
        ),
        ("[core::net::socket_addr::SocketAddr; 2]", false),
        ("&core::net::socket_addr::SocketAddrV6", false),
    ] {
        assert_eq!(node_type::is_unsure(ty), !is_sure, "{ty}");
    }
    let zoned = Reason::Blind {
        ty: "chrono::datetime::DateTime<chrono_tz::timezones::Tz>".into(),
    };
    assert!(
        !zoned.is_hashed(),
        "two zones of one offset are hashed alike"
    );
}

#[test]
fn a_variants_usual_name() {
    for (tag, name) in [
        ("User", "User"),
        ("user", "User"),
        ("USER", "User"),
        ("userId", "UserId"),
        ("user_id", "UserId"),
        ("USER_ID", "UserId"),
        ("user-id", "UserId"),
        ("USER-ID", "UserId"),
        ("v2", "V2"),
    ] {
        assert_eq!(names::usual_name(tag), name);
    }
}

/// Each call would have to read it.
#[test]
fn a_debug_of_megabytes_is_not_looked_at() {
    #[derive(Serialize, Debug)]
    struct Upload {
        id: u64,
        #[serde(skip)]
        body: String,
    }
    let of = |length| {
        found!(Upload {
            id: 1,
            body: "x".repeat(length)
        })
    };
    assert!(matches!(of(1000), ArgumentCheck::Apart(..)));
    assert!(matches!(of(LONGEST_TEXT), ArgumentCheck::Unknown(text) if text.contains("256 KiB")));
}
