//! The declaration of one resource.

use super::CacheConfig;
use crate::base::error::shortened;
use crate::key::is_resource;

/// A resource that is being declared; see [`CacheConfig::resource`].
#[derive(Debug, Clone)]
#[must_use]
pub struct ResourceConfig {
    config: CacheConfig,
    name: String,
}

impl CacheConfig {
    /// Declares settings of a resource, wherever its functions are.
    ///
    /// ```
    /// use cache_runtime::CacheConfig;
    ///
    /// let config = CacheConfig::default().resource("orders").context("tenant");
    /// ```
    pub fn resource(self, name: impl Into<String>) -> ResourceConfig {
        ResourceConfig {
            config: self,
            name: name.into(),
        }
    }
}

impl ResourceConfig {
    /// All keys of the resource contain the value that is set under this name around the call, with
    /// [`Cache::with_key`](crate::Cache::with_key): a tenant, for instance. A read without it
    /// bypasses the cache, and is logged once for each function. A write without it invalidates the
    /// whole resource, for all tenants. For several names, call this several times.
    ///
    /// A name that no resource can have is an error of the configuration, see
    /// [`CacheConfig::check`].
    #[must_use]
    pub fn context(mut self, name: &str) -> CacheConfig {
        if !is_resource(&self.name) {
            self.config.problems.add(format!(
                "the resource of `context(\"{}\")` is `{}`; it may hold lower-case letters, digits, `-` and `_`",
                shortened(name),
                shortened(&self.name)
            ));
        }
        let names = self.config.contexts.entry(self.name).or_default();
        if !names.iter().any(|known| **known == *name) {
            names.push(name.into());
        }
        self.config
    }
}
