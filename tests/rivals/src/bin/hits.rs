//! Hits in the process and nothing else: for a stopwatch, and for a profiler that counts
//! instructions.
//!
//!     cargo run --release --bin hits                                    # in memory, on the process-wide cache
//!     cargo run --release --bin hits both                               # local entries beside Redis
//!     valgrind --tool=callgrind target/release/hits both row 42000 PORT # and 2000, to take the difference
//!
//! The first argument is `memory`, `both` or `off`, the second `row` (its id is readable in the
//! key), `list` (its arguments are hashed), `filter` (one argument is a struct) or `traced` (a
//! field of it is not serialised), the fourth the port of a Redis, if it is not to start one. With
//! `-own` behind the first it is a cache of one's own and not the process-wide one.
//!
//! What metrics cost: once as above, once with `--features metrics`, and once more with
//! `HITS_RECORDER=1` set, which installs the recorder of Prometheus. For instructions,
//! `--collect-atstart=no --toggle-collect='*at_once*'` counts the thread that makes the hits.

use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cache_runtime::{Cache, CacheConfig, RedisConfig, cached, observe};
use cache_tests::RedisServer;
use cached::macros::concurrent_cached;
use futures_util::FutureExt;
use serde::Serialize;

const ROUNDS: usize = 200;
/// Calls that are timed together, by each thread.
const CALLS: u64 = 5_000;
/// Rows that are read in turn.
const ROWS: u64 = 1_000;

#[cached(resource = "rows", ttl = 3600)]
async fn row(id: u64) -> Arc<u64> {
    Arc::new(id)
}

#[cached(resource = "rows", op = "list", ttl = 3600)]
async fn list(skip: u64, limit: u32) -> Arc<u64> {
    Arc::new(skip + u64::from(limit))
}

/// What a form holds.
#[derive(Debug, Clone, Serialize)]
struct Filter {
    name: String,
    skip: u64,
    limit: u32,
}

impl Filter {
    fn page(skip: u64) -> Self {
        Self {
            name: "ada".to_owned(),
            skip,
            limit: 10,
        }
    }
}

/// A field of it is not serialised, so each call asks its `Debug` for it.
#[derive(Debug, Clone, Serialize)]
struct Traced {
    skip: u64,
    limit: u32,
    #[serde(skip)]
    trace: u64,
}

#[cached(resource = "rows", op = "filter", ttl = 3600)]
async fn filter(filter: Filter) -> Arc<u64> {
    Arc::new(filter.skip + u64::from(filter.limit) + filter.name.len() as u64)
}

#[cached(resource = "rows", op = "traced", ttl = 3600)]
async fn traced(page: Traced) -> Arc<u64> {
    Arc::new(page.skip + u64::from(page.limit) + page.trace)
}

/// The same by the crate `cached`, whose store is sharded.
#[concurrent_cached(max_size = 100_000, ttl_secs = 3600)]
async fn cached_row(id: u64) -> Arc<u64> {
    Arc::new(id)
}

async fn bare(id: u64) -> Arc<u64> {
    Arc::new(id)
}

/// The same on a cache of one's own.
struct Own(Cache);

impl Own {
    #[cached(resource = "rows", ttl = 3600, cache = self.0)]
    async fn row(&self, id: u64) -> Arc<u64> {
        Arc::new(id)
    }

    #[cached(resource = "rows", op = "list", ttl = 3600, cache = self.0)]
    async fn list(&self, skip: u64, limit: u32) -> Arc<u64> {
        Arc::new(skip + u64::from(limit))
    }
}

/// Not async, so that a profiler sees one function around all the hits, which is called and not
/// jumped to.
#[inline(never)]
fn at_once(calls: impl Future<Output = u64>) -> u64 {
    calls.now_or_never().expect("a hit waits for nothing")
}

/// What is called in turn. The loop inside is compiled with the call, as it would be in a program.
type Hits = Arc<dyn Fn(Range<u64>) + Send + Sync>;

fn hits<T, F: Future<Output = T>>(call: impl Fn(u64) -> F + Send + Sync + 'static) -> Hits {
    Arc::new(move |calls| {
        let made = at_once(async {
            let number = calls.end - calls.start;
            for n in calls {
                black_box(call(n % ROWS).await);
            }
            number
        });
        black_box(made);
    })
}

