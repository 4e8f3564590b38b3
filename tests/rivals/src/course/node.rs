//! One process on the course.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use futures_util::future::{BoxFuture, join_all};
use redis::aio::MultiplexedConnection;

use super::check::{History, Read, Write};
use crate::data::{self, Source};
use crate::rivals::Rival;
use crate::rivals::hand_written::connect;
use crate::suite::Failed;
use crate::with_rival;
use crate::worker::{now, until};

/// A read that takes longer is stuck.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The database: a Redis of its own, in which each row is a version that writes count up.
struct Truth {
    connection: MultiplexedConnection,
    commits: Mutex<Vec<Write>>,
    loads: AtomicU64,
}

impl Source for Truth {
    fn load(&self, id: i64) -> BoxFuture<'_, u64> {
        let mut connection = self.connection.clone();
        Box::pin(async move {
            self.loads.fetch_add(1, Ordering::Relaxed);
            let version: Option<u64> = redis::cmd("GET")
                .arg(id)
                .query_async(&mut connection)
                .await
                .expect("the truth answers");
            // The answer is on its way: what is committed from here on is not in it.
            tokio::time::sleep(Duration::from_micros(fastrand::u64(1_000..4_000))).await;
            version.unwrap_or(0)
        })
    }

    fn commit(&self, id: i64) -> BoxFuture<'_, u64> {
        let mut connection = self.connection.clone();
        Box::pin(async move {
            let version: u64 = redis::cmd("INCR")
                .arg(id)
                .query_async(&mut connection)
                .await
                .expect("the truth answers");
            self.commits.lock().expect("no panics").push(Write {
                key: id.unsigned_abs(),
                at: now(),
                version,
            });
            tokio::time::sleep(Duration::from_millis(1)).await;
            version
        })
    }
}

struct Node<R> {
    rival: R,
    keys: i64,
    end: u64,
    history: Mutex<History>,
}

/// `PORT TRUTH START SEED SECONDS KEYS READERS WRITERS NUMBER`; prints the file that holds the
/// history.
///
/// # Errors
///
/// When it is told something else.
pub async fn run(rival: &str, arguments: &[&str]) -> Result<String, Failed> {
    let numbers: Vec<u64> = arguments
        .iter()
        .map(|argument| argument.parse())
        .collect::<Result<_, _>>()?;
    let [
        port,
        truth,
        start,
        seed,
        seconds,
        keys,
        readers,
        writers,
        number,
    ] = numbers[..]
    else {
        return Err("not what a node is told".into());
    };
    let truth = Arc::new(Truth {
        connection: connect(truth as u16).await,
        commits: Mutex::default(),
        loads: AtomicU64::new(0),
    });
    data::install(truth.clone());
    let seed = seed.wrapping_mul(1_000).wrapping_add(number);
    let end = start + seconds * 1_000_000_000;
    macro_rules! drive {
        ($rival:ty) => {
            drive::<$rival>(port as u16, start, end, seed, keys as i64, readers, writers).await
        };
    }
    let mut history = with_rival!(rival, drive).ok_or("no such rival")?;
    history.commits = std::mem::take(&mut *truth.commits.lock().expect("no panics"));
    history.loads = truth.loads.load(Ordering::Relaxed);
    let file: PathBuf = std::env::temp_dir().join(format!("course-{}", std::process::id()));
    history.write(&file)?;
    Ok(serde_json::to_string(&file)?)
}

async fn drive<R: Rival>(
    port: u16,
    start: u64,
    end: u64,
    seed: u64,
    keys: i64,
    readers: u64,
    writers: u64,
) -> History {
    let node = Arc::new(Node {
        rival: R::start(port).await,
        keys,
        end,
        history: Mutex::default(),
    });
    until(start).await;
    let tasks = (0..readers + writers).map(|task| {
        let node = node.clone();
        let random = Rng::with_seed(seed.wrapping_mul(1_000).wrapping_add(task));
        tokio::spawn(async move {
            if task < readers {
                node.read(random).await;
            } else {
                node.write(random, task == readers).await;
            }
        })
    });
    for task in join_all(tasks).await {
        task.expect("a task of the course panicked");
    }
    std::mem::take(&mut *node.history.lock().expect("no panics"))
}

impl<R: Rival> Node<R> {
    async fn read(&self, mut random: Rng) {
        let mut reads = Vec::new();
        let (mut failed, mut stuck) = (0, 0);
        for turn in 1_u64.. {
            // Rows beyond `keys` are written only by callers who hang up.
            let range = if random.u8(0..10) == 0 { 2 } else { 1 };
            let key = random.i64(1..=self.keys) + (range - 1) * self.keys;
            let begun = now();
            if begun >= self.end {
                break;
            }
            if random.u8(0..100) == 0 {
                // Hangs up; if it leads a load, others wait for that.
                let limit = Duration::from_micros(random.u64(0..3_000));
                drop(tokio::time::timeout(limit, self.rival.user(key)).await);
                continue;
            }
            match tokio::time::timeout(READ_TIMEOUT, self.rival.user(key)).await {
                Ok(Ok(row)) => {
                    assert_eq!(row.id, key, "another key's row");
                    reads.push(Read {
                        key: key.unsigned_abs(),
                        begun,
                        version: row.version,
                    });
                }
                Ok(Err(_)) => failed += 1,
                Err(_) => stuck += 1,
            }
            // Else those who keep values in the process would do nothing but read.
            if turn.is_multiple_of(20) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        let mut history = self.history.lock().expect("no panics");
        history.reads.append(&mut reads);
        history.failed += failed;
        history.stuck += stuck;
    }

    async fn write(&self, mut random: Rng, hangs_up: bool) {
        let mut acknowledged = Vec::new();
        let mut failed = 0;
        let mut last = now();
        while now() < self.end {
            let key = random.i64(1..=self.keys);
            if hangs_up && now() - last > 500_000_000 {
                last = now();
                // Around the commit: before it, after it, or while the invalidation is on its way.
                let limit = Duration::from_micros(random.u64(0..4_000));
                let write = self.rival.write(self.keys + key);
                if let Ok(Ok(version)) = tokio::time::timeout(limit, write).await {
                    acknowledged.push(Write {
                        key: (self.keys + key).unsigned_abs(),
                        at: now(),
                        version,
                    });
                }
                continue;
            }
            match self.rival.write(key).await {
                Ok(version) => acknowledged.push(Write {
                    key: key.unsigned_abs(),
                    at: now(),
                    version,
                }),
                Err(_) => failed += 1,
            }
            let pause = Duration::from_millis(random.u64(2..10));
            tokio::time::sleep(pause).await;
        }
        let mut history = self.history.lock().expect("no panics");
        history.acknowledged.append(&mut acknowledged);
        history.failed += failed;
    }
}
