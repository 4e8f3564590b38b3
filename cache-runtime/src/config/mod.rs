//! Settings, from code or from the environment.

mod address;
mod bounds;
mod derived;
mod env;
mod error;
mod memcached;
#[cfg(feature = "outbox-postgres")]
pub(crate) mod outbox;
mod redis;
pub(crate) mod resource;
mod setting_problems;
mod typos;
#[cfg(feature = "redis")]
mod url;

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use self::bounds::LONGEST;
pub use self::error::ConfigError;
pub use self::memcached::MemcachedConfig;
pub(crate) use self::redis::HostPort;
pub use self::redis::{RedisConfig, SentinelConfig};
use self::setting_problems::SettingProblems;
use crate::base::error::shortened;
use crate::base::nonce::hash128;
pub(crate) use crate::base::policy::MOST_VALUE_BYTES;
use crate::base::policy::{MAX_TTL, StalePolicy};
use crate::telemetry::audit::{AuditAction, AuditFinding, OnStale, threshold};

/// The bounds of settings. The store counts in milliseconds, so shorter times mean nothing; longer
/// ones overflow clocks.
const SHORTEST: Duration = Duration::from_millis(1);
const SHORTEST_LEASE: Duration = Duration::from_millis(10);
/// With a shorter time, heartbeats would take most of the process's work.
pub(crate) const SHORTEST_STALENESS: Duration = Duration::from_millis(50);

/// The cache's configuration. [`CacheConfig::default`] has both tiers off: every call runs its
/// function.
///
/// ```
/// use std::time::Duration;
/// use cache_runtime::{CacheConfig, RedisConfig};
///
/// let config = CacheConfig::default()
///     .redis(RedisConfig::at("localhost", 6379))
///     .default_ttl(Duration::from_secs(60))
///     .namespace("shop");
/// assert!(config.is_enabled());
/// ```
#[derive(Clone)]
pub struct CacheConfig {
    pub(crate) redis: Option<RedisConfig>,
    pub(crate) memcached: Option<MemcachedConfig>,
    pub(crate) local_bytes: u64,
    pub(crate) local_max_staleness: Duration,
    pub(crate) default_ttl: Duration,
    pub(crate) ttl_by_resource: HashMap<String, Duration>,
    pub(crate) contexts: HashMap<String, Vec<Box<str>>>,
    pub(crate) namespace: String,
    pub(crate) hash_key: [u8; 16],
    pub(crate) command_budget: Duration,
    pub(crate) trust_restart: bool,
    pub(crate) stale_policy: StalePolicy,
    pub(crate) lease: Duration,
    pub(crate) wait: Duration,
    pub(crate) in_doubt_window: Duration,
    pub(crate) intent: Duration,
    pub(crate) value_limit: usize,
    /// Settings made in code that can't be used.
    problems: SettingProblems,
    pub(crate) compress_over: Option<usize>,
    pub(crate) pending_limit: usize,
    pub(crate) advice: bool,
    pub(crate) verifies_all: bool,
    /// See [`threshold`](crate::telemetry::audit::threshold).
    pub(crate) audit: u32,
    pub(crate) audit_limit: u32,
    pub(crate) audit_confirm_after: Duration,
    pub(crate) on_stale: Option<OnStale>,
    #[cfg(feature = "map")]
    pub(crate) map: Option<std::sync::Arc<crate::registry::catalog::Catalog>>,
    #[cfg(feature = "outbox-postgres")]
    pub(crate) outbox: Option<outbox::OutboxConfig>,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            redis: None,
            memcached: None,
            local_bytes: 0,
            local_max_staleness: Duration::from_secs(1),
            default_ttl: Duration::from_secs(300),
            ttl_by_resource: HashMap::new(),
            contexts: HashMap::new(),
            namespace: String::new(),
            hash_key: hash_key(""),
            command_budget: Duration::from_millis(100),
            trust_restart: false,
            stale_policy: StalePolicy::default(),
            lease: Duration::from_secs(3),
            wait: Duration::from_secs(2),
            in_doubt_window: Duration::from_secs(5),
            intent: Duration::from_secs(10),
            value_limit: 1 << 20,
            problems: SettingProblems::default(),
            compress_over: None,
            pending_limit: 10_000,
            advice: true,
            verifies_all: cfg!(any(test, feature = "testing")),
            audit: 0,
            audit_limit: 100,
            audit_confirm_after: Duration::from_secs(2),
            on_stale: None,
            #[cfg(feature = "map")]
            map: None,
            #[cfg(feature = "outbox-postgres")]
            outbox: None,
        }
    }
}

