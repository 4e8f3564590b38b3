//! Bounds that several settings share.

use std::time::Duration;

/// The longest time that a setting may hold.
pub(super) const LONGEST: Duration = Duration::from_secs(24 * 3600);
