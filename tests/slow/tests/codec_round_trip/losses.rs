//! Values that would be lost, in each form of function, by hand, and after others that were not.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cache_runtime::testing::TestCache;
use cache_runtime::{Cache, CacheConfig, ErrorKind, LintKind, Lookup, cached, catalog};
use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::{NOT_STORED, STORED, Tiers, is_hit, status};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct User {
    name: String,
    score: f64,
    #[serde(skip)]
    secret: String,
}

fn user(score: f64, secret: &str) -> User {
    User {
        name: "Ada".into(),
        score,
        secret: secret.into(),
    }
}

#[cached(resource = "a", cache = cache, skip(cache))]
async fn plain(cache: &Cache) -> User {
    user(1.0, "hash")
}
#[cached(resource = "b", cache = cache, skip(cache))]
async fn optional(cache: &Cache) -> Option<User> {
    Some(user(1.0, "hash"))
}
#[cached(resource = "c", cache = cache, skip(cache))]
async fn shared(cache: &Cache) -> Arc<User> {
    Arc::new(user(1.0, "hash"))
}
#[cached(resource = "d", cache = cache, skip(cache))]
async fn fallible(cache: &Cache) -> Result<User, Infallible> {
    Ok(user(1.0, "hash"))
}
#[cached(resource = "e", cache = cache, skip(cache))]
async fn all_of_it(cache: &Cache) -> Result<Option<Arc<User>>, Infallible> {
    Ok(Some(Arc::new(user(1.0, "hash"))))
}
#[cached(resource = "f", cache = cache, skip(cache))]
async fn listed(cache: &Cache) -> Vec<User> {
    vec![user(1.0, ""), user(2.0, "hash")]
}

#[tokio::test]
async fn every_form_of_return_is_compared() {
    macro_rules! lost {
        ($tiers:expr, $($function:ident)*) => {$(
            for (tier, cache) in $tiers.all() {
                let what = concat!(stringify!($function), " on ");
                for _ in 0..2 {
                    let (first, value) = status($function(&cache)).await;
                    assert_eq!(first, NOT_STORED, "{what}{tier}");
                    assert!(format!("{value:?}").contains("hash"), "{what}{tier}");
                }
            }
        )*};
    }
    lost!(Tiers::new().await, plain optional shared fallible all_of_it listed);
}

/// Neither `PartialEq` nor `Debug`.
#[derive(Clone, Serialize, Deserialize)]
struct Blind {
    id: u8,
    #[serde(skip)]
    secret: String,
}

/// The same, and all of it is written.
#[derive(Clone, Serialize, Deserialize)]
struct Seen {
    id: u8,
    name: String,
    of: Option<Box<Self>>,
}

#[cached(resource = "blind", cache = cache, skip(cache))]
async fn blind(cache: &Cache) -> Blind {
    let secret = "hash".into();
    Blind { id: 1, secret }
}

#[cached(resource = "seen", cache = cache, skip(cache))]
async fn seen(cache: &Cache) -> Vec<Seen> {
    let name = |id: u8| id.to_string();
    let of = Seen {
        id: 2,
        name: name(2),
        of: None,
    };
    vec![Seen {
        id: 1,
        name: name(1),
        of: Some(Box::new(of)),
    }]
}

/// Empty at first, so that nothing shows.
#[cached(resource = "grows", cache = cache, key(n))]
async fn grows(cache: &Cache, n: u8) -> Vec<User> {
    match n {
        0..20 => Vec::new(),
        _ => vec![user(1.0, "hash")],
    }
}

#[tokio::test]
async fn values_that_can_not_be_compared_are_not_kept() {
    for (tier, cache) in Tiers::new().await.all() {
        for _ in 0..2 {
            let (kept, value) = status(blind(&cache)).await;
            assert_eq!(value.secret, "hash", "{tier}");
            assert_eq!(kept, NOT_STORED, "{tier}");
        }
        assert_eq!(status(seen(&cache)).await.0, STORED, "{tier}");
        assert!(is_hit(status(seen(&cache)).await.0), "{tier}");
    }
}

