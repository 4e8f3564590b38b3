//! How the cost of a hit grows: with processes, entries, the size of values, and dependencies.

use std::hint::black_box;
use std::sync::Arc;

use cache_tests::RedisServer;
use futures_util::{StreamExt, stream};

use super::{Failed, Settings};
use crate::figures::{Findings, Line, Plot};
use crate::measure::{Contestant, Drive, compare, median};
use crate::progress::Step;
use crate::rivals::Rival;
use crate::rivals::cached::Cached;
use crate::rivals::hand_written::HandWritten;
use crate::rivals::ours::{Ours, Service};
use crate::worker;

pub(super) async fn run(settings: &Settings, step: &Step) -> Result<Findings, Failed> {
    let plots = vec![
        processes(settings, step).await?,
        entries(settings, step).await?,
        local_entries(settings, step).await?,
        values(settings, step).await?,
        dependencies(settings, step).await?,
    ];
    Ok(Findings {
        plots,
        ..Findings::default()
    })
}

fn lines<const N: usize>(names: [&str; N]) -> [Line; N] {
    names.map(|name| Line {
        name: name.to_owned(),
        points: Vec::new(),
    })
}

/// Shorter than those of the tables: there are many points.
fn drive(settings: &Settings) -> Drive {
    Drive {
        rounds: settings.pick(2, 5),
        ..settings.drive(1)
    }
}

async fn processes(settings: &Settings, step: &Step) -> Result<Plot, Failed> {
    let server = RedisServer::start();
    let mut lines = lines(["this project", "hand-written", "cached"]);
    let rounds = settings.pick(1, 3);
    let millis: u64 = settings.pick(300, 2_000);
    for number in 1..=4 {
        let mut rates = [const { Vec::new() }; 3];
        for _ in 0..rounds {
            for (place, rival) in ["ours", "hand-written", "cached"].iter().enumerate() {
                step.say(&format!("{number} processes, {rival}"));
                let start = worker::now() + 1_000_000_000;
                let arguments = [
                    "hits".to_owned(),
                    (*rival).to_owned(),
                    server.port().to_string(),
                    "64".to_owned(),
                    start.to_string(),
                    millis.to_string(),
                ];
                let each: Vec<f64> = worker::start(number, &arguments).await?;
                rates[place].push(each.iter().sum::<f64>());
            }
        }
        for (line, rates) in lines.iter_mut().zip(rates) {
            line.points.push((number as f64, median(rates)));
        }
    }
    Ok(Plot {
        name: "processes".into(),
        title: "Redis hits by 1 to 4 processes, 64 tasks each".into(),
        x: "processes".into(),
        y: "hits per second".into(),
        log_x: false,
        log_y: false,
        lines: lines.into(),
        ..Plot::default()
    })
}

/// Random hits among as many rows.
fn among<R: Rival>(rival: Arc<R>, number: i64) -> Contestant {
    Contestant::new(R::NAME, move |_| {
        let rival = rival.clone();
        async move {
            let row = rival.user(fastrand::i64(0..number)).await;
            black_box(row.expect("a row"));
        }
    })
}

/// Many at once, or a million take their time.
async fn warm<R: Rival>(rival: &R, from: i64, to: i64) {
    stream::iter(from..to)
        .for_each_concurrent(256, async |id| {
            rival.user(id).await.expect("a row");
        })
        .await;
}

async fn entries(settings: &Settings, step: &Step) -> Result<Plot, Failed> {
    let server = RedisServer::start();
    let ours = Arc::new(Ours::start(server.port()).await);
    let hand_written = Arc::new(HandWritten::start(server.port()).await);
    let mut lines = lines(["this project", "hand-written"]);
    let mut before = 0;
    for power in 2..=settings.pick(4, 6) {
        let number = 10_i64.pow(power);
        step.say(&format!("writing {number} entries into Redis"));
        warm(&*ours, before, number).await;
        warm(&*hand_written, before, number).await;
        before = number;
        let contestants = [
            among(hand_written.clone(), number),
            among(ours.clone(), number),
        ];
        let results = compare(&contestants, drive(settings), step).await;
        for (line, result) in lines.iter_mut().zip([&results[1], &results[0]]) {
            line.points
                .push((number as f64, result.sum.quantile(0.5) / 1e3));
        }
    }
    Ok(Plot {
        name: "entries".into(),
        title: "A Redis hit among 100 to 1,000,000 entries".into(),
        x: "entries".into(),
        y: "p50, µs".into(),
        log_x: true,
        log_y: false,
        lines: lines.into(),
        ..Plot::default()
    })
}

