//! Bytes per entry in the process, and of an instance that does nothing.

use std::process::Command;

use cache_tests::RedisServer;

use super::{Failed, Settings, local_hits};
use crate::figures::{Bound, Findings, Goal, Line, Plot, Row, Table};
use crate::progress::Step;
use crate::report::bytes;
use crate::worker;

pub(super) async fn run(settings: &Settings, step: &Step) -> Result<Findings, Failed> {
    let mut findings = Findings::default();
    let counter = local_hits::counter()?;
    let names = [
        "this project",
        "quick_cache, bare",
        "moka, bare",
        "cached, sharded",
    ];
    let mut lines = names.map(|name| Line {
        name: name.to_owned(),
        points: Vec::new(),
    });
    for size in [10, 100, 1_000, 10_000, 100_000] {
        // As many as fit into the memory of a small machine.
        let entries = settings.pick(10_000, 100_000).min(200_000_000 / size);
        let mut rows = Vec::new();
        for line in &mut lines {
            step.say(&format!("{entries} entries of {size} bytes, {}", line.name));
            // A process each, so that nobody's freed memory counts for another.
            let output = Command::new(&counter)
                .args(["entries", &line.name])
                .args([entries.to_string(), size.to_string()])
                .output()?;
            let (payload, each): (f64, f64) = serde_json::from_slice(&output.stdout)?;
            let over = each - payload;
            line.points.push((size as f64, over));
            rows.push(
                Row::named(&line.name)
                    .with("payload", bytes(payload))
                    .with("in all", bytes(each))
                    .with("over the payload", bytes(over)),
            );
            if size == 100 && line.name == names[0] {
                let what = "Local entry: bytes over its payload";
                let bound = Bound::AtMost(120.0);
                findings
                    .goals
                    .push(Goal::measured(what, bound, "bytes", over));
            }
        }
        if size == 100 {
            findings.tables.push(Table {
                title: "Memory of a local entry".into(),
                text: format!(
                    "{} entries with an `Arc` of a text of 100 bytes; live bytes of the heap, divided.",
                    crate::report::count(entries as f64)
                ),
                rows,
            });
        }
    }
    findings.plots.push(Plot {
        name: "local-bytes".into(),
        title: "Bytes of a local entry over its payload".into(),
        x: "bytes of payload".into(),
        y: "bytes over it".into(),
        log_x: true,
        lines: lines.into(),
        ..Plot::default()
    });

    let server = RedisServer::start();
    let port = server.port().to_string();
    let (mut rows, mut bars) = (Vec::new(), Vec::new());
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
            let bound = Bound::AtMost(3.0);
            findings.goals.push(Goal::measured(what, bound, "MB", over));
        }
        bars.push((name.to_owned(), resident[0] / 1e6));
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
    findings.plots.push(Plot {
        name: "idle".into(),
        title: "Memory of a process with an idle instance".into(),
        x: "resident, MB".into(),
        bars,
        ..Plot::default()
    });
    Ok(findings)
}