#[tokio::test]
async fn a_part_that_comes_later_is_looked_at() {
    for (tier, cache) in Tiers::new().await.all() {
        for n in (0..20).chain(20..60) {
            for _ in 0..2 {
                let value = grows(&cache, n).await;
                assert!(
                    value.iter().all(|user| user.secret == "hash"),
                    "{n} on {tier}"
                );
            }
        }
    }
}

/// No `PartialEq`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Shown {
    names: HashMap<String, u8>,
    #[serde(skip)]
    secret: String,
}

#[cached(resource = "shown", cache = cache, key(n))]
async fn shown(cache: &Cache, n: u8, secret: &str) -> Shown {
    let names = (0..20).map(|it| (it.to_string(), n)).collect();
    let secret = secret.into();
    Shown { names, secret }
}

#[cached(resource = "shown", cache = cache, skip(cache, secret), batch = ids)]
async fn many_shown(cache: &Cache, ids: &[u8], secret: &str) -> HashMap<u8, Shown> {
    let shown = |n: u8| Shown {
        names: HashMap::from([("a".into(), n)]),
        secret: secret.into(),
    };
    ids.iter().map(|id| (*id, shown(*id))).collect()
}

/// Not equal to itself, and kept by this codec.
#[cached(resource = "nan", codec = "msgpack", cache = cache, skip(cache))]
async fn not_a_number(cache: &Cache) -> User {
    user(f64::NAN, "hash")
}

#[tokio::test]
async fn parts_that_only_debug_shows_are_not_lost() {
    for (tier, cache) in Tiers::new().await.encoded() {
        let is_kept = |status| status == STORED;
        assert!(!is_kept(status(shown(&cache, 1, "hash")).await.0), "{tier}");
        assert_eq!(shown(&cache, 1, "hash").await.secret, "hash", "{tier}");
        let many = many_shown(&cache, &[7], "hash").await;
        assert_eq!(many[&7].secret, "hash", "{tier}");
        let many = many_shown(&cache, &[7], "hash").await;
        assert_eq!(many[&7].secret, "hash", "{tier}");
        for _ in 0..2 {
            assert_eq!(not_a_number(&cache).await.secret, "hash", "{tier}");
        }
        // Its entries are shown in another order each time.
        assert!(is_kept(status(shown(&cache, 2, "")).await.0), "{tier}");
    }
}

#[cached(resource = "later", cache = cache, skip(cache, secret))]
async fn later(cache: &Cache, id: u64, secret: &str) -> Vec<User> {
    vec![user(id as f64, secret)]
}

/// The first values have nothing in the field that is skipped, and others have.
#[tokio::test]
async fn a_field_that_is_skipped_is_looked_for_in_each_value() {
    for cache in [Tiers::new().await.memory, Tiers::new().await.redis] {
        for id in 0..20 {
            assert_eq!(status(later(&cache, id, "")).await.0, STORED);
        }
        for id in 20..40 {
            assert_eq!(
                status(later(&cache, id, "hash")).await.0,
                NOT_STORED,
                "{id}"
            );
        }
    }
}

#[tokio::test]
async fn a_field_that_serde_skips_is_found_outside_of_tests() {
    let tiers = Tiers::verifying_a_few().await;
    for cache in [tiers.memory, tiers.redis] {
        assert_eq!(status(plain(&cache)).await.0, NOT_STORED);
        assert_eq!(status(plain(&cache)).await.1.secret, "hash");
    }
}

#[cached(resource = "g", batch = ids, cache = cache, skip(cache))]
async fn hashed(ids: &[u64], cache: &Cache) -> HashMap<u64, User> {
    ids.iter()
        .map(|id| (*id, user(*id as f64, "hash")))
        .collect()
}
#[cached(resource = "h", batch = ids, cache = cache, skip(cache))]
async fn sorted(ids: &[u64], cache: &Cache) -> Result<BTreeMap<u64, Arc<User>>, Infallible> {
    let users = ids
        .iter()
        .map(|id| (*id, Arc::new(user(*id as f64, "hash"))));
    Ok(users.collect())
}
#[cached(resource = "i", batch = ids, cache = cache, skip(cache))]
async fn numbers(ids: &[u64], cache: &Cache) -> HashMap<u64, f64> {
    ids.iter().map(|id| (*id, 1.0 / (*id as f64))).collect()
}

