//! When something that has failed is tried again.

use std::time::Duration;

use crate::base::clock::{self, Instant};

const FIRST_RETRY: Duration = Duration::from_millis(100);

const LAST_RETRY: Duration = Duration::from_secs(1);

/// The pause after a retry is so many times as long as the retry, at least. Keys that are refused
/// are sent one by one while others wait, and there may be many.
const RESTS: u32 = 10;

/// When those that wait are tried again.
#[derive(Clone, Copy)]
pub(crate) struct Retry {
    pause: Duration,
    pub(crate) at: Instant,
}

impl Retry {
    /// The one after an attempt that began then, and has failed now: the server is away, or has
    /// answered and refused. An attempt that a new connection has brought on before its time does
    /// not put it off.
    pub(crate) fn after(retry: Option<Self>, began: Instant, is_away: bool) -> Self {
        let now = clock::now();
        let pause = match retry {
            Some(retry) if now < retry.at => return retry,
            Some(retry) => (retry.pause * 2).min(LAST_RETRY),
            None => FIRST_RETRY,
        };
        let rest = match is_away {
            true => Duration::ZERO,
            false => now.saturating_duration_since(began) * RESTS,
        };
        Self {
            pause,
            at: now + pause.max(rest),
        }
    }
}
