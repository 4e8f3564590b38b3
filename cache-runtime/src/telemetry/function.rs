//! The counters of each annotated function.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::audit::AuditCounters;
use super::histogram::{Histogram, StripedHistogram};
use crate::base::counters::{Counter, Striped};

/// The most reasons for a bypass, and for serving an expired entry.
pub(crate) const BYPASS_REASONS: usize = 24;
pub(crate) const STALE_REASONS: usize = 4;

/// The counters of one function on one resource.
///
/// A hit is counted here and not at the resource, so it still costs one addition. The figures of a
/// resource are the sums over its functions.
#[derive(Debug)]
pub(crate) struct FunctionCounters {
    /// The attribute's `op`, or the function's name.
    pub(crate) op: Box<str>,
    /// The function's name.
    pub(crate) function: &'static str,
    /// Answered by the store.
    pub(crate) hits: Striped,
    /// Answered by a local entry in front of Redis.
    pub(crate) local_hits: Striped,
    /// Answered from the memory of the request.
    pub(crate) recalled: Counter,
    /// Answered by its body, whose value is stored now.
    pub(crate) stored: Counter,
    /// Answered by its body, whose value is not stored.
    pub(crate) not_stored: Counter,
    /// Answered by another caller's load.
    pub(crate) joined: Counter,
    pub(crate) bypasses: [Counter; BYPASS_REASONS],
    pub(crate) stale: [Counter; STALE_REASONS],
    pub(crate) failed_loads: Counter,
    /// Bodies that are running.
    pub(crate) loading: Gauge,
    /// Callers that wait for another caller's load.
    pub(crate) waiting: Gauge,
    /// Lookups in the store.
    pub(crate) lookup: StripedHistogram,
    /// Lookups of entries in this process that found one, a part of them, in nanoseconds.
    pub(crate) local_lookup: Histogram,
    pub(crate) load: Histogram,
    pub(crate) fill: Histogram,
    /// Sizes of the values that were stored, in bytes.
    pub(crate) sizes: Histogram,
    pub(crate) audit: AuditCounters,
}

impl FunctionCounters {
    pub(crate) fn new(op: &str, function: &'static str) -> Self {
        Self {
            op: op.into(),
            function,
            hits: Striped::default(),
            local_hits: Striped::default(),
            recalled: Counter::default(),
            stored: Counter::default(),
            not_stored: Counter::default(),
            joined: Counter::default(),
            bypasses: Default::default(),
            stale: Default::default(),
            failed_loads: Counter::default(),
            loading: Gauge::default(),
            waiting: Gauge::default(),
            lookup: StripedHistogram::default(),
            local_lookup: Histogram::default(),
            load: Histogram::default(),
            fill: Histogram::default(),
            sizes: Histogram::default(),
            audit: AuditCounters::default(),
        }
    }
}

/// How many there are now.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicI64);

impl Gauge {
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.0.load(Ordering::Relaxed)).unwrap_or(0)
    }
}

/// A body that runs, counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Loading(Option<Arc<FunctionCounters>>);

impl Loading {
    pub(crate) fn new(function: Option<&Arc<FunctionCounters>>) -> Self {
        if let Some(stats) = function {
            stats.loading.0.fetch_add(1, Ordering::Relaxed);
        }
        Self(function.cloned())
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        if let Some(stats) = &self.0 {
            stats.loading.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A caller that waits for another caller's load, counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Waiting(Option<Arc<FunctionCounters>>);

impl Waiting {
    pub(crate) fn new(function: Option<&Arc<FunctionCounters>>) -> Self {
        if let Some(stats) = function {
            stats.waiting.0.fetch_add(1, Ordering::Relaxed);
        }
        Self(function.cloned())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(stats) = &self.0 {
            stats.waiting.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
