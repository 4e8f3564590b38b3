//! The page that Prometheus scrapes.

use std::sync::OnceLock;
use std::time::Duration;

use cache_runtime::metrics::{DURATION_BUCKETS, SIZE_BUCKETS};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use poem::{IntoResponse, Response, handler};

static PROMETHEUS: OnceLock<PrometheusHandle> = OnceLock::new();

/// How often recorded values are aggregated. Until then each value takes memory of its own.
const UPKEEP: Duration = Duration::from_secs(5);

/// Installs a recorder for the metrics of this process's libraries. Needs a Tokio runtime.
///
/// # Errors
/// If a recorder is installed already.
pub fn install() -> Result<(), BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &DURATION_BUCKETS)?
        .set_buckets_for_metric(Matcher::Suffix("_bytes".into()), &SIZE_BUCKETS)?
        .install_recorder()?;
    let kept = handle.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            kept.run_upkeep();
        }
    });
    // An error would mean that it had been installed before, which the line above has refused.
    let _ = PROMETHEUS.set(handle);
    Ok(())
}

/// The current metrics of the cache, as text.
#[handler]
pub(super) fn page() -> Response {
    cache_runtime::cache().publish_metrics();
    let page = PROMETHEUS.get().map(PrometheusHandle::render);
    page.unwrap_or_default()
        .with_content_type("text/plain; version=0.0.4; charset=utf-8")
        .into_response()
}
