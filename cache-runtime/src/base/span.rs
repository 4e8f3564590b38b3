//! Spans of what may fail.

use std::future::Future;

use futures_util::TryFutureExt as _;
use tracing::{Instrument as _, Span};

use super::error::Error;

/// Runs it in a span that has the empty fields `error.type` and `otel.status_code`. An error is
/// noted there, as OpenTelemetry's conventions have it.
// Not an `async fn`, which would hold the future twice.
pub(crate) fn in_span<T>(
    span: Span,
    run: impl Future<Output = Result<T, Error>>,
) -> impl Future<Output = Result<T, Error>> {
    run.instrument(span.clone()).inspect_err(move |error| {
        span.record("error.type", error.kind().as_str());
        span.record("otel.status_code", "ERROR");
    })
}
