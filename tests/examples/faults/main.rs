//! What a fault of Redis costs the calls of an annotated function: a benchmark that prints Markdown
//! tables, and writes them into docs/outages.md. With a word, only the rows whose name contains it,
//! and writes nothing.
//!
//!     cargo run --release -p cache-tests --example faults
//!
//! Sixteen tasks read 200 rows at random, and write one in fifty calls; the function takes 1 ms,
//! and each task thinks for 4 ms before it asks again. *Added* is what a call took beyond its body,
//! from the beginning of the fault until a second after hits have returned. A call is lost if it
//! has no answer within 5 s, or a wrong one.

#![allow(clippy::print_stdout, reason = "it prints tables")]

mod crowd;
mod fake;
mod faults;
mod load;

use std::time::{Duration, Instant};

use cache_runtime::Cache;
use cache_tests::{documents, write_section};

use crate::faults::{Fault, Stage};
use crate::load::{Kind, Load, Sample, Service};

/// How long all is well before the fault.
const WARM: Duration = Duration::from_secs(1);
/// How long hits are waited for at most.
const HITS_TIMEOUT: Duration = Duration::from_secs(20);
/// How long all is well afterwards.
const AFTER: Duration = Duration::from_secs(1);
/// The command budget, and what a busy machine takes beyond.
const BUDGET: Duration = Duration::from_millis(105);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [crowd::CROWD, kind, port] => {
            let port = port.parse().expect("a port");
            runtime
                .block_on(runtime.spawn({
                    let kind = kind.to_owned();
                    async move { crowd::run(&kind, port).await }
                }))
                .expect("no panic");
        }
        _ => {
            let only = words.first().copied().unwrap_or_default();
            let text = runtime.block_on(tables(only));
            if only.is_empty() {
                write_section(&documents().join("outages.md"), "each fault", &text);
            }
        }
    }
}

/// All of them, or the rows whose name contains `only`.
async fn tables(only: &str) -> String {
    let mut text = String::new();
    let mut say = |line: String| {
        println!("{line}");
        text.push_str(&line);
        text.push('\n');
    };
    say("| Redis is | added p50 | p99 | max | over 105 ms | lost | of calls | hits during | hits after | they return after |".into());
    say("|---|---|---|---|---|---|---|---|---|---|".into());
    if only.is_empty() {
        say(bare().await);
    }
    for fault in faults::all() {
        if fault.name.contains(only) {
            say(row(&fault).await);
        }
    }
    if only.is_empty() {
        tokio::task::block_in_place(|| crowd::table(&mut say));
    }
    text
}

async fn bare() -> String {
    let load = Load::start(None);
    tokio::time::sleep(faults::LASTS).await;
    let samples = load.stop().await;
    format!(
        "| (the bare function) | {} | | | |",
        added(&samples.iter().collect::<Vec<_>>())
    )
}

async fn row(fault: &Fault) -> String {
    let mut stage = Stage::new(fault);
    let cache = Cache::new(stage.config()).await;
    let load = Load::start(Some(&Service {
        cache: cache.clone(),
    }));
    if !fault.absent_at_the_start {
        tokio::time::sleep(WARM).await;
    }
    let begun = Instant::now();
    tokio::task::block_in_place(|| (fault.begin)(&mut stage));
    let caused = Instant::now();
    tokio::time::sleep(fault.lasts).await;
    let ending = Instant::now();
    tokio::task::block_in_place(|| (fault.end)(&mut stage));
    let ended = Instant::now();

    let hits = load.hits();
    while load.hits() < hits + 20 && ended.elapsed() < HITS_TIMEOUT {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(AFTER).await;
    let stopped = Instant::now();
    let samples = load.stop().await;
    cache.shutdown().await;

    let first_hit = samples
        .iter()
        .filter(|sample| sample.kind == Kind::Hit && sample.at >= ended)
        .map(|sample| sample.at + sample.added)
        .min();
    let within = |from, to| -> Vec<&Sample> {
        let is_within = |sample: &&Sample| sample.at >= from && sample.at <= to;
        samples.iter().filter(is_within).collect()
    };
    // A call that was on its way when it began has met it, too.
    let met = within(begun - Duration::from_millis(20), stopped);
    let during = match fault.lasts.is_zero() {
        true => within(begun, caused),
        false => within(caused, ending),
    };
    let after = within(stopped - AFTER / 2, stopped);
    let returned = first_hit.map_or("not within 20 s".to_owned(), |at| {
        format!("{:.2} s", at.saturating_duration_since(ended).as_secs_f64())
    });
    format!(
        "| {} | {} | {} | {} | {returned} |",
        fault.name,
        added(&met),
        hit_rate(&during),
        hit_rate(&after),
    )
}

/// The cells on latency and loss.
fn added(samples: &[&Sample]) -> String {
    let mut added: Vec<Duration> = samples.iter().map(|sample| sample.added).collect();
    added.sort_unstable();
    let Some(last) = added.len().checked_sub(1) else {
        return "| | | | | 0".to_owned();
    };
    let ms = |share: f64| added[(last as f64 * share) as usize].as_secs_f64() * 1e3;
    let lost = samples.iter().filter(|sample| sample.is_lost).count();
    let over = added.iter().filter(|added| **added > BUDGET).count();
    format!(
        "{:.2} ms | {:.1} ms | {:.1} ms | {over} | {lost} | {}",
        ms(0.5),
        ms(0.99),
        ms(1.0),
        added.len(),
    )
}

/// Of the reads.
fn hit_rate(samples: &[&Sample]) -> String {
    let reads = samples.iter().filter(|sample| sample.kind != Kind::Write);
    let hits = reads
        .clone()
        .filter(|sample| sample.kind == Kind::Hit)
        .count();
    match reads.count() {
        0 => "–".to_owned(),
        reads => format!("{:.0} %", 100.0 * hits as f64 / reads as f64),
    }
}
