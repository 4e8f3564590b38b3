//! `BENCHMARKS.md`.

use std::fmt::Write;

use crate::figures::{Bound, Figure, Findings, Goal, Row, Table};
use crate::limits;
use crate::machine::Machine;

/// The whole page.
pub fn page(findings: &Findings, machine: &Machine) -> String {
    let mut page = String::from("# Benchmarks\n\n");
    page.push_str(
        "Written by `scripts/bench`; don't edit. Each ratio compares what ran in turn with each other, a round of one and a\n\
         round of the other, in the same run on the same machine: medians of the ratios of single rounds. Absolute times\n\
         belong to that machine, and say little elsewhere. What the rivals are and how they are set up is in\n\
         [tests/rivals](tests/rivals/README.md).\n\n",
    );
    for line in machine.lines() {
        let _ = writeln!(page, "- {line}");
    }
    if !findings.goals.is_empty() {
        page.push_str("\n## Goals\n\n| what | goal | figure | |\n|---|---|---|---|\n");
        for goal in &findings.goals {
            page.push_str(&goal_line(goal));
        }
        page.push_str(&missed(&findings.goals));
    }
    if !findings.plots.is_empty() {
        page.push_str("\n## Growth\n");
        for plot in &findings.plots {
            let _ = write!(
                page,
                "\n![{}](docs/benchmarks/{}.svg)\n",
                plot.title, plot.name
            );
        }
    }
    for table in &findings.tables {
        page.push_str(&table_text(table));
    }
    page
}

fn goal_line(goal: &Goal) -> String {
    let unit = match goal.unit.as_str() {
        "×" => "×".to_owned(),
        "" => String::new(),
        unit => format!(" {unit}"),
    };
    let mut bound = match goal.bound {
        Some(Bound::AtMost(bound)) => format!("≤ {}{unit}", short(bound)),
        Some(Bound::AtLeast(bound)) => format!("≥ {}{unit}", short(bound)),
        None => "to report".to_owned(),
    };
    if let Some(aim) = goal.aim {
        let _ = write!(bound, ", aim {}{unit}", short(aim));
    }
    let (figure, verdict) = match &goal.figure {
        Figure::Measured(figure) => {
            let verdict = match goal.is_met() {
                Some(true) => "met",
                Some(false) => "**missed**",
                None => "",
            };
            (format!("{}{unit}", short(*figure)), verdict)
        }
        Figure::NotThere(why) => (why.clone(), "not there yet"),
        Figure::Skipped(why) => (why.clone(), "skipped"),
    };
    format!("| {} | {bound} | {figure} | {verdict} |\n", goal.what)
}

/// Each goal that was missed, with what limits it.
fn missed(goals: &[Goal]) -> String {
    let mut text = String::new();
    for goal in goals.iter().filter(|goal| goal.is_met() == Some(false)) {
        if text.is_empty() {
            text.push_str("\n### What limits the goals that were missed\n\n");
        }
        let why = limits::of(&goal.what).unwrap_or("not looked into yet");
        let _ = writeln!(text, "- {}: {why}.", goal.what);
    }
    text
}

type Column = (String, Box<dyn Fn(&Row) -> Option<String>>);

