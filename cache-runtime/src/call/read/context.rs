//! Lets the body of a cached function decide about the value it loads.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::base::policy::{IntoTtl, MAX_TTL};

/// Lets the body of a function under `#[cached(.., context = name)]` decide how long its value is
/// cached, for cases in which only the body knows.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use cache_runtime::{Cache, CacheConfig, cached};
///
/// struct Rates { cache: Cache }
///
/// impl Rates {
///     #[cached(resource = "rates", ttl = "1h", context = load, cache = self.cache)]
///     async fn rate(&self, currency: &str) -> Result<f64, std::io::Error> {
///         let (rate, max_age) = (1.08, 60); // fetched from somewhere
///         if currency.len() != 3 {
///             load.no_store();
///         }
///         load.ttl(max_age);
///         Ok(rate)
///     }
/// }
/// # let rates = Rates { cache: Cache::new(CacheConfig::default().local_mb(4)).await };
/// # assert!(rates.rate("EUR").await.is_ok());
/// # }
/// ```
///
/// It has no effect if the value is not stored anyway, because the cache is off or another caller
/// stores it.
#[derive(Debug, Clone, Default)]
pub struct LoadContext(Arc<Mutex<Said>>);

#[derive(Debug, Clone, Copy, Default)]
struct Said {
    ttl: Option<Duration>,
    no_store: bool,
}

impl LoadContext {
    #[doc(hidden)]
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves the value for this long, instead of the attribute's `ttl`. An operator's
    /// `CACHE_TTL_<RESOURCE>` can shorten it.
    pub fn ttl(&self, ttl: impl IntoTtl) {
        self.0.lock().ttl = ttl.into_ttl();
    }

    /// Does not store the value.
    pub fn no_store(&self) {
        self.0.lock().no_store = true;
    }

    pub(super) fn is_no_store(&self) -> bool {
        self.0.lock().no_store
    }

    /// Returns the TTL that the body has set, limited to what the operator allows.
    pub(super) fn ttl_within(&self, operator: Option<Duration>) -> Option<Duration> {
        let ttl = self.0.lock().ttl?;
        Some(ttl.min(operator.unwrap_or(MAX_TTL)).min(MAX_TTL))
    }
}
