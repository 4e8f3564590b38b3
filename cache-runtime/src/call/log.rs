//! Log lines and spans of single calls, at the level `DEBUG`.
//!
//! Each call is one event of the target `cache_runtime::call` with the fields `key`, `resource`,
//! `op`, `outcome` (`hit`, `stale`, `miss`, `joined`, `bypass`), `tier` (`local`, `redis`), `why`,
//! and times in microseconds. Loads, lookups in the store and writes are spans; see the book's page
//! on logs and traces. If this level is off, a call pays one comparison.

use std::time::Duration;

use tracing::Span;
use tracing::level_filters::LevelFilter;

use crate::call::observe::Status;
use crate::registry::CallSite;
use crate::telemetry::micros;

/// Whether this level is on.
#[inline]
pub(crate) fn is_on() -> bool {
    LevelFilter::DEBUG <= tracing::level_filters::STATIC_MAX_LEVEL
        && LevelFilter::DEBUG <= LevelFilter::current()
}

/// The fields of a call's line besides its outcome.
pub(crate) struct CallLine<'a> {
    pub(crate) key: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) op: &'a str,
    pub(crate) tier: &'static str,
}

/// The durations of a call's steps, in microseconds; `None` for steps that did not take place.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Times {
    pub(crate) lookup_us: Option<u32>,
    pub(crate) load_us: Option<u32>,
    pub(crate) fill_us: Option<u32>,
    pub(crate) total_us: Option<u64>,
}

/// Logs one call.
pub(crate) fn call(line: &CallLine<'_>, status: Status, times: Times) {
    let (outcome, why) = words(status);
    let ttl_ms = match status {
        Status::Hit { ttl } if ttl < Duration::MAX => Some(micros(ttl) / 1000),
        _ => None,
    };
    tracing::debug!(
        target: "cache_runtime::call",
        key = line.key,
        resource = line.resource,
        op = line.op,
        outcome,
        tier = line.tier,
        why,
        ttl_ms,
        lookup_us = times.lookup_us,
        load_us = times.load_us,
        fill_us = times.fill_us,
        total_us = times.total_us,
        "call"
    );
}

/// The outcome as it is named in logs and metrics, and its reason.
pub(crate) fn words(status: Status) -> (&'static str, Option<&'static str>) {
    match status {
        Status::Hit { .. } => ("hit", None),
        Status::Stale { reason, .. } => ("stale", Some(reason.as_str())),
        Status::Miss { joined: true, .. } => ("joined", None),
        Status::Miss { stored: true, .. } => ("miss", Some("stored")),
        Status::Miss { stored: false, .. } => ("miss", Some("not-stored")),
        Status::Bypass(reason) => ("bypass", Some(reason.as_str())),
    }
}

/// The span of a body that writes, and of the wait for its invalidation; `None` if this level is
/// off.
pub(crate) fn write_span(site: &'static CallSite) -> Option<Span> {
    is_on().then(|| {
        tracing::debug_span!(
            target: "cache_runtime::call",
            "cache.write",
            code.function.name = site.function(),
        )
    })
}
