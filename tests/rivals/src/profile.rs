//! Hits and nothing else, for a profiler:
//!
//!     valgrind --tool=callgrind --collect-atstart=no --toggle-collect='*local_hit*' rivals profile local 20000
//!     valgrind --tool=callgrind rivals profile redis 20000
//!     valgrind --tool=callgrind rivals profile redis 20000 64
//!     valgrind --tool=callgrind rivals profile redis 20000 1 0
//!     valgrind --tool=dhat rivals profile redis 20000
//!     perf record -g rivals profile redis 2000000 64 2

use std::hint::black_box;
use std::sync::Arc;

use cache_tests::RedisServer;
use futures_util::FutureExt;

use crate::rivals::Rival;
use crate::rivals::hand_written::HandWritten;
use crate::rivals::ours::{Ours, Service};
use crate::suite::Failed;

/// Runs `local|redis|hand-written [CALLS [TASKS [THREADS]]]`, with no threads on a `current_thread`
/// runtime.
///
/// # Errors
///
/// When it is asked for something else.
pub fn run(arguments: &[String]) -> Result<(), Failed> {
    let (what, calls, tasks, threads) = match arguments {
        [what] => (what, 100_000, 1, 1),
        [what, calls] => (what, calls.parse()?, 1, 1),
        [what, calls, tasks] => (what, calls.parse()?, tasks.parse()?, 1),
        [what, calls, tasks, threads] => (what, calls.parse()?, tasks.parse()?, threads.parse()?),
        _ => return Err("`profile local|redis|hand-written [CALLS [TASKS [THREADS]]]`".into()),
    };
    // On one thread all that a call causes happens between its start and its end.
    let mut builder = match threads {
        0 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if threads > 0 {
        builder.worker_threads(threads);
    }
    let runtime = builder.enable_all().build()?;
    runtime.block_on(async {
        let what = what.clone();
        tokio::spawn(async move { hits(&what, calls, tasks).await }).await?
    })
}

async fn hits(what: &str, calls: i64, tasks: i64) -> Result<(), Failed> {
    match what {
        "local" => {
            let service = Service::memory(64).await;
            for id in 0..100 {
                service.shared_user(id).await?;
            }
            for n in 0..calls {
                local_hit(&service, n % 100);
            }
        }
        "redis" => {
            let server = RedisServer::start();
            let rival = Ours::start(server.port()).await;
            profile(rival, calls, tasks).await?;
        }
        "hand-written" => {
            let server = RedisServer::start();
            let rival = HandWritten::start(server.port()).await;
            profile(rival, calls, tasks).await?;
        }
        _ => return Err(format!("there is no profile of `{what}`").into()),
    }
    Ok(())
}

/// All tasks together make so many calls.
async fn profile<R: Rival>(rival: R, calls: i64, tasks: i64) -> Result<(), Failed> {
    let rival = Arc::new(rival);
    for id in 0..100 {
        rival.user(id).await?;
    }
    let tasks = (0..tasks).map(|task| {
        let rival = Arc::clone(&rival);
        tokio::spawn(async move {
            for n in 0..calls / tasks {
                let _ = black_box(rival.user((n + 7 * task) % 100).await);
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await?;
    }
    Ok(())
}

/// Not async, so that a profiler sees one function around the whole of a hit.
#[inline(never)]
fn local_hit(service: &Service, id: i64) {
    let hit = service.shared_user(id).now_or_never();
    let _ = black_box(hit.expect("a local hit waits for nothing"));
}