impl fmt::Debug for CacheConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The hash key is a secret, and most other settings keep their defaults. Which tiers are on
        // matters.
        f.debug_struct("CacheConfig")
            .field("redis", &self.redis)
            .field("memcached", &self.memcached)
            .field("local_bytes", &self.local_bytes)
            .field("default_ttl", &self.default_ttl)
            .field("ttl_by_resource", &self.ttl_by_resource)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

impl CacheConfig {
    /// Turns the Redis tier on. What the server's address may not hold is an error of the
    /// configuration, see [`check`](Self::check).
    #[must_use]
    pub fn redis(mut self, redis: RedisConfig) -> Self {
        self.redis = Some(
            match crate::base::mutation::is_active("redis-fields-trusted") {
                true => redis,
                false => redis.checked(&mut self.problems),
            },
        );
        self.memcached = None;
        self.problems.forget("memcached");
        self
    }

    /// Turns the Memcached tier on, in place of Redis. It needs the feature `memcached`; without
    /// it this is an error of the configuration, see [`check`](Self::check), and no tier is on. An
    /// address that `MEMCACHED_URL` may not hold is an error as well.
    ///
    /// Memcached can do less than Redis: see the book's page about it.
    ///
    /// ```
    /// use cache_runtime::{CacheConfig, MemcachedConfig};
    ///
    /// let config = CacheConfig::default().memcached(MemcachedConfig::at("localhost", 11211));
    /// assert_eq!(config.is_enabled(), cfg!(feature = "memcached"));
    /// ```
    #[must_use]
    pub fn memcached(mut self, memcached: MemcachedConfig) -> Self {
        self.redis = None;
        self.problems.forget("redis.");
        if cfg!(feature = "memcached") {
            if !crate::base::mutation::is_active("memcached-fields-trusted") {
                memcached.check(&mut self.problems);
            }
            self.memcached = Some(memcached);
        } else {
            self.problems.add(format!(
                "memcached is `{memcached}`; it may hold nothing, because this program was built \
                 without the feature `memcached`"
            ));
        }
        self
    }

    /// Whether other processes share what is cached.
    pub(crate) fn is_shared(&self) -> bool {
        self.redis.is_some() || self.memcached.is_some()
    }

    /// Gives the local tier this many megabytes; 0, the default, turns it off. `CACHE_LOCAL_MB`.
    /// With Redis on, it holds local entries, and Redis pushes the writes of other processes to
    /// them; see [`local_max_staleness`](Self::local_max_staleness).
    #[must_use]
    pub fn local_mb(mut self, megabytes: u32) -> Self {
        self.local_bytes = u64::from(megabytes) << 20;
        self
    }

    /// How long a local entry may still be served after a write in another process, however the
    /// network misbehaves; 1 s by default. Usually it takes only as long as Redis's push. A
    /// heartbeat in a quarter of this time checks that pushes still arrive. If they don't, every
    /// read asks Redis. For reads that can't accept this staleness there are
    /// `#[cached(.., strict)]` and [`Cache::strict`](crate::Cache::strict).
    ///
    /// 50 ms to 24 hours; see [`check`](Self::check).
    #[must_use]
    pub fn local_max_staleness(mut self, staleness: Duration) -> Self {
        let range = SHORTEST_STALENESS..=LONGEST;
        self.local_max_staleness = self
            .problems
            .in_range("local_max_staleness", staleness, range);
        self
    }

    /// How long an entry is served if neither its function nor the operator sets a time; 5 minutes
    /// by default. `CACHE_TTL`, in seconds.
    ///
    /// 1 ms to 10 years; see [`check`](Self::check).
    #[must_use]
    pub fn default_ttl(mut self, ttl: Duration) -> Self {
        self.default_ttl = self
            .problems
            .in_range("default_ttl", ttl, SHORTEST..=MAX_TTL);
        self
    }

