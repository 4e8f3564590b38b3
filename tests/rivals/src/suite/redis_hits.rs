//! Hits in Redis: one row alone and under load, and a hundred rows.

use std::hint::black_box;
use std::sync::Arc;

use cache_tests::RedisServer;

use super::{Failed, Settings};
use crate::figures::{Bound, Findings, Goal, Table};
use crate::measure::{Contestant, Result as Measured, compare};
use crate::progress::Step;
use crate::rivals::Rival;
use crate::rivals::amalgam::AmalgamThrough;
use crate::rivals::cached::Cached;
use crate::rivals::hand_written::HandWritten;
use crate::rivals::hitbox::Hitbox;
use crate::rivals::ours::Ours;

/// Rows that are read in turn.
const ROWS: u64 = 100;

/// Reads one row after another.
pub(super) async fn user_hits<R: Rival>(rival: Arc<R>) -> Contestant {
    for id in 0..ROWS {
        rival.user(id as i64).await.expect("a row");
    }
    Contestant::new(R::NAME, move |n| {
        let rival = rival.clone();
        async move {
            let row = rival.user((n % ROWS) as i64).await;
            black_box(row.expect("a row"));
        }
    })
}

async fn page_hits<R: Rival>(rival: Arc<R>) -> Contestant {
    rival.page(1).await.expect("a page");
    Contestant::new(R::NAME, move |_| {
        let rival = rival.clone();
        async move {
            black_box(rival.page(1).await.expect("a page"));
        }
    })
}

fn table(title: &str, text: &str, results: &[Measured]) -> Table {
    Table {
        title: title.to_owned(),
        text: text.to_owned(),
        rows: results.iter().map(|result| result.row(1.0)).collect(),
    }
}

/// All of them over one Redis.
struct Rivals {
    hand_written: Arc<HandWritten>,
    ours: Arc<Ours>,
    cached: Arc<Cached>,
    hitbox: Arc<Hitbox>,
    amalgam: Arc<AmalgamThrough>,
    _server: RedisServer,
}

impl Rivals {
    async fn start() -> Self {
        let server = RedisServer::start();
        let port = server.port();
        Self {
            hand_written: Arc::new(HandWritten::start(port).await),
            ours: Arc::new(Ours::start(port).await),
            cached: Arc::new(Cached::start(port).await),
            hitbox: Arc::new(Hitbox::start(port).await),
            amalgam: Arc::new(AmalgamThrough::start(port).await),
            _server: server,
        }
    }

    /// Hand-written is the first, ours the second.
    async fn users(&self) -> [Contestant; 5] {
        [
            user_hits(self.hand_written.clone()).await,
            user_hits(self.ours.clone()).await,
            user_hits(self.cached.clone()).await,
            user_hits(self.hitbox.clone()).await,
            user_hits(self.amalgam.clone()).await,
        ]
    }

    async fn pages(&self) -> [Contestant; 7] {
        let service = |call: fn(Arc<Ours>) -> Contestant| call(self.ours.clone());
        [
            page_hits(self.hand_written.clone()).await,
            page_hits(self.ours.clone()).await,
            service(|ours| {
                Contestant::new("this project, msgpack", move |_| {
                    let ours = ours.clone();
                    async move {
                        black_box(ours.0.page_in_msgpack(1).await.expect("a page"));
                    }
                })
            }),
            service(|ours| {
                Contestant::new("this project, postcard", move |_| {
                    let ours = ours.clone();
                    async move {
                        black_box(ours.0.page_in_postcard(1).await.expect("a page"));
                    }
                })
            }),
            page_hits(self.cached.clone()).await,
            page_hits(self.hitbox.clone()).await,
            page_hits(self.amalgam.clone()).await,
        ]
    }
}

const ROW: &str = "A row of 130 bytes of JSON, one of a hundred in turn, decoded. Hand-written is `GET` and `serde_json`, \
                   without any of the promises; this project compares two generations in the same round trip.";

