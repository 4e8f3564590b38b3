//! Every fault at once, and every read checked.
//!
//! ```text
//! cargo run --release -p cache-chaos -- --seed 1 --seconds 20
//! cargo run --release -p cache-chaos -- check HISTORY
//! ```
//!
//! Four processes with sixteen tasks each read and write through annotated functions and by hand,
//! on a private Redis behind proxies and a private PostgreSQL that holds the truth, while faults
//! come in a mix that the seed decides. What every read showed is then judged; `check.rs` has the
//! rules. See `--help` for the options.

mod aftermath;
mod app;
mod audited;
mod check;
mod clock;
mod context;
mod coordinator;
mod faults;
mod history;
mod lasting;
mod log;
mod minimise;
mod options;
#[cfg(test)]
mod planted;
#[cfg(test)]
mod planted_faults;
mod reads;
mod report;
mod rival;
mod rival_workload;
mod score;
mod servers;
mod shards;
mod shop;
mod untested;
mod verdict;
mod weaker;
mod workload;
mod writes;

use std::process::ExitCode;

pub use crate::app::TTL;
pub use crate::context::Trouble;
pub use crate::rival::{
    Failure, KINDS, Page, RivalCache, Row, commit, load_page, load_row, pages_with,
};
pub use crate::score::{Score, Setting, score};
pub use crate::workload::config;

/// One process of a rival; its last argument is its `ProcessConfig`.
pub fn process<C: RivalCache>(process_config: &str) -> ExitCode {
    app::run::<rival_workload::RivalWorkload<C>>(process_config)
}

/// What the program `chaos` does.
pub fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("app") => app::run::<reads::FullWorkload>(&arguments[1]),
        Some("check") => report::check_file(&arguments[1..]),
        _ => match options::Options::read(&arguments) {
            Ok(Some(options)) => coordinator::run(&options),
            Ok(None) => ExitCode::SUCCESS,
            Err(mistake) => {
                eprintln!("chaos: {mistake}; see --help");
                ExitCode::from(2)
            }
        },
    }
}
