//! Tasks that call annotated functions all the time, and what they saw.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cache_runtime::{Cache, Status, cached, invalidates, observe};
use tokio::task::JoinHandle;

const TASKS: usize = 16;
const ROWS: i64 = 200;
/// One call in so many is a write.
const WRITES: u32 = 50;
/// What a task does with an answer before it asks again.
const THINKS: Duration = Duration::from_millis(4);
/// How long the source takes.
const LOAD: Duration = Duration::from_millis(1);
/// Who has waited for so long has hung up.
const HANGS_UP: Duration = Duration::from_secs(5);

tokio::task_local! {
    /// How long the body of the current call has run.
    static BODY: Cell<Duration>;
}

pub(crate) async fn body() {
    let start = Instant::now();
    tokio::time::sleep(LOAD).await;
    let _ = BODY.try_with(|body| body.set(body.get() + start.elapsed()));
}

fn value(id: i64) -> String {
    format!("row {id}")
}

#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) cache: Cache,
}

impl Service {
    async fn bare(id: i64) -> String {
        body().await;
        value(id)
    }

    #[cached(resource = "rows", cache = self.cache)]
    pub(crate) async fn get(&self, id: i64) -> String {
        body().await;
        value(id)
    }

    #[invalidates("rows", id = id, cache = self.cache)]
    async fn touch(&self, id: i64) -> String {
        body().await;
        value(id)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Hit,
    /// A read that was no hit.
    Load,
    Write,
}

/// One call.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) at: Instant,
    pub(crate) kind: Kind,
    /// What the call took, without its body.
    pub(crate) added: Duration,
    /// No answer, or a wrong one.
    pub(crate) is_lost: bool,
}

/// The tasks.
pub(crate) struct Load {
    tasks: Vec<JoinHandle<Vec<Sample>>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    hits: AtomicU64,
}

impl Load {
    /// Without a service the function is called as it is.
    pub(crate) fn start(service: Option<&Service>) -> Self {
        let shared = Arc::new(Shared::default());
        let tasks = (0..TASKS).map(|_| {
            let (service, shared) = (service.cloned(), Arc::clone(&shared));
            tokio::spawn(async move {
                let mut samples = Vec::new();
                while !shared.stop.load(Ordering::Relaxed) {
                    let sample = call(service.as_ref()).await;
                    if sample.kind == Kind::Hit {
                        shared.hits.fetch_add(1, Ordering::Relaxed);
                    }
                    samples.push(sample);
                    tokio::time::sleep(THINKS).await;
                }
                samples
            })
        });
        Self {
            tasks: tasks.collect(),
            shared,
        }
    }

    /// How many hits there have been.
    pub(crate) fn hits(&self) -> u64 {
        self.shared.hits.load(Ordering::Relaxed)
    }

    pub(crate) async fn stop(self) -> Vec<Sample> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut samples = Vec::new();
        for task in self.tasks {
            samples.append(&mut task.await.expect("no call panics"));
        }
        samples
    }
}

async fn call(service: Option<&Service>) -> Sample {
    let id = fastrand::i64(0..ROWS);
    let is_write = fastrand::u32(0..WRITES) == 0;
    let run = async {
        let (answer, outcomes) = observe(async {
            match service {
                None => Service::bare(id).await,
                Some(service) if is_write => service.touch(id).await,
                Some(service) => service.get(id).await,
            }
        })
        .await;
        let kind = match outcomes.first().map(|outcome| &outcome.status) {
            _ if is_write => Kind::Write,
            Some(Status::Hit { .. }) => Kind::Hit,
            _ => Kind::Load,
        };
        (answer, kind, BODY.with(Cell::get))
    };
    let at = Instant::now();
    let answered = tokio::time::timeout(HANGS_UP, BODY.scope(Cell::default(), run)).await;
    let took = at.elapsed();
    match answered {
        Ok((answer, kind, in_body)) => Sample {
            at,
            kind,
            // Who did not run the body was spared it.
            added: took.saturating_sub(in_body.max(LOAD)),
            is_lost: answer != value(id),
        },
        Err(_) => Sample {
            at,
            kind: if is_write { Kind::Write } else { Kind::Load },
            added: took,
            is_lost: true,
        },
    }
}
