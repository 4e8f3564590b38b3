//! Log lines and spans of single calls, at the level `DEBUG`.
//!
//! Each call is one event of the target `cache_runtime::call`. Its fields are `key`, `resource`,
//! `op`, `outcome` (`hit`, `stale`, `miss`, `joined`, `bypass`), `tier` (`local`, `redis`), `why`,
//! and times in microseconds. A manual operation is an event too, with `by_hand`. Loads, lookups in
//! the store and writes are spans; see the book's page on logs and traces. If this level is off, a
//! call pays one comparison.

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
    /// The caller: an annotated function by its `op`, or the name of a manual operation.
    pub(crate) asker: Asker<'a>,
    pub(crate) tier: &'static str,
}

/// The caller.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Asker<'a> {
    Function(&'a str),
    ByHand(&'static str),
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
    let ttl = match status {
        Status::Hit { ttl } if ttl < Duration::MAX => Some(ttl),
        _ => None,
    };
    event(line, words(status), ttl, times);
}

/// Logs one call whose outcome is given in words, with its reason.
pub(crate) fn event(
    line: &CallLine<'_>,
    (outcome, why): (&'static str, Option<&'static str>),
    ttl: Option<Duration>,
    times: Times,
) {
    let (op, by_hand) = match line.asker {
        Asker::Function(op) => (Some(op), None),
        Asker::ByHand(operation) => (None, Some(operation)),
    };
    tracing::debug!(
        target: "cache_runtime::call",
        key = line.key,
        resource = line.resource,
        op,
        by_hand,
        outcome,
        tier = line.tier,
        why,
        ttl_ms = ttl.map(|ttl| micros(ttl) / 1000),
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
