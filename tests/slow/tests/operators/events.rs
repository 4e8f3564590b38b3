//! Events: each kind when it happens, few of them, and as the book describes them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cache_runtime::metrics;
use cache_runtime::testing::TestCache;
use cache_runtime::{Cache, CacheConfig, Circuit, EventKind, Events, RedisConfig, cached};
use cache_tests::{RedisServer, test_timeout};
use serde_json::{Value, json};

use crate::SOON;
use crate::recorder::Figures;

fn config(server: &RedisServer) -> CacheConfig {
    CacheConfig::default()
        .redis(RedisConfig::at("127.0.0.1", server.port()))
        .command_budget(Duration::from_secs(5))
}

/// Takes events until this holds for those that have come.
async fn until(
    events: &mut Events,
    seen: &mut Vec<EventKind>,
    is_done: impl Fn(&[EventKind]) -> bool,
) {
    let reading = async {
        while !is_done(seen) {
            let event = events.next().await.expect("the cache is on");
            seen.push(event.kind);
        }
    };
    let read = tokio::time::timeout(test_timeout(SOON), reading).await;
    assert!(read.is_ok(), "it has not come: {seen:?}");
}

fn is_opening(kind: &EventKind) -> bool {
    matches!(
        kind,
        EventKind::CircuitChanged {
            from: Circuit::Closed,
            ..
        }
    )
}

fn is_closing(kind: &EventKind) -> bool {
    matches!(
        kind,
        EventKind::CircuitChanged {
            to: Circuit::Closed,
            ..
        }
    )
}

fn is_flush(kind: &EventKind) -> bool {
    matches!(kind, EventKind::LocalFlushed { flushes } if *flushes >= 1)
}

fn is_pending(kind: &EventKind) -> bool {
    matches!(kind, EventKind::InvalidationPending { .. })
}

fn is_invalidated(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Invalidated { .. })
}

/// Redis goes and comes back: the circuit, the local entries, and what waits.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_told_from_its_beginning_to_its_end() {
    const WRITES: u32 = 200;
    let mut server = RedisServer::start();
    let cache = Cache::new(config(&server).local_mb(4)).await;
    let mut events = cache.events();
    let mut seen = Vec::new();
    let began = Instant::now();
    server.stop();
    for id in 0..WRITES {
        let _ = cache.invalidate("rows", &id).await;
    }
    until(&mut events, &mut seen, |seen| {
        seen.iter().any(is_pending) && seen.iter().any(is_opening)
    })
    .await;
    server.restart();
    until(&mut events, &mut seen, |seen| {
        let mut after = seen.iter().skip_while(|kind| !is_opening(kind));
        after.any(is_closing) && seen.iter().any(is_invalidated) && seen.iter().any(is_flush)
    })
    .await;

    let opened = seen.iter().find_map(|kind| match kind {
        EventKind::CircuitChanged { to, reason, .. } if is_opening(kind) => Some((*to, reason)),
        _ => None,
    });
    let (to, reason) = opened.expect("the circuit has opened");
    assert_ne!(to, Circuit::Closed);
    let is_said = reason.as_ref().is_some_and(|reason| !reason.is_empty());
    assert!(is_said, "{seen:?}");
    // However many writes there are: when it begins, and once a second.
    let pending = seen.iter().filter(|kind| is_pending(kind)).count() as u64;
    let at_most = began.elapsed().as_secs() + 2;
    assert!((1..=at_most).contains(&pending), "{pending}, not {at_most}");
    let waiting = seen.iter().find_map(|kind| match kind {
        EventKind::InvalidationPending { waiting } => Some(*waiting),
        _ => None,
    });
    assert!(waiting.is_some_and(|waiting| waiting >= 1));
}

