//! The auditor's findings and counters, and the statistics over them.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::base::counters::Counter;

/// One hit whose value differed from what its function returned right after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AuditFinding {
    /// The entry's key.
    pub key: String,
    /// The resource.
    pub resource: String,
    /// The attribute's `op`, or the function's name.
    pub op: String,
    /// The verdict on the difference.
    pub verdict: Verdict,
    /// The age of the entry in milliseconds, if the store knows it.
    pub age_ms: Option<u64>,
    /// The time since this process last invalidated anything of the resource, in milliseconds;
    /// `None` if it has not since its first audit.
    pub last_invalidated_ms: Option<u64>,
}

/// A verdict on a difference between a hit and its function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// Seen twice, with the same other value, and the entry was still there some time later: its
    /// data changed, and nothing invalidated it.
    Stale,
    /// The entry is gone or was replaced meanwhile: a write came in between.
    Changed,
    /// The function returned another value each time: nothing follows.
    Unstable,
    /// Seen once; the next hits on this entry are audited too.
    Suspected,
}

/// The reaction to a stale entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuditAction {
    /// Nothing: it stays until its TTL ends.
    Keep,
    /// Remove the entry.
    Invalidate,
}

/// The program's callback for stale entries.
#[derive(Clone)]
pub(crate) struct OnStale(pub(crate) Arc<dyn Fn(&AuditFinding) -> AuditAction + Send + Sync>);

impl OnStale {
    /// Runs the callback. If it panics, the entry is kept.
    pub(crate) fn ask(&self, finding: &AuditFinding) -> AuditAction {
        let asked = catch_unwind(AssertUnwindSafe(|| (self.0)(finding)));
        asked.unwrap_or_else(|_| {
            tracing::error!(
                key = finding.key,
                "the callback for stale entries (on_stale) panicked; the entry stays"
            );
            AuditAction::Keep
        })
    }
}

impl fmt::Debug for OnStale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnStale")
    }
}

/// The counters of the audit of one function. Second looks at suspects are not included: they are
/// taken because a hit differed, so they say nothing about hits in general.
#[derive(Debug, Default)]
pub(crate) struct AuditCounters {
    /// Hits that were drawn at random and compared.
    pub(crate) checked: Counter,
    /// How many of these differed and became suspects, and how many of those have a verdict by now.
    pub(crate) doubtful: Counter,
    pub(crate) decided: Counter,
    /// Entries that were found to be stale.
    pub(crate) stale: Counter,
    /// How many of the `checked` hits were stale.
    pub(crate) stale_hits: Counter,
    pub(crate) changed: Counter,
    pub(crate) unstable: Counter,
    pub(crate) suspected: Counter,
}

impl AuditCounters {
    pub(crate) fn count(&self, verdict: Verdict) {
        match verdict {
            Verdict::Stale => &self.stale,
            Verdict::Changed => &self.changed,
            Verdict::Unstable => &self.unstable,
            Verdict::Suspected => &self.suspected,
        }
        .add_one();
    }

    /// Records the verdict on hits that differed.
    pub(crate) fn decide(&self, verdict: Verdict, drawn: u64) {
        self.decided.add(drawn);
        if verdict == Verdict::Stale {
            self.stale_hits.add(drawn);
        }
    }

    /// The hits that differed and have no verdict yet.
    pub(crate) fn open(&self) -> u64 {
        // Read first, because a hit is counted as doubtful before it is decided.
        let decided = self.decided.get();
        self.doubtful.get().saturating_sub(decided)
    }
}

/// A share of all hits, as a bound that a random number of 32 bits is compared with; 0 for none.
pub(crate) fn threshold(part: f64) -> u32 {
    let scaled = (part.clamp(0.0, 1.0) * f64::from(u32::MAX)).round() as u32;
    match part > 0.0 {
        true => scaled.max(1),
        false => 0,
    }
}

/// Up to so many stale hits the bound is computed term by term. Each term takes some nanoseconds,
/// and there are a few dozen steps, once a second and for each resource.
const TERM_BY_TERM: u64 = 100;

