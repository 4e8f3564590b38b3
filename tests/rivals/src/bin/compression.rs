//! What compression saves, and what it costs: bytes in Redis, and hits on loopback and over a link
//! of 1 Gbit/s with a round trip of 0.3 ms ([`cache_rivals::link`]), for lists of the demo's users.
//! It takes about a minute.
//!
//! ```text
//! cargo run -p demo-api &
//! curl -s 'localhost:8000/users?skip=0&limit=1000' | sudo compression
//! ```

use std::hint::black_box;
use std::io::Write;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cache_rivals::link::{self, Link};
use cache_rivals::measure::{Contestant, Drive, Result as Measured, compare};
use cache_rivals::progress::Step;
use cache_rivals::suite::Failed;
use cache_runtime::{Cache, CacheConfig, RedisConfig, cached};
use cache_tests::RedisServer;
use serde::{Deserialize, Serialize};

/// How many users are in a list.
const LENGTHS: [usize; 2] = [100, 1_000];
/// Lists that are read in turn. Callers of one list at the same time would share its transfer.
const NUMBER: u64 = 200;
/// Callers of the last column.
const MANY: usize = 64;

static LOADS: AtomicU64 = AtomicU64::new(0);

/// A user of the demo.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct User {
    id: i64,
    name: String,
    email: String,
    age: i64,
    active: bool,
    created_at: String,
}

struct Lists {
    cache: Cache,
    users: Arc<Vec<User>>,
}

impl Lists {
    fn of(&self, length: usize) -> Vec<User> {
        LOADS.fetch_add(1, Ordering::Relaxed);
        self.users.iter().take(length).cloned().collect()
    }

    #[cached(resource = "lists", id = (length, id), ttl = 3600, cache = self.cache)]
    async fn json(&self, length: usize, id: u64) -> Arc<Vec<User>> {
        Arc::new(self.of(length))
    }

    #[cached(resource = "lists", op = "zstd", id = (length, id), ttl = 3600, codec = "json+zstd", cache = self.cache)]
    async fn zstd(&self, length: usize, id: u64) -> Arc<Vec<User>> {
        Arc::new(self.of(length))
    }
}

/// Hits of a list of this length, without and with compression.
fn measured(
    server: (Ipv4Addr, u16),
    users: &Arc<Vec<User>>,
    length: usize,
    callers: usize,
    step: &Step,
) -> Result<Vec<Measured>, Failed> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if callers == 1 {
        // With more it is chance whether caller and connection share a thread.
        runtime.worker_threads(1);
    }
    let drive = Drive {
        tasks: callers,
        round: Duration::from_secs(1),
        rounds: 5,
        misses: 0,
    };
    let users = Arc::clone(users);
    runtime.enable_all().build()?.block_on(async {
        let redis = RedisConfig::at(server.0.to_string(), server.1);
        let config = CacheConfig::default()
            .redis(redis)
            .command_budget(Duration::from_secs(1));
        let cache = Cache::new(config).await;
        let lists = Arc::new(Lists { cache, users });
        for id in 0..NUMBER {
            (lists.json(length, id).await, lists.zstd(length, id).await);
        }
        let loads = LOADS.load(Ordering::Relaxed);
        let (plain, packed) = (Arc::clone(&lists), lists);
        let contestants = [
            Contestant::new("json", move |n| {
                let lists = Arc::clone(&plain);
                async move { drop(black_box(lists.json(length, n % NUMBER).await)) }
            }),
            Contestant::new("json+zstd", move |n| {
                let lists = Arc::clone(&packed);
                async move { drop(black_box(lists.zstd(length, n % NUMBER).await)) }
            }),
        ];
        let results = compare(&contestants, drive, step).await;
        match LOADS.load(Ordering::Relaxed) - loads {
            0 => Ok(results),
            loads => Err(format!("{loads} calls were no hits").into()),
        }
    })
}

fn main() -> Result<(), Failed> {
    if std::env::args().nth(1).as_deref() == Some("link") {
        return link::run();
    }
    let users: Vec<User> = serde_json::from_reader(std::io::stdin().lock())?;
    if users.len() < LENGTHS[1] {
        return Err(format!("{} users, and not {}", users.len(), LENGTHS[1]).into());
    }
    let users = Arc::new(users);
    let link = Link::start()?;
    let server = RedisServer::start();
    server.cli(&["CONFIG", "SET", "protected-mode", "no"]);
    server.cli(&["CONFIG", "SET", "bind", &format!("127.0.0.1 {}", link::OWN)]);
    let near = (Ipv4Addr::LOCALHOST, server.port());
    let far = (link::SERVER, server.port());
    let step = Step::begin("1/1", "compression");
    let mut out = std::io::stdout();
    writeln!(
        out,
        "| | bytes in Redis | hit on loopback | hit over the link | {MANY} callers over the link |\n\
         |---|---:|---:|---:|---:|"
    )?;
    for length in LENGTHS {
        let loopback = measured(near, &users, length, 1, &step)?;
        let linked = measured(far, &users, length, 1, &step)?;
        let many = measured(far, &users, length, MANY, &step)?;
        for (place, key) in [
            format!("lists:{length},0"),
            format!("lists:zstd:{length},0"),
        ]
        .into_iter()
        .enumerate()
        {
            let bytes = server.cli(&["STRLEN", &key]);
            let micros = |results: &[Measured]| results[place].sum.quantile(0.5) / 1e3;
            writeln!(
                out,
                "| {length} users, `{}` | {} | {:.0} µs | {:.0} µs | {:.0} hits/s |",
                loopback[place].name,
                bytes.trim(),
                micros(&loopback),
                micros(&linked),
                many[place].sum.rate(),
            )?;
        }
    }
    drop(link);
    Ok(())
}
