//! What the options of the attributes do, and what a caller may ask of an annotated function, on
//! the in-process tier.

mod calls;

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use cache_runtime::{
    Acknowledgement, BypassReason, Cache, CacheConfig, EntryKind, ErrorKind, Status, bypass,
    cached, invalidates, key_of, observe, refresh,
};
use serde::Serialize;

use calls::{cache, hit, miss, op_of, status};

/// Runs, and keeps nothing.
const NOT_KEPT: Status = Status::Miss {
    stored: false,
    joined: false,
};

struct Shop {
    cache: Cache,
    team: u8,
    /// What the bodies return, so that a second run shows.
    price: Cell<u64>,
}

async fn shop() -> Shop {
    Shop {
        cache: cache().await,
        team: 7,
        price: Cell::new(100),
    }
}

impl Shop {
    /// Another price each time.
    fn next(&self) -> u64 {
        self.price.replace(self.price.get() + 1)
    }

    fn tag(&self) -> String {
        format!("team:{}", self.team)
    }
}

// Tags and other resources.

impl Shop {
    #[cached(resource = "prices", cache = self.cache, tags("team:{self.team}", "{{all}}", country))]
    async fn price_in(&self, country: &str) -> u64 {
        self.next()
    }

    #[cached(resource = "prices", op = "of-team", cache = self.cache, tags(self.tag()))]
    async fn prices_of_team(&self) -> Vec<u64> {
        vec![self.next()]
    }

    #[invalidates(tags("team:{team}"), cache = self.cache)]
    async fn dissolve(&self, team: u8) {}

    #[invalidates("stock", tags("{{all}}"), cache = self.cache, on = ok)]
    async fn restock(&self, works: bool) -> Result<(), String> {
        works.then_some(()).ok_or_else(|| "closed".to_owned())
    }

    #[cached(resource = "stock", cache = self.cache)]
    async fn stock(&self, id: i64) -> u64 {
        self.next()
    }

    #[cached(resource = "reports", op = "day", cache = self.cache, depends("stock", Self::TEAMS))]
    async fn report(&self) -> u64 {
        self.next()
    }

    #[cached(resource = "reports", cache = self.cache, depends("stock"))]
    async fn report_on(&self, id: i64) -> u64 {
        self.next()
    }

    const TEAMS: &'static str = "teams";

    #[invalidates("stock", id = id, cache = self.cache)]
    async fn sell(&self, id: i64) {}

    #[invalidates("teams", cache = self.cache)]
    async fn reorganise(&self) {}
}

#[tokio::test]
async fn a_tag_reaches_all_entries_that_carry_it() {
    let shop = shop().await;
    let other = Shop {
        cache: shop.cache.clone(),
        team: 8,
        price: Cell::new(200),
    };
    miss(shop.price_in("nl")).await;
    miss(shop.prices_of_team()).await;
    miss(other.price_in("be")).await;
    shop.dissolve(7).await;
    miss(shop.price_in("nl")).await;
    miss(shop.prices_of_team()).await;
    hit(other.price_in("be")).await;

    let acknowledged = shop.cache.invalidate_tag("be").await;
    assert_eq!(acknowledged, Acknowledgement::Delivered);
    miss(other.price_in("be")).await;
    hit(shop.price_in("nl")).await;

    shop.restock(false).await.unwrap_err();
    hit(shop.price_in("nl")).await;
    shop.restock(true).await.unwrap();
    miss(shop.price_in("nl")).await;
    miss(other.price_in("be")).await;
    hit(shop.prices_of_team()).await;
}

#[tokio::test]
async fn an_entry_follows_the_resources_it_depends_on() {
    let shop = shop().await;
    let both_miss = async || {
        miss(shop.report()).await;
        miss(shop.report_on(1)).await;
    };
    both_miss().await;
    hit(shop.report()).await;
    hit(shop.report_on(1)).await;

    shop.sell(1).await;
    both_miss().await;
    shop.restock(true).await.unwrap();
    both_miss().await;
    let acknowledged = shop.cache.invalidate("stock", &2).await;
    assert_eq!(acknowledged, Acknowledgement::Delivered);
    both_miss().await;

    shop.reorganise().await;
    miss(shop.report()).await;
    hit(shop.report_on(1)).await;
}

// What is cached at all, and how.

impl Shop {
    #[cached(resource = "offers", op = "when", cache = self.cache, when = self.team == 7 && *id > 0)]
    async fn offer(&self, id: &i64) -> Result<u64, String> {
        Ok(self.next())
    }

