//! What local entries cost and how old they get.
//!
//!     cargo run --release -p cache-tests --example local_tier
//!
//! 1. A hit, in nanoseconds and allocations, beside a bare `quick_cache` and a hit in Redis.
//! 2. From a write in one process to the fresh read in another: the other is this program once
//!    more.
//! 3. How long after a write has returned another node still reads the old value, by what the
//!    network does meanwhile.
//! 4. What an invalidation makes of 200 nodes that hold the value.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cache_runtime::{Cache, CacheConfig, RedisConfig, cached, invalidates};
use cache_tests::{Mode, Proxy, RedisServer};
use futures_util::future::join_all;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

const HITS: u32 = 1_000_000;
const BOUND: Duration = Duration::from_secs(1);
const NODES: usize = 200;

fn config(port: u16) -> CacheConfig {
    CacheConfig::default()
        .redis(RedisConfig::at("127.0.0.1", port))
        .local_mb(64)
        .local_max_staleness(BOUND)
        .advice(false)
}

/// A node of a service whose database is one number.
#[derive(Clone)]
struct Node {
    database: Arc<AtomicU64>,
    loads: Arc<AtomicU64>,
    cache: Cache,
}

impl Node {
    async fn new(config: CacheConfig) -> Self {
        Self {
            database: Arc::default(),
            loads: Arc::default(),
            cache: Cache::new(config).await,
        }
    }

    async fn beside(&self, config: CacheConfig) -> Self {
        Self {
            cache: Cache::new(config).await,
            ..self.clone()
        }
    }

    #[cached(resource = "numbers", cache = self.cache)]
    async fn get(&self, id: i64) -> Arc<u64> {
        let _ = id;
        self.loads.fetch_add(1, Ordering::Relaxed);
        Arc::new(self.database.load(Ordering::SeqCst))
    }

    #[cached(resource = "numbers", cache = self.cache, op = "list")]
    async fn list(&self, skip: u32, limit: u32) -> Arc<u64> {
        let _ = (skip, limit);
        Arc::new(self.database.load(Ordering::SeqCst))
    }

    #[cached(resource = "numbers", cache = self.cache, op = "exact", strict)]
    async fn exact(&self, id: i64) -> Arc<u64> {
        let _ = id;
        Arc::new(self.database.load(Ordering::SeqCst))
    }

    #[invalidates("numbers", cache = self.cache)]
    async fn set(&self, value: u64) {
        self.database.store(value, Ordering::SeqCst);
    }

    async fn is_warm(&self) -> bool {
        let before = self.local_hits().await;
        self.get(1).await;
        self.local_hits().await > before
    }

    async fn local_hits(&self) -> u64 {
        self.cache.get_stats().await.counters.local_hits
    }

