//! The figures of all functions that share a series.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::counters::Counter;
use crate::base::mutation::is_active;
use crate::telemetry::function::FunctionCounters;
use crate::telemetry::histogram::HistogramSnapshot;

/// The functions of one resource and `op`: one series, since a function is no label.
pub(super) struct SameOp(Vec<Arc<FunctionCounters>>);

/// Functions that share an `op`, and those that were refused since another one has it, are added
/// up. One series for each of them would take the figures of one for a growth of the other's.
pub(super) fn by_op(functions: Vec<Arc<FunctionCounters>>) -> Vec<SameOp> {
    if is_active("metrics-by-function") {
        return functions.into_iter().map(|it| SameOp(vec![it])).collect();
    }
    let mut by_op: BTreeMap<Box<str>, Vec<_>> = BTreeMap::new();
    for function in functions {
        by_op.entry(function.op.clone()).or_default().push(function);
    }
    by_op.into_values().map(SameOp).collect()
}

impl SameOp {
    pub(super) fn op(&self) -> &str {
        self.0.first().map_or("", |function| &function.op)
    }

    pub(super) fn sum(&self, of: impl Fn(&FunctionCounters) -> u64) -> u64 {
        self.0.iter().map(|function| of(function)).sum()
    }

    pub(super) fn count(&self, of: impl Fn(&FunctionCounters) -> &Counter) -> u64 {
        self.sum(|function| of(function).get())
    }

    pub(super) fn histogram(
        &self,
        of: impl Fn(&FunctionCounters) -> HistogramSnapshot,
    ) -> HistogramSnapshot {
        let mut sum = HistogramSnapshot::default();
        for function in &self.0 {
            sum.add(&of(function));
        }
        sum
    }
}
