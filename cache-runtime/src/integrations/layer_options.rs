//! The options that the layers of all frameworks share.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use crate::cache::Cache;
use crate::call::ambient::{self, Written};
use crate::call::memo;
use crate::call::observe::{Outcomes, observe_first};
use crate::integrations::http::{CACHE_STATUS, SHOWN};
use crate::integrations::request_parts::RequestParts;

/// The options of a layer, for each request.
#[derive(Debug, Clone)]
pub(crate) struct LayerOptions {
    /// Whether `Cache-Status` is written.
    pub(crate) status: bool,
    /// Whether conditional requests are answered.
    pub(crate) conditional: bool,
    /// Used instead of the process-wide cache.
    pub(crate) cache: Option<Cache>,
    /// The values that are taken from each request and set around its calls.
    keys: Vec<RequestKey>,
}

/// A value that is taken from each request.
#[derive(Clone)]
struct RequestKey {
    name: String,
    value: Arc<Value>,
}

type Value = dyn Fn(&RequestParts<'_>) -> Option<String> + Send + Sync;

impl fmt::Debug for RequestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RequestKey").field(&self.name).finish()
    }
}

impl Default for LayerOptions {
    fn default() -> Self {
        Self {
            status: true,
            conditional: true,
            cache: None,
            keys: Vec::new(),
        }
    }
}

impl LayerOptions {
    /// Whether this header is written.
    pub(crate) fn writes(&self, name: &str) -> bool {
        self.status || name != CACHE_STATUS
    }

    pub(crate) fn add_key<V: ToString>(
        &mut self,
        name: String,
        value: impl Fn(&RequestParts<'_>) -> Option<V> + Send + Sync + 'static,
    ) {
        let value = move |request: &RequestParts<'_>| value(request).map(|it| it.to_string());
        let value = Arc::new(value);
        self.keys.push(RequestKey { name, value });
    }

    /// The values of a request.
    pub(crate) fn values(&self, request: &RequestParts<'_>) -> Written {
        let known = self.keys.iter().filter_map(|key| {
            let value = (key.value)(request)?;
            Some((key.name.clone(), value))
        });
        let known: Vec<_> = known.collect();
        if known.is_empty() {
            return Written::default();
        }
        let hash_key = match &self.cache {
            Some(cache) => cache.hash_key(),
            None => crate::cache::cache().hash_key(),
        };
        ambient::all_written(known, &hash_key)
    }

    /// Runs what answers a request, with its values around it.
    pub(crate) fn answered<F: Future>(
        &self,
        values: Written,
        answer: F,
    ) -> impl Future<Output = (F::Output, Outcomes)> + use<F> {
        let shown = if self.status { SHOWN } else { 0 };
        let answer = ambient::around(values, memo::request(false, answer));
        observe_first(shown, answer)
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

            /// Sets a value that is taken from each request around its calls, for the keys that
            /// contain it: a tenant, a locale. It is [`Cache::with_key`](crate::Cache::with_key)
            /// for a whole service. `None` sets nothing: then functions whose keys need the value
            /// run without the cache.
            ///
            /// Take the value only from what was authenticated. A client that may choose its tenant
            /// reads the data of all.
            ///
            /// ```ignore
            /// layer.with_key("tenant", |request| request.extension::<User>().map(|it| it.tenant))
            /// ```
            #[must_use]
            pub fn with_key<V: ToString>(
                mut self,
                name: impl Into<String>,
                value: impl Fn(&crate::RequestParts<'_>) -> Option<V> + Send + Sync + 'static,
            ) -> Self {
                self.options.add_key(name.into(), value);
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