/// Calls of `what`, all of which are hits.
async fn warm<T, F: Future<Output = T>>(
    what: &str,
    call: impl Fn(u64) -> F + Send + Sync + 'static,
) -> Hits {
    if !what.starts_with("off") {
        for n in 0..ROWS {
            loop {
                let outcomes = observe(call(n)).await.1;
                if outcomes[0].store == "local" && outcomes[0].cache_status().contains("; hit") {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
    hits(call)
}

async fn of(tiers: &str, what: &str, config: CacheConfig) -> Hits {
    if tiers.ends_with("-own") {
        // For as long as the program runs: to count it would be part of each call.
        let own: &Own = Box::leak(Box::new(Own(Cache::new(config).await)));
        return match what {
            "row" => warm(tiers, |n| own.row(n)).await,
            _ => warm(tiers, |n| own.list(n, 10)).await,
        };
    }
    cache_runtime::init(config).await;
    match what {
        "row" => warm(tiers, row).await,
        "filter" => warm(tiers, |n| filter(Filter::page(n))).await,
        "traced" => {
            let page = |skip| Traced {
                skip,
                limit: 10,
                trace: 7,
            };
            warm(tiers, move |n| traced(page(n))).await
        }
        _ => warm(tiers, |n| list(n, 10)).await,
    }
}

/// Nanoseconds per call of each round on so many threads.
fn time(hits: &Hits, threads: usize) -> f64 {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| hits(0..CALLS));
        }
    });
    start.elapsed().as_nanos() as f64 / CALLS as f64
}

#[expect(clippy::print_stdout, reason = "it is there to print")]
fn say(line: &str) {
    println!("{line}");
}

/// Where `HITS_RECORDER` asks for one; the cache hands its figures over once a second.
fn install_recorder() {
    if std::env::var_os("HITS_RECORDER").is_none() {
        return;
    }
    #[cfg(feature = "metrics")]
    metrics_exporter_prometheus::PrometheusBuilder::new()
        .install_recorder()
        .expect("the only recorder");
    #[cfg(not(feature = "metrics"))]
    panic!("HITS_RECORDER needs the feature `metrics`");
}

#[tokio::main]
async fn main() {
    install_recorder();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // A profiler may not like the children that a server takes to start.
    let (port, _server) = match arguments.get(3) {
        Some(port) => (port.parse().expect("a port"), None),
        None => {
            let server = RedisServer::start();
            (server.port(), Some(server))
        }
    };
    let config = |tiers: &str| {
        let config = CacheConfig::default().advice(false);
        match tiers.trim_end_matches("-own") {
            "memory" => config.local_mb(64),
            // Whatever else the machine does, and a profiler.
            "both" => config
                .local_mb(64)
                .local_max_staleness(Duration::from_secs(60))
                .command_budget(Duration::from_secs(10))
                .redis(RedisConfig::at("127.0.0.1", port)),
            _ => config,
        }
    };
    if let [tiers, what, calls, ..] = arguments.as_slice() {
        let hits = of(tiers, what, config(tiers)).await;
        return hits(0..calls.parse().expect("a number"));
    }
    let process = arguments.first().map_or("memory", String::as_str);
    let quick = quick_cache::sync::Cache::<u64, Arc<u64>>::new(10_000);
    (0..ROWS).for_each(|n| quick.insert(n, Arc::new(n)));
    let mut all = vec![
        ("a bare function".to_owned(), hits(bare)),
        ("cached, sharded".to_owned(), hits(cached_row)),
        (
            "a bare quick_cache".to_owned(),
            Arc::new(move |calls: Range<u64>| {
                calls.for_each(|n| drop(black_box(quick.get(&black_box(n % ROWS)))))
            }) as Hits,
        ),
    ];
    // A function knows the first cache that it is called on: another one would be slower.
    for (tiers, calls) in [
        (process.to_owned(), &["row", "list", "filter", "traced"][..]),
        (format!("{process}-own"), &["row", "list"]),
    ] {
        for what in calls {
            let hits = of(&tiers, what, config(&tiers)).await;
            all.push((format!("{tiers}, {what}"), hits));
        }
    }
    // In turns, so that what the machine does meanwhile meets all alike.
    let mut best = vec![[f64::MAX; 2]; all.len()];
    for _ in 0..ROUNDS {
        for (best, (_, hits)) in best.iter_mut().zip(&all) {
            for threads in [1, 2] {
                best[threads - 1] = best[threads - 1].min(time(hits, threads));
            }
        }
    }
    for ((name, _), [one, two]) in all.iter().zip(best) {
        let rate = 2e3 / two;
        say(&format!(
            "{name:24} {one:6.1} ns  on 2 threads {two:6.1} ns, {rate:5.1} M/s"
        ));
    }
}
