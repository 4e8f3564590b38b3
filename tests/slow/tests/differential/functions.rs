//! The same calls of annotated functions, with and without a cache: every shape that is returned,
//! in every codec.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cache_runtime::testing::TestCache;
use cache_runtime::{Cache, CacheConfig, Encoded, RedisConfig, cached, invalidates};
use cache_tests::RedisServer;
use fastrand::Rng;
use serde::{Deserialize, Serialize};

use crate::{seed, sequences};

const LENGTH: usize = 60;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Item {
    id: i64,
    name: String,
    price: f64,
    note: Option<String>,
    state: State,
    parts: Vec<(u16, char)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum State {
    New,
    Sold { times: u32 },
    Gone(i8),
}

/// An argument with parts of many kinds.
#[derive(Clone, Debug, Serialize)]
struct Query<'a> {
    prefix: Option<&'a str>,
    states: &'a [State],
    above: f64,
    weights: BTreeMap<u8, i8>,
}

#[derive(Clone, Debug, PartialEq)]
struct Refused(i64);

/// One process: rows of its own, and its cache.
#[derive(Clone)]
struct Service {
    cache: Cache,
    rows: Arc<Mutex<BTreeMap<i64, Item>>>,
}

impl Service {
    fn new(cache: Cache) -> Self {
        Self {
            cache,
            rows: Arc::default(),
        }
    }

