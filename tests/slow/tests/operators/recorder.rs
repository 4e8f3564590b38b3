//! A recorder that keeps the figures, to be asked for by name and labels.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use cache_runtime::Cache;
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit, with_local_recorder,
};

/// Counters and gauges by their value, histograms by the number of their values.
#[derive(Default)]
pub(crate) struct Figures(Arc<Mutex<BTreeMap<Key, f64>>>);

impl Figures {
    /// What the cache has published by now.
    pub(crate) fn publish(&self, cache: &Cache) {
        with_local_recorder(self, || cache.publish_metrics());
    }

    /// The sum over the series of a metric that have these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let figures = self.0.lock().expect("whole");
        let has = |key: &Key, (name, value): &(&str, &str)| {
            let mut all = key.labels();
            all.any(|label| label.key() == *name && label.value() == *value)
        };
        let series = figures
            .iter()
            .filter(|(key, _)| key.name() == name && labels.iter().all(|label| has(key, label)));
        series.map(|(_, value)| *value).sum()
    }

    /// How many series there are.
    pub(crate) fn series(&self) -> usize {
        self.0.lock().expect("whole").len()
    }

    fn cell(&self, key: &Key) -> Arc<Cell> {
        let mut figures = self.0.lock().expect("whole");
        figures.entry(key.clone()).or_default();
        let figures = Arc::clone(&self.0);
        Arc::new(Cell {
            figures,
            key: key.clone(),
        })
    }
}

struct Cell {
    figures: Arc<Mutex<BTreeMap<Key, f64>>>,
    key: Key,
}

impl Cell {
    fn change(&self, change: impl FnOnce(&mut f64)) {
        let mut figures = self.figures.lock().expect("whole");
        change(figures.entry(self.key.clone()).or_default());
    }
}

impl CounterFn for Cell {
    fn increment(&self, value: u64) {
        self.change(|it| *it += value as f64);
    }

    fn absolute(&self, value: u64) {
        self.change(|it| *it = value as f64);
    }
}

impl GaugeFn for Cell {
    fn increment(&self, value: f64) {
        self.change(|it| *it += value);
    }

    fn decrement(&self, value: f64) {
        self.change(|it| *it -= value);
    }

    fn set(&self, value: f64) {
        self.change(|it| *it = value);
    }
}

impl HistogramFn for Cell {
    fn record(&self, _: f64) {
        self.change(|it| *it += 1.0);
    }
}

impl Recorder for Figures {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.cell(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.cell(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.cell(key))
    }
}
