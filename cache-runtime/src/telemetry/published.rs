//! What recorders of metrics have been given.

use std::collections::HashMap;

use metrics::Key;
use parking_lot::Mutex;

use super::histogram::HistogramSnapshot;

/// What each recorder has been given so far: there may be another one later, or in a test's scope.
#[derive(Debug, Default)]
pub(crate) struct Published(pub(crate) Mutex<Vec<(usize, Baseline)>>);

/// More recorders than this are those of tests that have ended.
pub(crate) const RECORDERS: usize = 8;

#[derive(Debug, Default)]
pub(crate) struct Baseline {
    pub(crate) counters: HashMap<Key, u64>,
    pub(crate) histograms: HashMap<Key, HistogramSnapshot>,
}
