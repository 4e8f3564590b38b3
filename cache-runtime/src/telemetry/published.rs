//! The figures that recorders of metrics have received.

use std::collections::HashMap;

use metrics::Key;
use parking_lot::Mutex;

use super::histogram::HistogramSnapshot;

/// The figures that each recorder has received. Another recorder may be installed later, or in a
/// test's scope.
#[derive(Debug, Default)]
pub(crate) struct Published(pub(crate) Mutex<Vec<(usize, Baseline)>>);

/// More recorders than this belong to tests that have ended.
pub(crate) const RECORDERS: usize = 8;

/// The restarts of tasks that each recorder has received, of all caches of the process.
pub(crate) static RESTARTS: Mutex<Vec<(usize, u64)>> = Mutex::new(Vec::new());

#[derive(Debug, Default)]
pub(crate) struct Baseline {
    pub(crate) counters: HashMap<Key, u64>,
    pub(crate) histograms: HashMap<Key, HistogramSnapshot>,
}
