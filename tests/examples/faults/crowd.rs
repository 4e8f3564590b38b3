//! Ten thousand calls at once, in a process of their own: what they cost in memory.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cache_runtime::{Cache, CacheConfig, RedisConfig};
use cache_tests::RedisServer;

use crate::load::{Service, body};

const CALLS: i64 = 10_000;
/// The word by which this program knows that it is the crowd.
pub(crate) const CROWD: &str = "crowd";

/// Runs the crowd against a server that hangs from the moment it is ready, or without a cache;
/// prints what it cost.
pub(crate) fn table(say: &mut impl FnMut(String)) {
    say(String::new());
    say("| 10,000 calls at once | memory they took | tasks of the cache | lost | slowest |".into());
    say("|---|---|---|---|---|".into());
    for (name, kind) in [
        ("of the bare function", "bare"),
        ("Redis hung", "hung"),
        ("Redis well", "well"),
    ] {
        let mut server = RedisServer::start();
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args([CROWD, kind, &server.port().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        lines.next().expect("ready").expect("text");
        if kind == "hung" {
            server.pause();
        }
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(b"go\n").expect("it listens");
        let cells = lines.next().expect("a row").expect("text");
        say(format!("| {name} | {cells} |"));
        child.wait().expect("it ends");
    }
}

/// The child: warms up, waits for the word, calls, prints the cells.
pub(crate) async fn run(kind: &str, port: u16) {
    let redis = RedisConfig::at("127.0.0.1", port);
    let cache = Cache::new(CacheConfig::default().redis(redis).advice(false)).await;
    let service = Service { cache };
    for id in 0..100 {
        service.get(-id).await;
    }
    println!("ready");
    let mut word = String::new();
    std::io::stdin().read_line(&mut word).expect("the word");

    let before = resident();
    let started = Instant::now();
    let calls: Vec<_> = (0..CALLS)
        .map(|id| {
            let (service, is_bare) = (service.clone(), kind == "bare");
            tokio::spawn(async move {
                let start = Instant::now();
                if is_bare {
                    body().await;
                } else {
                    assert_eq!(service.get(id).await, format!("row {id}"));
                }
                start.elapsed()
            })
        })
        .collect();
    let (mut most, mut tasks) = (0, 0);
    while started.elapsed() < Duration::from_millis(300) {
        tokio::time::sleep(Duration::from_millis(2)).await;
        most = most.max(resident());
        // The figures come with an answer of Redis, for which they wait in vain.
        if kind != "bare" && tasks == 0 && started.elapsed() > Duration::from_millis(10) {
            tasks = service.cache.get_stats().await.tasks;
        }
    }
    let (mut lost, mut slowest) = (0, Duration::ZERO);
    for call in calls {
        match call.await {
            Ok(took) => slowest = slowest.max(took),
            Err(_) => lost += 1,
        }
    }
    let grown = most.max(resident()).saturating_sub(before) as f64 / 1024.0;
    println!(
        "{grown:.1} MB | {tasks} | {lost} | {:.0} ms",
        slowest.as_secs_f64() * 1e3
    );
}

/// Kilobytes of this process in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse().ok())
        .unwrap_or(0)
}
