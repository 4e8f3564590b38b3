//! The report of the auditor.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::auditor::KEPT;
use crate::engine::Engine;
use crate::telemetry::audit::{AuditCounters, AuditFinding, upper_bound};

/// The report of the auditor; see [`Cache::audit`](crate::Cache::audit).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AuditReport {
    /// The sums over all resources.
    #[serde(flatten)]
    pub total: AuditStats,
    /// By resource.
    pub resources: BTreeMap<String, AuditStats>,
    /// The most recent stale entries, the latest last; at most 32.
    pub stale_entries: Vec<AuditFinding>,
}

/// The results of the audited hits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AuditStats {
    /// Hits that were drawn at random and compared with what their function returns. Second looks
    /// are not included.
    pub checked: u64,
    /// Entries that were found to be stale: their function returned the same other value twice, and
    /// nothing invalidated them.
    pub stale: u64,
    /// How many of the checked hits were on stale entries.
    #[serde(default)]
    pub stale_hits: u64,
    /// How many of the checked hits differed without a decision, so far or for good. The bound
    /// counts them as stale.
    #[serde(default)]
    pub open: u64,
    /// Differences that were explained by a write in between.
    pub changed: u64,
    /// Hits whose function returned another value each time.
    pub unstable: u64,
    /// Hits that differed once, and are checked again.
    pub suspected: u64,
    /// The largest share of stale hits among all hits, with 95 % confidence; 1 before anything is
    /// checked.
    pub stale_upper_bound: f64,
}

impl AuditStats {
    fn add(&mut self, stats: &AuditCounters) {
        self.checked += stats.checked.get();
        self.stale += stats.stale.get();
        self.stale_hits += stats.stale_hits.get();
        self.open += stats.open();
        self.changed += stats.changed.get();
        self.unstable += stats.unstable.get();
        self.suspected += stats.suspected.get();
    }

    fn join(&mut self, other: &Self) {
        self.checked += other.checked;
        self.stale += other.stale;
        self.stale_hits += other.stale_hits;
        self.open += other.open;
        self.changed += other.changed;
        self.unstable += other.unstable;
        self.suspected += other.suspected;
    }

    fn bounded(mut self) -> Self {
        self.stale_upper_bound = upper_bound(self.checked, self.stale_hits + self.open);
        self
    }
}

impl AuditReport {
    /// Combines the reports of several processes: the sums for each resource, and the bound that
    /// follows from them. The last 32 stale entries are kept.
    ///
    /// ```
    /// use cache_runtime::AuditReport;
    ///
    /// let here = r#"{"checked": 2999, "stale": 0, "changed": 3, "unstable": 0, "suspected": 3,
    ///     "stale_upper_bound": 0.001, "resources": {}, "stale_entries": []}"#;
    /// let here: AuditReport = serde_json::from_str(here)?;
    /// let both = AuditReport::merged([here.clone(), here]);
    /// assert_eq!(both.total.checked, 5998);
    /// assert!(both.total.stale_upper_bound < 0.0005);
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    #[must_use]
    pub fn merged(reports: impl IntoIterator<Item = Self>) -> Self {
        let mut all = Self::default();
        for report in reports {
            all.total.join(&report.total);
            for (resource, stats) in report.resources {
                all.resources.entry(resource).or_default().join(&stats);
            }
            all.stale_entries.extend(report.stale_entries);
        }
        all.total = all.total.bounded();
        for stats in all.resources.values_mut() {
            *stats = stats.bounded();
        }
        let surplus = all.stale_entries.len().saturating_sub(KEPT);
        all.stale_entries.drain(..surplus);
        all
    }

    pub(crate) fn of(engine: &Engine) -> Self {
        let mut report = Self::default();
        for resource in engine.registry.all() {
            let mut stats = AuditStats::default();
            for function in resource.functions() {
                stats.add(&function.audit);
                report.total.add(&function.audit);
            }
            if stats.checked > 0 {
                report
                    .resources
                    .insert(resource.name.to_string(), stats.bounded());
            }
        }
        report.total = report.total.bounded();
        report.stale_entries = engine.auditor.kept();
        report
    }
}

impl std::fmt::Display for AuditReport {
    /// A table with a line for each resource.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "{:<20} {:>10} {:>6} {:>6} {:>8} {:>9}  stale at most (95 %)",
            "resource", "checked", "stale", "open", "changed", "unstable"
        )?;
        let all = self.resources.iter().map(|(name, it)| (name.as_str(), it));
        for (name, it) in all.chain([("all", &self.total)]) {
            writeln!(
                f,
                "{name:<20} {:>10} {:>6} {:>6} {:>8} {:>9}  {:.4} %",
                it.checked,
                it.stale_hits,
                it.open,
                it.changed,
                it.unstable,
                it.stale_upper_bound * 100.0
            )?;
        }
        for it in &self.stale_entries {
            writeln!(f, "stale: {} ({} ms old)", it.key, it.age_ms.unwrap_or(0))?;
        }
        Ok(())
    }
}
