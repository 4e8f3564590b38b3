//! The options that the layers of all frameworks share.

use crate::cache::Cache;
use crate::integrations::http::CACHE_STATUS;

/// What a layer does for each request.
#[derive(Debug, Clone)]
pub(crate) struct LayerOptions {
    /// Whether `Cache-Status` is written.
    pub(crate) status: bool,
    /// Whether conditional requests are answered.
    pub(crate) conditional: bool,
    /// Used instead of the process-wide cache.
    pub(crate) cache: Option<Cache>,
}

impl Default for LayerOptions {
    fn default() -> Self {
        Self {
            status: true,
            conditional: true,
            cache: None,
        }
    }
}

impl LayerOptions {
    /// Whether this header is written.
    pub(crate) fn writes(&self, name: &str) -> bool {
        self.status || name != CACHE_STATUS
    }
}

/// The methods of a layer whose field `options` holds [`LayerOptions`].
macro_rules! option_methods {
    ($layer:ident) => {
        impl $layer {
            /// A layer with all of its functions on.
            #[must_use]
            pub fn new() -> Self {
                Self::default()
            }

            /// Whether `Cache-Status` is written. It contains keys.
            #[must_use]
            pub fn status(mut self, is_written: bool) -> Self {
                self.options.status = is_written;
                self
            }

            /// Whether conditional requests are answered.
            #[must_use]
            pub fn conditional(mut self, is_answered: bool) -> Self {
                self.options.conditional = is_answered;
                self
            }

            /// Handlers use this cache instead of the process-wide one; see
            /// [`Cache::scope`](crate::Cache::scope).
            #[must_use]
            pub fn cache(mut self, cache: crate::Cache) -> Self {
                self.options.cache = Some(cache);
                self
            }
        }
    };
}
pub(crate) use option_methods;