    async fn warm(&self) {
        while !self.is_warm().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// The best of several rounds: the machine has other things to do.
async fn hit<T>(name: &str, count: u32, mut call: impl AsyncFnMut() -> T) {
    for _ in 0..5 {
        call().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (mut best, mut allocations) = (f64::MAX, 0.0);
    for _ in 0..10 {
        let (region, start) = (Region::new(ALLOCATOR), Instant::now());
        for _ in 0..count {
            std::hint::black_box(call().await);
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(count));
        allocations = region.change().allocations as f64 / f64::from(count);
    }
    say(&format!(
        "{name:44} {best:9.0} ns  {allocations:6.2} allocations"
    ));
}

#[expect(clippy::print_stdout, reason = "it is there to print")]
fn say(line: &str) {
    println!("{line}");
}

fn quantiles(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    format!(
        "p50 {:8.2} ms  p99 {:8.2} ms  max {:8.2} ms",
        at(0.5),
        at(0.99),
        at(1.0)
    )
}

async fn hits(server: &RedisServer) {
    let node = Node::new(config(server.port())).await;
    let bare = quick_cache::sync::Cache::<u128, Arc<u64>>::new(1_000);
    bare.insert(7, Arc::new(7));
    hit("a bare quick_cache, the key a number", HITS, async || {
        bare.get(&7)
    })
    .await;
    hit("a row, `Arc<T>`", HITS, async || {
        node.get(std::hint::black_box(123_456)).await
    })
    .await;
    hit("a list, `Arc<T>`", HITS, async || {
        node.list(std::hint::black_box(20), 10).await
    })
    .await;
    hit("a row from Redis (`strict`)", 2_000, async || {
        node.exact(1).await
    })
    .await;
}

fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// The database that two processes share is a file.
struct Shared {
    file: PathBuf,
    cache: Cache,
}

impl Shared {
    #[cached(resource = "files", cache = self.cache)]
    async fn get(&self, id: i64) -> Arc<u64> {
        let _ = id;
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        Arc::new(text.trim().parse().unwrap_or(0))
    }

    #[invalidates("files", id = id, cache = self.cache)]
    async fn set(&self, id: i64, value: u64) -> Duration {
        let _ = id;
        let new = self.file.with_extension("new");
        std::fs::write(&new, value.to_string()).expect("a file can be written");
        std::fs::rename(&new, &self.file).expect("a file can be renamed");
        now()
    }
}

/// The other process: writes when it is told to, and says when it has committed.
async fn write_for(port: u16, file: PathBuf) {
    let cache = Cache::new(config(port)).await;
    let shared = Shared { file, cache };
    for (n, _) in std::io::stdin().lock().lines().enumerate() {
        let committed = shared.set(1, n as u64 + 1).await;
        say(&committed.as_nanos().to_string());
    }
}

async fn between_processes(server: &RedisServer) {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("number");
    let mut writer = Command::new(std::env::current_exe().expect("a program"))
        .args([server.port().to_string(), file.display().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the other process starts");
    let mut orders = writer.stdin.take().expect("piped");
    let mut commits = BufReader::new(writer.stdout.take().expect("piped")).lines();
    let cache = Cache::new(config(server.port())).await;
    let shared = Shared { file, cache };
    let mut latencies = Vec::new();
    for n in 1..=500 {
        for _ in 0..50 {
            shared.get(1).await;
            tokio::time::sleep(Duration::from_micros(50)).await;
        }
        writeln!(orders, "write").expect("it listens");
        let seen = loop {
            if *shared.get(1).await == n {
                break now();
            }
        };
        let committed = commits.next().expect("it answers").expect("text");
        let committed = Duration::from_nanos(committed.parse().expect("a number"));
        latencies.push(seen.saturating_sub(committed));
    }
    say(&format!(
        "from the commit there to the fresh read here   {}",
        quantiles(latencies)
    ));
    drop(orders);
    let _ended = writer.wait();
}

/// How long after a write has returned the old value is read, each time.
async fn staleness(
    name: &str,
    rounds: u64,
    loses: bool,
    fault: impl Fn(&Proxy),
    server: &RedisServer,
) {
    let proxy = Proxy::start(server.port());
    let node = Node::new(config(proxy.port())).await;
    let other = node.beside(config(server.port())).await;
    let mut times = Vec::new();
    for round in 1..=rounds {
        node.warm().await;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..250))).await;
        fault(&proxy);
        other.set(round).await;
        let returned = Instant::now();
        let mut stale = Duration::ZERO;
        loop {
            let asked = returned.elapsed();
            if *node.get(1).await == round {
                break;
            }
            stale = asked;
        }
        times.push(stale);
        // What has lost a part is no connection any more.
        if loses {
            proxy.cut_then(Mode::Pass);
        } else {
            proxy.set(Mode::Pass);
        }
    }
    let late = times.iter().filter(|time| **time > BOUND).count();
    say(&format!(
        "{name:44} {}  past the bound {late}",
        quantiles(times)
    ));
}

async fn fan_out(server: &RedisServer) {
    let first = Node::new(config(server.port())).await;
    let nodes = join_all((0..NODES).map(|_| first.beside(config(server.port())))).await;
    for node in &nodes {
        node.warm().await;
    }
    let loads = first.loads.load(Ordering::Relaxed);
    let before = server.calls("mget");
    first.set(7).await;
    let start = Instant::now();
    let fresh = join_all(nodes.iter().map(async |node| {
        while *node.get(1).await != 7 {
            tokio::task::yield_now().await;
        }
        start.elapsed()
    }));
    let times = fresh.await;
    say(&format!(
        "{NODES} nodes: {} load, {} reads from Redis; fresh after {}",
        first.loads.load(Ordering::Relaxed) - loads,
        server.calls("mget") - before,
        quantiles(times),
    ));
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    if let (Some(port), Some(file)) = (arguments.next(), arguments.next()) {
        return write_for(port.parse().expect("a port"), file.into()).await;
    }
    let server = RedisServer::start();
    say("A hit");
    hits(&server).await;
    say("\nTwo processes");
    between_processes(&server).await;
    say(&format!(
        "\nStale after a write of another node has returned; the bound is {BOUND:?}"
    ));
    staleness("nothing happens", 200, false, |_| {}, &server).await;
    let set = |mode| move |proxy: &Proxy| proxy.set(mode);
    let delay = |time| set(Mode::Delay(Duration::from_millis(time)));
    staleness("5 ms of delay each way", 50, false, delay(5), &server).await;
    staleness("50 ms of delay each way", 20, false, delay(50), &server).await;
    staleness("half open", 15, true, set(Mode::Hold), &server).await;
    staleness(
        "answers swallowed",
        15,
        true,
        set(Mode::SwallowAnswers),
        &server,
    )
    .await;
    staleness(
        "requests swallowed",
        15,
        true,
        set(Mode::SwallowRequests),
        &server,
    )
    .await;
    let cut = |proxy: &Proxy| proxy.cut_then(Mode::Pass);
    staleness("the connection cut", 15, false, cut, &server).await;
    let off = |proxy: &Proxy| {
        proxy.inject(b"*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$4\r\nSKIP\r\n");
        proxy.inject(b"*3\r\n$6\r\nCLIENT\r\n$8\r\nTRACKING\r\n$3\r\nOFF\r\n");
    };
    staleness(
        "tracking turned off behind our back",
        15,
        false,
        off,
        &server,
    )
    .await;
    say("\nFan-out");
    fan_out(&server).await;
}
