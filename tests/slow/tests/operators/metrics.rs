//! Metrics: as the demo serves them, and each of them after calls that are known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cache_runtime::metrics::{self, ALL, MetricKind};
use cache_runtime::{Cache, CacheConfig, RedisConfig, cached, invalidates};
use cache_tests::{Demo, Postgres, RedisServer, eventually};

use crate::SOON;
use crate::recorder::Figures;

fn demo(server: &RedisServer) -> Demo {
    let port = server.port().to_string();
    let database = Postgres::shared().database();
    Demo::start([
        ("DATABASE_URL", database.as_str()),
        ("OUTBOX", "True"),
        ("REDIS_ENABLED", "True"),
        ("REDIS_HOST", "127.0.0.1"),
        ("REDIS_PORT", port.as_str()),
        ("CACHE_TIMEOUT_MS", "5000"),
        ("CACHE_AUDIT", "0.5"),
    ])
}

/// The value of the first series that begins like this.
fn value(page: &str, series: &str) -> Option<f64> {
    let line = page.lines().find(|line| line.starts_with(series))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// Whether a line of the page is a series of this metric.
fn is_of(line: &str, name: &str) -> bool {
    let rest = line.strip_prefix(name).unwrap_or_default();
    ["{", "_bucket{", "_sum{", "_count{"]
        .iter()
        .any(|end| rest.starts_with(end))
}

/// The names of a series' labels, but for those that Prometheus adds.
fn labels_of(series: &str) -> Vec<String> {
    let labels = series
        .split_once('{')
        .and_then(|(_, rest)| rest.rsplit_once('}'));
    let labels = labels.map_or("", |(labels, _)| labels);
    let names = labels
        .split("\",")
        .filter_map(|label| label.split_once('='));
    let names = names.map(|(name, _)| name.trim_start_matches(',').to_owned());
    names
        .filter(|name| name != "le" && name != "quantile")
        .collect()
}

#[tokio::test]
async fn each_metric_is_served_with_its_labels_and_figures() {
    let server = RedisServer::start();
    let demo = demo(&server);
    for _ in 0..5 {
        assert_eq!(demo.get("/users/1").await.status, 200);
    }
    let renamed = serde_json::json!({"name": "Ada"});
    demo.put("/products/1", &renamed).await;
    let answer = demo.get("/metrics").await;
    assert_eq!(answer.status, 200);
    let page = &answer.body;
    for metric in ALL {
        let declared = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        let line = format!("# TYPE {} {declared}", metric.name);
        assert!(page.contains(&line), "{line} is missing in\n{page}");
        let series = page.lines().filter(|line| is_of(line, metric.name));
        let labels: BTreeSet<String> = series.flat_map(labels_of).collect();
        let own = metric.labels.iter().chain(&["cache"]);
        let own: BTreeSet<String> = own.map(|label| (*label).to_owned()).collect();
        assert_eq!(labels, own, "{}", metric.name);
    }
    // Each of them is in the book, with its labels.
    let book = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/book/src/metrics.md"
    );
    let book = std::fs::read_to_string(book).expect("the page of the book");
    for metric in ALL {
        let name = format!("`{}`", metric.name);
        let row = book
            .lines()
            .find(|line| line.starts_with('|') && line.contains(&name));
        let row = row.unwrap_or_else(|| panic!("{name} is not in the book"));
        for label in metric.labels {
            assert!(
                row.contains(&format!("`{label}`")),
                "{label} of {name}: {row}"
            );
        }
    }
    let of = r#"cache="",resource="users",op="get""#;
    let calls = |outcome| {
        let lines = page.lines();
        let lines = lines.filter(|line| {
            line.starts_with("cache_calls_total{")
                && line.contains(r#"resource="users""#)
                && line.contains(&format!(r#"outcome="{outcome}""#))
        });
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum::<f64>()
    };
    assert_eq!((calls("miss"), calls("hit")), (1.0, 4.0), "{page}");
    let loads = format!("cache_load_duration_seconds_count{{{of}");
    assert!(
        value(page, &loads).is_some_and(|loads| loads >= 1.0),
        "{page}"
    );
    eventually(SOON, async || {
        let page = demo.get("/metrics").await.body;
        value(&page, r#"cache_outbox_connected{cache=""}"#) == Some(1.0)
            && value(&page, r#"cache_outbox_connections_total{cache=""}"#) == Some(1.0)
    })
    .await;
    let closed = r#"cache_circuit_state{cache="",state="closed"}"#;
    assert_eq!(value(page, closed), Some(1.0), "{page}");
}

/// Functions of one resource: two that share an `op`, and one that is refused since they have it.
struct Rates {
    cache: Cache,
}

impl Rates {
    #[cached(resource = "rates", op = "of", shared, audit = 1.0, cache = self.cache)]
    async fn first(&self, id: u32) -> u32 {
        id * 2
    }

    #[cached(resource = "rates", op = "of", shared, audit = 1.0, cache = self.cache)]
    async fn second(&self, id: u32) -> u32 {
        id * 2
    }

    #[cached(resource = "rates", op = "of", cache = self.cache)]
    async fn refused(&self, id: u32) -> u32 {
        id * 2
    }
}

/// One series holds all functions of a resource and `op`. It grows with calls, and only with them.
#[tokio::test]
async fn functions_that_share_an_op_are_added_up() {
    let server = RedisServer::start();
    let redis = RedisConfig::at("127.0.0.1", server.port());
    // On a busy machine a hit takes its time.
    let config = CacheConfig::default().command_budget(Duration::from_secs(5));
    let cache = Cache::new(config.redis(redis)).await;
    let rates = Rates {
        cache: cache.clone(),
    };
    for _ in 0..3 {
        rates.first(1).await;
    }
    rates.second(1).await;
    rates.refused(1).await;
    let figures = Figures::default();
    for round in 0..3 {
        figures.publish(&cache);
        let of = ("op", "of");
        let calls = |outcome| figures.sum(metrics::CALLS, &[of, ("outcome", outcome)]);
        assert_eq!(
            (calls("miss"), calls("hit"), calls("bypass")),
            (1.0, 3.0, 1.0),
            "round {round}"
        );
        // The first miss, the body of the refused one, and one for each hit that is audited.
        let loads = cache
            .functions()
            .iter()
            .map(|it| it.load.count)
            .sum::<u64>();
        assert_eq!(figures.sum(metrics::LOAD_DURATION, &[of]), loads as f64);
        let checked = [of, ("verdict", "checked")];
        assert_eq!(figures.sum(metrics::AUDITS, &checked), 3.0);
    }
}

/// Rows of 10 kB and more.
struct Rows {
    cache: Cache,
}

impl Rows {
    #[cached(resource = "rows", ttl = 300, cache = self.cache)]
    async fn get(&self, id: u32) -> Result<String, String> {
        match id {
            0 => Err("there is none".into()),
            id => Ok(id.to_string().repeat(10_000)),
        }
    }

    #[invalidates("rows", id = id, cache = self.cache)]
    async fn set(&self, id: u32) {
        let _ = id;
    }
}

/// Without Redis, local hits are timed like those beside it.
#[tokio::test]
async fn hits_in_memory_are_timed_too() {
    let cache = Cache::new(CacheConfig::default().local_mb(4)).await;
    let rows = Rows {
        cache: cache.clone(),
    };
    let figures = Figures::default();
    rows.get(1).await.expect("a row");
    figures.publish(&cache);
    let lookups = || figures.sum(metrics::LOOKUP_DURATION, &[("tier", "local")]);
    let before = lookups();
    for _ in 0..10_000 {
        rows.get(1).await.expect("a row");
    }
    figures.publish(&cache);
    assert!(lookups() > before, "{} as before", before);
}

/// Rows so small that a thread keeps them by itself.
struct Small {
    cache: Cache,
}

impl Small {
    #[cached(resource = "small", ttl = 300, cache = self.cache)]
    async fn get(&self, id: u32) -> Arc<u32> {
        Arc::new(id)
    }

    #[cached(resource = "small", batch = ids, ttl = 300, cache = self.cache)]
    async fn many(&self, ids: &[u32]) -> BTreeMap<u32, u32> {
        ids.iter().map(|id| (*id, *id)).collect()
    }
}

/// Beside Redis most local hits are those that a thread finds among what it was last served. One in
/// 64 of these is timed as well, and so is one in 64 ids of a batch.
#[tokio::test]
async fn local_hits_are_timed_wherever_they_are_found() {
    const TIMED: u32 = 100;
    let server = RedisServer::start();
    let config = CacheConfig::default()
        .redis(RedisConfig::at("127.0.0.1", server.port()))
        .local_mb(4)
        .local_max_staleness(SOON)
        .command_budget(SOON);
    let cache = Cache::new(config).await;
    let small = Small {
        cache: cache.clone(),
    };
    let local_hits = |op| {
        let functions = cache.functions();
        let of = functions.iter().filter(|it| it.op == op);
        of.map(|it| it.local_hits).sum::<u64>()
    };
    eventually(SOON, async || {
        small.get(1).await;
        small.many(&[1, 2]).await;
        local_hits("get") > 2 && local_hits("many") > 2
    })
    .await;
    let figures = Figures::default();
    let timed = |op| {
        figures.publish(&cache);
        let of = [("resource", "small"), ("op", op), ("tier", "local")];
        figures.sum(metrics::LOOKUP_DURATION, &of)
    };
    for op in ["get", "many"] {
        let before = (timed(op), local_hits(op));
        for _ in 0..TIMED * 64 {
            match op {
                "get" => drop(small.get(1).await),
                _ => drop(small.many(&[1]).await),
            }
        }
        assert_eq!(local_hits(op) - before.1, u64::from(TIMED * 64), "{op}");
        let timed = timed(op) - before.0;
        let expected = f64::from(TIMED - 2)..=f64::from(TIMED + 2);
        assert!(expected.contains(&timed), "{timed} of {op}");
    }
}

/// Names that come from outside make no series: who invents them can't fill the memory of whoever
/// collects the metrics.
#[tokio::test]
async fn names_from_outside_make_no_series() {
    let cache = Cache::new(CacheConfig::default().local_mb(4)).await;
    let rows = Rows {
        cache: cache.clone(),
    };
    rows.get(1).await.expect("a row");
    let figures = Figures::default();
    figures.publish(&cache);
    let before = figures.series();
    for number in 0..500 {
        let name = format!("outside{number}");
        let key = format!("{name}:1");
        cache.set(&key, &1u32, 60).await.expect("stored");
        assert_eq!(cache.get::<u32>(&key).await, Some(1));
        let _ = cache.delete(&key).await;
        let _ = cache.invalidate(&name, &1).await;
        let _ = cache.invalidate_tag(&name).await;
        cache.disable(&name);
    }
    figures.publish(&cache);
    assert_eq!(figures.series(), before);
}

/// One call of each kind, and the metrics that tell of it.
#[tokio::test(flavor = "multi_thread")]
async fn each_family_counts_what_has_happened() {
    let mut server = RedisServer::start();
    let config = CacheConfig::default()
        .redis(RedisConfig::at("127.0.0.1", server.port()))
        .local_mb(1)
        .command_budget(Duration::from_secs(5));
    let cache = Cache::new(config).await;
    let rows = Rows {
        cache: cache.clone(),
    };
    let figures = Figures::default();
    let sum = |name, labels: &[(&str, &str)]| {
        figures.publish(&cache);
        figures.sum(name, labels)
    };
    let of = [("resource", "rows"), ("op", "get")];
    rows.get(1).await.expect("a row");
    rows.get(0).await.expect_err("no row");
    assert_eq!(sum(metrics::LOAD_DURATION, &of), 2.0);
    assert_eq!(sum(metrics::FAILED_LOADS, &of), 1.0);
    assert_eq!(sum(metrics::FILL_DURATION, &of), 1.0);
    assert_eq!(sum(metrics::PAYLOAD_SIZE, &of), 1.0);
    assert_eq!(sum(metrics::FILLS, &[of[0], ("result", "stored")]), 1.0);
    assert!(sum(metrics::LOOKUP_DURATION, &of) >= 2.0);

    // A read of Redis leaves a local entry. More of them than there is room for make others go.
    for _ in 0..3 {
        for id in 1..300 {
            rows.get(id).await.expect("a row");
        }
    }
    assert!(sum(metrics::LOCAL_INSERTIONS, &[]) > 0.0);
    assert!(sum(metrics::EVICTIONS, &[("tier", "local")]) > 0.0);
    assert!(sum(metrics::ENTRIES, &[("tier", "local")]) > 0.0);
    assert!(sum(metrics::BYTES, &[("tier", "local")]) > 100_000.0);

    // One local lookup in 64 is timed, and the thread does not look up all of its hits.
    let hits = 10_000;
    let local = [("resource", "rows"), ("tier", "local")];
    for _ in 0..hits {
        rows.get(1).await.expect("a row");
    }
    let timed = sum(metrics::LOOKUP_DURATION, &local);
    assert!(
        (1.0..=f64::from(hits) / 64.0 + 20.0).contains(&timed),
        "{timed}"
    );
    assert_eq!(
        sum(metrics::LOOKUP_DURATION, &local),
        timed,
        "nothing is told twice"
    );

    // One write: it is asked for, acknowledged, pushed, and swept.
    rows.set(1).await;
    assert_eq!(sum(metrics::INVALIDATIONS, &[of[0]]), 1.0);
    let delivered = [("outcome", "delivered")];
    assert_eq!(sum(metrics::INVALIDATION_OUTCOMES, &delivered), 1.0);
    assert_eq!(
        sum(metrics::INVALIDATION_DURATION, &[("tier", "redis")]),
        1.0
    );
    rows.get(2).await.expect("a row");
    server.cli(&["SET", "rows:2", "something else"]);
    eventually(SOON, async || sum(metrics::LOCAL_PUSHES, &[]) > 0.0).await;
    let _ = cache.invalidate_all("rows").await;
    eventually(SOON, async || sum(metrics::SWEPT, &[]) > 0.0).await;
    assert!(sum(metrics::SWEEP_DURATION, &[]) > 0.0);

    // Without Redis a write waits, the longer the older it is.
    assert_eq!(sum(metrics::PENDING_INVALIDATIONS, &[]), 0.0);
    server.stop();
    rows.set(3).await;
    assert!(sum(metrics::PENDING_INVALIDATIONS, &[]) >= 1.0);
    let age = sum(metrics::OLDEST_PENDING, &[]);
    assert!(age > 0.0);
    eventually(SOON, async || sum(metrics::OLDEST_PENDING, &[]) > age + 0.1).await;
    assert_eq!(sum(metrics::HEARTBEAT_AGE, &[]), f64::INFINITY);
    assert_eq!(sum(metrics::CIRCUIT_STATE, &[("state", "closed")]), 0.0);
    assert!(sum(metrics::LOCAL_FLUSHES, &[]) >= 1.0);
    server.restart();
    eventually(SOON, async || {
        sum(metrics::PENDING_INVALIDATIONS, &[]) == 0.0
    })
    .await;
    assert_eq!(sum(metrics::OLDEST_PENDING, &[]), 0.0);
    let pending = [("outcome", "pending")];
    assert_eq!(sum(metrics::INVALIDATION_OUTCOMES, &pending), 1.0);
    assert!(sum(metrics::CIRCUIT_OPENED, &[]) >= 1.0);
}
