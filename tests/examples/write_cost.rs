//! What an invalidation costs a write, and what refused and abandoned writes cost the hit rate.
//!
//!     cargo run --release -p cache-tests --example write_cost
//!
//! A private Redis on loopback. Times are medians and 99th percentiles of single calls, one after
//! the other, of a body that does nothing. The hit rates are of one task that reads 100 rows at
//! random and writes now and then.

use std::time::{Duration, Instant};

use cache_runtime::{Cache, CacheConfig, RedisConfig, Status, cached, invalidates, observe};
use cache_tests::RedisServer;

const CALLS: usize = 5_000;
const ROWS: i64 = 100;
const OPERATIONS: usize = 20_000;

#[derive(Debug)]
enum Failure {
    Refused,
}

struct Service {
    cache: Cache,
}

impl Service {
    async fn bare(&self, id: i64) -> Result<i64, Failure> {
        Ok(id)
    }

    #[invalidates("users", id = id, cache = self.cache)]
    async fn plain(&self, id: i64) -> Result<i64, Failure> {
        Ok(id)
    }

    #[invalidates("users", id = id, crash_safe, cache = self.cache)]
    async fn crash_safe(&self, id: i64) -> Result<i64, Failure> {
        Ok(id)
    }

    #[invalidates("users", id = id, required, cache = self.cache)]
    async fn required(&self, id: i64) -> Result<i64, cache_runtime::Error> {
        Ok(id)
    }

    #[invalidates("users", id = id, cache = self.cache)]
    async fn refused(&self, id: i64) -> Result<i64, Failure> {
        let _ = id;
        Err(Failure::Refused)
    }

    #[invalidates("users", cache = self.cache)]
    async fn refused_whole(&self) -> Result<i64, Failure> {
        Err(Failure::Refused)
    }

    #[invalidates("users", rejected = |e| matches!(e, Failure::Refused), cache = self.cache)]
    async fn rejected_whole(&self) -> Result<i64, Failure> {
        Err(Failure::Refused)
    }

    #[invalidates("users", id = id, cache = self.cache)]
    async fn abandoned(&self, id: i64) -> i64 {
        std::future::pending::<()>().await;
        id
    }

    #[cached(resource = "users", cache = self.cache)]
    async fn get(&self, id: i64) -> Result<i64, Failure> {
        Ok(id)
    }
}

async fn service() -> (RedisServer, Service) {
    let server = RedisServer::start();
    let config = CacheConfig::default().redis(RedisConfig::at("127.0.0.1", server.port()));
    let cache = Cache::new(config).await;
    (server, Service { cache })
}

/// Microseconds, the median and the 99th percentile.
async fn time<T>(name: &str, call: impl AsyncFn(i64) -> T) {
    let mut times = Vec::with_capacity(CALLS);
    for n in 0..CALLS + CALLS / 10 {
        let start = Instant::now();
        std::hint::black_box(call(n as i64 % ROWS).await);
        // The first ones load scripts and fill caches.
        if n >= CALLS / 10 {
            times.push(start.elapsed());
        }
    }
    times.sort_unstable();
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let (p50, p99) = (times[CALLS / 2], times[CALLS * 99 / 100]);
    eprintln!(
        "{name:<44} p50 {:>8.1} µs   p99 {:>8.1} µs",
        micros(p50),
        micros(p99)
    );
}

/// The share of reads that were hits, with one write in a hundred operations.
async fn hit_rate(name: &str, write: impl AsyncFn(&Service, i64)) {
    let (_server, service) = service().await;
    let (mut reads, mut hits) = (0, 0);
    for n in 0..OPERATIONS {
        let id = fastrand::i64(0..ROWS);
        if n % 100 == 99 {
            write(&service, id).await;
            continue;
        }
        let (_, outcomes) = observe(service.get(id)).await;
        reads += 1;
        hits += usize::from(matches!(outcomes[0].status, Status::Hit { .. }));
    }
    let rate = 100.0 * f64::from(hits as u32) / f64::from(reads);
    eprintln!("{name:<44} {rate:>6.2} % hits");
}

#[tokio::main]
async fn main() {
    let (_server, service) = service().await;
    time("the bare function", async |id| service.bare(id).await).await;
    time("#[invalidates(\"users\", id = id)]", async |id| {
        service.plain(id).await
    })
    .await;
    time("  .. required", async |id| service.required(id).await).await;
    time("  .. crash_safe", async |id| service.crash_safe(id).await).await;
    time("a hit, to compare", async |_| service.get(1).await).await;

    eprintln!();
    hit_rate("no writes", async |_, _| ()).await;
    hit_rate("1 % writes of a row", async |service, id| {
        drop(service.plain(id).await)
    })
    .await;
    hit_rate("1 % refused writes of a row", async |service, id| {
        drop(service.refused(id).await)
    })
    .await;
    hit_rate("1 % refused writes of the whole", async |service, _| {
        drop(service.refused_whole().await)
    })
    .await;
    hit_rate("  .. with `rejected`", async |service, _| {
        drop(service.rejected_whole().await)
    })
    .await;
    hit_rate("1 % abandoned writes of a row", async |service, id| {
        let write = service.abandoned(id);
        let _ = tokio::time::timeout(Duration::from_micros(1), write).await;
    })
    .await;
}