#[tokio::test]
async fn a_batch_says_stored_only_if_all_is() {
    for (tier, cache) in Tiers::new().await.all() {
        for _ in 0..2 {
            let (first, users) = status(hashed(&[1, 2], &cache)).await;
            assert_eq!((first, &*users[&2].secret), (NOT_STORED, "hash"), "{tier}");
            let (first, users) = status(sorted(&[1, 2], &cache)).await;
            let secret = users.map(|users| users[&2].secret.clone());
            assert_eq!((first, secret), (NOT_STORED, Ok("hash".into())), "{tier}");
        }
        // 1 / 0 is infinite, and its neighbours are kept.
        assert_eq!(
            status(numbers(&[0, 1, 2], &cache)).await.0,
            NOT_STORED,
            "{tier}"
        );
        assert!(is_hit(status(numbers(&[1, 2], &cache)).await.0), "{tier}");
        let (again, values) = status(numbers(&[0, 1], &cache)).await;
        assert_eq!((again, values[&0]), (NOT_STORED, f64::INFINITY), "{tier}");
        assert_eq!(status(numbers(&[4], &cache)).await.0, STORED, "{tier}");
    }
}

#[cached(resource = "j", op = "of", cache = cache, skip(cache, value))]
async fn generic<T>(id: u8, value: &Cell<T>, cache: &Cache) -> T
where
    T: cache_runtime::Cacheable + Default,
{
    value.take()
}

#[tokio::test]
async fn a_generic_function_compares_what_serde_writes() {
    // `T` has no `PartialEq` there, so a field that serde leaves out can't be seen, and infinity
    // can.
    let cache = TestCache::new();
    let call = async |id, value| {
        let value = Cell::new(value);
        status(generic::<f64>(id, &value, &cache)).await.0
    };
    assert_eq!(call(1, f64::INFINITY).await, NOT_STORED);
    assert_eq!(call(1, 1.5).await, STORED);
}

#[cached(resource = "k", cache = cache, skip(cache))]
async fn scored(id: u64, score: f64, cache: &Cache) -> f64 {
    score
}

#[tokio::test]
async fn an_encoder_refuses_at_every_fill() {
    for (tier, cache) in Tiers::verifying_a_few().await.all() {
        for id in 0..17 {
            assert_eq!(status(scored(id, 1.0, &cache)).await.0, STORED, "{tier}");
        }
        // This number is not decoded again.
        let infinite = status(scored(17, f64::INFINITY, &cache)).await.0;
        assert_eq!(infinite, NOT_STORED, "{tier}");
        assert_eq!(status(scored(18, 1.0, &cache)).await.0, STORED, "{tier}");
    }
}

/// Read without its fraction, which no part of the type shows.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Whole(f64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        f64::deserialize(from).map(|number| Self(number.trunc()))
    }
}

#[cached(resource = "whole", cache = cache, skip(cache))]
async fn whole(id: u64, number: f64, cache: &Cache) -> Whole {
    Whole(number)
}