    #[cached(resource = "offers", op = "unless", cache = self.cache, unless = |offers| offers.is_empty())]
    async fn offers(&self, most: u8) -> Result<Option<Vec<u8>>, String> {
        Ok((most < 9).then(|| (0..most).collect()))
    }

    #[cached(resource = "offers", op = "all", cache = self.cache, shared)]
    async fn all_offers(&self, of: u8) -> u64 {
        self.next()
    }

    #[cached(resource = "offers", op = "all", cache = self.cache, shared = true)]
    async fn every_offer(&self, from: u8) -> u64 {
        self.next()
    }

    #[cached(resource = "offers", op = "all", cache = self.cache)]
    async fn offers_of_its_own(&self, of: u8) -> u64 {
        self.next()
    }

    // JSON has no map whose keys are tuples.
    #[cached(resource = "maps", op = "json", cache = self.cache, codec = "json")]
    async fn as_json(&self) -> BTreeMap<(u8, u8), u64> {
        BTreeMap::from([((1, 2), self.next())])
    }

    #[cached(resource = "maps", op = "msgpack", cache = self.cache, codec = "msgpack")]
    async fn as_msgpack(&self) -> BTreeMap<(u8, u8), u64> {
        BTreeMap::from([((1, 2), self.next())])
    }

    #[cached(resource = "maps", op = "postcard", cache = self.cache, codec = "postcard", version = 1)]
    async fn as_postcard(&self) -> Option<BTreeMap<(u8, u8), u64>> {
        Some(BTreeMap::from([((1, 2), self.next())]))
    }
}

#[tokio::test]
async fn when_decides_which_calls_use_the_cache() {
    let mut shop = shop().await;
    miss(shop.offer(&1)).await.1.unwrap();
    hit(shop.offer(&1)).await.1.unwrap();
    let unasked = Status::Bypass(BypassReason::Condition);
    assert_eq!(status(shop.offer(&0)).await, (unasked, Ok(101)));
    shop.team = 8;
    assert_eq!(status(shop.offer(&1)).await, (unasked, Ok(102)));
}

#[tokio::test]
async fn unless_decides_which_values_are_kept() {
    let shop = shop().await;
    for _ in 0..2 {
        assert_eq!(status(shop.offers(0)).await, (NOT_KEPT, Ok(Some(vec![]))));
    }
    miss(shop.offers(1)).await.1.unwrap();
    assert_eq!(hit(shop.offers(1)).await.1, Ok(Some(vec![0])));
    // Of `None` there is no value to ask about.
    miss(shop.offers(9)).await.1.unwrap();
    assert_eq!(hit(shop.offers(9)).await.1, Ok(None));
}

#[tokio::test]
async fn functions_share_a_key_if_all_of_them_say_so() {
    let shop = shop().await;
    let (key, first) = miss(shop.all_offers(1)).await;
    assert_eq!(op_of(&key), "offers:all");
    assert_eq!(hit(shop.every_offer(1)).await, (key, first));
    let claimed = Status::Bypass(BypassReason::KeyConflict);
    assert_eq!(status(shop.offers_of_its_own(1)).await, (claimed, 101));
}

#[tokio::test]
async fn a_codec_decides_what_can_be_kept() {
    let shop = shop().await;
    assert_eq!(status(shop.as_json()).await.0, NOT_KEPT);
    let (_, first) = miss(shop.as_msgpack()).await;
    assert_eq!(hit(shop.as_msgpack()).await.1, first);
    let (_, first) = miss(shop.as_postcard()).await;
    assert_eq!(hit(shop.as_postcard()).await.1, first);
}

// What a caller asks.

trait Named: Send {
    const NAME: &'static str;
}

impl Named for u8 {
    const NAME: &'static str = "bytes";
}

struct Till<T> {
    cache: Cache,
    of: T,
}

#[async_trait]
trait Totals<T> {
    async fn total(&self, id: T) -> u64;
    async fn totals(&self, ids: &[u8]) -> BTreeMap<u8, u64>;
}

#[async_trait]
impl<T: Named + Sync + Serialize> Totals<T> for Till<T> {
    #[cached(resource = T::NAME, cache = self.cache)]
    async fn total(&self, id: T) -> u64 {
        let _ = id;
        unreachable!("only its key is asked for")
    }

    #[cached(resource = T::NAME, batch = ids, cache = self.cache)]
    async fn totals(&self, ids: &[u8]) -> BTreeMap<u8, u64> {
        unreachable!("{ids:?}: only its key is asked for")
    }
}

