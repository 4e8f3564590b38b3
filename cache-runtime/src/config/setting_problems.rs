//! The settings made in code that can't be used.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::error::ConfigError;

/// The settings made in code that can't be used: one text for each.
#[derive(Debug, Clone, Default)]
pub(super) struct SettingProblems(Vec<String>);

impl SettingProblems {
    /// The nearest time within the range. Another one is a problem.
    pub(super) fn in_range(
        &mut self,
        setting: &str,
        time: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        let (shortest, longest) = range.into_inner();
        let nearest = time.clamp(shortest, longest);
        let problem =
            || format!("{setting} is `{time:?}`; it may hold {shortest:?} to {longest:?}");
        self.set(setting, (nearest != time).then(problem));
        nearest
    }

    /// A share outside of 0 to 1 is a problem.
    pub(super) fn check_share(&mut self, setting: &str, part: f64) {
        let problem = || format!("{setting} is `{part}`; it may hold 0 to 1");
        self.set(setting, (!(0.0..=1.0).contains(&part)).then(problem));
    }

    /// Notes a problem in place of earlier ones of the same setting: the last call counts.
    pub(super) fn set(&mut self, setting: &str, problem: Option<String>) {
        let start = format!("{setting} is ");
        self.0.retain(|earlier| !earlier.starts_with(&start));
        self.0.extend(problem);
    }

    /// Notes a problem beside those of the same setting.
    pub(super) fn add(&mut self, problem: String) {
        self.0.push(problem);
    }

    /// Forgets those of all settings whose names begin so.
    pub(super) fn forget(&mut self, start: &str) {
        self.0.retain(|earlier| !earlier.starts_with(start));
    }

    /// Names all settings that can't be used, if there are any.
    pub(super) fn error(&self) -> Option<ConfigError> {
        (!self.0.is_empty()).then(|| ConfigError::of(self.0.clone()))
    }

    /// Logs the settings that can't be used.
    pub(super) fn report(&self) {
        for problem in &self.0 {
            tracing::error!(
                problem,
                "a setting can't be used; the nearest one that can is"
            );
        }
    }
}