/// With the feature `testing`, and unless it is switched off.
#[tokio::test]
async fn each_fill_of_each_cache_is_decoded_again() {
    async fn last(cache: &Cache) -> cache_runtime::Status {
        for id in 0..17 {
            assert_eq!(status(whole(id, 1.0, cache)).await.0, STORED);
        }
        status(whole(17, 1.5, cache)).await.0
    }
    for (tier, cache) in Tiers::new().await.all() {
        assert_eq!(last(&cache).await, NOT_STORED, "{tier}");
    }
    let config = CacheConfig::default().local_mb(4).verify_all(false);
    assert_eq!(last(&Cache::new(config).await).await, STORED);
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Day {
    Number(u8),
    Wide(u64),
}
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Days {
    first: Day,
    others: Vec<Day>,
}
#[cached(resource = "l", cache = cache, skip(cache))]
async fn days(id: u64, last: Day, cache: &Cache) -> Days {
    let others = vec![Day::Number(1), last];
    Days {
        first: Day::Number(2),
        others,
    }
}

#[tokio::test]
async fn a_variant_that_comes_later_is_compared_too() {
    for (tier, cache) in Tiers::new().await.all() {
        for id in 0..19 {
            let kept = status(days(id, Day::Number(3), &cache)).await.0;
            assert_eq!(kept, STORED, "{tier}");
        }
        let lost = status(days(19, Day::Wide(4), &cache)).await;
        assert_eq!(lost.0, NOT_STORED, "{tier}");
        let again = status(days(19, Day::Wide(4), &cache)).await;
        assert_eq!(
            (again.0, again.1.others[1].clone()),
            (NOT_STORED, Day::Wide(4)),
            "{tier}"
        );
    }
}

#[tokio::test]
async fn by_hand_as_well() {
    for (tier, cache) in Tiers::new().await.all() {
        let set = cache.set("m:1", &f64::NAN, 60).await;
        let error = set.expect_err(tier);
        assert_eq!(error.kind(), ErrorKind::Unstorable, "{tier}");
        assert_eq!(cache.get::<f64>("m:1").await, None, "{tier}");

        let load = async || Ok::<_, Infallible>(Some(None::<u8>));
        for _ in 0..2 {
            let (miss, value) = status(cache.get_or_load("m:2", 60, load)).await;
            assert_eq!((miss, value), (NOT_STORED, Ok(Some(None))), "{tier}");
        }
        match cache.lookup::<f32>("m:3").await.expect(tier) {
            Lookup::Miss(lease) => assert!(!lease.fill(&f32::INFINITY).await, "{tier}"),
            Lookup::Hit(value) => panic!("{tier}: {value}"),
        }
    }
}

/// The warnings of the cache, as text.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        struct Text(String);
        impl Visit for Text {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                self.0 += &format!("{}={value:?} ", field.name());
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        if *event.metadata().level() == tracing::Level::WARN {
            self.0.lock().expect("no panic").push(text.0);
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Team {
    users: Vec<User>,
}
#[cached(resource = "n", cache = cache, skip(cache))]
async fn infinite_team(cache: &Cache) -> Team {
    let users = vec![user(1.0, ""), user(f64::INFINITY, "")];
    Team { users }
}
#[cached(resource = "o", cache = cache, skip(cache))]
async fn secret_team(cache: &Cache) -> Team {
    let users = vec![user(1.0, "hash")];
    Team { users }
}

#[tokio::test]
async fn the_field_is_named_once_and_the_map_knows() {
    let warnings = Warnings::default();
    // For all threads: what no thread's own subscriber wanted first is off for the whole process.
    tracing_subscriber::registry()
        .with(warnings.clone())
        .with(LevelFilter::WARN)
        .init();
    let cache = TestCache::new();
    for _ in 0..3 {
        infinite_team(&cache).await;
        secret_team(&cache).await;
    }
    let warnings = warnings.0.lock().expect("no panic").clone();
    let of = |function: &str| {
        let named = warnings.iter().filter(|text| text.contains(function));
        named.cloned().collect::<Vec<_>>()
    };
    let infinite = of("infinite_team");
    assert_eq!(infinite.len(), 1, "{warnings:#?}");
    assert!(infinite[0].contains("users[1].score"), "{infinite:?}");
    let secret = of("secret_team");
    assert_eq!(secret.len(), 1, "{warnings:#?}");
    assert!(secret[0].contains("users.secret"), "{secret:?}");

    let findings = catalog().check();
    let finding = findings
        .iter()
        .find(|finding| finding.text.contains("`infinite_team`"))
        .expect("a finding");
    assert_eq!(finding.kind, LintKind::NotStored);
    assert!(finding.text.contains("users[1].score"), "{finding}");
}

#[tokio::test]
async fn a_decoded_test_cache_shares_its_values() {
    #[cached(resource = "p", cache = cache, skip(cache))]
    async fn shared(cache: &Cache) -> Arc<User> {
        Arc::new(user(1.0, ""))
    }
    let decoded = TestCache::decoded(CacheConfig::default());
    assert!(Arc::ptr_eq(
        &shared(&decoded).await,
        &shared(&decoded).await
    ));
    let encoded = TestCache::new();
    assert!(!Arc::ptr_eq(
        &shared(&encoded).await,
        &shared(&encoded).await
    ));
}

/// What of [`Fragile`] panics: 1 is its `Serialize`, 2 its `Deserialize`, 3 its `PartialEq`.
static BROKEN: AtomicU8 = AtomicU8::new(0);

fn breaks(part: u8) {
    assert_ne!(BROKEN.load(Ordering::SeqCst), part, "on purpose");
}

#[derive(Debug, Clone)]
struct Fragile(u8);

impl PartialEq for Fragile {
    fn eq(&self, other: &Self) -> bool {
        breaks(3);
        self.0 == other.0
    }
}

impl Serialize for Fragile {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        breaks(1);
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Fragile {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        breaks(2);
        u8::deserialize(from).map(Self)
    }
}

#[cached(resource = "fragile", cache = cache, skip(cache))]
async fn fragile(id: u8, cache: &Cache) -> Fragile {
    Fragile(id)
}

#[cached(resource = "fragile", op = "audited", audit = 1.0, cache = cache, skip(cache))]
async fn audited_fragile(id: u8, cache: &Cache) -> Fragile {
    Fragile(id)
}

#[tokio::test]
async fn a_type_that_panics_costs_its_hits_alone() {
    let tiers = Tiers::new().await;
    for (tier, cache) in tiers.all() {
        for part in [1, 2, 3] {
            BROKEN.store(part, Ordering::SeqCst);
            let (kept, value) = status(fragile(part, &cache)).await;
            assert_eq!((kept, value.0), (NOT_STORED, part), "{tier}");
        }
        BROKEN.store(0, Ordering::SeqCst);
        let (kept, value) = status(fragile(7, &cache)).await;
        assert_eq!((kept, value.0), (STORED, 7), "{tier}");
    }
    // A value that is stored, once when it is read and once when a hit is audited.
    for (tier, cache) in tiers.encoded() {
        BROKEN.store(2, Ordering::SeqCst);
        let (kept, value) = status(fragile(7, &cache)).await;
        assert_eq!((is_hit(kept), value.0), (false, 7), "{tier}");
        BROKEN.store(0, Ordering::SeqCst);
        let audited = async || status(audited_fragile(8, &cache)).await;
        assert_eq!(audited().await.0, STORED, "{tier}");
        BROKEN.store(3, Ordering::SeqCst);
        let (kept, value) = audited().await;
        assert_eq!((is_hit(kept), value.0), (true, 8), "{tier}");
        BROKEN.store(0, Ordering::SeqCst);
    }
}

/// Of a value that it holds, its `Deserialize` panics.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Sometimes(String);

const UNREADABLE: &str = "unreadable";

impl<'de> Deserialize<'de> for Sometimes {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        assert_ne!(text, UNREADABLE, "on purpose");
        Ok(Self(text))
    }
}

#[cached(resource = "sometimes", cache = cache, skip(cache, text))]
async fn sometimes(id: u32, text: &str, cache: &Cache) -> Sometimes {
    Sometimes(text.to_owned())
}

/// Of the values of a function that have come back, few are decoded again before they are stored.
/// One that has not come back changes that.
#[tokio::test]
async fn values_that_panic_when_read_are_not_stored_repeatedly() {
    for (tier, cache) in Tiers::verifying_a_few().await.encoded() {
        // The first eight are decoded again.
        for id in 0..9 {
            let (kept, _) = status(sometimes(id, "readable", &cache)).await;
            assert_eq!(kept, STORED, "{tier}");
        }
        let read = async || status(sometimes(9, UNREADABLE, &cache)).await;
        assert_eq!(read().await.0, STORED, "{tier}: it was not decoded again");
        for _ in 0..3 {
            let (kept, value) = read().await;
            assert_eq!((kept, value.0.as_str()), (NOT_STORED, UNREADABLE), "{tier}");
        }
    }
}

/// The next decoding fails, as that of damaged bytes does.
static IS_DAMAGED: AtomicBool = AtomicBool::new(false);

static DECODED: AtomicU32 = AtomicU32::new(0);

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Counted(u32);

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let number = u32::deserialize(from)?;
        DECODED.fetch_add(1, Ordering::SeqCst);
        match IS_DAMAGED.swap(false, Ordering::SeqCst) {
            true => Err(serde::de::Error::custom("damaged")),
            false => Ok(Self(number)),
        }
    }
}