    /// How long entries of this resource are served. This wins over their functions' `ttl`.
    ///
    /// 1 ms to 10 years; see [`check`](Self::check).
    #[must_use]
    pub fn ttl_of(mut self, resource: impl Into<String>, ttl: Duration) -> Self {
        let resource = resource.into();
        let setting = format!("ttl_of(\"{}\")", shortened(&resource));
        let ttl = self.problems.in_range(&setting, ttl, SHORTEST..=MAX_TTL);
        self.ttl_by_resource.insert(normalised(&resource), ttl);
        self
    }

    /// Puts `namespace:` in front of every key, so that several programs can share a database.
    #[must_use]
    pub fn namespace(mut self, name: &str) -> Self {
        self.namespace = terminated(name);
        self
    }

    /// The secret key of the hash in derived keys. All instances that share a cache need the same
    /// secret. An attacker who knows it can construct arguments whose keys collide.
    #[must_use]
    pub fn hash_key(mut self, secret: &str) -> Self {
        self.hash_key = hash_key(secret);
        self
    }

    /// How long after it expired an entry is served in place of an error of its function, unless
    /// the function sets its own time. Off by default. An invalidated entry is never served.
    ///
    /// Up to 10 years; see [`check`](Self::check).
    #[must_use]
    pub fn stale_if_error(mut self, time: Duration) -> Self {
        let range = Duration::ZERO..=MAX_TTL;
        self.stale_policy.stale_if_error = self.problems.in_range("stale_if_error", time, range);
        self
    }

    /// How long after it expired an entry is served while a new value is loaded in the background,
    /// for functions under `#[cached(.., swr)]`. Off by default.
    ///
    /// Up to 10 years; see [`check`](Self::check).
    #[must_use]
    pub fn swr(mut self, time: Duration) -> Self {
        self.stale_policy.swr = self
            .problems
            .in_range("swr", time, Duration::ZERO..=MAX_TTL);
        self
    }

    /// How long a load may take before an expired entry is served in its place, for functions under
    /// `#[cached(.., timeout)]`. Off by default.
    ///
    /// 1 ms to 24 hours; see [`check`](Self::check).
    #[must_use]
    pub fn load_timeout(mut self, time: Duration) -> Self {
        let time = self
            .problems
            .in_range("load_timeout", time, SHORTEST..=LONGEST);
        self.stale_policy.timeout = Some(time);
        self
    }

    /// How eagerly entries are reloaded before they expire, unless the function sets its own value:
    /// the β of XFetch. Its authors recommend 1. The default, 0, turns it off. It can't be
    /// negative; see [`check`](Self::check).
    #[must_use]
    pub fn early(mut self, beta: f64) -> Self {
        let problem = || format!("early is `{beta}`; it may hold 0 or more");
        self.problems
            .set("early", (beta.is_nan() || beta < 0.0).then(problem));
        self.stale_policy.early = beta.max(0.0);
        self
    }

    /// The largest share of a time to live that is taken off at random, unless the function sets
    /// its own: 0.1 turns 300 s into 270 to 300 s. The default, 0, turns it off. 0 to 1; see
    /// [`check`](Self::check).
    #[must_use]
    pub fn jitter(mut self, part: f64) -> Self {
        self.problems.check_share("jitter", part);
        // `clamp` would keep a NaN.
        self.stale_policy.jitter = if part > 0.0 { part.min(1.0) } else { 0.0 };
        self
    }

    /// The total time that the cache's commands for one call may take before the call goes on
    /// without the cache; 100 ms by default. `CACHE_TIMEOUT_MS`.
    ///
    /// A lookup is one of these commands. Two rare cases need more commands, each with its own
    /// budget: a missing generation is created first, and an expired write announcement is ended
    /// before a second lookup.
    ///
    /// 1 ms to 24 hours; see [`check`](Self::check).
    #[must_use]
    pub fn command_budget(mut self, budget: Duration) -> Self {
        self.command_budget = self
            .problems
            .in_range("command_budget", budget, SHORTEST..=LONGEST);
        self
    }

