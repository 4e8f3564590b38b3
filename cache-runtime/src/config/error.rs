//! Why a configuration can't be used.

use std::fmt;

/// Environment variables, or settings made in code, that can't be used.
///
/// It shows one problem on each line, each with the name of the setting, what it held and what it
/// may hold. `Debug` shows the same, since a `main` that returns the error prints that.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<String>,
}

impl ConfigError {
    pub(super) fn of(problems: Vec<String>) -> Self {
        Self { problems }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for ConfigError {}