#[cached(resource = "counted", cache = cache, skip(cache))]
async fn counted(id: u32, cache: &Cache) -> Counted {
    Counted(id)
}

/// Bytes may be damaged, which says nothing about the function's other values.
#[tokio::test]
async fn an_entry_that_does_not_decode_costs_one_decoding_more() {
    for (tier, cache) in Tiers::verifying_a_few().await.encoded() {
        let fills = async |ids: std::ops::Range<u32>| {
            let before = DECODED.load(Ordering::SeqCst);
            for id in ids {
                assert_eq!(status(counted(id, &cache)).await.0, STORED, "{tier}");
            }
            DECODED.load(Ordering::SeqCst) - before
        };
        fills(0..32).await;
        IS_DAMAGED.store(true, Ordering::SeqCst);
        let both = fills(3..4).await;
        assert_eq!(both, 2, "{tier}: the entry, and the new value");
        assert_eq!(fills(32..48).await, 1, "{tier}: one in sixteen");
    }
}

/// When it is first asked what it consists of, its `Deserialize` takes longer than a call may wait
/// for Redis.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Slow(u8);

const BUDGET: Duration = Duration::from_secs(1);

impl<'de> Deserialize<'de> for Slow {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        static ASKED: AtomicBool = AtomicBool::new(false);
        if !ASKED.swap(true, Ordering::SeqCst) {
            std::thread::sleep(BUDGET + BUDGET / 4);
        }
        u8::deserialize(from).map(Self)
    }
}

