//! Pure functions of time: how long an entry lives, and when it is reloaded.

use std::time::Duration;

/// A time to live: whole seconds, or a [`Duration`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a time to live",
    note = "use whole seconds such as `300`, or a `std::time::Duration`"
)]
pub trait IntoTtl {
    /// The time to live; `None` stands for the default (`CACHE_TTL`).
    fn into_ttl(self) -> Option<Duration>;
}

impl IntoTtl for Duration {
    fn into_ttl(self) -> Option<Duration> {
        Some(self)
    }
}

impl IntoTtl for Option<Duration> {
    fn into_ttl(self) -> Option<Duration> {
        self
    }
}

macro_rules! seconds {
    ($($int:ty)*) => {$(
        impl IntoTtl for $int {
            fn into_ttl(self) -> Option<Duration> {
                // A negative number of seconds is an entry that has expired already.
                Some(Duration::from_secs(u64::try_from(self).unwrap_or(0)))
            }
        }
    )*};
}

seconds!(u8 u16 u32 u64 usize i8 i16 i32 i64 isize);

/// The longest encoded value that may be stored, and the longest that is read back.
pub(crate) const MOST_VALUE_BYTES: usize = 8 << 20;

/// The longest time to live: long enough for any use, short enough that arithmetic can't overflow.
pub(crate) const MAX_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The longest time to live of an absence by default: half a minute, since a row that is looked for
/// is often about to be created.
pub(crate) const MAX_DEFAULT_NONE_TTL: Duration = Duration::from_secs(30);

/// Times to live as the attribute asks for them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TtlRequest {
    pub(crate) value: Option<Duration>,
    pub(crate) absence: Option<Duration>,
    pub(crate) never_absence: bool,
    /// Whether the time of an absence is that of the whole `impl` block.
    pub(crate) absence_is_default: bool,
}

impl TtlRequest {
    /// Whether the function itself has an option about absences.
    pub(crate) fn is_about_absences(&self) -> bool {
        self.never_absence || (self.absence.is_some() && !self.absence_is_default)
    }

    /// The time to live of a value: the operator's setting for this resource wins over the
    /// attribute's.
    pub(crate) fn of_value(&self, operator: Option<Duration>, default: Duration) -> Duration {
        operator.or(self.value).unwrap_or(default).min(MAX_TTL)
    }

    /// The time to live of an absence; `None` if absences are not to be stored.
    pub(crate) fn of_absence(
        &self,
        operator: Option<Duration>,
        default: Duration,
    ) -> Option<Duration> {
        if self.never_absence {
            return None;
        }
        let of_value = self.of_value(operator, default);
        Some(self.absence.unwrap_or(MAX_DEFAULT_NONE_TTL).min(of_value))
    }
}

/// The behaviour of a function while its source is slow or fails. All of it is off by default.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct StalePolicy {
    /// How long after it expired an entry is served while a new value is loaded in the background
    /// (stale-while-revalidate, [RFC 5861](https://www.rfc-editor.org/rfc/rfc5861)).
    pub(crate) swr: Duration,
    /// How long after it expired an entry is served in place of an error (stale-if-error, RFC
    /// 5861).
    pub(crate) stale_if_error: Duration,
    /// How long a load may run before an expired entry is served in its place.
    pub(crate) timeout: Option<Duration>,
    /// How eagerly an entry is reloaded before it expires: the β of XFetch (Vattani, Chierichetti,
    /// Lowenstein, *Optimal Probabilistic Cache Stampede Prevention*, VLDB 2015).
    pub(crate) early: f64,
    /// The largest share of a time to live that random jitter takes off.
    pub(crate) jitter: f64,
}

impl StalePolicy {
    /// The early-refresh window: how long before its end an entry may be reloaded, where a load
    /// takes `took`. XFetch would start earlier about once in a thousand times.
    pub(crate) fn early_refresh_window(&self, took: Duration) -> Duration {
        /// XFetch's random factor `-ln(x)` is larger than this about once in a thousand times.
        const EARLIEST: f64 = 7.0;

        if self.early > 0.0 {
            took.mul_f64((self.early * EARLIEST).min(1e6))
        } else {
            Duration::ZERO
        }
    }

    /// How long an entry is kept after it expired.
    pub(crate) fn kept_for(&self) -> Duration {
        self.swr.max(self.stale_if_error)
    }

