//! Log lines of single calls, and spans as they arrive in OpenTelemetry.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cache_runtime::testing::TestCache;
use cache_runtime::{Cache, CacheConfig, Lookup, RedisConfig, cached, invalidates};
use cache_tests::{RedisServer, eventually};
use opentelemetry::trace::{SpanId, SpanKind, Status, TracerProvider as _};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tokio::sync::Semaphore;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Instrument as _, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

/// The level of the log is one for the process: these tests run one after the other, in a program
/// of their own.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn config(server: &RedisServer) -> CacheConfig {
    CacheConfig::default()
        .redis(RedisConfig::at("127.0.0.1", server.port()))
        .command_budget(Duration::from_secs(5))
}

struct Users {
    cache: Cache,
}

impl Users {
    #[cached(resource = "users", ttl = 60, cache = self.cache)]
    async fn get(&self, id: u32) -> Result<u32, String> {
        tracing::debug!("inside the body");
        Ok(id)
    }

    #[cached(resource = "users", op = "list", when = limit > 99, cache = self.cache)]
    async fn list(&self, limit: u32) -> u32 {
        limit
    }

    #[cached(resource = "users", batch = ids, cache = self.cache)]
    async fn many(&self, ids: &[u32]) -> BTreeMap<u32, u32> {
        tracing::debug!("inside the batch");
        ids.iter().map(|id| (*id, *id)).collect()
    }

    #[invalidates("users", id = id, cache = self.cache)]
    async fn rename(&self, id: u32) {
        let _ = id;
    }
}

type Line = BTreeMap<String, String>;

/// Keeps the fields of the events of one target.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<(String, Line)>>>);

struct Fields<'l>(&'l mut Line);

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        *metadata.level() <= Level::DEBUG
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::new();
        event.record(&mut Fields(&mut line));
        let target = event.metadata().target().to_owned();
        self.0.lock().expect("whole").push((target, line));
    }
}

impl Lines {
    fn of(&self, target: &str) -> Vec<Line> {
        let all = self.0.lock().expect("whole");
        let all = all.iter().filter(|(of, _)| of == target);
        all.map(|(_, line)| line.clone()).collect()
    }

    /// The values of a field, of all events that have it.
    fn values(&self, field: &str) -> Vec<String> {
        let all = self.0.lock().expect("whole");
        all.iter()
            .filter_map(|(_, line)| line.get(field).cloned())
            .collect()
    }
}

#[tokio::test]
async fn each_call_is_one_event_with_fields() {
    let _alone = ALONE.lock().await;
    let server = RedisServer::start();
    let lines = Lines::default();
    let subscriber = tracing_subscriber::registry().with(lines.clone());
    let _guard = tracing::subscriber::set_default(subscriber);
    // Longer than a busy machine keeps a heartbeat waiting.
    let settings = config(&server)
        .local_mb(4)
        .local_max_staleness(Duration::from_secs(10));
    let cache = Cache::new(settings).await;
    eventually(Duration::from_secs(30), async || {
        cache.get_stats().await.local.is_some_and(|it| it.serving)
    })
    .await;
    let users = Users {
        cache: cache.clone(),
    };
    users.get(1).await.expect("loaded");
    users.get(1).await.expect("found");
    users.get(1).await.expect("found here");
    users.list(3).await;
    users.many(&[2, 1, 3]).await;
    users.many(&[2, 3]).await;
    users.rename(1).await;
    cache.shutdown().await;

    let calls = lines.of("cache_runtime::call");
    let fields = |line: &Line| {
        ["key", "op", "outcome", "tier", "why"]
            .map(|name| line.get(name).map_or("-", String::as_str).to_owned())
    };
    let told: Vec<_> = calls.iter().map(fields).collect();
    assert_eq!(told.len(), 6, "{told:#?}");
    assert_eq!(told[0], ["users:1", "get", "miss", "redis", "stored"]);
    assert_eq!(told[1], ["users:1", "get", "hit", "redis", "-"]);
    assert_eq!(told[2], ["users:1", "get", "hit", "local", "-"]);
    assert_eq!(told[3][1..], ["list", "bypass", "redis", "condition"]);
    let batch = "users:2 users:1 users:3";
    assert_eq!(told[4], [batch, "many", "miss", "redis", "stored"]);
    assert_eq!(told[5][..3], ["users:2 users:3", "many", "hit"]);
    for line in [&calls[0], &calls[4]] {
        for time in ["lookup_us", "load_us", "fill_us", "total_us"] {
            let micros = line.get(time).and_then(|it| it.parse::<u64>().ok());
            assert!(micros.is_some_and(|it| it > 0), "{time} in {line:?}");
        }
    }
    assert!(calls[1].contains_key("lookup_us") && !calls[1].contains_key("load_us"));
}

