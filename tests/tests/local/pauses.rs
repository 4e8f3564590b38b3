//! A process that stands still for longer than local entries are known to be fresh: the first read
//! when it goes on is not served from one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cache_runtime::{Cache, cached, invalidates};
use cache_tests::{Mode, Process, Proxy, RedisServer, eventually};
use futures_util::FutureExt;

use super::{TEST_TIMEOUT, over, tier};

const PORT: &str = "PAUSED_CHILD_PORT";
const FILE: &str = "PAUSED_CHILD_FILE";
const BOUND: Duration = Duration::from_millis(400);
const ROUNDS: usize = 3;

/// The database that two processes share is a file.
struct Shared {
    file: PathBuf,
    cache: Cache,
}

impl Shared {
    async fn new(port: u16, file: PathBuf) -> Self {
        let cache = Cache::new(over(port).local_max_staleness(BOUND)).await;
        Self { file, cache }
    }

    #[cached(resource = "files", cache = self.cache)]
    async fn get(&self, id: i64) -> Arc<String> {
        let _ = id;
        Arc::new(std::fs::read_to_string(&self.file).expect("readable"))
    }

    #[invalidates("files", id = id, cache = self.cache)]
    async fn set(&self, id: i64, text: &str) {
        let _ = id;
        std::fs::write(&self.file, text).expect("writable");
    }
}

/// Is there before a round's pause ends.
fn marker(file: &Path, round: usize) -> PathBuf {
    file.with_extension(round.to_string())
}

/// Not a test by itself: what the other process runs, until it is killed.
#[tokio::test]
#[ignore = "the child of the test below"]
#[expect(clippy::print_stdout, reason = "the parent listens")]
async fn child() {
    let variable = |name| std::env::var(name).expect("set by the parent");
    let port = variable(PORT).parse().expect("a port");
    let file = PathBuf::from(variable(FILE));
    let shared = Shared::new(port, file.clone()).await;
    for round in 1.. {
        let marker = marker(&file, round);
        while tier(shared.get(1)).await != "local" {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let local = shared.get(1).await;
        let mut last = Instant::now();
        println!("holds {local}");
        // It is at this all the time, so that it comes before whatever else wakes up.
        let first = loop {
            let began = Instant::now();
            // Nothing if Redis is asked.
            let read = shared.get(1).now_or_never();
            // The system may let anybody wait for long: a pause is what the parent has said was
            // one.
            if began - last > BOUND && marker.exists() {
                break read;
            }
            last = began;
        };
        let first = first.map_or_else(String::new, |it| it.to_string());
        println!("after pause {round}: {first}");
    }
}

#[tokio::test]
async fn nothing_is_served_after_a_pause_that_was_longer_than_the_bound() {
    let server = RedisServer::start();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("text");
    std::fs::write(&file, "text 0").expect("writable");
    let other = Shared::new(server.port(), file.clone()).await;
    let proxy = Proxy::start(server.port());
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command
        .args(["--ignored", "--exact", "pauses::child", "--nocapture"])
        .env(PORT, proxy.port().to_string())
        .env(FILE, &file);
    let mut child =
        Process::start(&mut command, rustix::process::Signal::KILL, None).expect("starts");
    for round in 1..=ROUNDS {
        let old = format!("text {}", round - 1);
        eventually(TEST_TIMEOUT, async || {
            child.stdout().contains(&format!("holds {old}"))
        })
        .await;
        child.pause();
        // Nothing but the time tells it what has happened meanwhile.
        proxy.set(Mode::HoldAnswers);
        other.set(1, &format!("text {round}")).await;
        tokio::time::sleep(BOUND * 3 / 2).await;
        std::fs::write(marker(&file, round), "").expect("writable");
        child.resume();
        eventually(TEST_TIMEOUT, async || {
            child.stdout().contains(&format!("after pause {round}:"))
        })
        .await;
        proxy.set(Mode::Pass);
        let stale = format!("after pause {round}: {old}");
        assert!(!child.stdout().contains(&stale), "{stale}");
    }
}