/// The largest share of stale hits among all hits, with 95 % confidence, if so many of the audited
/// ones were stale: the one-sided bound of Clopper and Pearson (1934), which is 3/n for none of n.
/// For more than 100 it is that of Wilson (1927) with a correction for continuity, which differs
/// from it by 0.3 % at most.
pub(crate) fn upper_bound(checked: u64, stale: u64) -> f64 {
    if checked == 0 || stale >= checked {
        return 1.0;
    }
    match stale <= TERM_BY_TERM {
        true => exact_bound(checked, stale),
        false => wilson_bound(checked, stale),
    }
}

fn exact_bound(checked: u64, stale: u64) -> f64 {
    const DOUBT: f64 = 0.05;
    let (mut low, mut high) = (stale as f64 / checked as f64, 1.0);
    while high - low > high * 1e-9 {
        let middle = f64::midpoint(low, high);
        match at_most(stale, checked, middle) > DOUBT {
            true => low = middle,
            false => high = middle,
        }
    }
    high
}

/// The probability that of `n` independent hits at most `k` are stale, if each is stale with
/// probability `p`.
fn at_most(k: u64, n: u64, p: f64) -> f64 {
    let (n, odds) = (n as f64, p / (1.0 - p));
    // Term by term, as logarithms, since the first may be too small for a float.
    let mut term = n * (-p).ln_1p();
    let mut sum = 0.0;
    for i in 0..=k {
        sum += term.exp();
        term += ((n - i as f64) / (i as f64 + 1.0) * odds).ln();
    }
    sum
}

fn wilson_bound(checked: u64, stale: u64) -> f64 {
    /// The 95 % quantile of the normal distribution.
    const Z: f64 = 1.644_853_626_951_472_7;
    let n = checked as f64;
    let share = (stale as f64 + 0.5) / n;
    let middle = share + Z * Z / (2.0 * n);
    let margin = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    ((middle + margin) / (1.0 + Z * Z / n)).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(one: f64, other: f64) -> bool {
        (one - other).abs() < other * 0.01
    }

    #[test]
    fn the_bound_is_that_of_the_tables() {
        assert!(near(upper_bound(100, 0), 1.0 - 0.05f64.powf(0.01)));
        assert!(near(upper_bound(1_000_000, 0), 3.0e-6));
        assert!(
            near(upper_bound(100, 1), 0.046_6),
            "{}",
            upper_bound(100, 1)
        );
        assert!(near(upper_bound(10, 5), 0.777_6), "{}", upper_bound(10, 5));
        assert_eq!((upper_bound(0, 0), upper_bound(5, 5)), (1.0, 1.0));
    }

    #[test]
    fn the_bound_keeps_its_margin_for_many_stale_hits() {
        let bound = upper_bound(10_000_000, 200_000);
        assert!((0.020_05..0.020_2).contains(&bound), "{bound}");
        // Both ways agree where one gives way to the other.
        for checked in [101, 120, 300, 10_000, 100_000_000] {
            let (exact, wilson) = (exact_bound(checked, 100), wilson_bound(checked, 100));
            assert!((wilson / exact - 1.0).abs() < 0.003, "{exact} {wilson}");
        }
        assert!(upper_bound(1_001, 1_000) <= 1.0);
    }

    /// It is computed each second, for each resource, by the thread that delivers invalidations.
    #[test]
    fn no_more_than_a_hundred_terms_are_computed() {
        for (checked, stale) in [(1_000, 101), (10_000_000, 101), (10_000_000, 1_000_000)] {
            // The bound that has no terms.
            let bound = wilson_bound(checked, stale);
            assert_eq!(upper_bound(checked, stale).to_bits(), bound.to_bits());
            assert_ne!(exact_bound(checked, 100).to_bits(), bound.to_bits());
        }
    }

    #[test]
    fn a_callback_that_panics_has_nothing_done() {
        let finding = AuditFinding {
            key: "users:1".into(),
            resource: "users".into(),
            op: "get".into(),
            verdict: Verdict::Stale,
            age_ms: None,
            last_invalidated_ms: None,
        };
        let on_stale = OnStale(Arc::new(|finding| panic!("no alert for {}", finding.key)));
        assert_eq!(on_stale.ask(&finding), AuditAction::Keep);
    }

    #[test]
    fn a_part_of_all_hits() {
        assert_eq!((threshold(0.0), threshold(1.0)), (0, u32::MAX));
        assert!(threshold(1e-12) >= 1);
    }
}
