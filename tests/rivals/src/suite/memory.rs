//! Bytes per entry in the process, and of an instance that does nothing.

use std::process::Command;

use cache_tests::RedisServer;

use super::{Failed, Settings, local_hits};
use crate::figures::{Findings, Goal, Row, Table};
use crate::progress::Step;
use crate::report::bytes;
use crate::worker;

pub(super) async fn run(settings: &Settings, step: &Step) -> Result<Findings, Failed> {
    let mut findings = Findings::default();
    let entries: u64 = settings.pick(10_000, 100_000);
    step.say(&format!("filling {entries} entries"));
    let counter = local_hits::counter()?;
    let mut rows = Vec::new();
    for name in [
        "this project",
        "quick_cache, bare",
        "moka, bare",
        "cached, sharded",
    ] {
        // A process each, so that nobody's freed memory counts for another.
        let output = Command::new(&counter)
            .args(["entries", name, &entries.to_string()])
            .output()?;
        let (payload, each): (f64, f64) = serde_json::from_slice(&output.stdout)?;
        if name == "this project" {
            let what = "Local entry: bytes over its payload";
            findings
                .goals
                .push(Goal::reported(what, "bytes", each - payload));
        }
        rows.push(
            Row::named(name)
                .with("payload", bytes(payload))
                .with("in all", bytes(each))
                .with("over the payload", bytes(each - payload)),
        );
    }
    findings.tables.push(Table {
        title: "Memory of a local entry".into(),
        text: format!(
            "{} entries with an `Arc` of a text of 100 bytes; live bytes of the heap, divided.",
            crate::report::count(entries as f64)
        ),
        rows,
    });

    let server = RedisServer::start();
    let port = server.port().to_string();
    let mut rows = Vec::new();
    let mut nothing = 0.0;
    for (rival, name) in [
        ("nothing", "no cache"),
        ("ours", "this project, Redis"),
        ("ours-memory", "this project, in memory"),
        ("hand-written", "hand-written"),
        ("cached", "cached"),
        ("hitbox", "hitbox"),
        ("amalgam", "amalgam-cache"),
        ("hydracache", "HydraCache"),
    ] {
        step.say(&format!("{name}, idle"));
        let arguments = ["idle".to_owned(), rival.to_owned(), port.clone()];
        let resident: Vec<f64> = worker::start(1, &arguments).await?;
        if rival == "nothing" {
            nothing = resident[0];
        }
        if rival == "ours" {
            let what = "Idle instance over Redis: resident memory over a process without";
            let over = (resident[0] - nothing) / 1e6;
            findings.goals.push(Goal::reported(what, "MB", over));
        }
        rows.push(
            Row::named(name)
                .with("resident", bytes(resident[0]))
                .with("over none", bytes(resident[0] - nothing)),
        );
    }
    findings.tables.push(Table {
        title: "Memory of an idle instance".into(),
        text: "A process with one instance that has read one row: its resident memory.".into(),
        rows,
    });
    Ok(findings)
}
