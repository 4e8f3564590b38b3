//! The reports on invalidations: statistics, events, log lines, spans.

use std::time::Duration;

use tracing::{Id, Span};

use super::acknowledgement::Acknowledgement;
use super::batch::InvalidationRequest;
use super::queue::{LostInvalidations, OutgoingBatch};
use super::shared::SharedQueue;
use crate::base::clock::{self, Instant};
use crate::store::Invalidation;
use crate::telemetry::events::EventKind;
use crate::telemetry::{Telemetry, micros};

/// How many names one event or log line holds.
const NAMED: usize = 64;
/// How often the number of those that wait is an event.
const PENDING_INTERVAL: Duration = Duration::from_secs(1);
/// How many writes one span is linked to.
const LINKS: usize = 64;

/// Somebody has waited for an acknowledgement.
pub(super) fn acknowledged(
    telemetry: &Telemetry,
    acknowledgement: Acknowledgement,
    took: Duration,
) {
    let stats = &telemetry.invalidations;
    match acknowledgement {
        Acknowledgement::Delivered => stats.acknowledged.record_duration(took),
        Acknowledgement::Pending => stats.pending.add_one(),
        // Lost invalidations are counted by [`lost`], whether or not a caller waits for them.
        Acknowledgement::Lost | Acknowledgement::Deferred | Acknowledgement::Disabled => {}
    }
}

/// Counts invalidations that will never be delivered.
pub(super) fn lost(telemetry: &Telemetry, lost: &LostInvalidations) {
    let count = u64::try_from(lost.count).unwrap_or(u64::MAX);
    telemetry.invalidations.lost.add(count);
}

/// Remembers the span that asks for an invalidation, so that its delivery can link to it.
pub(super) fn link_to_current(request: &mut InvalidationRequest) {
    if is_on() {
        let current = Span::current();
        if !current.is_none() {
            request.spans.push(current);
        }
    }
}

fn is_on() -> bool {
    use tracing::level_filters::{LevelFilter, STATIC_MAX_LEVEL};
    LevelFilter::DEBUG <= STATIC_MAX_LEVEL && LevelFilter::DEBUG <= LevelFilter::current()
}

/// Around the delivery of what has waited, with links from the writes that asked for it.
pub(super) fn delivery_span(telemetry: &Telemetry, outgoing: &OutgoingBatch) -> Span {
    let named = match outgoing.invalidation.is_empty() {
        true => &outgoing.refused,
        false => &outgoing.invalidation,
    };
    let span = invalidation_span(telemetry, named, outgoing.whole_namespace, None);
    for write in outgoing.spans.iter().take(LINKS) {
        span.follows_from(write);
    }
    span
}

/// Around an invalidation of a caller who does not use the queue. It is a part of what the caller
/// does, and has a link like those of others.
pub(super) fn direct_span(telemetry: &Telemetry, invalidation: &Invalidation) -> Span {
    if crate::base::mutation::is_active("removals-by-hand-not-told") {
        return Span::none();
    }
    let caller = Span::current().id();
    let span = invalidation_span(telemetry, invalidation, false, caller.clone());
    span.follows_from(caller);
    span
}

/// The fields of the server are those of OpenTelemetry's database spans.
fn invalidation_span(
    telemetry: &Telemetry,
    invalidation: &Invalidation,
    everything: bool,
    parent: Option<Id>,
) -> Span {
    if !is_on() {
        return Span::none();
    }
    let server = &telemetry.server;
    tracing::debug_span!(
        target: "cache_runtime::invalidation",
        parent: parent,
        "cache.invalidate",
        otel.kind = "client",
        otel.status_code = tracing::field::Empty,
        error.type = tracing::field::Empty,
        db.system.name = server.system,
        db.operation.name = (server.system == Some("redis")).then_some("EVALSHA"),
        db.namespace = server.namespace.as_deref(),
        server.address = server.host.as_deref(),
        server.port = server.port,
        cache.keys = ?names(&invalidation.deletes),
        cache.dependencies = ?dependencies(invalidation),
        cache.everything = everything,
    )
}

/// The store has taken all of an invalidation of the whole namespace, and what came with it.
pub(super) fn all_delivered(telemetry: &Telemetry, outgoing: &OutgoingBatch, took: Duration) {
    invalidated(telemetry, &outgoing.invalidation, true, took);
}

/// The store has taken these entries and generations.
pub(super) fn delivered(telemetry: &Telemetry, done: &Invalidation, took: Duration) {
    if !done.is_empty() {
        invalidated(telemetry, done, false, took);
    }
}

/// The store has taken an invalidation from a caller who did not use the queue.
pub(super) fn done_directly(telemetry: &Telemetry, done: &Invalidation, took: Duration) {
    if !crate::base::mutation::is_active("removals-by-hand-not-told") {
        acknowledged(telemetry, Acknowledgement::Delivered, took);
        invalidated(telemetry, done, false, took);
    }
}

fn invalidated(telemetry: &Telemetry, done: &Invalidation, everything: bool, took: Duration) {
    let took_us = micros(took);
    if is_on() {
        tracing::debug!(
            target: "cache_runtime::invalidation",
            keys = ?names(&done.deletes),
            dependencies = ?dependencies(done),
            everything,
            took_us,
            "invalidated"
        );
    }
    telemetry.events.publish(|| EventKind::Invalidated {
        keys: names(&done.deletes).to_vec(),
        dependencies: dependencies(done),
        everything,
        took_us,
    });
}

/// Reports that invalidations wait: when that begins, and at most once a second if their number has
/// changed. The worker wakes with each write of an outage.
#[derive(Debug, Default)]
pub(super) struct PendingReport {
    /// When there was an event last, and the number in it.
    told: Option<(Instant, u64)>,
}

impl PendingReport {
    /// The waiting invalidations can't be delivered now.
    pub(super) fn pending(&mut self, shared: &SharedQueue) {
        let now = clock::now();
        let waiting = shared.queue.lock().len() as u64;
        let is_news = self.told.is_none_or(|(told, number)| {
            number != waiting && now.saturating_duration_since(told) >= PENDING_INTERVAL
        });
        if is_news || crate::base::mutation::is_active("pending-told-at-each-wake") {
            self.told = Some((now, waiting));
            let pending = || EventKind::InvalidationPending { waiting };
            shared.telemetry.events.publish(pending);
        }
    }

    /// Nothing waits any more.
    pub(super) fn is_over(&mut self) {
        self.told = None;
    }
}

/// The first dependencies by the names that stand behind `@gen:` in their keys.
fn dependencies(invalidation: &Invalidation) -> Vec<String> {
    let deps = invalidation.rotates.iter().take(NAMED);
    deps.map(|dep| dep.name().to_owned()).collect()
}

fn names(all: &[String]) -> &[String] {
    &all[..all.len().min(NAMED)]
}
