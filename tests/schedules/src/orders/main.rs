//! Many orders of many tasks, drawn at random and at the places where a few changes of order do most: shuttle tries them.
//!
//!     orders [NAME] [TIMES]    only the schedules whose name contains NAME; TIMES as often as usual
//!     orders --list
//!
//! The sources are those of `cache-runtime`, with shuttle's types in place of what `crate::sync` names. Tokio's own channels
//! are what they are: what they do counts as one step. Atomics are sequentially consistent here; `memory` is for those that
//! are not.

mod base;
mod coalesce;
mod flights;
mod load_gates;
mod redis;
mod stand_ins;
mod sync;

/// The runtime's protocol layer.
mod protocol {
    pub use crate::stand_ins::{entry, entry as fingerprint, generation};
}

use coalesce::{load_gate, single_flight};
use stand_ins::store;

/// A schedule's name, and how often it is tried in each of the two ways.
type Schedule = (&'static str, usize, fn());

/// How many changes of order the second way makes.
const CHANGES: usize = 3;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let filter = arguments.next().unwrap_or_default();
    let times: usize = arguments
        .next()
        .map_or(1, |times| times.parse().expect("a number"));
    let all = flights::SCHEDULES
        .iter()
        .chain(&load_gates::SCHEDULES)
        .chain(&redis::SCHEDULES);
    if filter == "--list" {
        return all.for_each(|(name, ..)| println!("{name}"));
    }
    let mut tried = 0;
    for (name, usual, schedule) in all {
        if name.contains(&filter) {
            let start = std::time::Instant::now();
            shuttle::check_random(schedule, usual * times);
            shuttle::check_pct(schedule, usual * times, CHANGES);
            println!(
                "{name}: {} orders, {:.1} s",
                2 * usual * times,
                start.elapsed().as_secs_f32()
            );
            tried += 1;
        }
    }
    assert!(tried > 0, "no schedule is named `{filter}`");
}