#[tokio::test]
async fn each_manual_operation_is_one_event_too() {
    let _alone = ALONE.lock().await;
    let server = RedisServer::start();
    let lines = Lines::default();
    let subscriber = tracing_subscriber::registry().with(lines.clone());
    let _guard = tracing::subscriber::set_default(subscriber);
    let cache = Cache::new(config(&server)).await;
    let get = async || cache.get::<u32>("rates:1").await;
    assert_eq!(get().await, None);
    cache.set("rates:1", &7u32, 60).await.expect("stored");
    assert_eq!(get().await, Some(7));
    let refused = cache.set("rates:1", &7u32, Duration::ZERO).await;
    assert!(refused.is_err());
    for key in ["rates:1", "rates:2"] {
        match cache.lookup::<u32>(key).await.expect("a key") {
            Lookup::Hit(rate) => assert_eq!(rate, 7),
            Lookup::Miss(lease) => assert!(lease.fill(&8).await),
        }
    }
    let loaded = cache.get_or_load("rates:3", 60, async || Ok::<u32, ()>(9));
    assert_eq!(loaded.await, Ok(9));
    assert_eq!(cache.delete("rates:1").await.ok(), Some(true));
    assert_eq!(cache.delete("rates:1").await.ok(), Some(false));
    cache.invalidate_pattern("rates:*").await.expect("removed");
    cache.disable("rates");
    assert_eq!(get().await, None);
    let missed = cache.lookup::<u32>("rates:1").await.expect("a key");
    assert!(matches!(missed, Lookup::Miss(_)));

    let told = lines.of("cache_runtime::call");
    let told: Vec<_> = told
        .iter()
        .map(|line| {
            ["key", "by_hand", "outcome", "why"].map(|it| line.get(it).map_or("-", |it| it))
        })
        .collect();
    let of = |operation, outcome, why| ["rates:1", operation, outcome, why];
    assert_eq!(
        told,
        [
            of("get", "miss", "not-stored"),
            of("set", "stored", "-"),
            of("get", "hit", "-"),
            of("set", "refused", "unstorable"),
            of("lookup", "hit", "-"),
            ["rates:2", "lookup", "miss", "not-stored"],
            ["rates:2", "fill", "stored", "-"],
            ["rates:3", "get_or_load", "miss", "stored"],
            of("delete", "removed", "-"),
            of("delete", "absent", "-"),
            of("get", "bypass", "switched-off"),
            of("lookup", "bypass", "switched-off"),
        ]
    );
    let calls = lines.of("cache_runtime::call");
    for line in &calls {
        assert_eq!(
            (line["resource"].as_str(), line["tier"].as_str()),
            ("rates", "redis")
        );
        assert!(
            line.contains_key("total_us") && !line.contains_key("op"),
            "{line:?}"
        );
    }
    assert!(calls[2].contains_key("ttl_ms") && calls[2].contains_key("lookup_us"));
    let invalidated = lines.of("cache_runtime::invalidation");
    let keys: Vec<_> = invalidated
        .iter()
        .map(|line| line["keys"].as_str())
        .collect();
    assert_eq!(keys, [r#"["rates:1"]"#, r#"["rates:1"]"#, r#"["rates:*"]"#]);
}

/// A subscriber that wants events of `INFO` and above, and counts what it is asked and given.
#[derive(Clone, Default)]
struct Busy(Arc<AtomicUsize>);

impl Subscriber for Busy {
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        self.0.fetch_add(1, Ordering::SeqCst);
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Nothing is made for a log that nobody reads: no event, and no span.
#[tokio::test]
async fn a_log_that_is_off_is_given_nothing() {
    let _alone = ALONE.lock().await;
    let busy = Busy::default();
    let _guard = tracing::subscriber::set_default(busy.clone());
    let cache = Cache::new(CacheConfig::default().local_mb(4)).await;
    let users = Users {
        cache: cache.clone(),
    };
    let before = busy.0.load(Ordering::SeqCst);
    for _ in 0..3 {
        users.get(1).await.expect("loaded");
        users.many(&[1, 2]).await;
        users.list(3).await;
        users.rename(1).await;
        cache.set("users:9", &9u32, 60).await.expect("stored");
        cache.delete("users:9").await.expect("removed");
    }
    assert_eq!(busy.0.load(Ordering::SeqCst), before);
}

/// A price that is loaded through a gate, and whose source may fail.
struct Prices {
    cache: Cache,
    gate: Semaphore,
    fails: AtomicBool,
}

impl Prices {
    #[cached(resource = "prices", ttl = 10, stale_if_error = 1000, cache = self.cache)]
    async fn get(&self, id: u32) -> Result<u32, String> {
        self.gate.acquire().await.expect("open").forget();
        match self.fails.load(Ordering::SeqCst) {
            true => Err("the source is away".into()),
            false => Ok(id),
        }
    }
}

#[tokio::test]
async fn joined_calls_and_expired_entries_are_events_too() {
    let _alone = ALONE.lock().await;
    let lines = Lines::default();
    let subscriber = tracing_subscriber::registry().with(lines.clone());
    let _guard = tracing::subscriber::set_default(subscriber);
    let cache = TestCache::new();
    let prices = Prices {
        cache: cache.clone(),
        gate: Semaphore::new(0),
        fails: AtomicBool::new(false),
    };
    let let_through = async {
        let waiting = async || cache.functions().iter().any(|it| it.waiting == 1);
        eventually(Duration::from_secs(30), waiting).await;
        prices.gate.add_permits(1);
    };
    let (one, other, ()) = tokio::join!(prices.get(1), prices.get(1), let_through);
    assert_eq!((one, other), (Ok(1), Ok(1)));
    cache.advance(Duration::from_secs(16));
    prices.fails.store(true, Ordering::SeqCst);
    prices.gate.add_permits(1);
    assert_eq!(prices.get(1).await, Ok(1));

    let calls = lines.of("cache_runtime::call");
    let mut told: Vec<_> = calls
        .iter()
        .map(|line| ["key", "op", "outcome", "why"].map(|it| line.get(it).map_or("-", |it| it)))
        .collect();
    told[..2].sort_unstable();
    let of = |outcome, why| ["prices:1", "get", outcome, why];
    assert_eq!(
        told,
        [
            of("joined", "-"),
            of("miss", "stored"),
            of("stale", "load-failed")
        ]
    );
}

/// The whole program's, since invalidations are delivered on a thread of the cache's own.
#[tokio::test]
async fn spans_arrive_in_open_telemetry_with_links_from_the_writes() {
    let _alone = ALONE.lock().await;
    let mut server = RedisServer::start();
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let lines = Lines::default();
    let subscriber = tracing_subscriber::registry()
        .with(layer)
        .with(lines.clone());
    let dispatch = tracing::Dispatch::new(subscriber);
    // For the thread of the cache: it is the only test here that sets the default of all threads.
    tracing::dispatcher::set_global_default(dispatch).expect("nobody else has");
    let cache = Cache::new(config(&server)).await;
    let users = Users {
        cache: cache.clone(),
    };
    let request = tracing::info_span!("request");
    async {
        users.get(7).await.expect("loaded");
        users.many(&[8, 9]).await;
        users.rename(7).await;
    }
    .instrument(request)
    .await;
    let by_hand = tracing::info_span!("by hand");
    async {
        cache.delete("users:7").await.expect("removed");
        cache.invalidate_pattern("users:*").await.expect("removed");
    }
    .instrument(by_hand)
    .await;
    let hurried = config(&server).command_budget(Duration::from_millis(100));
    let hurried = Users {
        cache: Cache::new(hurried).await,
    };
    server.pause();
    assert_eq!(hurried.get(10).await, Ok(10), "it runs without the cache");
    server.resume();
    cache.shutdown().await;
    provider.force_flush().expect("exported");

    let spans = exporter.get_finished_spans().expect("spans");
    let named =
        |name: &str| -> Vec<&SpanData> { spans.iter().filter(|span| span.name == name).collect() };
    let field = |span: &SpanData, name: &str| {
        let mut fields = span.attributes.iter();
        let field = fields.find(|field| field.key.as_str() == name);
        field.map(|field| field.value.to_string())
    };
    let id = |span: &SpanData| -> SpanId { span.span_context.span_id() };
    let request = named("request")[0];

    let load = named("cache.load")[0];
    assert_eq!(load.parent_span_id, id(request));
    assert_eq!(field(load, "cache.key").as_deref(), Some("users:7"));
    assert_eq!(field(load, "cache.op").as_deref(), Some("get"));
    assert!(
        load.events
            .iter()
            .any(|event| event.name == "inside the body")
    );

    let batch = named("cache.load")[1];
    assert_eq!(batch.parent_span_id, id(request));
    assert_eq!(field(batch, "cache.op").as_deref(), Some("many"));
    assert_eq!(batch.events[0].name, "inside the batch");

    let is_of_redis = |span: &SpanData| {
        assert_eq!(span.span_kind, SpanKind::Client);
        assert_eq!(field(span, "db.system.name").as_deref(), Some("redis"));
        let port = field(span, "server.port");
        assert_eq!(port, Some(server.port().to_string()));
        // A text, as OpenTelemetry's conventions have it.
        let namespace = span
            .attributes
            .iter()
            .find(|it| it.key.as_str() == "db.namespace");
        let namespace = namespace.map(|it| it.value.clone());
        assert_eq!(namespace, Some(opentelemetry::Value::from("0")));
    };
    let lookups = named("cache.lookup");
    is_of_redis(lookups[0]);
    assert_eq!(field(lookups[0], "error.type"), None);
    let keys_of = |span: &SpanData| field(span, "cache.key");
    let failed = lookups
        .iter()
        .find(|it| keys_of(it).as_deref() == Some("users:10"));
    let failed = failed.expect("a lookup without an answer");
    assert_eq!(field(failed, "error.type").as_deref(), Some("unavailable"));
    assert!(matches!(failed.status, Status::Error { .. }));

    let write = named("cache.write")[0];
    assert_eq!(write.parent_span_id, id(request));
    let deliveries = named("cache.invalidate");
    let delivery = deliveries.iter().find(|span| {
        span.links
            .iter()
            .any(|link| link.span_context.span_id() == id(write))
    });
    let delivery = delivery.expect("a delivery with a link from the write");
    assert!(field(delivery, "cache.keys").is_some_and(|keys| keys.contains("users:7")));

    is_of_redis(delivery);
    assert_eq!(
        field(delivery, "db.operation.name").as_deref(),
        Some("EVALSHA")
    );

    // What does not wait in the queue is a part of what its caller does, and has the link as well.
    let by_hand = named("by hand")[0];
    for keys in [r#"["users:7"]"#, r#"["users:*"]"#] {
        let direct = deliveries.iter().find(|span| {
            field(span, "cache.keys").as_deref() == Some(keys) && span.parent_span_id == id(by_hand)
        });
        let direct = direct.expect("a span of its own");
        is_of_redis(direct);
        let links: Vec<_> = direct.links.iter().collect();
        assert_eq!(links[0].span_context.span_id(), id(by_hand));
    }

    let invalidated = lines.of("cache_runtime::invalidation");
    assert!(
        invalidated
            .iter()
            .any(|line| line["keys"].contains("users:7")),
        "{invalidated:?}"
    );
}

struct Reports {
    cache: Cache,
    second_has_run: Semaphore,
}

impl Reports {
    /// The load of the first waits for that of the second, in a way that the cache does not see.
    #[cached(resource = "reports", max_loads = 1, cache = self.cache)]
    async fn get(&self, id: u32) -> u32 {
        match id {
            1 => drop(self.second_has_run.acquire().await),
            _ => self.second_has_run.add_permits(1),
        }
        id
    }

    #[cached(resource = "reports", op = "named", cache = self.cache)]
    async fn named(&self, name: &str) -> usize {
        name.len()
    }

    #[cached(resource = "reports", op = "named", cache = self.cache)]
    async fn named_alike(&self, name: &str) -> usize {
        name.len()
    }
}

#[tokio::test(start_paused = true)]
async fn mistakes_and_hanging_loads_name_their_function() {
    let _alone = ALONE.lock().await;
    let lines = Lines::default();
    let subscriber = tracing_subscriber::registry().with(lines.clone());
    let _guard = tracing::subscriber::set_default(subscriber);
    let reports = Reports {
        cache: TestCache::new().clone(),
        second_has_run: Semaphore::new(0),
    };
    assert_eq!(tokio::join!(reports.get(1), reports.get(2)), (1, 2));
    let limits = lines.values("max_loads");
    let functions = lines.values("function");
    assert_eq!(limits, ["1"]);
    assert!(functions[0].starts_with("`get` ("), "{functions:?}");

    // Each kind of mistake once, also the second kind of one function.
    let long = "x".repeat(9 << 20);
    for _ in 0..2 {
        reports.named("a").await;
        reports.named_alike("a").await;
        reports.named_alike(&long).await;
    }
    assert_eq!(lines.values("mistake"), ["key-conflict", "key-too-long"]);
    assert_eq!(
        lines.values("function")[1..],
        ["named_alike", "named_alike"]
    );
}
