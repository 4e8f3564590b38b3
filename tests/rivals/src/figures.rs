//! What the suite finds out, as plain data: tables, goals, plots.

use serde::{Deserialize, Serialize};

/// One contestant in a table. Times are in nanoseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Row {
    pub name: String,
    pub p50: Option<f64>,
    pub p99: Option<f64>,
    /// Calls per second.
    pub rate: Option<f64>,
    pub p50_ratio: Option<f64>,
    pub p99_ratio: Option<f64>,
    pub rate_ratio: Option<f64>,
    /// Further columns: heading and cell.
    pub more: Vec<(String, String)>,
}

impl Row {
    /// One with a name only.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// With one more column.
    pub fn with(mut self, heading: &str, cell: impl Into<String>) -> Self {
        self.more.push((heading.to_owned(), cell.into()));
        self
    }
}

/// One comparison.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Table {
    pub title: String,
    /// What was done, in a sentence or two.
    pub text: String,
    pub rows: Vec<Row>,
}

/// Which way a goal looks.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// A figure that somebody wants.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Goal {
    /// What is measured.
    pub what: String,
    pub bound: Option<Bound>,
    /// Better than the bound, and what the work aims at.
    pub aim: Option<f64>,
    /// `×`, `ms`, ..
    pub unit: String,
    pub figure: Figure,
}

/// What came out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Figure {
    Measured(f64),
    /// What it would measure does not exist yet.
    NotThere(String),
    /// It was not asked for in this run, or what it needs is missing.
    Skipped(String),
}

impl Goal {
    /// One that was measured.
    pub fn measured(what: &str, bound: Bound, unit: &str, figure: f64) -> Self {
        Self {
            what: what.to_owned(),
            bound: Some(bound),
            aim: None,
            unit: unit.to_owned(),
            figure: Figure::Measured(figure),
        }
    }

    /// With what the work aims at beyond the bound.
    pub fn aiming_at(mut self, aim: f64) -> Self {
        self.aim = Some(aim);
        self
    }

    /// Whether the bound is kept; `None` where there is no bound, or no figure.
    pub fn is_met(&self) -> Option<bool> {
        let Figure::Measured(figure) = self.figure else {
            return None;
        };
        Some(match self.bound? {
            Bound::AtMost(bound) => figure <= bound,
            Bound::AtLeast(bound) => figure >= bound,
        })
    }

    /// One to report, without a bound.
    pub fn reported(what: &str, unit: &str, figure: f64) -> Self {
        Self {
            what: what.to_owned(),
            bound: None,
            aim: None,
            unit: unit.to_owned(),
            figure: Figure::Measured(figure),
        }
    }

    /// One that can't be measured.
    pub fn without(what: &str, bound: Bound, unit: &str, figure: Figure) -> Self {
        Self {
            what: what.to_owned(),
            bound: Some(bound),
            aim: None,
            unit: unit.to_owned(),
            figure,
        }
    }
}

/// One line of a plot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// How something grows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Plot {
    /// The file's name, without `.svg`.
    pub name: String,
    pub title: String,
    pub x: String,
    pub y: String,
    pub log_x: bool,
    pub log_y: bool,
    pub lines: Vec<Line>,
    /// In place of lines: one bar for each name, and `x` for its length.
    pub bars: Vec<(String, f64)>,
}

/// What a part of the suite hands back.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Findings {
    pub goals: Vec<Goal>,
    pub tables: Vec<Table>,
    pub plots: Vec<Plot>,
}

impl Findings {
    /// Adds what another part found.
    pub fn extend(&mut self, other: Self) {
        self.goals.extend(other.goals);
        self.tables.extend(other.tables);
        self.plots.extend(other.plots);
    }
}
