//! What annotated functions cost the compiler.

use tokio::process::Command;

use super::{Failed, Settings};
use crate::figures::{Bound, Findings, Goal, Row, Table};
use crate::progress::Step;

pub(super) async fn run(settings: &Settings, step: &Step) -> Result<Findings, Failed> {
    step.say("compiling a hundred functions, annotated and bare");
    let output = Command::new(settings.root.join("scripts/compile-time"))
        .arg(settings.pick("1", "7"))
        .output()
        .await?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let text = String::from_utf8(output.stdout)?;
    let mut findings = Findings::default();
    let mut rows = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("cargo ")) {
        // cargo build, 100 functions: bare 900 ms, annotated 1200 ms, 3.0 ms for each
        let (command, rest) = line
            .split_once(", ")
            .ok_or("a line of scripts/compile-time")?;
        let numbers: Vec<f64> = rest
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        let [_, bare, annotated, each] = numbers[..] else {
            return Err(format!("scripts/compile-time said: {line}").into());
        };
        let what = format!("Compile time of an annotated function, `{command}`");
        findings
            .goals
            .push(Goal::measured(&what, Bound::AtMost(7.0), "ms", each));
        rows.push(
            Row::named(format!("`{command}`"))
                .with("bare", format!("{bare} ms"))
                .with("annotated", format!("{annotated} ms"))
                .with("each", format!("{each} ms"))
                .with("ratio", format!("{:.2}×", annotated / bare)),
        );
    }
    findings.tables.push(Table {
        title: "Compile time".into(),
        text: "A crate of a hundred functions, with the attributes and without, after its dependencies are compiled; medians, \
               by `scripts/compile-time`."
            .into(),
        rows,
    });
    Ok(findings)
}
