//! The demo under steady load while Redis is killed, hung and restarted: writes docs/outages.svg,
//! and the figures into docs/outages.md. With `cluster`, a Redis Cluster whose primaries fail and
//! whose slots move: docs/outages-cluster.svg.
//!
//!     cargo run --release -p cache-tests --example outages [cluster]

#![allow(clippy::print_stdout, reason = "it prints its figures")]

mod cluster;
mod figures;
mod load;
mod plot;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use cache_tests::{Demo, RedisServer, documents, write_section};

use crate::figures::{back_at, between, buckets, first_hit, hit_rate, quantiles};
use crate::load::Sample;
use crate::plot::Span;

const LASTS: Duration = Duration::from_secs(72);

/// What is done to Redis, and when, in seconds.
const OUTAGES: [(&str, u64, u64); 4] = [
    ("killed", 8, 18),
    ("hung", 28, 38),
    ("restarted, empty", 48, 48),
    ("restarted, with its data", 60, 60),
];

/// What is written where.
struct Page {
    title: &'static str,
    svg: &'static str,
    section: &'static str,
    lasts: Duration,
}

const ONE: Page = Page {
    title: "Latency and hit rate of the demo while Redis is killed, hung and restarted",
    svg: "outages.svg",
    section: "the demo in outages",
    lasts: LASTS,
};

#[tokio::main]
async fn main() {
    match std::env::args().nth(1).as_deref() {
        None => over_one_server().await,
        Some("cluster") => cluster::run().await,
        Some(other) => panic!("`cluster` or nothing, not `{other}`"),
    }
}

async fn over_one_server() {
    let server = RedisServer::start();
    let port = server.port().to_string();
    let demo = Demo::start([
        ("REDIS_ENABLED", "True"),
        ("REDIS_HOST", "127.0.0.1"),
        ("REDIS_PORT", port.as_str()),
        ("RUST_LOG", "info,poem=warn,sqlx=warn"),
    ]);
    let rows = load::rows(&demo).await;
    let start = Instant::now();
    // On a thread of its own: restarting a server blocks.
    let outages = tokio::task::spawn_blocking(move || cause(server, start));
    let samples = load::run(&demo, &rows, start, LASTS).await;
    let spans = outages.await.expect("the outages took place");
    write(&ONE, &samples, &spans);
}

fn write(page: &Page, samples: &[Sample], spans: &[Span]) {
    let svg = plot::svg(
        page.title,
        &buckets(samples, page.lasts),
        spans,
        page.lasts.as_secs_f64(),
    );
    std::fs::write(documents().join(page.svg), svg).expect("docs can be written");
    let text = report(page, samples, spans);
    write_section(&documents().join("outages.md"), page.section, &text);
    println!("{text}");
    // What went wrong, if anything did.
    for sample in samples
        .iter()
        .filter(|sample| sample.error.is_some())
        .take(10)
    {
        println!("at {:?}: {:?}", sample.at, sample.error);
    }
}

/// Returns when each outage began and ended.
fn cause(mut server: RedisServer, start: Instant) -> Vec<Span> {
    let wait_for = |second| {
        let at = start + Duration::from_secs(second);
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        start.elapsed().as_secs_f64()
    };
    let spans = OUTAGES.map(|(name, begin, end)| {
        let begin = wait_for(begin);
        match name {
            "killed" => {
                server.stop();
                wait_for(end);
                server.restart();
            }
            "hung" => {
                server.pause();
                wait_for(end);
                server.resume();
            }
            "restarted, empty" => server.restart_empty(),
            _ => {
                server.cli(&["SAVE"]);
                server.restart();
            }
        }
        Span {
            name,
            begin,
            end: start.elapsed().as_secs_f64(),
        }
    });
    // Then it is still there while the last requests are answered.
    wait_for(LASTS.as_secs() + 2);
    spans.into()
}

fn report(page: &Page, samples: &[Sample], spans: &[Span]) -> String {
    let seconds = Duration::from_secs_f64;
    let errors = samples
        .iter()
        .filter(|sample| sample.error.is_some())
        .count();
    let mut out = format!(
        "![Latency and hit rate over time]({})\n\n{} requests, {} per second; **{errors} errors**.\n\n\
         | Redis is | requests | errors | p50 | p99 | max | hits before | hits meanwhile | first hit after | hit rate back after |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
        page.svg,
        samples.len(),
        load::RATE,
    );
    let mut row = |name: &str, within: &[&Sample], cells: [String; 4]| {
        let [p50, p99, max] = quantiles(within).unwrap_or_default();
        let errors = within
            .iter()
            .filter(|sample| sample.error.is_some())
            .count();
        let _ = writeln!(
            out,
            "| {name} | {} | {errors} | {p50:.1} ms | {p99:.1} ms | {max:.0} ms | {} |",
            within.len(),
            cells.join(" | "),
        );
    };
    let percent =
        |rate: Option<f64>| rate.map_or("–".into(), |rate| format!("{:.0} %", 100.0 * rate));
    let calm = between(samples, seconds(3.0), seconds(spans[0].begin));
    let none = || "–".to_owned();
    row(
        "well",
        &calm,
        [percent(hit_rate(&calm)), none(), none(), none()],
    );
    for Span { name, begin, end } in spans {
        let before = hit_rate(&between(samples, seconds(begin - 3.0), seconds(*begin)));
        let meanwhile = between(samples, seconds(*begin), seconds(*end));
        // What it does to requests is not over when Redis is back.
        let within = between(samples, seconds(*begin), seconds(end + 2.0));
        let after = |at: Option<Duration>| {
            at.map_or("not before the end".into(), |at| {
                format!("{:.2} s", at.as_secs_f64() - end)
            })
        };
        row(
            name,
            &within,
            [
                percent(before),
                percent(hit_rate(&meanwhile)),
                after(first_hit(samples, seconds(*end))),
                after(back_at(
                    samples,
                    seconds(*end),
                    before.unwrap_or(1.0),
                    page.lasts,
                )),
            ],
        );
    }
    out
}