#[cached(resource = "slow", cache = cache, skip(cache))]
async fn slow(id: u8, cache: &Cache) -> Slow {
    Slow(id)
}

/// What a type takes to be looked at is not the store's time.
#[tokio::test]
async fn the_first_value_of_a_type_is_stored_however_long_the_type_takes() {
    // With local entries the type is looked at once Redis is to be asked.
    let tiers = Tiers::with(|config| config.command_budget(BUDGET).local_mb(4)).await;
    let (kept, value) = status(slow(1, &tiers.redis)).await;
    assert_eq!((kept, value.0), (STORED, 1));
}

#[derive(Clone, Serialize, Deserialize)]
struct Chain {
    next: Option<Box<Chain>>,
}

fn chain(length: usize) -> Chain {
    let end = Chain { next: None };
    (1..length).fold(end, |next, _| Chain {
        next: Some(Box::new(next)),
    })
}

macro_rules! chains {
    ($($name:ident $codec:literal;)*) => {$(
        #[cached(resource = "chains", codec = $codec, skip(cache), cache = cache)]
        async fn $name(cache: &Cache, length: usize) -> Chain {
            chain(length)
        }
    )*};
}
chains! {
    in_json "json";
    in_msgpack "msgpack";
    in_postcard "postcard";
}

/// Such a value is no loss of its codec, and may be too much for the stack of a thread.
#[tokio::test]
async fn a_value_that_is_nested_very_deeply_is_not_stored() {
    for (tier, cache) in Tiers::new().await.all() {
        for length in [2_000, 2_000] {
            assert_eq!(
                status(in_json(&cache, length)).await.0,
                NOT_STORED,
                "{tier}"
            );
            assert_eq!(
                status(in_msgpack(&cache, length)).await.0,
                NOT_STORED,
                "{tier}"
            );
            assert_eq!(
                status(in_postcard(&cache, length)).await.0,
                NOT_STORED,
                "{tier}"
            );
        }
        assert_eq!(status(in_json(&cache, 40)).await.0, STORED, "{tier}");
        assert_eq!(status(in_postcard(&cache, 150)).await.0, STORED, "{tier}");
        assert!(is_hit(status(in_postcard(&cache, 150)).await.0), "{tier}");
    }
}
