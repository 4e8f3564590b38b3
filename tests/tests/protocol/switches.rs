//! Reads that an operator has switched off, and what is said to those who subscribe to events.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cache_runtime::{BypassReason, Cache, EventKind, Status, cached, invalidates, observe};
use cache_tests::{RedisServer, eventually};

use crate::{over, over_each_store, patient};

const SOON: Duration = Duration::from_secs(20);

/// A table of one number, which counts how often it is read.
#[derive(Clone)]
struct Table {
    cache: Cache,
    row: Arc<AtomicU32>,
    reads: Arc<AtomicU32>,
}

impl Table {
    fn new(cache: &Cache) -> Self {
        Self {
            cache: cache.clone(),
            row: Arc::default(),
            reads: Arc::default(),
        }
    }

    /// The same rows, read through another cache.
    fn through(&self, cache: &Cache) -> Self {
        Self {
            cache: cache.clone(),
            ..self.clone()
        }
    }

    #[cached(resource = "rows", ttl = 300, cache = self.cache)]
    async fn get(&self, id: u32) -> u32 {
        let _ = id;
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.row.load(Ordering::SeqCst)
    }

    #[cached(resource = "rows", op = "sum:all", ttl = 300, cache = self.cache)]
    async fn sum(&self) -> u32 {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.row.load(Ordering::SeqCst)
    }

    #[invalidates("rows", id = id, cache = self.cache)]
    async fn set(&self, id: u32, value: u32) {
        let _ = id;
        self.row.store(value, Ordering::SeqCst);
    }

    async fn status(&self) -> Status {
        let (_, outcomes) = observe(self.get(1)).await;
        outcomes[0].status
    }
}

const OFF: Status = Status::Bypass(BypassReason::SwitchedOff);

over_each_store! {
    switched_off_reads_bypass_the_cache_and_are_not_stale_afterwards;
    one_function_is_switched_off_alone;
    events_tell_of_invalidations_and_switches;
    manual_reads_are_switched_off_too;
}

async fn switched_off_reads_bypass_the_cache_and_are_not_stale_afterwards(pair: crate::Pair) {
    let table = Table::new(&pair.a);
    assert_eq!(table.get(1).await, 0);
    assert!(matches!(table.status().await, Status::Hit { .. }));
    pair.a.disable("rows");
    assert_eq!(table.status().await, OFF);
    table.set(1, 7).await;
    assert_eq!(table.get(1).await, 7);
    pair.a.enable("rows");
    assert_eq!(table.get(1).await, 7, "the invalidation went on");
    assert!(matches!(table.status().await, Status::Hit { .. }));
}

async fn one_function_is_switched_off_alone(pair: crate::Pair) {
    let table = Table::new(&pair.a);
    table.sum().await;
    table.get(1).await;
    pair.a.disable("rows:sum:all");
    let (_, outcomes) = observe(table.sum()).await;
    assert_eq!(outcomes[0].status, OFF);
    assert!(matches!(table.status().await, Status::Hit { .. }));
    pair.a.enable("rows:sum:all");
    pair.a.disable("rows:get");
    assert_eq!(table.status().await, OFF);
    pair.a.disable("no such name");
    assert_eq!(pair.a.switched_off().here, ["rows:get"]);
}

async fn manual_reads_are_switched_off_too(pair: crate::Pair) {
    let cache = &pair.a;
    cache.set("rows:1", &1u32, 60).await.expect("stored");
    cache.disable("*");
    assert_eq!(cache.get::<u32>("rows:1").await, None);
    let loaded = cache.get_or_load("rows:1", 60, async || Ok::<u32, ()>(2));
    assert_eq!(loaded.await, Ok(2));
    cache
        .set("rows:1", &3u32, 60)
        .await
        .expect("a write goes on");
    cache.enable("*");
    assert_eq!(cache.get::<u32>("rows:1").await, Some(3));
}

async fn events_tell_of_invalidations_and_switches(pair: crate::Pair) {
    let table = Table::new(&pair.a);
    let mut events = pair.a.events();
    table.set(1, 1).await;
    pair.a.disable("rows");
    let first = events.next_within(SOON).await.expect("an event");
    let EventKind::Invalidated {
        keys, dependencies, ..
    } = first.kind
    else {
        panic!("{first:?}");
    };
    assert_eq!(keys, ["rows:1"]);
    // The row's own generation, for those that depend on it.
    assert_eq!(dependencies, ["rows~derived", "rows~row:1"]);
    let second = events.next_within(SOON).await.expect("an event");
    let switched = EventKind::Switched {
        target: "rows".into(),
        enabled: false,
        everywhere: false,
    };
    assert_eq!(second.kind, switched);
    pair.a.shutdown().await;
    assert_eq!(
        events.next_within(SOON).await,
        None,
        "it ends with the cache"
    );
    assert_eq!(events.lost(), 0);
}

