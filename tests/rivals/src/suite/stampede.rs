//! Ten thousand callers in four processes want the same cold row.

use cache_tests::RedisServer;

use super::{Failed, Settings};
use crate::figures::{Bound, Findings, Goal, Row, Table};
use crate::measure::{median, quantile};
use crate::progress::Step;
use crate::worker::{self, LOAD, Stampede};

const PROCESSES: usize = 4;
const RIVALS: [(&str, &str); 6] = [
    ("ours", "this project"),
    ("hand-written", "hand-written"),
    ("cached", "cached"),
    ("hitbox", "hitbox"),
    ("amalgam", "amalgam-cache"),
    ("amalgam-strict", "amalgam-cache, strict"),
];

pub(super) async fn run(settings: &Settings, step: &Step) -> Result<Findings, Failed> {
    let callers = settings.pick(500, 2_500);
    let rounds = settings.pick(1, 5);
    let mut findings = Findings::default();
    let mut rows = Vec::new();
    let mut beyond = Vec::new();
    let mut loads = vec![Vec::new(); RIVALS.len()];
    let mut waited = vec![Vec::new(); RIVALS.len()];
    let mut failures = vec![None; RIVALS.len()];
    for round in 1..=rounds {
        for (place, (rival, name)) in RIVALS.iter().enumerate() {
            step.say(&format!("{name}, round {round} of {rounds}"));
            let (server, truth) = (RedisServer::start(), RedisServer::start());
            let start = worker::now() + 2_000_000_000;
            let arguments = [
                "stampede".to_owned(),
                (*rival).to_owned(),
                server.port().to_string(),
                truth.port().to_string(),
                callers.to_string(),
                start.to_string(),
            ];
            for outcome in worker::start::<Stampede>(PROCESSES, &arguments).await? {
                let nanos = outcome.waited.into_iter().map(|micros| micros as f64 * 1e3);
                waited[place].extend(nanos);
                failures[place] = failures[place].take().or(outcome.failure);
            }
            loads[place].push(truth.cli(&["GET", "loads:1"]).parse().unwrap_or(0.0));
        }
    }
    for (place, (_, name)) in RIVALS.iter().enumerate() {
        let p99 = quantile(waited[place].clone(), 0.99);
        beyond.push((p99 - LOAD.as_nanos() as f64) / 1e6);
        let unanswered = callers * PROCESSES * rounds - waited[place].len();
        let row = Row {
            p50: Some(quantile(waited[place].clone(), 0.5)),
            p99: Some(p99),
            ..Row::named(*name)
        };
        rows.push(
            row.with("loads", crate::report::count(median(loads[place].clone())))
                .with("failed", unanswered.to_string())
                .with("with", failures[place].take().unwrap_or_default()),
        );
    }
    let all = crate::report::count((callers * PROCESSES) as f64);
    findings.goals.extend([
        Goal::measured(
            &format!("Cold stampede, {all} callers in {PROCESSES} processes: loads"),
            Bound::AtMost(1.0),
            "",
            loads[0].iter().copied().fold(0.0, f64::max),
        ),
        Goal::measured(
            "The same: p99 of the waiters, beyond the load's time",
            Bound::AtMost(20.0),
            "ms",
            beyond[0],
        ),
        Goal::measured(
            "The same p99 against that of the best rival",
            Bound::AtMost(1.0),
            "×",
            beyond[0] / beyond[1..].iter().copied().fold(f64::INFINITY, f64::min),
        ),
    ]);
    findings.tables.push(Table {
        title: "Cold stampede".into(),
        text: format!(
            "{all} callers in {PROCESSES} processes ask for the same row at the same moment; nothing is cached, and the load takes {} \
             ms. Times from the call to the answer, of all callers.",
            LOAD.as_millis()
        ),
        rows,
    });
    Ok(findings)
}
