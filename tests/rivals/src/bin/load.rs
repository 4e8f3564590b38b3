//! Hits in Redis with many callers, and where the time goes: for finding out, not for the page of
//! benchmarks.
//!
//!     cargo run --release --bin load -- CALLERS [one] [SECONDS]
//!
//! Runs hand-written code and this project in turn, five rounds each, on a runtime with one thread
//! if `one` is said. Prints the median of the hits per second, and for each hit the processor time
//! of this process and of the server, in microseconds, how many processors both kept busy, and how
//! many hits share a command.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cache_rivals::rivals::Rival;
use cache_rivals::rivals::hand_written::HandWritten;
use cache_rivals::rivals::ours::Ours;
use cache_tests::RedisServer;

const ROUNDS: usize = 5;
const ROWS: u64 = 100;
/// Of the clock that the kernel counts processor time by.
const TICKS: f64 = 100.0;

type Failed = Box<dyn std::error::Error>;

/// What one round took.
#[derive(Clone, Copy)]
struct Round {
    rate: f64,
    /// User and kernel, of this process and the server, in microseconds for each hit.
    times: [f64; 4],
    busy: f64,
    /// Hits for each command.
    batch: f64,
}

fn main() -> Result<(), Failed> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let callers = words
        .first()
        .ok_or("load CALLERS [one] [SECONDS]")?
        .parse()?;
    let is_one = words.iter().any(|word| word == "one");
    let seconds = match words.last().filter(|_| words.len() > 1) {
        Some(word) if word != "one" => word.parse()?,
        _ => 2.0,
    };
    let mut runtime = match is_one {
        true => tokio::runtime::Builder::new_current_thread(),
        false => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = runtime.enable_all().build()?;
    runtime.block_on(async {
        let server = RedisServer::start();
        let hand_written = Arc::new(HandWritten::start(server.port()).await);
        let ours = Arc::new(Ours::start(server.port()).await);
        let mut rounds = [Vec::new(), Vec::new()];
        for number in 0..=ROUNDS {
            let length = Duration::from_secs_f64(seconds);
            let pair = [
                round(&server, &hand_written, callers, length).await?,
                round(&server, &ours, callers, length).await?,
            ];
            if number > 0 {
                rounds[0].push(pair[0]);
                rounds[1].push(pair[1]);
            }
        }
        for (name, rounds) in ["hand-written", "this project"].into_iter().zip(&rounds) {
            let it = |figure: &dyn Fn(&Round) -> f64| median(rounds.iter().map(figure).collect());
            println!(
                "{name:13} {:8.0}/s, client {:.2} + {:.2} µs, server {:.2} + {:.2} µs, {:.2} processors, {:.1} hits a command",
                it(&|round| round.rate),
                it(&|round| round.times[0]),
                it(&|round| round.times[1]),
                it(&|round| round.times[2]),
                it(&|round| round.times[3]),
                it(&|round| round.busy),
                it(&|round| round.batch),
            );
        }
        let pairs = rounds[1].iter().zip(&rounds[0]);
        let ratio = median(pairs.map(|(own, hand)| own.rate / hand.rate).collect());
        println!("{ratio:.2} times hand-written");
        Ok(())
    })
}

async fn round<R: Rival>(
    server: &RedisServer,
    rival: &Arc<R>,
    callers: u64,
    length: Duration,
) -> Result<Round, Failed> {
    let ends = Arc::new(AtomicBool::new(false));
    let hits = Arc::new(AtomicU64::new(0));
    let (before, began) = (times(server).await?, Instant::now());
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let (rival, ends, hits) = (Arc::clone(rival), Arc::clone(&ends), Arc::clone(&hits));
            tokio::spawn(async move {
                let mut made = 0;
                while !ends.load(Ordering::Relaxed) {
                    let row = rival.user(((caller + made) % ROWS) as i64).await;
                    std::hint::black_box(row.expect("a row"));
                    made += 1;
                }
                hits.fetch_add(made, Ordering::Relaxed);
            })
        })
        .collect();
    tokio::time::sleep(length).await;
    ends.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await?;
    }
    let (took, after) = (began.elapsed().as_secs_f64(), times(server).await?);
    let hits = hits.load(Ordering::Relaxed) as f64;
    let spent: Vec<f64> = after
        .iter()
        .zip(before)
        .map(|(after, before)| after - before)
        .collect();
    Ok(Round {
        rate: hits / took,
        times: std::array::from_fn(|at| spent[at] / hits * 1e6),
        busy: spent[..4].iter().sum::<f64>() / took,
        batch: hits / spent[4].max(1.0),
    })
}

/// The processor time of this process and of the server, user and kernel each, in seconds, and how
/// many commands the server has run.
async fn times(server: &RedisServer) -> Result<[f64; 5], Failed> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat
        .rsplit(") ")
        .next()
        .unwrap_or_default()
        .split(' ')
        .collect();
    let client = redis::Client::open(server.url())?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let info: String = redis::cmd("INFO")
        .arg("everything")
        .query_async(&mut connection)
        .await?;
    let of = |name: &str| -> Result<f64, Failed> {
        let line = info.lines().find_map(|line| line.strip_prefix(name));
        Ok(line
            .ok_or_else(|| format!("INFO has no {name}"))?
            .trim()
            .parse()?)
    };
    Ok([
        fields[11].parse::<f64>()? / TICKS,
        fields[12].parse::<f64>()? / TICKS,
        of("used_cpu_user:")?,
        of("used_cpu_sys:")?,
        of("total_commands_processed:")?,
    ])
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
