//! Settings from environment variables. The error names every value that can't be used.

mod parse;
mod redis;
#[cfg(test)]
mod tests;
mod vars;

use std::ffi::OsString;

use self::parse::{
    SECONDS, SECONDS_OR_0, TRUE_OR_FALSE, boolean, bytes, compressible, megabytes, milliseconds,
    namespace, number_to, seconds, seconds_or_0, staleness,
};
use self::redis::redis_from_vars;
use self::vars::Vars;
use super::error::ConfigError;
use super::typos::is_setting;
use super::{CacheConfig, MemcachedConfig, normalised};

impl CacheConfig {
    /// Reads the environment: `REDIS_ENABLED`, `REDIS_HOST`, `REDIS_PORT`, `REDIS_DB`,
    /// `REDIS_USERNAME`, `REDIS_PASSWORD`, `REDIS_TLS`, `REDIS_URL`, `REDIS_CLUSTER`,
    /// `REDIS_SENTINELS`, `REDIS_SENTINEL_MASTER`, `REDIS_SENTINEL_USERNAME`,
    /// `REDIS_SENTINEL_PASSWORD`, `REDIS_NAT_MAP`,
    /// `MEMCACHED_URL`, `CACHE_TTL`, `CACHE_TTL_<RESOURCE>`, `CACHE_NAMESPACE`, `CACHE_LOCAL_MB`,
    /// `CACHE_LOCAL_MAX_STALENESS`, `CACHE_HASH_KEY`, `CACHE_TIMEOUT_MS`, `CACHE_TRUST_RESTART`,
    /// `CACHE_STALE_IF_ERROR`, `CACHE_SWR`, `CACHE_LOAD_TIMEOUT_MS`, `CACHE_EARLY`, `CACHE_JITTER`,
    /// `CACHE_COMPRESS_OVER`, `CACHE_VALUE_LIMIT`, `CACHE_AUDIT`. An empty variable counts as
    /// unset.
    ///
    /// # Errors
    /// Lists all values that can't be used: the variable, what it held, what it may hold.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_vars_os(std::env::vars_os())
    }

    fn from_vars_os(
        vars: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let mut unreadable = Vec::new();
        let vars = vars.into_iter().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            match value.into_string() {
                Ok(value) => Some((name, value)),
                // A password in which a letter was replaced would be another password.
                Err(_) => {
                    unreadable.extend(is_setting(&name).then_some(name));
                    None
                }
            }
        });
        let vars: Vec<_> = vars.collect();
        if crate::base::mutation::is_active("texts-of-other-encodings-ignored") {
            unreadable.clear();
        }
        Self::read(Vars::new(vars, unreadable))
    }

    /// Like [`from_env`](Self::from_env), from these variables instead of the process's
    /// environment.
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env).
    pub fn from_vars(
        vars: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        Self::read(Vars::new(vars, Vec::new()))
    }

    fn read(mut vars: Vars) -> Result<Self, ConfigError> {
        vars.warn_of_mistakes();
        let config = Self::default()
            .with_shared_tier(&mut vars)
            .with_ttls(&mut vars)
            .with_tiers(&mut vars)
            .with_stale_policy(&mut vars)
            .with_limits(&mut vars);
        vars.finish(config)
    }

    /// Redis or Memcached.
    fn with_shared_tier(mut self, vars: &mut Vars) -> Self {
        let enabled = vars.take("REDIS_ENABLED", TRUE_OR_FALSE, boolean);
        // An unusable value may have been meant to turn Redis on, so problems below are not
        // excused.
        let is_off = enabled == Some(false) || !vars.is_set("REDIS_ENABLED");
        let enabled = enabled.unwrap_or(false);
        let before = vars.problems.len();
        let redis = redis_from_vars(vars);
        if is_off {
            vars.ignore_problems(before, "Redis is off");
        }
        self.redis = enabled.then_some(redis);
        if enabled && !cfg!(feature = "redis") {
            vars.report(
                "REDIS_ENABLED",
                "true",
                "false, because this program was built without the feature `redis`",
            );
        }

        if let Some(memcached) = vars.take("MEMCACHED_URL", MEMCACHED, MemcachedConfig::parse) {
            let held = vars.value("MEMCACHED_URL").unwrap_or_default().to_owned();
            if enabled {
                vars.report(
                    "MEMCACHED_URL",
                    &held,
                    "nothing while REDIS_ENABLED is true, because there is one shared tier",
                );
            } else if !cfg!(feature = "memcached") {
                vars.report(
                    "MEMCACHED_URL",
                    &held,
                    "nothing, because this program was built without the feature `memcached`",
                );
            }
            self.memcached = Some(memcached);
        }
        self
    }

    /// The times to live.
    fn with_ttls(mut self, vars: &mut Vars) -> Self {
        if let Some(ttl) = vars.take("CACHE_TTL", SECONDS, seconds) {
            self.default_ttl = ttl;
        }
        for (variable, resource) in vars.with_prefix("CACHE_TTL_") {
            if let Some(ttl) = vars.take(&variable, SECONDS, seconds) {
                let earlier = self.ttl_by_resource.insert(normalised(&resource), ttl);
                if earlier.is_some_and(|earlier| earlier != ttl) {
                    tracing::warn!(
                        variable,
                        "{variable} overrides another variable for the same resource"
                    );
                }
            }
        }
        self
    }

    /// The keys and the sizes and limits of the tiers.
    fn with_tiers(mut self, vars: &mut Vars) -> Self {
        if let Some(namespace) = vars.take(
            "CACHE_NAMESPACE",
            "letters, digits and `_-.:`, and one `{tag}` that keeps all in one slot of a cluster",
            namespace,
        ) {
            self.namespace = namespace;
        }
        if let Some(megabytes) = vars.take(
            "CACHE_LOCAL_MB",
            "whole megabytes, 0 for none, up to 1048576",
            megabytes,
        ) {
            self = self.local_mb(megabytes);
        }
        if let Some(staleness) = vars.take(
            "CACHE_LOCAL_MAX_STALENESS",
            "seconds, 0.05 to 3600",
            staleness,
        ) {
            self = self.local_max_staleness(staleness);
        }
        if let Some(secret) = vars.take("CACHE_HASH_KEY", "a secret", |text| Some(text.to_owned()))
        {
            self = self.hash_key(&secret);
        }
        if let Some(budget) =
            vars.take("CACHE_TIMEOUT_MS", "milliseconds, 1 to 60000", milliseconds)
        {
            self.command_budget = budget;
        }
        if let Some(trust) = vars.take("CACHE_TRUST_RESTART", TRUE_OR_FALSE, boolean) {
            self.trust_restart = trust;
        }
        self
    }

    /// The defaults of what is served after its time.
    fn with_stale_policy(mut self, vars: &mut Vars) -> Self {
        let stale_policy = &mut self.stale_policy;
        if let Some(time) = vars.take("CACHE_STALE_IF_ERROR", SECONDS_OR_0, seconds_or_0) {
            stale_policy.stale_if_error = time;
        }
        if let Some(time) = vars.take("CACHE_SWR", SECONDS_OR_0, seconds_or_0) {
            stale_policy.swr = time;
        }
        if let Some(time) = vars.take(
            "CACHE_LOAD_TIMEOUT_MS",
            "milliseconds, 1 to 60000",
            milliseconds,
        ) {
            stale_policy.timeout = Some(time);
        }
        if let Some(beta) = vars.take("CACHE_EARLY", "a number, 0 to 100", number_to(100.0)) {
            stale_policy.early = beta;
        }
        if let Some(part) = vars.take("CACHE_JITTER", "a number, 0 to 1", number_to(1.0)) {
            stale_policy.jitter = part;
        }
        self
    }

    /// The limits on stored values, and the share of hits that is audited.
    fn with_limits(mut self, vars: &mut Vars) -> Self {
        let size = match cfg!(feature = "zstd") {
            true => "a size such as 16k, 512k or 1m",
            false => "nothing, because this program was built without the feature `zstd`",
        };
        if let Some(bytes) = vars.take("CACHE_COMPRESS_OVER", size, compressible) {
            self.compress_over = Some(bytes);
        }
        let size = "bytes, 512k or 1m, up to 8m, since a larger value is not read back, and not 0";
        if let Some(limit) = vars.take("CACHE_VALUE_LIMIT", size, |text| {
            bytes(text).filter(|it| *it > 0)
        }) {
            self.value_limit = limit;
        }
        if let Some(part) = vars.take("CACHE_AUDIT", "a number, 0 to 1", number_to(1.0)) {
            self = self.audit(part);
        }
        self
    }
}

const MEMCACHED: &str = "the address of one server: memcached://host:port or unix:///path";
