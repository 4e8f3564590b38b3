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

/// Hand-written is the first, ours the second.
pub(super) async fn run(settings: &Settings, step: &Step) -> Result<Findings, Failed> {
    let server = RedisServer::start();
    let port = server.port();
    let hand_written = Arc::new(HandWritten::start(port).await);
    let ours = Arc::new(Ours::start(port).await);
    let cached = Arc::new(Cached::start(port).await);
    let hitbox = Arc::new(Hitbox::start(port).await);
    let amalgam = Arc::new(AmalgamThrough::start(port).await);
    let mut findings = Findings::default();

    let contestants = [
        user_hits(hand_written.clone()).await,
        user_hits(ours.clone()).await,
        user_hits(cached.clone()).await,
        user_hits(hitbox.clone()).await,
        user_hits(amalgam.clone()).await,
    ];
    for (tasks, name, bound) in [
        (1, "Redis hit, one row, 1 task: p50", Bound::AtMost(1.1)),
        (
            64,
            "Redis hit, one row, 64 tasks: throughput",
            Bound::AtLeast(2.0),
        ),
        (
            512,
            "Redis hit, one row, 512 tasks: throughput",
            Bound::AtLeast(3.0),
        ),
    ] {
        let results = compare(&contestants, settings.drive(tasks), step).await;
        let ratio = match bound {
            Bound::AtMost(_) => results[1].p50_ratio,
            Bound::AtLeast(_) => results[1].rate_ratio,
        };
        let what = format!("{name} against hand-written");
        findings
            .goals
            .push(Goal::measured(&what, bound, "×", ratio));
        findings.tables.push(table(
            &format!("Redis hit: one row, {tasks} at once"),
            "A row of 130 bytes of JSON, one of a hundred in turn, decoded. Hand-written is `GET` and `serde_json`, without any \
             of the promises. This project compares two generations in the same round trip.",
            &results,
        ));
    }

    let service = |call: fn(Arc<Ours>) -> Contestant| call(ours.clone());
    ours.0.page_in_msgpack(1).await?;
    ours.0.page_in_postcard(1).await?;
    let contestants = [
        page_hits(hand_written).await,
        page_hits(ours.clone()).await,
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
        page_hits(cached).await,
        page_hits(hitbox).await,
        page_hits(amalgam).await,
    ];
    let results = compare(&contestants, settings.drive(1), step).await;
    findings.goals.extend([
        Goal::measured(
            "Redis hit, 100 rows in JSON: p50 against hand-written JSON",
            Bound::AtMost(1.05),
            "×",
            results[1].p50_ratio,
        ),
        Goal::measured(
            "Redis hit, 100 rows in MessagePack: p50 against hand-written JSON",
            Bound::AtMost(0.75),
            "×",
            results[2].p50_ratio,
        ),
    ]);
    findings.tables.push(table(
        "Redis hit: a hundred rows",
        "One caller; `cached` keeps MessagePack, hitbox bincode, the others JSON unless they say otherwise.",
        &results,
    ));
    Ok(findings)
}
