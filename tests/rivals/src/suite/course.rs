//! The course of stale reads, as a part of the suite.

use super::{Failed, Settings};
use crate::course::{self, Setting};
use crate::figures::{Bound, Findings, Goal};
use crate::progress::Step;
use crate::rivals::NAMES;

pub(super) async fn run(settings: &Settings, step: &Step) -> Result<Findings, Failed> {
    let setting = Setting {
        seed: 1,
        seconds: settings.pick(2, 20),
        ..Setting::default()
    };
    let (table, verdicts) = course::run(&NAMES, &setting, |name| step.say(name)).await?;
    let stale: u64 = verdicts
        .iter()
        .filter(|verdict| verdict.ours)
        .map(|verdict| verdict.stale + verdict.abandoned)
        .sum();
    let what =
        "Reads older than an acknowledged write, or than one whose caller hung up a second ago";
    Ok(Findings {
        goals: vec![Goal::measured(what, Bound::AtMost(0.0), "", stale as f64)],
        tables: vec![table],
        plots: Vec::new(),
    })
}
