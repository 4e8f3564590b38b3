//! Pure functions of time: how long an entry lives.

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
                // A negative number of seconds is over before it began.
                Some(Duration::from_secs(u64::try_from(self).unwrap_or(0)))
            }
        }
    )*};
}

seconds!(u8 u16 u32 u64 usize i8 i16 i32 i64 isize);

/// No entry lives longer: far enough for any use, near enough that arithmetic on it can't overflow.
pub(crate) const MAX_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How long an absence is kept when nothing else is said: no longer than half a minute, since a row that
/// is looked for is often about to be created.
pub(crate) const MAX_DEFAULT_NONE_TTL: Duration = Duration::from_secs(30);

/// Times to live as a function asked for them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TtlRequest {
    pub(crate) value: Option<Duration>,
    pub(crate) absence: Option<Duration>,
    pub(crate) never_absence: bool,
}

impl TtlRequest {
    /// The time to live of a value: the operator's word for this resource wins over the attribute's.
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

/// How long a generation lives in the store when its longest-lived entry lives `longest_ttl`.
///
/// A generation that is gone makes everything under it a miss, so it outlives its entries by far.
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
            never_absence: false,
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
    fn negative_seconds_are_none_at_all() {
        assert_eq!((-5i32).into_ttl(), Some(Duration::ZERO));
    }
}
