//! The workload for other caches: the same faults, processes and checker as the full mix, with the
//! operations that any cache has.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fastrand::Rng;

use crate::app::{Common, IN_DOUBT_WINDOW, ProcessConfig, Workload};
use crate::clock::now;
use crate::context::{CallContext, IDS, Mishap};
use crate::history::{Answer, Begin, Event, Failed, Form, Outcome, Read, ReadKind, Step};
use crate::reads::{id, load_mishap};
use crate::rival::{CONTEXT, Failure, KINDS, PAGES, RivalCache, install, name_of, wanted};
use crate::workload::again;
use crate::writes::{GRACE, STEP, hang_up, mishap, quiet_mishap, quiet_turn, share};

/// The kind whose rows are written once in a long while.
const QUIET: u8 = KINDS - 1;
/// How long a rival may take to start before it is tried again.
const START: Duration = Duration::from_secs(3);

pub(crate) struct RivalWorkload<C> {
    rival: C,
    common: Arc<Common>,
}

impl<C: RivalCache> Workload for RivalWorkload<C> {
    async fn begin(process_config: &ProcessConfig, common: Common) -> Self {
        let common = Arc::new(common);
        install(&common);
        let rival = loop {
            // A panic is a start that has failed.
            let mut start = tokio::spawn(C::start(process_config.redis.port()));
            if let Ok(Ok(Ok(rival))) = tokio::time::timeout(START, &mut start).await {
                break rival;
            }
            start.abort();
            tokio::time::sleep(STEP).await;
        };
        Self { rival, common }
    }

    fn common(&self) -> &Common {
        &self.common
    }

    async fn run_operation(self: Arc<Self>, mut rng: Rng) {
        let rng = &mut rng;
        let kind = (rng.u8(..9) / 2).min(QUIET);
        let is_quiet = kind == QUIET;
        let turn = is_quiet.then(|| quiet_turn(&self.common)).flatten();
        if let Some(id) = turn {
            let (mishap, hang_up) = quiet_mishap(&self.common, kind, rng);
            self.write(kind, id, mishap, hang_up).await;
        } else if !is_quiet && rng.u32(..1_000) < share(&self.common, kind) {
            let mishap = mishap(&self.common, kind, rng);
            let hang_up = hang_up(&self.common, kind, rng);
            self.write(kind, id(rng), mishap, hang_up).await;
        } else if self.common.mishaps && rng.u32(..100) < 2 {
            let limit = Duration::from_micros(rng.u64(50..5_000));
            let _ = tokio::time::timeout(limit, self.read(kind, rng)).await;
        } else if rng.u32(..100) < 20 {
            for _ in again(rng) {
                self.read(kind, &mut rng.clone()).await;
            }
        } else {
            self.read(kind, rng).await;
        }
    }

    async fn sweep(&self) {
        for kind in 0..KINDS {
            for id in 1..=IDS {
                self.read_one(kind, ReadKind::Get, id, Mishap::None).await;
            }
            for skip in 0..PAGES {
                self.read_one(kind, ReadKind::List, skip, Mishap::None)
                    .await;
            }
        }
    }

    async fn standing(&self) -> (bool, u64) {
        (true, self.rival.waiting().await)
    }

    async fn end(&self) {
        self.rival.end().await;
    }
}

impl<C: RivalCache> RivalWorkload<C> {
    fn failed(&self, failure: &Failure) {
        self.common.recorder.note(&Event::Failed(Failed {
            process: self.common.process,
            at: now(),
            what: failure.0.chars().take(120).collect(),
        }));
    }

    async fn read(&self, kind: u8, rng: &mut Rng) {
        let mishap = load_mishap(&self.common, rng);
        if rng.u32(..100) < 60 {
            self.read_one(kind, ReadKind::Get, id(rng), mishap).await;
        } else {
            let skip = rng.i64(0..PAGES);
            self.read_one(kind, ReadKind::List, skip, mishap).await;
        }
    }

    async fn read_one(&self, kind: u8, read: ReadKind, argument: i64, mishap: Mishap) {
        let context = CallContext::new(&self.common.pool, &self.common.recorder, 0, mishap);
        let start = now();
        let shown = CONTEXT
            .scope(context, async {
                if read == ReadKind::Get {
                    let row = self.rival.row(kind, argument).await?;
                    let is_right =
                        i64::from(row.id) == argument && row.of == name_of("row", kind, argument);
                    return Ok((is_right, vec![(row.id, row.version)]));
                }
                let page = self.rival.page(kind, argument).await?;
                let ids = page.rows.iter().map(|(id, _)| i64::from(*id));
                let is_right =
                    page.of == name_of("page", kind, argument) && ids.eq(wanted(argument));
                Ok((is_right, page.rows))
            })
            .await;
        match shown {
            Ok((is_right, rows)) => self.common.note(Read {
                process: self.common.process,
                start,
                end: now(),
                read,
                kind,
                argument,
                answer: Answer::Hit,
                local: C::HAS_LOCAL_ENTRIES,
                strict: false,
                wrong: (!is_right).then(|| format!("{rows:?}")),
                rows,
            }),
            // Its own body was to fail.
            Err(_) if mishap.fails() => {}
            Err(failure) => self.failed(&failure),
        }
    }

    async fn write(self: &Arc<Self>, kind: u8, id: i64, mishap: Mishap, hang_up: Option<Duration>) {
        let common = &self.common;
        let write = common.next_write();
        let context = CallContext::new(&common.pool, &common.recorder, write, mishap);
        let (process, at, form) = (common.process, now(), Form::ById);
        common.recorder.note(&Event::Begin(Begin {
            write,
            process,
            at,
            form,
        }));
        common.unsettled.fetch_add(1, Ordering::SeqCst);
        let running = {
            let (this, context) = (Arc::clone(self), context.clone());
            tokio::spawn(async move {
                let writing = CONTEXT.scope(context, this.rival.write(kind, id));
                match hang_up {
                    None => Some(writing.await),
                    Some(limit) => tokio::time::timeout(limit, writing).await.ok(),
                }
            })
        };
        let outcome = match running.await {
            Ok(Some(Ok(()))) => Outcome::Returned,
            Ok(Some(Err(failure))) => {
                if !mishap.fails() {
                    self.failed(&failure);
                }
                Outcome::Unknown
            }
            Ok(None) => Outcome::Dropped,
            Err(_) => Outcome::Panicked,
        };
        context.mark(Step::Done(outcome));
        if outcome != Outcome::Returned {
            self.settle(context, IN_DOUBT_WINDOW + GRACE);
        } else if self.rival.is_pending(kind, id).await {
            context.mark(Step::Pending);
            self.settle(context, Duration::ZERO);
        } else {
            context.mark(Step::InForce);
            common.unsettled.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Notes, in the background, when the promise begins that a write has which did not simply
    /// return.
    fn settle(self: &Arc<Self>, context: CallContext, wait: Duration) {
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let mut waited = Duration::ZERO;
            while waited < wait {
                tokio::time::sleep(STEP).await;
                waited += STEP;
            }
            while this.rival.waiting().await > 0 {
                tokio::time::sleep(STEP).await;
            }
            context.mark(Step::InForce);
            this.common.unsettled.fetch_sub(1, Ordering::SeqCst);
        });
    }
}
