//! What operators see: audits, metrics, log lines, the admin page.

#![allow(
    clippy::print_stdout,
    reason = "one test shows the answers of Prometheus"
)]

mod audit;
mod dashboard;
mod metrics;
mod page;

use std::time::Duration;

/// For what happens soon, on a machine that is slow.
const SOON: Duration = Duration::from_secs(30);
