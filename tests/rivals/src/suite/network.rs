//! Hits over a link that is not loopback.

use std::hint::black_box;
use std::sync::Arc;

use cache_runtime::{CacheConfig, RedisConfig};
use cache_tests::RedisServer;
use redis::IntoConnectionInfo;
use redis::io::tcp::TcpSettings;

use super::{Failed, Settings};
use crate::figures::{Bound, Figure, Findings, Goal, Table};
use crate::link::{self, Link};
use crate::measure::{Contestant, Result as Measured, compare};
use crate::progress::Step;
use crate::rivals::Rival;
use crate::rivals::hand_written::HandWritten;
use crate::rivals::ours::{Ours, Service};

/// Rows and pages that are read in turn.
const NUMBER: u64 = 100;
/// Callers, and the goal of each.
const CALLERS: [(usize, f64); 4] = [(1, 0.98), (8, 1.1), (64, 1.5), (512, 2.5)];

/// What a caller reads.
#[derive(Clone, Copy)]
enum Kind {
    Row,
    Page,
}

fn hits<R: Rival>(rival: &Arc<R>, name: &str, kind: Kind) -> Contestant {
    let rival = rival.clone();
    Contestant::new(name, move |n| {
        let rival = rival.clone();
        async move {
            let id = (n % NUMBER) as i64;
            match kind {
                Kind::Row => drop(black_box(rival.user(id).await.expect("a row"))),
                Kind::Page => drop(black_box(rival.page(id).await.expect("a page"))),
            }
        }
    })
}

pub(super) async fn run(settings: &Settings, step: &Step) -> Result<Findings, Failed> {
    let what = "Over a link of 0.3 ms and 1 Gbit/s: throughput against hand-written";
    let link = match Link::start() {
        Ok(link) => link,
        Err(why) => {
            let figure = Figure::Skipped(format!("no TUN device ({why})"));
            return Ok(Findings {
                goals: vec![Goal::without(
                    what,
                    Bound::AtLeast(CALLERS[0].1),
                    "×",
                    figure,
                )],
                ..Findings::default()
            });
        }
    };
    let server = RedisServer::start();
    let own = format!("127.0.0.1 {}", link::OWN);
    server.cli(&["CONFIG", "SET", "protected-mode", "no"]);
    server.cli(&["CONFIG", "SET", "bind", &own]);
    let (host, port) = (link::SERVER.to_string(), server.port());
    let redis = RedisConfig::at(&host, port);
    let ours = Arc::new(Ours(
        Service::over(CacheConfig::default().redis(redis)).await,
    ));
    let info = (host.as_str(), port)
        .into_connection_info()?
        .set_tcp_settings(TcpSettings::default().set_nodelay(true));
    let client = redis::Client::open(info)?;
    let connection = client.get_multiplexed_async_connection().await?;
    let by_hand = Arc::new(HandWritten(connection));
    for id in 0..NUMBER as i64 {
        (ours.user(id).await?, ours.page(id).await?);
        (by_hand.user(id).await?, by_hand.page(id).await?);
    }
    let mut findings = Findings::default();
    for (kind, size) in [(Kind::Row, "130 B"), (Kind::Page, "12 kB")] {
        let contestants = [
            hits(&by_hand, "hand-written, with `TCP_NODELAY`", kind),
            hits(&ours, "this project", kind),
        ];
        let mut rows = Vec::new();
        for (tasks, bound) in CALLERS {
            let results = compare(&contestants, settings.drive(tasks), step).await;
            let what = format!("{what}, {size}, {tasks} tasks");
            let ratio = results[1].rate_ratio;
            let goal = Goal::measured(&what, Bound::AtLeast(bound), "×", ratio);
            findings.goals.push(goal);
            rows.extend(results.iter().map(|result| named(result, tasks)));
        }
        findings.tables.push(Table {
            title: format!("Over a link of 0.3 ms and 1 Gbit/s: hits of {size}"),
            text: format!(
                "One of {NUMBER} in turn. Packets go through a process that holds each back for 0.15 ms, and takes its share of the processors."
            ),
            rows,
        });
    }
    drop(link);
    Ok(findings)
}

fn named(result: &Measured, tasks: usize) -> crate::figures::Row {
    let mut row = result.row(1.0);
    row.name = format!("{tasks} callers: {}", row.name);
    row
}
