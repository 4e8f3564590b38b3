//! What compression saves, and what it costs: bytes in Redis and the time of a hit, on loopback and
//! over a link of 1 Gbit/s, for a list of the demo.
//!
//! ```text
//! cargo run -p demo-api &
//! curl -s 'localhost:8000/users?skip=0&limit=100' | compression
//! ```
//!
//! The link is a forwarder in this process, whose answers take a nanosecond for each bit. It spins in
//! between, since timers are too coarse, so it needs a processor of its own.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cache_rivals::measure::median;
use cache_runtime::{Cache, CacheConfig, RedisConfig, cached};
use cache_tests::RedisServer;
use serde::{Deserialize, Serialize};

type Failed = Box<dyn std::error::Error + Send + Sync>;

const HITS: usize = 2_000;

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
    async fn start(port: u16, users: Arc<Vec<User>>) -> Self {
        let config = CacheConfig::default().redis(RedisConfig::at("127.0.0.1", port));
        Self {
            cache: Cache::new(config).await,
            users,
        }
    }

    #[cached(resource = "lists", ttl = 3600, cache = self.cache)]
    async fn json(&self, id: i64) -> Result<Arc<Vec<User>>, Failed> {
        let _ = id;
        Ok(Arc::clone(&self.users))
    }

    #[cached(resource = "lists", op = "zstd", ttl = 3600, codec = "json+zstd", cache = self.cache)]
    async fn zstd(&self, id: i64) -> Result<Arc<Vec<User>>, Failed> {
        let _ = id;
        Ok(Arc::clone(&self.users))
    }

    async fn hit(&self, is_compressed: bool) -> Result<usize, Failed> {
        Ok(match is_compressed {
            false => self.json(1).await?.len(),
            true => self.zstd(1).await?.len(),
        })
    }

    /// The median, in microseconds.
    async fn hits(&self, is_compressed: bool) -> Result<f64, Failed> {
        let mut times = Vec::with_capacity(HITS);
        for n in 0..HITS + HITS / 10 {
            let began = Instant::now();
            self.hit(is_compressed).await?;
            if n >= HITS / 10 {
                times.push(began.elapsed().as_secs_f64() * 1e6);
            }
        }
        Ok(median(times))
    }
}

/// Forwards to that port. What comes back takes as long as over a link of 1 Gbit/s.
fn link(to: u16) -> Result<u16, Failed> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for here in listener.incoming().flatten() {
            let Ok(there) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)) else {
                return;
            };
            let _ = here.set_nodelay(true).and(there.set_nodelay(true));
            let (Ok(asks), Ok(answers)) = (here.try_clone(), there.try_clone()) else {
                return;
            };
            std::thread::spawn(move || forward(asks, there));
            std::thread::spawn(move || forward(answers, here));
        }
    });
    Ok(port)
}

/// In pieces of a packet, the next when the one before has left.
fn forward(mut from: TcpStream, mut to: TcpStream) {
    let mut packet = [0; 1448];
    let mut is_free = Instant::now();
    while let Ok(length @ 1..) = from.read(&mut packet) {
        // A packet on Ethernet is 90 bytes longer than its payload.
        let bits = (length as u64 + 90) * 8;
        is_free = is_free.max(Instant::now()) + Duration::from_nanos(bits);
        while Instant::now() < is_free {
            std::hint::spin_loop();
        }
        if to.write_all(&packet[..length]).is_err() {
            return;
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let users: Vec<User> = serde_json::from_reader(std::io::stdin().lock())?;
    let number = users.len();
    let users = Arc::new(users);
    let server = RedisServer::start();
    let near = Lists::start(server.port(), Arc::clone(&users)).await;
    let far = Lists::start(link(server.port())?, users).await;
    let client = redis::Client::open(("127.0.0.1", server.port()))?;
    let mut redis = client.get_multiplexed_async_connection().await?;
    let mut out = std::io::stdout();
    writeln!(
        out,
        "| a list of {number} | bytes in Redis | hit on loopback | over 1 Gbit/s |\n|---|---:|---:|---:|"
    )?;
    for (name, key, is_compressed) in [
        ("json", "lists:1", false),
        ("json+zstd", "lists:zstd:1", true),
    ] {
        near.hit(is_compressed).await?;
        let bytes: u64 = redis::cmd("STRLEN")
            .arg(key)
            .query_async(&mut redis)
            .await?;
        // In turn, so that what else the machine does meets both.
        let (mut loopback, mut linked) = (Vec::new(), Vec::new());
        for _ in 0..5 {
            loopback.push(near.hits(is_compressed).await?);
            linked.push(far.hits(is_compressed).await?);
        }
        let (loopback, linked) = (median(loopback), median(linked));
        writeln!(
            out,
            "| `{name}` | {bytes} | {loopback:.0} µs | {linked:.0} µs |"
        )?;
    }
    Ok(())
}
