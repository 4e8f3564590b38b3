//! Metrics through the [`metrics`](https://docs.rs/metrics) facade: names, labels and units.
//!
//! With the feature `metrics` each cache publishes its figures to the recorder that the program has
//! installed: once a second, and when [`Cache::publish_metrics`](crate::Cache::publish_metrics) is
//! called:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! # use cache_runtime::{Cache, CacheConfig};
//! // metrics_exporter_prometheus::PrometheusBuilder::new().install()?;
//! let cache = Cache::new(CacheConfig::default().local_mb(16)).await;
//! cache.publish_metrics(); // before a scrape, to be exact to the moment
//! # }
//! ```
//!
//! A call never uses the recorder. It adds to the cache's own atomic counters, with or without this
//! feature, and a background task publishes the differences. So a hit costs the same with the
//! feature and with any recorder, and a recorder that is installed later gets all figures.
//!
//! Durations are in seconds and sizes in bytes. Names follow Prometheus; they are the form that
//! OpenTelemetry's rules give `cache.lookup.duration` and so on. OpenTelemetry has no conventions
//! for caches yet. Histograms have a resolution of one eighth.
//!
//! Labels, where a metric has them:
//!
//! | label | values |
//! |---|---|
//! | `cache` | the namespace; empty without one |
//! | `resource` | the resource |
//! | `op` | the attribute's `op`, or the function's name |
//! | `outcome` | `hit`, `stale`, `miss`, `joined`, `bypass` |
//! | `tier` | `local`, `redis`, `memcached`; of calls also `request`; empty where none has answered |
//! | `reason` | why it was a bypass or stale, as in `Cache-Status`; else empty |

mod names;
mod publication;
mod same_op;

use std::sync::Arc;
use std::time::Duration;

use ::metrics::with_recorder;

pub use self::names::*;
pub(crate) use self::publication::publish;
use crate::engine::Engine;

/// How often a cache publishes by itself.
const INTERVAL: Duration = Duration::from_secs(1);

/// Describes the metrics and their units to the installed recorder. The caches of the program do
/// this when they first publish.
pub fn describe() {
    with_recorder(describe_to);
}

/// Publishes from time to time, for as long as the cache is there.
pub(crate) fn start(engine: &Arc<Engine>) {
    // On the runtime of a test, whose time it may pause, there is no clock to go by.
    if !engine.background.is_own() {
        return;
    }
    let weak = Arc::downgrade(engine);
    engine.background.spawn(async move {
        loop {
            crate::base::time::sleep(INTERVAL).await;
            match weak.upgrade() {
                Some(engine) => publish(&engine),
                None => return,
            }
        }
    });
}
