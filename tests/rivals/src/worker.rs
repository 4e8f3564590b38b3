//! Work that takes several processes: the suite starts its own executable again, and reads what it
//! prints.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, join_all, try_join_all};
use rustix::time::{ClockId, clock_gettime};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::data::{self, Source};
use crate::rivals::Rival;
use crate::rivals::hand_written::connect;
use crate::suite::Failed;
use crate::with_rival;

/// Nanoseconds of a clock that all processes of this machine share.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// Resolves at that moment of the common clock.
pub async fn until(moment: u64) {
    tokio::time::sleep(Duration::from_nanos(moment.saturating_sub(now()))).await;
}

/// Starts this executable `number` times with these arguments, and the number of each at the end;
/// what they print.
pub async fn start<T: DeserializeOwned>(
    number: usize,
    arguments: &[String],
) -> Result<Vec<T>, Failed> {
    let executable = std::env::current_exe()?;
    let children = (0..number).map(|place| {
        let mut command = Command::new(&executable);
        command
            .arg("worker")
            .args(arguments)
            .arg(place.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        async move {
            let output = command.spawn()?.wait_with_output().await?;
            if !output.status.success() {
                return Err(Failed::from(format!(
                    "a worker ended with {}",
                    output.status
                )));
            }
            Ok(serde_json::from_slice(&output.stdout)?)
        }
    });
    try_join_all(children).await
}

/// What a worker is told: `stampede RIVAL PORT TRUTH CALLERS START` or `hits RIVAL PORT TASKS START
/// MILLISECONDS`, and its number.
///
/// # Errors
///
/// When it is told something else.
pub async fn run(arguments: &[String]) -> Result<(), Failed> {
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    let printed = match words[..] {
        ["stampede", rival, port, truth, callers, start, _] => {
            let (port, truth) = (port.parse()?, truth.parse()?);
            let (callers, start) = (callers.parse()?, start.parse()?);
            data::install(Arc::new(Counted(connect(truth).await)));
            macro_rules! stampede {
                ($rival:ty) => {
                    stampede::<$rival>(port, callers, start).await
                };
            }
            serde_json::to_string(&with_rival!(rival, stampede).ok_or("no such rival")?)?
        }
        ["hits", rival, port, tasks, start, millis, number] => {
            let (port, tasks, start) = (port.parse()?, tasks.parse()?, start.parse()?);
            let (length, number) = (Duration::from_millis(millis.parse()?), number.parse()?);
            macro_rules! hits {
                ($rival:ty) => {
                    hits::<$rival>(port, tasks, start, length, number).await
                };
            }
            serde_json::to_string(&with_rival!(rival, hits).ok_or("no such rival")?)?
        }
        ["course", rival, ref rest @ ..] => crate::course::node::run(rival, rest).await?,
        ["idle", rival, port, _] => {
            let port = port.parse()?;
            macro_rules! idle {
                ($rival:ty) => {
                    idle::<$rival>(port).await
                };
            }
            let bytes = match rival {
                "nothing" => Some(resident()),
                rival => with_rival!(rival, idle),
            };
            serde_json::to_string(&bytes.ok_or("no such rival")?)?
        }
        _ => return Err(format!("no such work: {words:?}").into()),
    };
    use std::io::Write;
    std::io::stdout().write_all(printed.as_bytes())?;
    Ok(())
}

/// A database that takes its time, and counts in another Redis how often it is asked.
struct Counted(redis::aio::MultiplexedConnection);

/// How long a load takes in the stampede.
pub const LOAD: Duration = Duration::from_millis(200);

impl Source for Counted {
    fn load(&self, id: i64) -> BoxFuture<'_, u64> {
        let mut connection = self.0.clone();
        Box::pin(async move {
            let key = format!("loads:{id}");
            let _: i64 = redis::cmd("INCR")
                .arg(key)
                .query_async(&mut connection)
                .await
                .expect("the truth answers");
            tokio::time::sleep(LOAD).await;
            0
        })
    }

    fn commit(&self, _: i64) -> BoxFuture<'_, u64> {
        Box::pin(std::future::ready(0))
    }
}

/// What became of the callers of one process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Stampede {
    /// Microseconds of each that was answered.
    pub waited: Vec<u64>,
    /// What one of the others was told.
    pub failure: Option<String>,
}

/// All callers want the same cold row at once.
async fn stampede<R: Rival>(port: u16, callers: usize, start: u64) -> Stampede {
    let rival = Arc::new(R::start(port).await);
    // The connection and the scripts, as in a process that has been running for a while.
    drop(rival.page(0).await);
    until(start).await;
    let calls = (0..callers).map(|_| {
        let rival = rival.clone();
        tokio::spawn(async move {
            let begun = Instant::now();
            let answer = tokio::time::timeout(Duration::from_secs(30), rival.user(1)).await;
            match answer {
                Ok(Ok(_)) => Ok(begun.elapsed().as_micros() as u64),
                Ok(Err(failure)) => Err(failure.to_string()),
                Err(_) => Err("no answer in 30 s".to_owned()),
            }
        })
    });
    let mut outcome = Stampede::default();
    for answer in join_all(calls).await {
        match answer.unwrap_or_else(|panic| Err(panic.to_string())) {
            Ok(waited) => outcome.waited.push(waited),
            Err(failure) => outcome.failure = Some(failure),
        }
    }
    outcome
}

/// Hits until the time is over; calls per second.
async fn hits<R: Rival>(port: u16, tasks: u64, start: u64, length: Duration, number: u64) -> f64 {
    let rival = Arc::new(R::start(port).await);
    for id in 0..100 {
        rival.user(id).await.expect("a row");
    }
    until(start).await;
    let begun = Instant::now();
    let tasks = (0..tasks).map(|task| {
        let rival = rival.clone();
        tokio::spawn(async move {
            let mut calls = 0_u64;
            let mut id = number * 31 + task * 7;
            while begun.elapsed() < length {
                std::hint::black_box(rival.user((id % 100) as i64).await.expect("a row"));
                id += 1;
                calls += 1;
            }
            calls
        })
    });
    let calls: u64 = join_all(tasks).await.into_iter().flatten().sum();
    calls as f64 / begun.elapsed().as_secs_f64()
}

/// What this process occupies, in bytes.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    kilobytes.unwrap_or(f64::NAN) * 1024.0
}

/// The same with an instance that has nothing to do.
async fn idle<R: Rival>(port: u16) -> f64 {
    let rival = R::start(port).await;
    drop(rival.user(1).await);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let bytes = resident();
    drop(rival);
    bytes
}