/// One caller, on one thread.
pub(super) async fn alone(settings: &Settings, step: &Step) -> Result<Findings, Failed> {
    let rivals = Rivals::start().await;
    let rows = compare(&rivals.users().await, settings.drive(1), step).await;
    let pages = compare(&rivals.pages().await, settings.drive(1), step).await;
    Ok(Findings {
        goals: vec![
            Goal::measured(
                "Redis hit, one row, 1 task: throughput against hand-written",
                Bound::AtLeast(0.98),
                "×",
                rows[1].rate_ratio,
            ),
            Goal::measured(
                "Redis hit, 100 rows in JSON: p50 against hand-written JSON",
                Bound::AtMost(1.05),
                "×",
                pages[1].p50_ratio,
            ),
            Goal::measured(
                "Redis hit, 100 rows in MessagePack: p50 against hand-written JSON",
                Bound::AtMost(0.8),
                "×",
                pages[2].p50_ratio,
            ),
        ],
        tables: vec![
            table(
                "Redis hit: one row, one caller",
                &format!("{ROW} One thread runs caller and connection."),
                &rows,
            ),
            table(
                "Redis hit: a hundred rows, one caller",
                "`cached` keeps MessagePack, hitbox bincode, the others JSON unless they say otherwise.",
                &pages,
            ),
        ],
        plots: Vec::new(),
    })
}

/// Many callers, on all processors.
pub(super) async fn load(settings: &Settings, step: &Step) -> Result<Findings, Failed> {
    let rivals = Rivals::start().await;
    let contestants = rivals.users().await;
    let mut findings = Findings::default();
    for (tasks, bound) in [
        (2, 1.0),
        (4, 1.0),
        (8, 1.0),
        (16, 1.05),
        (64, 1.6),
        (512, 2.5),
    ] {
        // All rivals only where there are many callers, or the suite takes too long.
        let rivals = match tasks {
            64.. => &contestants[..],
            _ => &contestants[..2],
        };
        let results = compare(rivals, settings.drive(tasks), step).await;
        let what = format!("Redis hit, one row, {tasks} tasks: throughput against hand-written");
        let ratio = results[1].rate_ratio;
        let goal = Goal::measured(&what, Bound::AtLeast(bound), "×", ratio);
        findings.goals.push(goal);
        let title = format!("Redis hit: one row, {tasks} callers");
        findings.tables.push(table(&title, ROW, &results));
    }
    Ok(findings)
}

/// The same on a runtime with one thread, as a worker of actix-web has.
pub(super) async fn one_thread(settings: &Settings, step: &Step) -> Result<Findings, Failed> {
    let compared = || -> Result<Findings, Failed> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(on_one_thread(settings, step))
    };
    // A thread that belongs to no runtime, or the cache would use the workers of the other one.
    tokio::task::block_in_place(|| {
        std::thread::scope(|scope| scope.spawn(compared).join())
            .map_err(|_| Failed::from("the comparison panicked"))?
    })
}

async fn on_one_thread(settings: &Settings, step: &Step) -> Result<Findings, Failed> {
    let server = RedisServer::start();
    let port = server.port();
    let ours = Arc::new(Ours::start(port).await);
    let contestants = [
        user_hits(Arc::new(HandWritten::start(port).await)).await,
        user_hits(ours).await,
    ];
    let mut findings = Findings::default();
    for (tasks, bound) in [(1, 0.92), (64, 1.5)] {
        let results = compare(&contestants, settings.drive(tasks), step).await;
        let what = format!(
            "Redis hit on a `current_thread` runtime, {tasks} tasks: throughput against hand-written"
        );
        let ratio = results[1].rate_ratio;
        let goal = Goal::measured(&what, Bound::AtLeast(bound), "×", ratio);
        findings.goals.push(goal);
        let title = format!("Redis hit on a `current_thread` runtime: one row, {tasks} callers");
        findings.tables.push(table(&title, ROW, &results));
    }
    Ok(findings)
}
