//! Connections that are reset again and again, by `CLIENT KILL` as by a balancer: writes the table
//! into docs/outages.md.
//!
//!     cargo run --release -p cache-tests --example resets
//!
//! A private Redis on loopback, and two caches on it as in two processes. One writes rows, one
//! after the other; four tasks read them through the other cache, whose connection is reset too.
//! Every read is compared with the last write of its row that had returned before the read began:
//! an older value is stale. Bounded: fifteen seconds for each line.

#![allow(clippy::print_stdout, reason = "it prints its figures")]

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cache_runtime::{Cache, CacheConfig, RedisConfig, cached, invalidates};
use cache_tests::{RedisServer, documents, write_section};

const LASTS: Duration = Duration::from_secs(15);
const ROWS: usize = 20;
const READERS: u64 = 4;
const BETWEEN_WRITES: Duration = Duration::from_millis(2);
const MS: Duration = Duration::from_millis(1);

#[derive(Default)]
struct Row {
    /// What is in the database.
    committed: AtomicU64,
    /// The last value whose write has returned, and when that was, in microseconds from the start.
    returned: AtomicU64,
    at: AtomicU64,
}

#[derive(Clone)]
struct Service {
    cache: Cache,
    rows: Arc<[Row; ROWS]>,
}

impl Service {
    #[cached(resource = "rows", cache = self.cache)]
    async fn get(&self, id: usize) -> Option<u64> {
        Some(self.rows[id].committed.load(Ordering::SeqCst))
    }

    #[invalidates("rows", id = id, cache = self.cache)]
    async fn set(&self, id: usize, value: u64) -> u64 {
        self.rows[id].committed.store(value, Ordering::SeqCst);
        value
    }
}

#[derive(Default)]
struct Figures {
    reads: u64,
    stale: u64,
    oldest: Duration,
    writes: Vec<Duration>,
    resets: u64,
}

async fn cache(server: &RedisServer) -> Cache {
    // A machine with a lot to do may take longer than the usual budget, and that is not what is
    // measured.
    let config = CacheConfig::default().command_budget(Duration::from_secs(2));
    Cache::new(config.redis(RedisConfig::at("127.0.0.1", server.port()))).await
}

async fn run(pauses: impl Fn() -> Option<Duration>) -> Figures {
    let server = RedisServer::start();
    let writer = Service {
        cache: cache(&server).await,
        rows: Arc::new(std::array::from_fn(|_| Row::default())),
    };
    let reader = Service {
        cache: cache(&server).await,
        ..writer.clone()
    };
    let start = Instant::now();
    let over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..READERS)
        .map(|_| tokio::spawn(read(reader.clone(), start, Arc::clone(&over))))
        .collect();
    let writes = tokio::spawn(write(writer, start, Arc::clone(&over)));
    let mut figures = Figures::default();
    while start.elapsed() < LASTS {
        let pause = pauses();
        tokio::time::sleep(pause.unwrap_or(LASTS)).await;
        if pause.is_some() {
            server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
            figures.resets += 1;
        }
    }
    over.store(true, Ordering::SeqCst);
    for reader in readers {
        let (reads, stale, oldest) = reader.await.expect("it does not panic");
        figures.reads += reads;
        figures.stale += stale;
        figures.oldest = figures.oldest.max(oldest);
    }
    figures.writes = writes.await.expect("it does not panic");
    figures.writes.sort_unstable();
    figures
}

async fn read(service: Service, start: Instant, over: Arc<AtomicBool>) -> (u64, u64, Duration) {
    let (mut reads, mut stale, mut oldest) = (0, 0, Duration::ZERO);
    while !over.load(Ordering::SeqCst) {
        let id = fastrand::usize(0..ROWS);
        let row = &service.rows[id];
        let (returned, at) = (
            row.returned.load(Ordering::SeqCst),
            row.at.load(Ordering::SeqCst),
        );
        let seen = service.get(id).await.unwrap_or_default();
        reads += 1;
        if seen < returned {
            stale += 1;
            oldest = oldest.max(start.elapsed().saturating_sub(Duration::from_micros(at)));
        }
        tokio::task::yield_now().await;
    }
    (reads, stale, oldest)
}

async fn write(service: Service, start: Instant, over: Arc<AtomicBool>) -> Vec<Duration> {
    let mut times = Vec::new();
    for value in 1.. {
        if over.load(Ordering::SeqCst) {
            break;
        }
        let id = fastrand::usize(0..ROWS);
        let began = Instant::now();
        service.set(id, value).await;
        times.push(began.elapsed());
        let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        service.rows[id].at.store(micros, Ordering::SeqCst);
        service.rows[id].returned.store(value, Ordering::SeqCst);
        tokio::time::sleep(BETWEEN_WRITES).await;
    }
    times
}

fn line(table: &mut String, name: &str, figures: &Figures) {
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let at = |share: usize| {
        let times = &figures.writes;
        times
            .get(times.len() * share / 100)
            .copied()
            .unwrap_or_default()
    };
    let longest = figures.writes.last().copied().unwrap_or_default();
    let _ = writeln!(
        table,
        "| {name} | {} | {} | {} | {:.0} ms | {} | {:.2} ms | {:.2} ms | {:.0} ms |",
        figures.resets,
        figures.reads,
        figures.stale,
        millis(figures.oldest),
        figures.writes.len(),
        millis(at(50)),
        millis(at(99)),
        millis(longest),
    );
}

#[tokio::main]
async fn main() {
    let mut table = String::from(
        "| connections are reset | resets | reads | stale | oldest | writes | p50 | p99 | max |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    line(&mut table, "never", &run(|| None).await);
    line(&mut table, "every 2 s", &run(|| Some(2_000 * MS)).await);
    line(&mut table, "every 300 ms", &run(|| Some(300 * MS)).await);
    // As often as that, but at any time.
    let at_random = || Some(fastrand::u32(20..640) * MS);
    line(
        &mut table,
        "three times a second, at random",
        &run(at_random).await,
    );
    println!("{table}");
    if std::env::args().nth(1).as_deref() != Some("--print") {
        write_section(
            &documents().join("outages.md"),
            "resets",
            &format!("\n{table}\n"),
        );
    }
}
