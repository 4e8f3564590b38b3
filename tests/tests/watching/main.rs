//! What operators see: audits, metrics, log lines, spans, the admin page.

mod audit;
mod dashboard;
mod metrics;
mod page;
mod traces;

use std::time::Duration;

/// For what happens soon, on a machine that is slow.
const SOON: Duration = Duration::from_secs(30);
