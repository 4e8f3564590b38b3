//! An entry of the store in memory that may be served.

use std::time::Duration;

use crate::base::clock::Millis;
use crate::base::policy::StalePolicy;
use crate::local::AnyValue;
use crate::protocol::entry::{Content, Header};
use crate::store::Payload;

/// An entry of the store in memory that may be served.
pub(crate) struct Shown<'a> {
    /// `None` is an absence.
    pub(crate) value: Option<&'a AnyValue>,
    /// How long it may be served without asking further.
    pub(crate) lasts: Duration,
    /// How long it is fresh.
    pub(crate) fresh: Duration,
}

/// Returns the content of an entry that is not near its end.
#[inline]
pub(crate) fn shown<'a>(
    header: &Header,
    payload: &'a Payload,
    now: Millis,
    stale_policy: &StalePolicy,
) -> Option<Shown<'a>> {
    let value = match (header.content, payload) {
        (Content::Value, Payload::Decoded(value)) => Some(value),
        (Content::Absence, _) => None,
        // Decoding would take too long here.
        _ => return None,
    };
    // Near its end, one of many callers loads a new value. That is decided in the lookup loop.
    let fresh = header.left(now);
    let lasts = fresh.saturating_sub(stale_policy.early_refresh_window(header.took()));
    (!lasts.is_zero()).then_some(Shown {
        value,
        lasts,
        fresh,
    })
}