#[tokio::test]
async fn all_processes_learn_of_a_switch_in_redis() {
    let server = RedisServer::start();
    let a = Cache::new(over(&server)).await;
    let b = Cache::new(over(&server).local_mb(4)).await;
    let here = Table::new(&a);
    let there = here.through(&b);
    here.get(1).await;
    there.get(1).await;
    let mut events = b.events();
    a.disable_everywhere("rows").await.expect("switched");
    assert_eq!(here.status().await, OFF);
    let learnt = events.next_within(SOON).await.expect("it hears of it");
    assert!(matches!(
        learnt.kind,
        EventKind::Switched {
            everywhere: true,
            ..
        }
    ));
    assert_eq!(there.status().await, OFF);

    let late = Cache::new(over(&server)).await;
    let late_table = here.through(&late);
    assert_eq!(
        late_table.status().await,
        OFF,
        "one that starts later knows"
    );

    here.set(1, 5).await;
    b.enable_everywhere("rows").await.expect("switched");
    assert_eq!(there.get(1).await, 5, "nothing stale is served");
    eventually(SOON, async || {
        here.status().await != OFF && late_table.status().await != OFF
    })
    .await;
    assert_eq!((here.get(1).await, late_table.get(1).await), (5, 5));
    assert!(a.disable_everywhere("no name").await.is_err());
}

/// As an operator flushes Redis, or a replica takes over that knows of nothing.
#[tokio::test]
async fn switches_stay_off_when_redis_loses_them() {
    let server = RedisServer::start();
    let a = Cache::new(over(&server)).await;
    let table = Table::new(&a);
    a.disable_everywhere("rows").await.expect("switched");
    server.cli(&["FLUSHALL"]);
    eventually(SOON, async || server.cli(&["GET", "@off"]) == "rows").await;
    assert_eq!(table.status().await, OFF);
    let late = Cache::new(over(&server)).await;
    assert_eq!(table.through(&late).status().await, OFF);
    // What was switched on is on, whoever had it off.
    late.enable_everywhere("rows").await.expect("switched");
    eventually(SOON, async || table.status().await != OFF).await;
    assert_eq!(server.cli(&["GET", "@off"]), "");
    assert_eq!(server.cli(&["EXISTS", "@off"]), "1");
}

/// Each process reads the list with its health check, so the next one is enough. It comes about
/// once a second; how soon exactly is the machine's.
#[tokio::test]
async fn a_process_learns_of_a_switch_with_its_next_health_check() {
    let server = RedisServer::start();
    let cache = Cache::new(over(&server)).await;
    let table = Table::new(&cache);
    assert_eq!(table.get(1).await, 0);
    // Nobody tells this process, and nobody else sends `GET`.
    for (list, enabled) in [("rows", false), ("", true), ("rows", false)] {
        let mut events = cache.events();
        server.cli(&["SET", "@off", list]);
        let before = server.calls("get");
        let event = events.next_within(SOON).await.expect("it hears of it");
        let switched = EventKind::Switched {
            target: "rows".into(),
            enabled,
            everywhere: true,
        };
        assert_eq!(event.kind, switched);
        // One is enough. Others come while this test asks for their number.
        let reads = server.calls("get") - before;
        assert!(reads <= 4, "{reads} reads of the list");
    }
    let before = server.calls("get");
    eventually(SOON, async || server.calls("get") >= before + 5).await;
}

/// A list that no process would read is not written, and the caller is told.
#[tokio::test]
async fn a_list_of_switches_that_is_too_long_is_refused() {
    let server = RedisServer::start();
    let cache = Cache::new(over(&server)).await;
    let table = Table::new(&cache);
    let name = |number: u32| format!("r{number}:{}", "x".repeat(150));
    let mut list = String::new();
    for number in 0.. {
        let more = name(number);
        if list.len() + more.len() + 1 > 65_536 {
            break;
        }
        if number > 0 {
            list.push('\n');
        }
        list.push_str(&more);
    }
    server.cli(&["SET", "@off", &list]);
    let refused = cache.disable_everywhere(&name(9_999)).await;
    let error = refused.expect_err("nobody would read it").to_string();
    assert!(error.contains("65536 bytes"), "{error}");
    assert_eq!(server.cli(&["STRLEN", "@off"]), list.len().to_string());
    assert!(!matches!(table.status().await, OFF));
    // One fewer makes room again.
    cache.enable_everywhere(&name(0)).await.expect("switched");
    cache.disable_everywhere("rows").await.expect("switched");
    assert_eq!(table.status().await, OFF);
}

#[tokio::test]
async fn a_store_of_one_process_can_not_be_switched_for_all() {
    let cache = Cache::new(patient().local_mb(1)).await;
    let refused = cache.disable_everywhere("rows").await;
    assert!(refused.is_err_and(|error| error.to_string().contains("one process")));
}
