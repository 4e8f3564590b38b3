//! A type that has changed is a miss by itself, in every codec and without a `version`.

use cache_runtime::{Cache, Encoded, Status, cached};
use serde::{Deserialize, Serialize};

use crate::{Tiers, status};

/// One build of a program.
trait Build {
    async fn json(cache: &Cache) -> (Status, String);
    async fn msgpack(cache: &Cache) -> (Status, String);
    async fn postcard(cache: &Cache) -> (Status, String);
    async fn encoded(cache: &Cache) -> (Status, String);
    /// What another build may have stored by hand.
    async fn by_hand(cache: &Cache) -> Option<String>;
    async fn set(cache: &Cache);
}

/// A build with its own `User`. All of these types have the same name:
/// `codec_round_trip::shapes::_::User`.
macro_rules! build {
    ($build:ident: $value:expr, $($type:item)*) => {
        struct $build;

        const _: () = {
            $(#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)] $type)*

            #[cached(resource = "shapes", op = "json", shared, cache = cache, skip(cache))]
            async fn json(cache: &Cache) -> User { $value }
            #[cached(resource = "shapes", op = "msgpack", codec = "msgpack", shared, cache = cache, skip(cache))]
            async fn msgpack(cache: &Cache) -> Vec<User> { vec![$value] }
            #[cached(resource = "shapes", op = "postcard", codec = "postcard", shared, cache = cache, skip(cache))]
            async fn postcard(cache: &Cache) -> Option<User> { Some($value) }
            #[cached(resource = "shapes", op = "encoded", shared, cache = cache, skip(cache))]
            async fn encoded(cache: &Cache) -> Result<Encoded<User>, cache_runtime::Error> { Encoded::new(&$value) }

            impl Build for $build {
                async fn json(cache: &Cache) -> (Status, String) { told(json(cache)).await }
                async fn msgpack(cache: &Cache) -> (Status, String) { told(msgpack(cache)).await }
                async fn postcard(cache: &Cache) -> (Status, String) { told(postcard(cache)).await }
                async fn encoded(cache: &Cache) -> (Status, String) { told(encoded(cache)).await }
                async fn by_hand(cache: &Cache) -> Option<String> {
                    let user = cache.get::<User>("hands:1").await;
                    user.map(|user| format!("{user:?}"))
                }
                async fn set(cache: &Cache) {
                    cache.set("hands:1", &$value, 60).await.expect("stored");
                }
            }
        };
    };
}

async fn told<T: std::fmt::Debug>(call: impl Future<Output = T>) -> (Status, String) {
    let (status, value) = status(call).await;
    (status, format!("{value:?}"))
}

build! { First: User { id: 1, kind: Kind::Plain },
    struct User { id: u32, kind: Kind }
    enum Kind { Plain, Paid }
}
build! { FieldAdded: User { id: 1, kind: Kind::Plain, name: Some("Ada".into()) },
    struct User { id: u32, kind: Kind, name: Option<String> }
    enum Kind { Plain, Paid }
}
build! { VariantsSwapped: User { id: 1, kind: Kind::Plain },
    struct User { id: u32, kind: Kind }
    enum Kind { Paid, Plain }
}
build! { FieldsSwapped: User { id: 1, kind: Kind::Plain },
    struct User { kind: Kind, id: u32 }
    enum Kind { Paid, Plain }
}
build! { NumberWidened: User { id: 1, kind: Kind::Plain },
    struct User { id: u64, kind: Kind }
    enum Kind { Plain, Paid }
}
build! { FieldRenamed: User { key: 1, kind: Kind::Plain },
    struct User { #[serde(alias = "id")] key: u32, kind: Kind }
    enum Kind { Plain, Paid }
}

macro_rules! reads {
    ($old:ident $new:ident $cache:ident $tier:ident: $($codec:ident)*) => {$(
        let (_, old) = $old::$codec($cache).await;
        let (first, new) = $new::$codec($cache).await;
        assert!(matches!(first, Status::Miss { .. }), "{first:?} {old} {new} {}", $tier);
        let (again, same) = $new::$codec($cache).await;
        assert!(matches!(again, Status::Hit { .. }), "{again:?} {new} {}", $tier);
        assert_eq!(same, new, "{}", $tier);
    )*};
}

/// A part that takes any value, and looks at it later, differs. Postcard can't read such a part.
async fn part_follows<Old: Build, New: Build>(cache: &Cache, tier: &str) {
    reads!(Old New cache tier: json msgpack encoded);
}

async fn follows<Old: Build, New: Build>(cache: &Cache, tier: &str) {
    reads!(Old New cache tier: json msgpack postcard encoded);
    Old::set(cache).await;
    assert!(Old::by_hand(cache).await.is_some(), "{tier}");
    assert_eq!(New::by_hand(cache).await, None, "{tier}");
}

#[tokio::test]
async fn a_changed_type_is_a_miss_in_every_codec() {
    for (tier, cache) in Tiers::new().await.encoded() {
        follows::<First, FieldAdded>(&cache, tier).await;
        follows::<FieldAdded, VariantsSwapped>(&cache, tier).await;
        follows::<VariantsSwapped, NumberWidened>(&cache, tier).await;
        follows::<NumberWidened, FieldRenamed>(&cache, tier).await;
        follows::<FieldRenamed, First>(&cache, tier).await;
        follows::<First, VariantsSwapped>(&cache, tier).await;
        follows::<VariantsSwapped, FieldsSwapped>(&cache, tier).await;
    }
}

build! { Tagged: User { id: 1, of: vec![Of::Card { last: 4 }] },
    struct User { id: u32, of: Vec<Of> }
    #[serde(tag = "type")] enum Of { Cash, Card { last: u8 } }
}
build! { TaggedAdded: User { id: 1, of: vec![Of::Card { last: 4, name: Some("Ada".into()) }] },
    struct User { id: u32, of: Vec<Of> }
    #[serde(tag = "type")] enum Of { Cash, Card { last: u8, name: Option<String> } }
}
build! { TaggedRenamed: User { id: 1, of: vec![Of::Card { last: 4, holder: Some("Ada".into()) }] },
    struct User { id: u32, of: Vec<Of> }
    #[serde(tag = "type")] enum Of { Cash, Card { last: u8, holder: Option<String> } }
}
build! { Beside: User { id: 1, of: Of::Card { last: 4 } },
    struct User { id: u32, of: Of }
    #[serde(tag = "type", content = "is")] enum Of { Cash, Card { last: u8 } }
}
build! { BesideAdded: User { id: 1, of: Of::Card { last: 4, name: Some("Ada".into()) } },
    struct User { id: u32, of: Of }
    #[serde(tag = "type", content = "is")] enum Of { Cash, Card { last: u8, name: Option<String> } }
}
build! { Untagged: User { id: 1, of: Of::Card(Box::new(Card { last: 4 })) },
    struct User { id: u32, of: Of }
    #[serde(untagged)] enum Of { Sum { sum: u8 }, Card(Box<Card>) }
    struct Card { last: u8 }
}
build! { UntaggedAdded: User { id: 1, of: Of::Card(Box::new(Card { last: 4, name: Some("Ada".into()) })) },
    struct User { id: u32, of: Of }
    #[serde(untagged)] enum Of { Sum { sum: u8 }, Card(Box<Card>) }
    struct Card { last: u8, name: Option<String> }
}
build! { Flat: User { id: 1, card: Card { last: 4, of: Of::Cash } },
    struct User { id: u32, #[serde(flatten)] card: Card }
    struct Card { last: u8, #[serde(flatten)] of: Of }
    #[serde(tag = "type")] enum Of { Cash, Cheque { number: String } }
}
build! { FlatAdded: User { id: 1, card: Card { last: 4, name: Some("Ada".into()), of: Of::Cash } },
    struct User { id: u32, #[serde(flatten)] card: Card }
    struct Card { last: u8, name: Option<String>, #[serde(flatten)] of: Of }
    #[serde(tag = "type")] enum Of { Cash, Cheque { number: String } }
}
build! { FlatTaggedAdded: User { id: 1, of: Of::Cash { sum: Some(7) } },
    struct User { id: u32, #[serde(flatten)] of: Of }
    #[serde(tag = "type")] enum Of { Cash { sum: Option<u8> }, Cheque { number: String } }
}
build! { FlatTagged: User { id: 1, of: Of::Cash {} },
    struct User { id: u32, #[serde(flatten)] of: Of }
    #[serde(tag = "type")] enum Of { Cash {}, Cheque { number: String } }
}

#[tokio::test]
async fn an_optional_field_of_a_part_that_takes_anything_makes_a_miss() {
    for (tier, cache) in Tiers::new().await.encoded() {
        part_follows::<Tagged, TaggedAdded>(&cache, tier).await;
        part_follows::<TaggedAdded, TaggedRenamed>(&cache, tier).await;
        part_follows::<Beside, BesideAdded>(&cache, tier).await;
        part_follows::<Untagged, UntaggedAdded>(&cache, tier).await;
        part_follows::<Flat, FlatAdded>(&cache, tier).await;
        part_follows::<FlatTagged, FlatTaggedAdded>(&cache, tier).await;
    }
}

build! { Behind: User { id: 1, of: Of { first: "Ada".into(), last: 7 } },
    struct User { id: u64, #[serde(flatten)] of: Of }
    struct Of { first: String, last: u8 }
}
build! { BehindAdded: User { id: 1, of: Of { first: "Ada".into(), last: 7, title: Some(1) } },
    struct User { id: u64, #[serde(flatten)] of: Of }
    struct Of { first: String, last: u8, title: Option<u8> }
}
build! { BehindRenamed: User { id: 1, of: Of { first: "Ada".into(), last: 7, rank: Some(1) } },
    struct User { id: u64, #[serde(flatten)] of: Of }
    struct Of { first: String, last: u8, rank: Option<u8> }
}

/// Nothing asks for such a field, and there is room for it in the type. `Encoded` needs a
/// `version`, since its type can't be written.
#[tokio::test]
async fn an_optional_field_behind_flatten_makes_a_miss() {
    async fn follows<Old: Build, New: Build>(cache: &Cache, tier: &str) {
        reads!(Old New cache tier: json msgpack);
        Old::set(cache).await;
        assert_eq!(New::by_hand(cache).await, None, "{tier}");
    }
    for (tier, cache) in Tiers::new().await.encoded() {
        follows::<Behind, BehindAdded>(&cache, tier).await;
        follows::<BehindAdded, BehindRenamed>(&cache, tier).await;
        follows::<BehindRenamed, Behind>(&cache, tier).await;
    }
}

#[tokio::test]
async fn the_same_type_is_read_by_hand_and_by_function() {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Row {
        id: u64,
    }
    #[cached(resource = "rows", cache = cache, skip(cache))]
    async fn row(id: u64, cache: &Cache) -> Option<Row> {
        Some(Row { id })
    }
    for (tier, cache) in Tiers::new().await.all() {
        row(1, &cache).await;
        assert_eq!(cache.get("rows:1").await, Some(Row { id: 1 }), "{tier}");
    }
}

/// For a value that is no list, `One` asks for the same value again, without end: to decode it
/// would exhaust the stack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Tree {
    List(Vec<Tree>),
    One(Box<Tree>),
    Named { of: Option<Box<Tree>> },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Listed(Option<Box<Listed>>, u8);

#[tokio::test]
async fn a_type_that_reads_itself_without_end_is_not_stored() {
    #[cached(resource = "trees", cache = cache, skip(cache))]
    async fn tree(id: u8, cache: &Cache) -> Option<Tree> {
        let leaf = || Box::new(Tree::List(Vec::new()));
        Some(match id {
            0 => Tree::List(vec![Tree::One(leaf())]),
            1 => Tree::One(leaf()),
            _ => Tree::Named { of: Some(leaf()) },
        })
    }
    #[cached(resource = "listed", cache = cache, skip(cache))]
    async fn listed(cache: &Cache) -> Listed {
        Listed(Some(Box::new(Listed(None, 2))), 1)
    }
    for (tier, cache) in Tiers::new().await.all() {
        for id in 0..3 {
            let (kept, value) = status(tree(id, &cache)).await;
            assert_eq!((kept, value.is_some()), (crate::NOT_STORED, true), "{tier}");
        }
        assert_eq!(status(listed(&cache)).await.0, crate::STORED, "{tier}");
        assert!(crate::is_hit(status(listed(&cache)).await.0), "{tier}");
    }
}