/// One table with its heading.
pub fn table_text(table: &Table) -> String {
    let mut columns: Vec<Column> = vec![
        ("p50".into(), Box::new(|row| row.p50.map(time))),
        ("p99".into(), Box::new(|row| row.p99.map(time))),
        ("per second".into(), Box::new(|row| row.rate.map(count))),
        (
            "p50, ratio".into(),
            Box::new(|row| row.p50_ratio.map(ratio)),
        ),
        (
            "p99, ratio".into(),
            Box::new(|row| row.p99_ratio.map(ratio)),
        ),
        (
            "throughput, ratio".into(),
            Box::new(|row| row.rate_ratio.map(ratio)),
        ),
    ];
    for row in &table.rows {
        for (heading, _) in &row.more {
            if columns.iter().all(|(known, _)| known != heading) {
                let heading = heading.clone();
                let wanted = heading.clone();
                let cell = move |row: &Row| {
                    let found = row.more.iter().find(|(heading, _)| *heading == wanted);
                    found.map(|(_, cell)| cell.clone())
                };
                columns.push((heading, Box::new(cell)));
            }
        }
    }
    columns.retain(|(_, cell)| table.rows.iter().any(|row| cell(row).is_some()));

    let mut text = format!("\n## {}\n\n", table.title);
    if !table.text.is_empty() {
        let _ = write!(text, "{}\n\n", table.text);
    }
    text.push_str("| |");
    for (heading, _) in &columns {
        let _ = write!(text, " {heading} |");
    }
    text.push_str("\n|---|");
    text.push_str(&"---:|".repeat(columns.len()));
    text.push('\n');
    for row in &table.rows {
        let _ = write!(text, "| {} |", row.name);
        for (_, cell) in &columns {
            let _ = write!(text, " {} |", cell(row).unwrap_or_default());
        }
        text.push('\n');
    }
    text
}

/// Nanoseconds, in a unit that fits.
pub fn time(nanos: f64) -> String {
    match nanos {
        nanos if nanos < 1e3 => format!("{} ns", short(nanos)),
        nanos if nanos < 1e6 => format!("{} µs", short(nanos / 1e3)),
        nanos if nanos < 1e9 => format!("{} ms", short(nanos / 1e6)),
        nanos => format!("{} s", short(nanos / 1e9)),
    }
}

/// Bytes, in a unit that fits.
pub fn bytes(bytes: f64) -> String {
    match bytes {
        bytes if bytes.abs() < 1e4 => format!("{} B", short(bytes)),
        bytes if bytes.abs() < 1e7 => format!("{} kB", short(bytes / 1e3)),
        bytes => format!("{} MB", short(bytes / 1e6)),
    }
}

/// A large number, in groups of three digits.
pub fn count(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0.0 {
        format!("-{text}")
    } else {
        text
    }
}

fn ratio(ratio: f64) -> String {
    format!("{}×", two_places(ratio))
}

/// With two places behind the point, or as many as one digit wants where two would be next to
/// nothing.
fn two_places(number: f64) -> String {
    match number.abs() {
        number_abs if number_abs > 0.0 && number_abs < 0.1 => {
            let places = (1.0 - number_abs.log10().floor()).clamp(3.0, 6.0) as usize;
            format!("{number:.places$}")
        }
        _ => format!("{number:.2}"),
    }
}

/// Three digits or so.
fn short(number: f64) -> String {
    match number.abs() {
        number_abs if number_abs >= 10_000.0 => count(number),
        number_abs if number_abs >= 100.0 || number.fract() == 0.0 => format!("{number:.0}"),
        number_abs if number_abs >= 10.0 => format!("{number:.1}"),
        _ => two_places(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        assert_eq!(time(41.94), "41.9 ns");
        assert_eq!(time(31_400.0), "31.4 µs");
        assert_eq!(count(1_234_567.2), "1,234,567");
        assert_eq!(bytes(96.0), "96 B");
        assert_eq!(short(0.754), "0.75");
        assert_eq!(ratio(0.0042), "0.0042×");
        assert_eq!(ratio(0.000_231), "0.00023×");
    }

    #[test]
    fn a_goal_says_whether_it_was_reached() {
        let goal = Goal::measured("hits", Bound::AtMost(1.1), "×", 1.05);
        assert_eq!(goal_line(&goal), "| hits | ≤ 1.10× | 1.05× | met |\n");
        let goal = Goal::measured("hits", Bound::AtLeast(2.0), "×", 1.05);
        assert!(goal_line(&goal).contains("**missed**"));
        assert!(missed(&[goal]).contains("- hits: not looked into yet."));
        let goal = Goal::measured("hits", Bound::AtLeast(1.0), "×", 1.05).aiming_at(2.0);
        assert_eq!(goal_line(&goal), "| hits | ≥ 1×, aim 2× | 1.05× | met |\n");
        assert_eq!(missed(&[goal]), "");
    }
}