    /// A time to live shortened at random, so that entries stored together don't expire together.
    /// `drawn` is from `[0, 1)`.
    pub(crate) fn jittered(&self, ttl: Duration, drawn: f64) -> Duration {
        if self.jitter <= 0.0 {
            return ttl;
        }
        ttl.mul_f64(1.0 - self.jitter.min(1.0) * drawn)
    }

    /// Whether XFetch reloads an entry that has not expired: the closer its end, measured by how
    /// long a load takes, the more likely. `draw` returns a number from `[0, 1)`.
    pub(crate) fn is_due_early(
        &self,
        ttl_left: Duration,
        took: Duration,
        draw: impl FnOnce() -> f64,
    ) -> bool {
        self.early > 0.0 && {
            // In (0, 1], where the logarithm is finite.
            let drawn = 1.0 - draw();
            took.as_secs_f64() * self.early * -drawn.ln() >= ttl_left.as_secs_f64()
        }
    }
}

/// How long a generation lives in the store when its longest-lived entry lives `longest_ttl`.
///
/// A missing generation makes every entry under it a miss, so it outlives its entries by far.
pub(crate) fn generation_ttl(longest_ttl: Duration) -> Duration {
    const AT_LEAST: Duration = Duration::from_secs(24 * 3600);
    AT_LEAST.max(longest_ttl.saturating_mul(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_operator_wins_over_the_attribute_over_the_default() {
        let asked = TtlRequest {
            value: Some(5 * SECOND),
            ..TtlRequest::default()
        };
        assert_eq!(asked.of_value(Some(7 * SECOND), 9 * SECOND), 7 * SECOND);
        assert_eq!(asked.of_value(None, 9 * SECOND), 5 * SECOND);
        assert_eq!(TtlRequest::default().of_value(None, 9 * SECOND), 9 * SECOND);
    }

    #[test]
    fn absences_live_shorter() {
        let asked = TtlRequest {
            value: Some(300 * SECOND),
            ..TtlRequest::default()
        };
        assert_eq!(asked.of_absence(None, SECOND), Some(30 * SECOND));
        let short = TtlRequest {
            value: Some(5 * SECOND),
            absence: Some(60 * SECOND),
            ..TtlRequest::default()
        };
        assert_eq!(short.of_absence(None, SECOND), Some(5 * SECOND));
        let never = TtlRequest {
            never_absence: true,
            ..asked
        };
        assert_eq!(never.of_absence(None, SECOND), None);
    }

    #[test]
    fn generations_outlive_their_entries() {
        assert_eq!(generation_ttl(SECOND), Duration::from_secs(86_400));
        assert_eq!(
            generation_ttl(Duration::from_secs(86_400)),
            Duration::from_secs(172_800)
        );
    }

    #[test]
    fn jitter_only_shortens() {
        let stale_policy = StalePolicy {
            jitter: 0.1,
            ..StalePolicy::default()
        };
        assert_eq!(stale_policy.jittered(10 * SECOND, 0.0), 10 * SECOND);
        assert_eq!(stale_policy.jittered(10 * SECOND, 0.5), SECOND.mul_f64(9.5));
        assert!(stale_policy.jittered(10 * SECOND, 0.999_999) >= 9 * SECOND);
        assert_eq!(
            StalePolicy::default().jittered(10 * SECOND, 0.9),
            10 * SECOND
        );
    }

    #[test]
    fn early_loads_come_near_the_end_and_sooner_where_a_load_takes_long() {
        let stale_policy = StalePolicy {
            early: 1.0,
            ..StalePolicy::default()
        };
        let share = |left: Duration, took: Duration| {
            let drawn = (0..1000).map(|n| f64::from(n) / 1000.0);
            drawn
                .filter(|&drawn| stale_policy.is_due_early(left, took, || drawn))
                .count()
        };
        // The expected shares of an exponential distribution with the load's time as its mean.
        assert_eq!(share(Duration::ZERO, SECOND), 1000);
        assert_eq!(share(SECOND, SECOND), 367);
        assert_eq!(share(10 * SECOND, SECOND), 0);
        assert!(share(10 * SECOND, 10 * SECOND) > 300);
        assert!(!StalePolicy::default().is_due_early(Duration::from_millis(1), SECOND, || 0.99));
    }

    #[test]
    fn negative_seconds_are_none_at_all() {
        assert_eq!((-5i32).into_ttl(), Some(Duration::ZERO));
    }
}