    /// How long a lease lasts unless renewed; 3 s by default. It is renewed at a third of this
    /// while the function runs.
    ///
    /// 10 ms to 24 hours; see [`check`](Self::check).
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = self
            .problems
            .in_range("lease", lease, SHORTEST_LEASE..=LONGEST);
        self
    }

    /// How long a caller waits for a value that another one is loading, before it loads the value
    /// itself; 2 s by default. Up to 24 hours; see [`check`](Self::check).
    #[must_use]
    pub fn wait_limit(mut self, wait: Duration) -> Self {
        self.wait = self
            .problems
            .in_range("wait_limit", wait, Duration::ZERO..=LONGEST);
        self
    }

    /// How long a write whose outcome is unknown may still be under way (the in-doubt window); 5 s
    /// by default. After this time it is invalidated once more. 1 ms to 24 hours; see
    /// [`check`](Self::check).
    #[must_use]
    pub fn in_doubt_window(mut self, in_doubt_window: Duration) -> Self {
        self.in_doubt_window =
            self.problems
                .in_range("in_doubt_window", in_doubt_window, SHORTEST..=LONGEST);
        self
    }

    /// How long the announcement of a `crash_safe` write lasts unless renewed; 10 s by default. It
    /// is renewed at a third of this while the function runs. After a crash, the entries it
    /// concerns are not cached for this long.
    ///
    /// 10 ms to 24 hours; see [`check`](Self::check).
    #[must_use]
    pub fn intent(mut self, intent: Duration) -> Self {
        self.intent = self
            .problems
            .in_range("intent", intent, SHORTEST_LEASE..=LONGEST);
        self
    }

    /// The longest that an announcement of this process lasts.
    pub(crate) fn longest_intent(&self) -> Duration {
        self.intent.max(self.in_doubt_window)
    }

    /// The largest encoded value that is stored, in bytes; `CACHE_VALUE_LIMIT`, such as `512k`. The
    /// default is 1 MiB and the maximum 8 MiB, since a larger value is not read back. A larger
    /// setting is an error of the configuration, see [`check`](Self::check).
    #[must_use]
    pub fn value_limit(mut self, bytes: usize) -> Self {
        let problem = || {
            format!(
                "value_limit is `{bytes}`; it may hold 0 to {MOST_VALUE_BYTES} bytes, since a \
                 larger value is not read back"
            )
        };
        let is_too_large = bytes > MOST_VALUE_BYTES;
        self.problems.set("value_limit", is_too_large.then(problem));
        self.value_limit = bytes.min(MOST_VALUE_BYTES);
        self
    }

    /// Whether all settings that were made in code can be used; those of the environment are
    /// checked by [`from_env`](Self::from_env). A cache with others logs each as an error, and uses
    /// the nearest value that can be used.
    ///
    /// ```
    /// use cache_runtime::CacheConfig;
    ///
    /// let error = CacheConfig::default().value_limit(16 << 20).check().unwrap_err();
    /// assert!(error.to_string().starts_with("value_limit is `16777216`; it may hold 0 to 8388608"));
    /// ```
    ///
    /// # Errors
    /// Names each setting that can't be used, what it held, and what it may hold.
    pub fn check(self) -> Result<Self, ConfigError> {
        match self.problems.error() {
            None => Ok(self),
            Some(error) => Err(error),
        }
    }

    /// Logs the settings that can't be used.
    pub(crate) fn report_problems(&self) {
        self.problems.report();
    }

    /// Leaves the server's identity out of the stamps. For servers that refuse `INFO`, and whose
    /// persistence is known to lose nothing.
    #[must_use]
    pub fn trust_restart(mut self, trust: bool) -> Self {
        self.trust_restart = trust;
        self
    }

    /// The share of the hits that is audited, 0 to 1, unless the function sets its own: the body
    /// runs as well, and the caller gets its result. `CACHE_AUDIT`; the default, 0, turns it off.
    /// See [`Cache::audit`](crate::Cache::audit).
    #[must_use]
    pub fn audit(mut self, part: f64) -> Self {
        self.problems.check_share("audit", part);
        self.audit = threshold(part);
        self
    }

    /// The most hits that are audited in a second, in this process; 100 by default.
    #[must_use]
    pub fn audit_limit(mut self, per_second: u32) -> Self {
        self.audit_limit = per_second;
        self
    }

    /// How long an entry must stay after its value first differed before it counts as stale; 2 s by
    /// default. Between a write's commit and its acknowledged invalidation, readers may get the
    /// earlier value. A write that takes longer than this is reported. Up to 24 hours; see
    /// [`check`](Self::check).
    #[must_use]
    pub fn audit_confirm_after(mut self, time: Duration) -> Self {
        let range = Duration::ZERO..=LONGEST;
        self.audit_confirm_after = self.problems.in_range("audit_confirm_after", time, range);
        self
    }

    /// Is called for each stale entry that the auditor finds, and decides what to do. It runs on a
    /// thread of the cache or of the caller, and must not block.
    ///
    /// ```
    /// use cache_runtime::{AuditAction, CacheConfig};
    ///
    /// let config = CacheConfig::default().audit(0.001).on_stale(|finding| {
    ///     eprintln!("{} is stale", finding.key);
    ///     AuditAction::Invalidate
    /// });
    /// ```
    #[must_use]
    pub fn on_stale(
        mut self,
        react: impl Fn(&AuditFinding) -> AuditAction + Send + Sync + 'static,
    ) -> Self {
        self.on_stale = Some(OnStale(std::sync::Arc::new(react)));
        self
    }

    /// Whether the cache runs the [doctor](crate::Cache::doctor) once after its first connection,
    /// and logs the advice; on by default.
    #[must_use]
    pub fn advice(mut self, wanted: bool) -> Self {
        self.advice = wanted;
        self
    }

    /// Whether each value is decoded again when it is stored, and compared with the original. That
    /// costs as much as a hit. Otherwise it is done for the first values of each function, for
    /// those that use a new part of their type, and for one in sixteen of the others. Each value of
    /// a type with `flatten`, an untagged enum, a part in a form of its own (`with`, `into`, a
    /// `Serialize` by hand), or a number or text that a condition skips is compared in any case.
    ///
    /// On by default if the feature `testing` is on, and off otherwise.
    #[must_use]
    pub fn verify_all(mut self, wanted: bool) -> Self {
        self.verifies_all = wanted;
        self
    }

    /// The catalog for the advice, in place of [`catalog`](crate::catalog()): with its constants
    /// [bound](crate::Catalog::bind), and with the resources that are invalidated by hand.
    #[cfg(feature = "map")]
    #[must_use]
    pub fn catalog(mut self, catalog: crate::Catalog) -> Self {
        self.map = Some(std::sync::Arc::new(catalog));
        self
    }

    /// Follows the outbox of a PostgreSQL database, or of a file of SQLite: each change that any
    /// program commits there is invalidated here. See [`outbox`](crate::outbox).
    ///
    /// With Redis, the processes share the rows and invalidate in Redis. Without it, each process
    /// reads all rows. It serves nothing from its memory once it has not heard from the database
    /// for [`local_max_staleness`](Self::local_max_staleness).
    #[cfg(feature = "outbox-postgres")]
    #[must_use]
    pub fn outbox(mut self, outbox: outbox::OutboxConfig) -> Self {
        self.outbox = Some(outbox);
        self
    }

    /// Whether any tier is on.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.is_shared() || self.local_bytes > 0
    }

    /// Values whose encoding is longer than this are compressed in Redis, with zstd, if that makes
    /// them smaller. `CACHE_COMPRESS_OVER`, such as `16k`; off by default. All instances that read
    /// them need the feature `zstd`.
    #[cfg(feature = "zstd")]
    #[must_use]
    pub fn compress_over(mut self, bytes: usize) -> Self {
        self.compress_over = Some(bytes);
        self
    }
}

/// An environment variable names `user-notes` and `USER_NOTES` alike.
fn normalised(resource: &str) -> String {
    resource.to_ascii_lowercase().replace('-', "_")
}

fn hash_key(secret: &str) -> [u8; 16] {
    hash128(b"cache-runtime 01", secret.as_bytes()).to_le_bytes()
}

fn terminated(namespace: &str) -> String {
    match namespace {
        "" => String::new(),
        name if name.ends_with(':') => name.to_owned(),
        name => format!("{name}:"),
    }
}