impl<T: Named> Till<T> {
    #[cached(resource = T::NAME, op = "sum", cache = self.cache, include(std::any::type_name::<U>()))]
    async fn sum<U: Serialize>(&self, of: &[U], rate: f64) -> u64 {
        unreachable!("only its key is asked for")
    }

    #[invalidates(T::NAME, id = id, cache = self.cache)]
    async fn close(&self, id: T) -> T
    where
        T: Serialize + Copy,
    {
        unreachable!("only its key is asked for")
    }
}

#[tokio::test]
async fn the_key_of_a_call_is_known_without_running_it() {
    let cache = cache().await;
    let till = Till {
        cache: cache.clone(),
        of: 1_u8,
    };
    let key = key_of(till.total(till.of)).unwrap();
    assert_eq!((key.resource(), key.kind()), ("bytes", EntryKind::Entity));

    let sum = key_of(till.sum(&[1, 2], 0.5)).unwrap();
    assert_eq!(sum.kind(), EntryKind::Derived);
    cache.set(&key, &5_u64, 60).await.unwrap();
    cache.set(&sum, &6_u64, 60).await.unwrap();
    assert_eq!(hit(till.total(1)).await, ("bytes:1".into(), 5));
    assert_eq!(hit(till.sum(&[1, 2], 0.5)).await.1, 6);

    assert!(cache.delete(&sum).await.unwrap());
    assert_eq!(cache.get::<u64>(&sum).await, None);
}

struct Prices {
    cache: Cache,
}

impl Prices {
    #[cached(resource = "durations", op = "of", cache = self.cache)]
    fn seconds(&self, kind: u8) -> u64 {
        60 * u64::from(kind)
    }

    #[cached(resource = "prices", ttl = self.seconds(kind), cache = self.cache)]
    async fn price(&self, kind: u8) -> u8 {
        unreachable!("only the key of {kind} is asked for")
    }

    #[cached(resource = "prices", batch = kinds, ttl = self.seconds(1), cache = self.cache)]
    async fn prices(&self, kinds: &[u8]) -> BTreeMap<u8, u8> {
        unreachable!("only the keys of {kinds:?} are asked for")
    }

    #[invalidates("prices", id = self.seconds(kind), cache = self.cache)]
    async fn close(&self, kind: u8) {
        unreachable!("only the key of {kind} is asked for")
    }
}

/// An expression of an attribute may call a cached function, which is another call.
#[tokio::test]
async fn a_call_in_an_attribute_leaves_no_key() {
    let prices = Prices {
        cache: cache().await,
    };
    let key = key_of(prices.price(1)).unwrap();
    assert_eq!((key.resource(), key.kind()), ("prices", EntryKind::Derived));
    let many = key_of(prices.prices(&[1])).unwrap_err().to_string();
    assert!(many.contains("each of its ids has one"), "{many}");
    let write = key_of(prices.close(1)).unwrap_err().to_string();
    assert!(write.contains("under `#[invalidates]`"), "{write}");
    assert_eq!(prices.seconds(2), 120);
}

