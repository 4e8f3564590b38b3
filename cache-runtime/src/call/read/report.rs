//! Reports one call: counters of its function, its log line, spans.

use std::sync::Arc;
use std::time::Duration;

use tracing::Span;

use super::call::Call;
use super::timing::{note, noted};
use crate::base::error::Error;
use crate::call::log::{self, Asker, CallLine, Times};
use crate::call::observe::{StaleReason, Status};
use crate::store::Filled;
use crate::telemetry::events::{STALE_INTERVAL, StaleHit};
use crate::telemetry::micros;

impl Call {
    /// The store is about to be asked.
    pub(super) fn begins_lookup(&self) {
        let began = self.timing.begins_lookup();
        note(&self.timing.asked, began - self.timing.began);
    }

    /// The store has answered a lookup, or failed.
    pub(super) fn ends_lookup(&self) {
        let asked = noted(&self.timing.asked).unwrap_or(0);
        let asked = Duration::from_micros(asked.into());
        let took = self.timing.began.elapsed().saturating_sub(asked);
        note(&self.timing.lookup, took);
        if let Some(function) = self.resource.function() {
            function.lookup.record_duration(took);
        }
    }

    /// The body has returned.
    pub(super) fn loaded_for(&self, took: Duration, has_failed: bool) {
        note(&self.timing.load, took);
        if let Some(function) = self.resource.function() {
            function.load.record_duration(took);
            if has_failed {
                function.failed_loads.add_one();
            }
        }
    }

    /// The store has answered a fill of this many bytes, or failed.
    pub(super) fn filled_for(&self, took: Duration, size: usize, filled: &Result<Filled, Error>) {
        note(&self.timing.fill, took);
        if let Some(function) = self.resource.function() {
            function.fill.record_duration(took);
            if matches!(filled, Ok(Filled::Stored)) {
                function.sizes.record(size as u64);
            }
        }
    }

    pub(super) fn served_stale(&self, past: Duration, reason: StaleReason) {
        let reason = (reason as usize, reason.as_str());
        let is_held_back = self.cache.telemetry.events.served_stale(StaleHit {
            resource: &self.resource.name,
            key: &self.own.key,
            past_ms: micros(past) / 1000,
            reason,
        });
        if is_held_back {
            let telemetry = Arc::clone(&self.cache.telemetry);
            let resource = self.resource.name.clone();
            self.cache.background.spawn(async move {
                crate::base::time::sleep(STALE_INTERVAL).await;
                telemetry.events.tell_held_back(&resource, reason);
            });
        }
    }

    /// A step of a batch has stored values of these sizes, or failed.
    pub(super) fn filled_many(&self, took: Duration, stored: impl Iterator<Item = usize>) {
        note(&self.timing.fill, took);
        if let Some(function) = self.resource.function() {
            function.fill.record_duration(took);
            stored.for_each(|size| function.sizes.record(size as u64));
        }
    }

    #[cold]
    pub(super) fn log(&self, status: Status) {
        self.log_as(&self.own.key, self.cache.store.name(), status);
    }

    /// The same for a batch: the first call stands for all.
    #[cold]
    pub(super) fn log_as(&self, key: &str, tier: &'static str, status: Status) {
        let asker = match self.resource.function() {
            Some(function) => Asker::Function(&function.op),
            // The only manual operation that is a whole call.
            None => Asker::ByHand("get_or_load"),
        };
        let line = CallLine {
            key,
            resource: &self.resource.name,
            asker,
            tier,
        };
        log::call(&line, status, self.times());
    }

    /// Logs a manual read.
    #[cold]
    pub(crate) fn log_read(&self, operation: &'static str, status: Status) {
        log::call(&self.line_by_hand(operation), status, self.times());
    }

    /// Logs a manual operation that changes something.
    #[cold]
    pub(crate) fn log_change(
        &self,
        operation: &'static str,
        outcome: &'static str,
        why: Option<&'static str>,
    ) {
        let line = self.line_by_hand(operation);
        log::event(&line, (outcome, why), None, self.times());
    }

    fn line_by_hand(&self, operation: &'static str) -> CallLine<'_> {
        CallLine {
            key: &self.own.key,
            resource: &self.resource.name,
            asker: Asker::ByHand(operation),
            tier: self.cache.store.name(),
        }
    }

    fn times(&self) -> Times {
        Times {
            lookup_us: noted(&self.timing.lookup),
            load_us: noted(&self.timing.load),
            fill_us: noted(&self.timing.fill),
            total_us: Some(micros(self.timing.began.elapsed())),
        }
    }

    /// The span of one lookup in the store; the fields are those of OpenTelemetry's database spans.
    pub(super) fn lookup_span(&self) -> Span {
        let server = &self.cache.telemetry.server;
        tracing::debug_span!(
            target: "cache_runtime::call",
            "cache.lookup",
            otel.kind = "client",
            otel.status_code = tracing::field::Empty,
            error.type = tracing::field::Empty,
            db.system.name = server.system,
            db.operation.name = (server.system == Some("redis")).then_some("MGET"),
            db.namespace = server.namespace.as_deref(),
            server.address = server.host.as_deref(),
            server.port = server.port,
            cache.key = self.own.key,
            cache.resource = &*self.resource.name,
        )
    }
}

/// The span of a body that loads; `None` if this level is off.
pub(super) fn load_span(call: &Call) -> Option<Span> {
    log::is_on().then(|| {
        tracing::debug_span!(
            target: "cache_runtime::call",
            "cache.load",
            cache.key = call.own.key,
            cache.resource = &*call.resource.name,
            cache.op = call.resource.function().map(|function| &*function.op),
        )
    })
}
