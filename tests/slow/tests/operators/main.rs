//! What operators see: audits, metrics, log lines, the admin page.

#![allow(
    clippy::print_stdout,
    reason = "one test shows the answers of Prometheus"
)]

mod access;
mod audit;
mod audited;
mod browser;
mod dashboard;
mod events;
mod metrics;
mod page;
mod page_by_hand;
mod recorder;
mod switches;

use std::time::Duration;

/// For what happens soon, on a machine that is slow.
const SOON: Duration = Duration::from_secs(30);