#[tokio::test]
async fn calls_without_a_key_are_errors_and_do_not_run() {
    let till = Till {
        cache: cache().await,
        of: 1_u8,
    };
    let off = Till {
        cache: Cache::new(CacheConfig::default()).await,
        of: 1_u8,
    };
    for (found, says) in [
        (key_of(till.close(till.of)), "under `#[invalidates]`"),
        (key_of(till.totals(&[1])), "each of its ids has one"),
        (key_of(till.sum(&[1], f64::NAN)), "invalid-key"),
        (key_of(off.total(off.of)), "its cache is off"),
        (key_of(std::future::ready(1)), "not one of a function"),
        (
            key_of(async { tokio::task::yield_now().await }),
            "`#[cached]`",
        ),
    ] {
        let error = found.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidKey);
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[tokio::test]
async fn a_key_that_is_asked_for_says_nothing_of_the_next_call() {
    let shop = shop().await;
    key_of(shop.stock(1)).unwrap();
    assert_eq!(miss(shop.stock(1)).await, ("stock:1".into(), 100));
    // A call within a call that is no annotated one is the one that is asked for.
    let nested = key_of(async { shop.stock(2).await }).unwrap();
    shop.cache.set(nested, &1_u64, 60).await.unwrap();
    assert_eq!(hit(shop.stock(2)).await.1, 1);
}

#[tokio::test]
async fn a_caller_may_go_past_the_cache_or_renew_it() {
    let shop = shop().await;
    miss(shop.stock(1)).await;
    let asked = Status::Bypass(BypassReason::Requested);
    assert_eq!(status(bypass(shop.stock(1))).await, (asked, 101));
    assert_eq!(hit(shop.stock(1)).await.1, 100);

    assert_eq!(miss(refresh(shop.stock(1))).await.1, 102);
    assert_eq!(hit(shop.stock(1)).await.1, 102);

    // They reach calls within the call, and the inner one of two wins.
    let through = async { shop.stock(1).await + shop.stock(2).await };
    assert_eq!(bypass(through).await, 103 + 104);
    assert_eq!(miss(bypass(refresh(shop.stock(2)))).await.1, 105);
    assert_eq!(status(refresh(bypass(shop.stock(2)))).await, (asked, 106));
    assert_eq!(hit(shop.stock(2)).await.1, 105);

    // A write invalidates as ever.
    bypass(shop.sell(1)).await;
    miss(shop.stock(1)).await;
}

/// What a load with a time limit returns.
type Limited<T> = Result<Result<T, String>, Late>;

#[derive(Debug, PartialEq)]
struct Late;

#[cached(resource = "limited", op = "of", key(id), cache = cache)]
async fn limited(
    cache: &Cache,
    id: i64,
    answer: Limited<Option<&'static str>>,
) -> Limited<Option<Arc<str>>> {
    Ok(answer?.map(|found| found.map(Arc::from)))
}

#[cached(resource = "limited", op = "number", key(id), cache = cache)]
async fn number(cache: &Cache, id: i64, answer: Limited<u8>) -> Limited<Arc<u8>> {
    Ok(answer?.map(Arc::new))
}

#[invalidates("limited", id = result.as_ref().map_or(0, |id| *id), cache = cache)]
async fn write_in_time(cache: &Cache, id: i64) -> Limited<i64> {
    Ok(Ok(id))
}

#[tokio::test]
async fn no_error_in_a_result_in_a_result_is_kept() {
    let cache = cache().await;
    for _ in 0..2 {
        let no = Ok(Err("no".to_owned()));
        let answer = status(limited(&cache, 1, no)).await;
        assert_eq!(answer, (NOT_KEPT, Ok(Err("no".to_owned()))));
        let answer = status(number(&cache, 1, Err(Late))).await;
        assert_eq!(answer, (NOT_KEPT, Err(Late)));
    }
    let (_, answer) = miss(limited(&cache, 1, Ok(Ok(Some("a"))))).await;
    assert!(matches!(answer, Ok(Ok(_))));
    let (_, kept) = hit(limited(&cache, 1, Err(Late))).await;
    assert_eq!(kept, Ok(Ok(Some(Arc::from("a")))));
    let (_, answer) = miss(limited(&cache, 2, Ok(Ok(None)))).await;
    assert!(matches!(answer, Ok(Ok(_))));
    let (_, kept) = hit(limited(&cache, 2, Ok(Ok(Some("b"))))).await;
    assert_eq!(kept, Ok(Ok(None)));
    let (_, answer) = miss(number(&cache, 1, Ok(Ok(7)))).await;
    assert!(matches!(answer, Ok(Ok(_))));
    let (_, kept) = hit(number(&cache, 1, Ok(Ok(8)))).await;
    assert_eq!(kept, Ok(Ok(Arc::new(7))));
    // A write looks at both results itself.
    assert_eq!(write_in_time(&cache, 1).await, Ok(Ok(1)));
    let (_, answer) = miss(limited(&cache, 1, Ok(Ok(None)))).await;
    assert!(matches!(answer, Ok(Ok(_))));
}

type Fetched<T> = Result<T, String>;
type Found = Option<Fetched<u8>>;

#[cached(resource = "fetched", op = "found", key(id), cache = cache)]
async fn found(cache: &Cache, id: u8, answer: Found) -> Found {
    answer
}

#[cached(resource = "fetched", op = "shared", key(id), cache = cache)]
async fn shared(cache: &Cache, id: u8, answer: Fetched<u8>) -> Arc<Fetched<u8>> {
    Arc::new(answer)
}

#[cached(resource = "fetched", op = "deep", key(id), cache = cache)]
async fn deep(cache: &Cache, id: u8, answer: Found) -> Fetched<Option<Box<Found>>> {
    Ok(Some(Box::new(answer)))
}

#[cached(resource = "fetched-rows", batch = ids, skip(cache, fails), cache = cache)]
async fn fetched(cache: &Cache, ids: &[u8], fails: u8) -> HashMap<u8, Fetched<u8>> {
    let fetch = |id: u8| match id == fails {
        true => Err("no".to_owned()),
        false => Ok(id),
    };
    ids.iter().map(|id| (*id, fetch(*id))).collect()
}

/// Each attempt of a page that asks several services for a part.
#[cached(resource = "fetched", op = "parts", key(id), cache = cache)]
async fn parts(cache: &Cache, id: u8) -> (Vec<Fetched<u8>>, Fetched<u8>) {
    (vec![Ok(1), Err("no".to_owned())], Err("no".to_owned()))
}

#[tokio::test]
async fn no_error_inside_of_a_value_is_kept() {
    let cache = cache().await;
    let no = || Err("no".to_owned());
    for _ in 0..2 {
        let answer = status(found(&cache, 1, Some(no()))).await;
        assert_eq!(answer, (NOT_KEPT, Some(no())));
        assert_eq!(status(shared(&cache, 1, no())).await.0, NOT_KEPT);
        assert_eq!(status(deep(&cache, 1, Some(no()))).await.0, NOT_KEPT);
        // Of several ids, those without an error are kept.
        let rows = HashMap::from([(1, no()), (2, Ok(2))]);
        assert_eq!(status(fetched(&cache, &[1, 2], 1)).await, (NOT_KEPT, rows));
        hit(fetched(&cache, &[2], 2)).await;
    }
    assert_eq!(miss(fetched(&cache, &[1], 0)).await.1[&1], Ok(1));
    assert_eq!(hit(fetched(&cache, &[1], 1)).await.1[&1], Ok(1));
    assert_eq!(miss(found(&cache, 1, Some(Ok(7)))).await.1, Some(Ok(7)));
    assert_eq!(hit(found(&cache, 1, Some(no()))).await.1, Some(Ok(7)));
    assert_eq!(miss(found(&cache, 2, None)).await.1, None);
    assert_eq!(hit(found(&cache, 2, Some(no()))).await.1, None);
    assert_eq!(*miss(shared(&cache, 1, Ok(7))).await.1, Ok(7));
    assert_eq!(*hit(shared(&cache, 1, no())).await.1, Ok(7));
    miss(deep(&cache, 1, None)).await.1.expect("a value");
    // An error in a list or a tuple is data.
    let (_, before) = miss(parts(&cache, 1)).await;
    assert_eq!(hit(parts(&cache, 1)).await.1, before);
}

trait Format {
    fn format(id: i64) -> String;
}

struct Json;
struct Xml;

impl Format for Json {
    fn format(id: i64) -> String {
        format!("{{\"id\":{id}}}")
    }
}

impl Format for Xml {
    fn format(id: i64) -> String {
        format!("<id>{id}</id>")
    }
}

#[cached(resource = "views", op = "view", skip(cache), cache = cache)]
async fn view<F: Format>(cache: &Cache, id: i64) -> String {
    F::format(id)
}

#[cached(resource = "views", skip(cache, source), cache = cache)]
async fn from_source<S: Fn(i64) -> String>(cache: &Cache, source: S, id: i64) -> String {
    source(id)
}

#[tokio::test]
async fn calls_with_other_types_have_other_keys() {
    let cache = Cache::new(CacheConfig::default().local_mb(4)).await;
    assert_eq!(view::<Json>(&cache, 1).await, "{\"id\":1}");
    assert_eq!(view::<Xml>(&cache, 1).await, "<id>1</id>");
    // What only stands in the type of a parameter that is left out is left out with it.
    let key = key_of(from_source(&cache, |id| id.to_string(), 1));
    assert_eq!(key.expect("a key").kind(), EntryKind::Entity);
}

// What is told of a batch.

impl Shop {
    #[cached(resource = "shelves", batch = names, cache = self.cache)]
    async fn shelves(&self, names: &[String]) -> HashMap<String, usize> {
        names.iter().map(|it| (it.clone(), it.len())).collect()
    }
}

/// Clients choose ids, and proxies answer `502` to long headers.
#[tokio::test]
async fn a_batch_names_its_first_keys() {
    let shop = shop().await;
    let named = async |length: usize| {
        let names: Vec<_> = (0..9).map(|n: u8| n.to_string().repeat(length)).collect();
        let (_, outcomes) = observe(shop.shelves(&names)).await;
        outcomes[0].key.clone()
    };
    let (short, long, longest) = (named(1).await, named(150).await, named(600).await);
    assert_eq!(short.split(' ').count(), 9, "{short}");
    assert!(short.starts_with("shelves:0 shelves:1 ") && short.ends_with(" shelves:7 .."));
    for keys in [long, longest] {
        assert!(keys.len() <= 512 && keys.ends_with(" .."), "{keys}");
        assert!(keys.starts_with("shelves:000"), "{keys}");
    }
}