/// What is removed by its key or a pattern does not wait in the queue, and is told all the same.
#[tokio::test(flavor = "multi_thread")]
async fn removals_by_hand_are_told_and_counted() {
    let server = RedisServer::start();
    let cache = Cache::new(config(&server).namespace("shop")).await;
    let figures = Figures::default();
    let told = |labels: &[_]| {
        figures.publish(&cache);
        figures.sum(metrics::INVALIDATION_OUTCOMES, labels)
    };
    cache.set("rows:1", &1u32, 60).await.expect("stored");
    let mut events = cache.events();
    let mut seen = Vec::new();
    assert!(cache.delete("rows:1").await.expect("removed"));
    cache.invalidate_pattern("rows:list:*").await.expect("done");
    until(&mut events, &mut seen, |seen| seen.len() == 2).await;
    let told_of = |kind: &EventKind| match kind {
        EventKind::Invalidated {
            keys, everything, ..
        } => (keys.clone(), *everything),
        other => panic!("{other:?}"),
    };
    let told_of: Vec<_> = seen.iter().map(told_of).collect();
    let one = |key: &str| (vec![key.to_owned()], false);
    assert_eq!(told_of, [one("shop:rows:1"), one("shop:rows:list:*")]);
    assert_eq!(told(&[("outcome", "delivered")]), 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_is_told() {
    let server = RedisServer::start();
    let cache = Cache::new(config(&server).local_mb(4)).await;
    let mut events = cache.events();
    server.cli(&["FLUSHALL"]);
    let mut seen = Vec::new();
    until(&mut events, &mut seen, |seen| seen.iter().any(is_flush)).await;
}

/// Prices from a source that fails.
struct Prices {
    cache: Cache,
    fails: Arc<AtomicBool>,
}

impl Prices {
    #[cached(resource = "prices", ttl = 10, stale_if_error = 1000, cache = self.cache)]
    async fn get(&self, id: u32) -> Result<u32, String> {
        match self.fails.load(Ordering::SeqCst) {
            true => Err("the source is away".into()),
            false => Ok(id),
        }
    }
}

/// The counts of the events about stale hits that have come.
fn stale_counts(events: &mut Events) -> Vec<u64> {
    let next = std::iter::from_fn(|| events.try_next());
    let counts = next.filter_map(|event| match event.kind {
        EventKind::StaleServed {
            key,
            resource,
            reason,
            past_ms,
            count,
        } => {
            assert_eq!((key.as_str(), resource.as_str()), ("prices:1", "prices"));
            assert_eq!(reason, "load-failed");
            assert!(past_ms >= 5_000, "{past_ms}");
            Some(count)
        }
        _ => None,
    });
    counts.collect()
}

/// A thousand hits on an expired entry are told as such, in a few events.
#[tokio::test]
async fn many_stale_hits_are_told_in_few_events() {
    const HITS: u64 = 1_000;
    let cache = TestCache::new();
    let prices = Prices {
        cache: cache.clone(),
        fails: Arc::default(),
    };
    let mut events = cache.events();
    assert_eq!(prices.get(1).await, Ok(1));
    prices.fails.store(true, Ordering::SeqCst);
    cache.advance(Duration::from_secs(16));
    let began = Instant::now();
    for _ in 0..HITS {
        assert_eq!(prices.get(1).await, Ok(1));
    }
    let mut counts = stale_counts(&mut events);
    cache_tests::eventually(SOON, async || {
        counts.extend(stale_counts(&mut events));
        counts.iter().sum::<u64>() == HITS
    })
    .await;
    let at_most = began.elapsed().as_secs() as usize + 2;
    assert!(counts.len() <= at_most, "{counts:?}");
}

/// The table of the book names each kind, with the fields that it has in JSON.
#[test]
fn the_book_names_each_kind_with_its_fields() {
    let finding = json!({
        "key": "users:1", "resource": "users", "op": "get", "verdict": "stale",
        "age_ms": 1, "last_invalidated_ms": null,
    });
    let kinds = [
        EventKind::Invalidated {
            keys: Vec::new(),
            dependencies: Vec::new(),
            everything: false,
            took_us: 1,
        },
        EventKind::InvalidationPending { waiting: 1 },
        EventKind::StaleServed {
            key: "users:1".into(),
            resource: "users".into(),
            past_ms: 1,
            reason: "load-slow",
            count: 1,
        },
        EventKind::CircuitChanged {
            from: Circuit::Closed,
            to: Circuit::Open,
            reason: None,
        },
        EventKind::LocalFlushed { flushes: 1 },
        EventKind::Switched {
            target: "users".into(),
            enabled: false,
            everywhere: true,
        },
        EventKind::Audited(serde_json::from_value(finding).expect("a finding")),
    ];
    let text = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/book/src/switches.md"
    );
    let text = std::fs::read_to_string(text).expect("the page");
    let (_, table) = text.split_once("| `event` | fields |").expect("a table");
    let described: BTreeSet<(String, BTreeSet<String>)> = table
        .lines()
        .skip(2)
        .map_while(|line| line.strip_prefix("| `"))
        .map(|row| {
            let mut columns = row.split(" | ");
            let name = columns.next().expect("a name").trim_matches('`');
            let fields = columns.next().expect("fields").split(", ");
            let fields = fields.map(|field| field.trim_matches('`').to_owned());
            (name.to_owned(), fields.collect())
        })
        .collect();
    let told = kinds.iter().map(|kind| {
        let Ok(Value::Object(mut fields)) = serde_json::to_value(kind) else {
            panic!("no object: {kind:?}");
        };
        let event = fields.remove("event").expect("a name");
        let name = event.as_str().expect("a name").to_owned();
        (name, fields.into_iter().map(|(field, _)| field).collect())
    });
    assert_eq!(described, told.collect());
}