async fn local_entries(settings: &Settings, step: &Step) -> Result<Plot, Failed> {
    const BATCH: u64 = 1_000;
    let mut lines = lines(["this project", "quick_cache, bare", "moka, bare"]);
    for power in 2..=settings.pick(4, 6) {
        let number = 10_i64.pow(power);
        step.say(&format!("{number} entries in the process"));
        let ours = Arc::new(Service::memory(2_000).await);
        let quick = Arc::new(quick_cache::sync::Cache::new(number as usize * 2));
        let moka = Arc::new(moka::sync::Cache::new(number as u64 * 2));
        for id in 0..number {
            let row = ours.shared_user(id).await?;
            quick.insert(id, row.clone());
            moka.insert(id, row);
        }
        let contestants = [
            Contestant::batched("ours", BATCH, move |_| {
                let ours = ours.clone();
                async move {
                    for _ in 0..BATCH {
                        let row = ours.shared_user(fastrand::i64(0..number)).await;
                        black_box(row.expect("a row"));
                    }
                }
            }),
            Contestant::batched("quick_cache", BATCH, move |_| {
                let quick = quick.clone();
                async move {
                    for _ in 0..BATCH {
                        black_box(quick.get(&fastrand::i64(0..number)));
                    }
                }
            }),
            Contestant::batched("moka", BATCH, move |_| {
                let moka = moka.clone();
                async move {
                    for _ in 0..BATCH {
                        black_box(moka.get(&fastrand::i64(0..number)));
                    }
                }
            }),
        ];
        let results = compare(&contestants, drive(settings), step).await;
        for (line, result) in lines.iter_mut().zip(&results) {
            line.points
                .push((number as f64, result.sum.quantile(0.5) / 10.0));
        }
    }
    Ok(Plot {
        name: "local-entries".into(),
        title: "A local hit among 100 to 1,000,000 entries".into(),
        x: "entries".into(),
        y: "p50, ns".into(),
        log_x: true,
        log_y: false,
        lines: lines.into(),
        ..Plot::default()
    })
}

fn texts<R: Rival>(rival: Arc<R>, size: i64) -> Contestant {
    Contestant::new(R::NAME, move |_| {
        let rival = rival.clone();
        async move {
            black_box(rival.text(size).await.expect("a text"));
        }
    })
}

async fn values(settings: &Settings, step: &Step) -> Result<Plot, Failed> {
    let server = RedisServer::start();
    let ours = Arc::new(Ours::start(server.port()).await);
    let hand_written = Arc::new(HandWritten::start(server.port()).await);
    let cached = Arc::new(Cached::start(server.port()).await);
    let mut lines = lines(["this project", "hand-written", "cached"]);
    // The largest is just below the limit of a value, 1 MiB with its quotes.
    for size in [100, 1_000, 10_000, 100_000, 1_000_000] {
        let contestants = [
            texts(ours.clone(), size),
            texts(hand_written.clone(), size),
            texts(cached.clone(), size),
        ];
        let results = compare(&contestants, drive(settings), step).await;
        for (line, result) in lines.iter_mut().zip(&results) {
            line.points
                .push((size as f64, result.sum.quantile(0.5) / 1e3));
        }
    }
    Ok(Plot {
        name: "values".into(),
        title: "A Redis hit on a text of 100 B to 1 MB".into(),
        x: "bytes".into(),
        y: "p50, µs".into(),
        log_x: true,
        log_y: true,
        lines: lines.into(),
        ..Plot::default()
    })
}

async fn dependencies(settings: &Settings, step: &Step) -> Result<Plot, Failed> {
    let server = RedisServer::start();
    let ours = Arc::new(Ours::start(server.port()).await);
    let hand_written = Arc::new(HandWritten::start(server.port()).await);
    macro_rules! reading {
        ($call:ident) => {{
            let ours = ours.clone();
            Contestant::new(stringify!($call), move |n| {
                let ours = ours.clone();
                async move {
                    let row = ours.0.$call((n % 100) as i64).await;
                    black_box(row.expect("a row"));
                }
            })
        }};
    }
    for id in 0..100 {
        ours.user(id).await?;
        ours.0.tagged_once(id).await?;
        ours.0.tagged_thrice(id).await?;
        ours.0.tagged_four_times(id).await?;
        ours.0.tagged_eight_times(id).await?;
        hand_written.user(id).await?;
    }
    let contestants = [
        super::redis_hits::user_hits(hand_written).await,
        reading!(user),
        reading!(tagged_once),
        reading!(tagged_thrice),
        reading!(tagged_four_times),
        reading!(tagged_eight_times),
    ];
    let results = compare(&contestants, settings.drive(1), step).await;
    let mut lines = lines(["this project", "hand-written, no dependencies"]);
    for (dependencies, result) in [1.0, 2.0, 3.0, 4.0, 8.0].into_iter().zip(&results[1..]) {
        lines[0]
            .points
            .push((dependencies, result.sum.quantile(0.5) / 1e3));
        lines[1]
            .points
            .push((dependencies, results[0].sum.quantile(0.5) / 1e3));
    }
    Ok(Plot {
        name: "dependencies".into(),
        title: "A Redis hit with 1 to 8 dependencies".into(),
        x: "dependencies".into(),
        y: "p50, µs".into(),
        log_x: false,
        log_y: false,
        lines: lines.into(),
        ..Plot::default()
    })
}