    fn with<T>(&self, look: impl FnOnce(&mut BTreeMap<i64, Item>) -> T) -> T {
        look(&mut self.rows.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn all(&self) -> Vec<Item> {
        self.with(|rows| rows.values().cloned().collect())
    }

    #[cached(resource = "items", cache = self.cache)]
    async fn get(&self, id: i64) -> Option<Item> {
        self.with(|rows| rows.get(&id).cloned())
    }

    #[cached(resource = "items", batch = ids, cache = self.cache)]
    async fn many(&self, ids: &[i64]) -> HashMap<i64, Item> {
        self.with(|rows| {
            let found = ids.iter().filter_map(|id| rows.get(id));
            found.map(|item| (item.id, item.clone())).collect()
        })
    }

    #[cached(resource = "items", op = "list", cache = self.cache, codec = "msgpack")]
    async fn list(&self, skip: usize, limit: u8) -> Result<Vec<Item>, Refused> {
        if limit == 0 {
            return Err(Refused(0));
        }
        Ok(self
            .all()
            .into_iter()
            .skip(skip)
            .take(limit.into())
            .collect())
    }

    #[cached(resource = "items", op = "names", cache = self.cache, codec = "postcard", version = 1)]
    async fn names(&self, of: State) -> Arc<BTreeMap<i64, String>> {
        let all = self.all().into_iter().filter(|item| item.state == of);
        Arc::new(all.map(|item| (item.id, item.name)).collect())
    }

    #[cached(resource = "items", op = "search", cache = self.cache)]
    async fn search(&self, query: &Query<'_>) -> Vec<(i64, Option<String>)> {
        let found = self.all().into_iter().filter(|item| {
            query
                .prefix
                .is_none_or(|prefix| item.name.starts_with(prefix))
                && query.states.contains(&item.state)
                && item.price > query.above
        });
        let weight = |id: i64| u8::try_from(id).ok().and_then(|id| query.weights.get(&id));
        found
            .map(|item| {
                (
                    item.id + weight(item.id).map_or(0, |w| i64::from(*w)),
                    item.note,
                )
            })
            .collect()
    }

    #[cached(resource = "items", op = "stock", cache = self.cache, codec = "msgpack")]
    async fn stock(&self, (from, to): (i64, i64)) -> Result<Option<(u128, f32, char)>, Refused> {
        if from > to {
            return Err(Refused(from));
        }
        let range = self.with(|rows| rows.range(from..=to).count());
        let first = self.with(|rows| rows.range(from..=to).next().map(|(id, _)| *id));
        Ok(first.map(|id| (u128::MAX - range as u128, id as f32 / 3.0, '\u{1F980}')))
    }

    #[cached(resource = "items", op = "raw", cache = self.cache)]
    async fn raw(&self, limit: Option<u8>) -> Result<Encoded<Vec<Item>>, Refused> {
        let limit = limit.map_or(usize::MAX, usize::from);
        let items: Vec<Item> = self.all().into_iter().take(limit).collect();
        Encoded::new(&items).map_err(|_| Refused(-1))
    }

    #[cached(resource = "items", op = "bytes", cache = self.cache, codec = "postcard", version = 1)]
    async fn bytes(&self, of: &str, times: [u8; 2]) -> (Vec<u8>, Duration, ()) {
        let sold = self.with(|rows| rows.len()) as u64;
        let bytes = of.bytes().map(|byte| byte.wrapping_mul(times[0]));
        (bytes.collect(), Duration::new(sold, times[1].into()), ())
    }

    /// Made of another.
    #[cached(resource = "totals", depends("items"), op = "total", cache = self.cache)]
    async fn total(&self, of: Vec<i64>) -> f64 {
        let mut total = 0.0;
        for id in of {
            total += self.get(id).await.map_or(0.5, |item| item.price);
        }
        total
    }

    #[invalidates("items", id = item.id, cache = self.cache)]
    async fn put(&self, item: Item) -> Option<Item> {
        self.with(|rows| rows.insert(item.id, item))
    }

    #[invalidates("items", id = id, cache = self.cache, rejected = |_| true)]
    async fn remove(&self, id: i64) -> Result<(), Refused> {
        self.with(|rows| rows.remove(&id))
            .map(drop)
            .ok_or(Refused(id))
    }

    #[invalidates("items", cache = self.cache)]
    async fn raise(&self, by: f64) -> usize {
        self.with(|rows| {
            rows.values_mut().for_each(|item| item.price += by);
            rows.len()
        })
    }
}

/// One call, decided before it is made.
#[derive(Clone, Debug)]
enum Call {
    Get(i64),
    Many(Vec<i64>),
    List(usize, u8),
    Names(State),
    Search(Option<&'static str>, Vec<State>, f64, BTreeMap<u8, i8>),
    Stock(i64, i64),
    Raw(Option<u8>),
    Bytes(&'static str, [u8; 2]),
    Total(Vec<i64>),
    Put(Item),
    Remove(i64),
    Raise(f64),
    Forget,
}

impl Call {
    fn random(rng: &mut Rng) -> Self {
        let id = |rng: &mut Rng| rng.i64(1..6);
        let ids = |rng: &mut Rng| (0..rng.usize(..5)).map(|_| rng.i64(1..7)).collect();
        match rng.u32(..20) {
            0..3 => Self::Get(id(rng)),
            3 => Self::Many(ids(rng)),
            4..6 => Self::List(rng.usize(..3), rng.u8(..3)),
            6 => Self::Names(state(rng)),
            7..10 => {
                let prefix = [None, Some(""), Some("a"), Some("a\0")][rng.usize(..4)];
                let states = (0..rng.usize(1..4)).map(|_| state(rng)).collect();
                let weights = (0..rng.u8(..3)).map(|id| (id, rng.i8(-1..2))).collect();
                Self::Search(prefix, states, [-0.0, 0.0, 1.5][rng.usize(..3)], weights)
            }
            10..12 => Self::Stock(id(rng), id(rng)),
            12 => Self::Raw([None, Some(0), Some(2)][rng.usize(..3)]),
            13 => Self::Bytes(["", "a", "ab"][rng.usize(..3)], [rng.u8(..3), rng.u8(..2)]),
            14 => Self::Total(ids(rng)),
            15..18 => Self::Put(item(rng)),
            18 => Self::Remove(id(rng)),
            _ if rng.bool() => Self::Raise(0.1),
            _ => Self::Forget,
        }
    }

    /// What it returned, in words.
    async fn run(&self, service: &Service) -> String {
        match self.clone() {
            Self::Get(id) => format!("{:?}", service.get(id).await),
            Self::Many(ids) => {
                let found: BTreeMap<i64, Item> = service.many(&ids).await.into_iter().collect();
                format!("{found:?}")
            }
            Self::List(skip, limit) => format!("{:?}", service.list(skip, limit).await),
            Self::Names(of) => format!("{:?}", service.names(of).await),
            Self::Search(prefix, states, above, weights) => {
                let query = Query {
                    prefix,
                    states: &states,
                    above,
                    weights,
                };
                format!("{:?}", service.search(&query).await)
            }
            Self::Stock(from, to) => format!("{:?}", service.stock((from, to)).await),
            Self::Raw(limit) => {
                let raw = service.raw(limit).await;
                format!("{:?}", raw.map(|raw| raw.into_bytes()))
            }
            Self::Bytes(of, times) => format!("{:?}", service.bytes(of, times).await),
            Self::Total(of) => format!("{:?}", service.total(of).await),
            Self::Put(item) => format!("{:?}", service.put(item).await),
            Self::Remove(id) => format!("{:?}", service.remove(id).await),
            Self::Raise(by) => format!("{:?}", service.raise(by).await),
            Self::Forget => {
                // Says how many entries there were, which differs.
                let _ = service.cache.clear_all().await;
                String::new()
            }
        }
    }
}

fn state(rng: &mut Rng) -> State {
    match rng.u32(..3) {
        0 => State::New,
        1 => State::Sold {
            times: rng.u32(..2),
        },
        _ => State::Gone(-1),
    }
}

fn item(rng: &mut Rng) -> Item {
    Item {
        id: rng.i64(1..6),
        name: ["", "a", "a\0b", "\"ü\u{1F980}\\"][rng.usize(..4)].into(),
        price: [0.0, -0.0, 0.1, 1e300, f64::MIN_POSITIVE][rng.usize(..5)],
        note: [None, Some(""), Some("null")][rng.usize(..3)].map(str::to_owned),
        state: state(rng),
        parts: (0..rng.u16(..3)).map(|n| (n * 9_999, '\n')).collect(),
    }
}

#[tokio::test]
async fn annotated_functions_return_the_same() {
    let server = RedisServer::start();
    let over = |namespace: &str| {
        let config = CacheConfig::default().redis(RedisConfig::at("127.0.0.1", server.port()));
        config
            .namespace(namespace)
            .command_budget(Duration::from_secs(5))
    };
    let test = TestCache::new();
    let caches = [
        ("test", test.clone()),
        (
            "memory",
            Cache::new(CacheConfig::default().local_mb(8)).await,
        ),
        ("redis", Cache::new(over("one:")).await),
        ("both", Cache::new(over("two:").local_mb(8)).await),
    ];
    for round in 0..sequences(40) as u64 {
        let mut rng = Rng::with_seed(seed() ^ (round << 32));
        let calls: Vec<Call> = (0..LENGTH).map(|_| Call::random(&mut rng)).collect();
        let off = Service::new(Cache::new(CacheConfig::default()).await);
        let mut right = Vec::new();
        for call in &calls {
            right.push(call.run(&off).await);
        }
        for (name, cache) in &caches {
            // The rows begin anew, and so does what is known of them.
            let cleared = cache.clear_all().await;
            assert!(cleared.is_ok(), "{cleared:?}");
            let service = Service::new(cache.clone());
            for (at, call) in calls.iter().enumerate() {
                let shown = call.run(&service).await;
                assert_eq!(
                    shown,
                    right[at],
                    "{name}, sequence {round} of seed {}: {call:?} after {:#?}",
                    seed(),
                    &calls[..at]
                );
            }
        }
    }
    for (name, cache) in &caches {
        let counters = cache.get_stats().await.counters;
        assert!(counters.hits > 100, "{name}: {counters:?}");
    }
}
