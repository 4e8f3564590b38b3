//! Settings from environment variables. The error names every value that can't be used.

use std::collections::HashMap;
use std::time::Duration;

use super::error::ConfigError;
use super::slips::NAMES;
use super::url::{MASTER, SENTINEL_PORT, addresses, from_url, host_name, service_link};
use super::{
    CacheConfig, MemcachedConfig, RedisConfig, SHORTEST_STALENESS, SentinelConfig, normalised,
    slips, terminated,
};
use crate::base::policy::MAX_TTL;
use crate::key::is_resource;

impl CacheConfig {
    /// Reads the environment: `REDIS_ENABLED`, `REDIS_HOST`, `REDIS_PORT`, `REDIS_DB`,
    /// `REDIS_USERNAME`, `REDIS_PASSWORD`, `REDIS_TLS`, `REDIS_URL`, `REDIS_CLUSTER`,
    /// `REDIS_SENTINELS`, `REDIS_SENTINEL_MASTER`, `REDIS_SENTINEL_PASSWORD`, `MEMCACHED_URL`,
    /// `CACHE_TTL`,
    /// `CACHE_TTL_<RESOURCE>`, `CACHE_NAMESPACE`, `CACHE_LOCAL_MB`, `CACHE_LOCAL_MAX_STALENESS`,
    /// `CACHE_HASH_KEY`, `CACHE_TIMEOUT_MS`, `CACHE_TRUST_RESTART`, `CACHE_STALE_IF_ERROR`,
    /// `CACHE_SWR`, `CACHE_LOAD_TIMEOUT_MS`, `CACHE_EARLY`, `CACHE_JITTER`, `CACHE_COMPRESS_OVER`,
    /// `CACHE_VALUE_LIMIT`, `CACHE_AUDIT`. An empty variable counts as unset.
    ///
    /// # Errors
    /// Lists all values that can't be used: the variable, what it held, what it may hold.
    pub fn from_env() -> Result<Self, ConfigError> {
        let mut unreadable = Vec::new();
        let vars = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            match value.into_string() {
                Ok(value) => Some((name, value)),
                // A password in which a letter was replaced would be another password.
                Err(_) => {
                    unreadable.extend(NAMES.contains(&name.as_str()).then_some(name));
                    None
                }
            }
        });
        let vars: Vec<_> = vars.collect();
        let problem = |name: String| format!("{name} is not UTF-8; it may hold UTF-8 text");
        let unreadable: Vec<_> = unreadable.into_iter().map(problem).collect();
        match unreadable.is_empty() {
            true => Self::from_vars(vars),
            false => Err(ConfigError::of(unreadable)),
        }
    }

    /// Like [`from_env`](Self::from_env), from these variables instead of the process's
    /// environment.
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env).
    pub fn from_vars(
        vars: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut vars = Vars::new(vars);
        let mut config = Self::default();

        vars.warn_of_slips();
        let enabled = vars.take("REDIS_ENABLED", TRUE_OR_FALSE, boolean);
        // An unusable value may have been meant to turn Redis on, so problems below are not
        // excused.
        let is_off = enabled == Some(false) || !vars.is_set("REDIS_ENABLED");
        let enabled = enabled.unwrap_or(false);
        let before = vars.problems.len();
        let redis = redis_from_vars(&mut vars);
        if is_off {
            vars.excuse(before, "Redis is off");
        }
        config.redis = enabled.then_some(redis);
        if enabled && !cfg!(feature = "redis") {
            vars.report(
                "REDIS_ENABLED",
                "true",
                "false, because this program was built without the feature `redis`",
            );
        }

        if let Some(memcached) = vars.take("MEMCACHED_URL", MEMCACHED, MemcachedConfig::parse) {
            if enabled {
                vars.report(
                    "MEMCACHED_URL",
                    &memcached.to_string(),
                    "nothing while REDIS_ENABLED is true, because there is one shared tier",
                );
            } else if !cfg!(feature = "memcached") {
                vars.report(
                    "MEMCACHED_URL",
                    &memcached.to_string(),
                    "nothing, because this program was built without the feature `memcached`",
                );
            }
            config.memcached = Some(memcached);
        }
        if let Some(ttl) = vars.take("CACHE_TTL", SECONDS, seconds) {
            config.default_ttl = ttl;
        }
        for (variable, resource) in vars.with_prefix("CACHE_TTL_") {
            if let Some(ttl) = vars.take(&variable, SECONDS, seconds) {
                config.ttl_by_resource.insert(normalised(&resource), ttl);
            }
        }
        if let Some(namespace) = vars.take(
            "CACHE_NAMESPACE",
            "letters, digits and `_-.:`, and one `{tag}` that keeps all in one slot of a cluster",
            namespace,
        ) {
            config.namespace = namespace;
        }
        if let Some(megabytes) = vars.take(
            "CACHE_LOCAL_MB",
            "whole megabytes, 0 for none, up to 1048576",
            megabytes,
        ) {
            config = config.local_mb(megabytes);
        }
        if let Some(staleness) = vars.take(
            "CACHE_LOCAL_MAX_STALENESS",
            "seconds, 0.05 to 3600",
            staleness,
        ) {
            config = config.local_max_staleness(staleness);
        }
        if let Some(secret) = vars.take("CACHE_HASH_KEY", "a secret", |text| Some(text.to_owned()))
        {
            config = config.hash_key(&secret);
        }
        if let Some(budget) =
            vars.take("CACHE_TIMEOUT_MS", "milliseconds, 1 to 60000", milliseconds)
        {
            config.command_budget = budget;
        }
        if let Some(trust) = vars.take("CACHE_TRUST_RESTART", TRUE_OR_FALSE, boolean) {
            config.trust_restart = trust;
        }
        let grace = &mut config.grace;
        if let Some(time) = vars.take("CACHE_STALE_IF_ERROR", SECONDS_OR_0, seconds_or_0) {
            grace.stale_if_error = time;
        }
        if let Some(time) = vars.take("CACHE_SWR", SECONDS_OR_0, seconds_or_0) {
            grace.swr = time;
        }
        if let Some(time) = vars.take(
            "CACHE_LOAD_TIMEOUT_MS",
            "milliseconds, 1 to 60000",
            milliseconds,
        ) {
            grace.timeout = Some(time);
        }
        if let Some(beta) = vars.take("CACHE_EARLY", "a number, 0 to 100", number_to(100.0)) {
            grace.early = beta;
        }
        if let Some(part) = vars.take("CACHE_JITTER", "a number, 0 to 1", number_to(1.0)) {
            grace.jitter = part;
        }
        let size = "a size such as 16k, 512k or 1m, in a program with the feature `zstd`";
        if let Some(bytes) = vars.take("CACHE_COMPRESS_OVER", size, compressible) {
            config.compress_over = Some(bytes);
        }
        let size = "bytes, 512k or 1m, up to 8m, since a larger value is not read back";
        if let Some(limit) = vars.take("CACHE_VALUE_LIMIT", size, |text| {
            bytes(text).filter(|it| *it > 0)
        }) {
            config.value_limit = limit;
        }
        if let Some(part) = vars.take("CACHE_AUDIT", "a number, 0 to 1", number_to(1.0)) {
            config = config.audit(part);
        }
        vars.finish(config)
    }
}

/// `16k`; nothing in a program that can't compress.
fn compressible(text: &str) -> Option<usize> {
    bytes(text).filter(|_| cfg!(feature = "zstd"))
}

/// `4096`, `16k`, `1m`: bytes, up to what a value may have.
fn bytes(text: &str) -> Option<usize> {
    let text = text.to_ascii_lowercase();
    let text = text.strip_suffix('b').unwrap_or(&text);
    let (number, unit) = match text.strip_suffix('k') {
        Some(number) => (number, 1 << 10),
        None => match text.strip_suffix('m') {
            Some(number) => (number, 1 << 20),
            None => (text, 1),
        },
    };
    let number: usize = number.trim_end().parse().ok()?;
    let bytes = number.checked_mul(unit)?;
    (bytes <= super::MOST_VALUE_BYTES).then_some(bytes)
}

/// Whether Kubernetes has set this for a service: `CACHE_TTL_PORT=tcp://10.0.0.5:80` for one that is named
/// `cache-ttl`.
fn is_of_a_service(name: &str, value: &str) -> bool {
    let is_link = value.starts_with("tcp://") || value.starts_with("udp://");
    let is_address = value.parse::<std::net::IpAddr>().is_ok();
    let is_protocol = ["tcp", "udp"].contains(&value);
    let ends_in = |ends: [&str; 2]| ends.iter().any(|end| name.ends_with(end));
    (is_link && (name.ends_with("_PORT") || name.contains("_PORT_")))
        || (is_address && ends_in(["_SERVICE_HOST", "_ADDR"]))
        || (is_protocol && name.ends_with("_PROTO"))
}

const MEMCACHED: &str = "the address of one server: memcached://host:port or unix:///path";
const TRUE_OR_FALSE: &str = "true or false (1/0, yes/no, on/off)";
const SECONDS: &str = "whole seconds, 1 or more";
const SECONDS_OR_0: &str = "whole seconds, 0 for never";

const SECRETS: [&str; 3] = [
    "REDIS_PASSWORD",
    "REDIS_SENTINEL_PASSWORD",
    "CACHE_HASH_KEY",
];

fn visible(c: char) -> String {
    match c {
        c if c.is_control() => c.escape_default().collect(),
        c => c.into(),
    }
}

/// Variables by name, and the problems found so far.
struct Vars {
    values: HashMap<String, String>,
    problems: Vec<String>,
}

impl Vars {
    fn new(vars: impl IntoIterator<Item = (String, String)>) -> Self {
        let values = vars
            .into_iter()
            .filter(|(_, value)| !value.trim().is_empty())
            .map(|(name, value)| {
                // Spaces may be part of a secret; the end of its file's last line is not.
                let value = match SECRETS.contains(&name.as_str()) {
                    true => value.trim_end_matches(['\r', '\n']),
                    false => value.trim(),
                };
                (name, value.to_owned())
            })
            .collect();
        Self {
            values,
            problems: Vec::new(),
        }
    }

    fn take<T>(
        &mut self,
        name: &str,
        may_hold: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        debug_assert!(
            NAMES.contains(&name) || name.starts_with("CACHE_TTL_"),
            "{name} would be called a slip"
        );
        let value = self.values.get(name)?.clone();
        let parsed = parse(&value);
        if parsed.is_none() {
            self.report(name, &value, may_hold);
        }
        parsed
    }

    fn report(&mut self, name: &str, held: &str, may_hold: &str) {
        let problem = if self.may_hold_secret(held) {
            format!("{name} is not usable, and is not shown, since a password may be in it")
        } else {
            // Escaped, so that the problem stays on one line.
            let held: String = held.chars().map(visible).collect();
            format!("{name} is `{held}`")
        };
        self.problems
            .push(format!("{problem}; it may hold {may_hold}"));
    }

    /// Whether a value contains one of the secrets, or looks like an address with a login: a
    /// password may have been put into the wrong variable.
    fn may_hold_secret(&self, held: &str) -> bool {
        let is_in = |name| {
            self.values
                .get(name)
                .is_some_and(|secret| held.contains(secret.as_str()))
        };
        held.contains('@')
            || (held.contains("://") && held.contains('?'))
            || SECRETS.into_iter().any(is_in)
    }

    /// Turns the problems reported since `since` into warnings: the settings have no effect.
    fn excuse(&mut self, since: usize, why: &str) {
        for problem in self.problems.drain(since..) {
            tracing::warn!(problem, reason = why, "a setting has no effect");
        }
    }

    fn is_set(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// Warns of likely mistakes. They are not errors, since other programs have variables with
    /// similar names.
    fn warn_of_slips(&self) {
        let mut address = [
            "REDIS_URL",
            "REDIS_HOST",
            "REDIS_CLUSTER",
            "REDIS_SENTINELS",
        ]
        .into_iter();
        if let Some(name) = address.find(|name| self.is_set(name))
            && !self.is_set("REDIS_ENABLED")
        {
            tracing::warn!("{name} is set, and REDIS_ENABLED is not, so Redis is off");
        }
        let names = self.values.keys().map(String::as_str);
        for (slip, meant) in slips::of(names) {
            tracing::warn!("{slip} has no effect; did you mean {meant}?");
        }
    }

    /// The variables with this prefix, each with the resource that its name ends in.
    fn with_prefix(&self, prefix: &str) -> Vec<(String, String)> {
        let mut names: Vec<_> = self.values.keys().collect();
        // If two variables spell the same resource, the same one wins each time.
        names.sort();
        names
            .into_iter()
            .filter_map(|name| {
                let resource = name.strip_prefix(prefix)?.to_ascii_lowercase();
                let is_link = self
                    .values
                    .get(name)
                    .is_some_and(|it| is_of_a_service(name, it));
                (!is_link).then(|| (name.clone(), resource))
            })
            .filter(|(_, resource)| is_resource(resource))
            .collect()
    }

    fn finish(mut self, config: CacheConfig) -> Result<CacheConfig, ConfigError> {
        if self.problems.is_empty() {
            return Ok(config);
        }
        self.problems.sort();
        Err(ConfigError::of(self.problems))
    }
}

fn redis_from_vars(vars: &mut Vars) -> RedisConfig {
    let defaults = RedisConfig::default();
    let tls = vars.take("REDIS_TLS", TRUE_OR_FALSE, boolean);
    let before = vars.problems.len();
    let link = vars
        .values
        .get("REDIS_PORT")
        .and_then(|text| service_link(text));
    let address = match (
        vars.take("REDIS_HOST", "a host name or address", host_name),
        link,
    ) {
        // The link of a service named `redis`. It applies if `REDIS_HOST` is that service's name or
        // address, and not if `REDIS_HOST` is another host.
        (Some(host), Some((linked, port))) => match host == linked || is_redis_service(&host) {
            true => (host, Some(port)),
            false => {
                tracing::warn!(
                    port = defaults.port,
                    "REDIS_PORT is the address of a Kubernetes service, and REDIS_HOST names \
                     another host; the default port is used"
                );
                (host, None)
            }
        },
        (None, Some((linked, port))) => (linked, Some(port)),
        (host, None) => {
            let port = vars.take("REDIS_PORT", "a port, 1 to 65535", port);
            (host.unwrap_or(defaults.host), port)
        }
    };
    // They name the servers, and leave the rest to the other variables.
    for named in ["REDIS_CLUSTER", "REDIS_SENTINELS"] {
        if vars.is_set(named) {
            vars.excuse(before, &format!("{named} is set"));
        }
    }
    let parts = RedisConfig {
        host: address.0,
        port: address.1.unwrap_or(defaults.port),
        db: vars
            .take("REDIS_DB", "a database number, 0 or more", |text| {
                text.parse().ok()
            })
            .unwrap_or(0),
        username: vars.values.get("REDIS_USERNAME").cloned(),
        password: vars.values.get("REDIS_PASSWORD").cloned(),
        tls: tls.unwrap_or(false),
        ..RedisConfig::default()
    };
    if vars.is_set("REDIS_URL") {
        vars.excuse(before, "REDIS_URL is set");
    }
    let redis = match vars.values.get("REDIS_URL") {
        None => parts,
        Some(url) => match from_url(url) {
            Ok(mut redis) => {
                redis.tls |= parts.tls;
                let overridden: Vec<_> = [
                    "REDIS_HOST",
                    "REDIS_PORT",
                    "REDIS_DB",
                    "REDIS_USERNAME",
                    "REDIS_PASSWORD",
                ]
                .into_iter()
                .filter(|name| vars.is_set(name))
                .collect();
                if !overridden.is_empty() {
                    tracing::warn!("REDIS_URL is set and overrides {}", overridden.join(", "));
                }
                redis
            }
            Err(reason) => {
                // The URL may hold a password, so it is not shown.
                vars.problems.push(format!(
                    "REDIS_URL is not usable: {reason}; it may hold \
                     redis://[user:password@]host[:port][/db], or \
                     redis-sentinel://[user:password@]host[:port],host[:port]/master[/db], \
                     and rediss:// or rediss-sentinel:// for TLS"
                ));
                parts
            }
        },
    };
    let redis = with_cluster(vars, redis);
    let redis = with_sentinels(vars, redis);
    if redis.tls && !cfg!(feature = "redis-tls") {
        let (variable, held, may_hold) = if tls == Some(true) {
            ("REDIS_TLS", "true", "false")
        } else {
            ("REDIS_URL", "rediss://…", "redis://…")
        };
        let why = "because this program was built without the feature `redis-tls`";
        vars.report(variable, held, &format!("{may_hold}, {why}"));
    }
    redis
}

/// Whether a host is the Kubernetes service `redis`, in this namespace or by its full name.
fn is_redis_service(host: &str) -> bool {
    host.split('.').next() == Some("redis")
}

/// Adds the nodes that `REDIS_CLUSTER` names. Login and TLS come from the settings of one server.
fn with_cluster(vars: &mut Vars, mut redis: RedisConfig) -> RedisConfig {
    let Some(seeds) = vars.take("REDIS_CLUSTER", HOSTS_AND_PORTS, nodes) else {
        return redis;
    };
    let set = ["REDIS_HOST", "REDIS_PORT"].into_iter();
    let overridden: Vec<_> = set.filter(|name| vars.is_set(name)).collect();
    if !overridden.is_empty() {
        tracing::warn!(
            "REDIS_CLUSTER is set and overrides {}",
            overridden.join(", ")
        );
    }
    if redis.db != 0 {
        let db = redis.db.to_string();
        vars.report(
            "REDIS_DB",
            &db,
            "0 where REDIS_CLUSTER is set: a cluster has one database",
        );
    }
    if let Some((host, port)) = seeds.first() {
        redis.host.clone_from(host);
        redis.port = *port;
    }
    redis.cluster = seeds;
    redis
}

/// With the Sentinels that `REDIS_SENTINELS` or `REDIS_URL` names; login and TLS are those of one
/// server.
fn with_sentinels(vars: &mut Vars, mut redis: RedisConfig) -> RedisConfig {
    let (variable, addresses) = match vars.take("REDIS_SENTINELS", HOSTS_AND_PORTS, sentinels) {
        Some(addresses) => ("REDIS_SENTINELS", addresses),
        None => match &redis.sentinel {
            Some(named) => ("REDIS_URL", named.addresses.clone()),
            None => {
                for name in ["REDIS_SENTINEL_MASTER", "REDIS_SENTINEL_PASSWORD"] {
                    if vars.is_set(name) {
                        tracing::warn!("{name} has no effect, because REDIS_SENTINELS is not set");
                    }
                }
                return redis;
            }
        },
    };
    if !redis.cluster.is_empty() {
        let held = format!("{} Sentinels", addresses.len());
        vars.report(
            variable,
            &held,
            "no Sentinels where REDIS_CLUSTER is set: a cluster has none",
        );
        return redis;
    }
    if let Some((host, port)) = addresses.first() {
        redis.host.clone_from(host);
        redis.port = *port;
    }
    let (master, password) = redis
        .sentinel
        .map_or((None, None), |named| (Some(named.master), named.password));
    let variable = |name| vars.values.get(name).cloned();
    let master = variable("REDIS_SENTINEL_MASTER").or(master);
    redis.sentinel = Some(SentinelConfig {
        addresses,
        master: master.unwrap_or_else(|| MASTER.into()),
        password: variable("REDIS_SENTINEL_PASSWORD").or(password),
    });
    redis
}

fn nodes(text: &str) -> Option<Vec<(String, u16)>> {
    addresses(text, RedisConfig::default().port)
}

fn sentinels(text: &str) -> Option<Vec<(String, u16)>> {
    addresses(text, SENTINEL_PORT)
}

const HOSTS_AND_PORTS: &str = "host:port,host:port,.. of some nodes";

/// Accepts `True`, `yes`, `ON`, `1` and their opposites, in any case.
fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

fn seconds_or_0(text: &str) -> Option<Duration> {
    let seconds = text.parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_TTL))
}

fn staleness(text: &str) -> Option<Duration> {
    let seconds = number_to(3600.0)(text)?;
    let staleness = Duration::from_secs_f64(seconds);
    (staleness >= SHORTEST_STALENESS).then_some(staleness)
}

fn number_to(limit: f64) -> impl Fn(&str) -> Option<f64> {
    move |text| {
        text.parse()
            .ok()
            .filter(|number| (0.0..=limit).contains(number))
    }
}

fn seconds(text: &str) -> Option<Duration> {
    let ttl = Duration::from_secs(text.parse().ok()?);
    (ttl > Duration::ZERO && ttl <= MAX_TTL).then_some(ttl)
}

fn milliseconds(text: &str) -> Option<Duration> {
    let ms = text.parse().ok().filter(|ms| (1..=60_000).contains(ms))?;
    Some(Duration::from_millis(ms))
}

fn megabytes(text: &str) -> Option<u32> {
    text.parse().ok().filter(|mb| *mb <= 1 << 20)
}

fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0)
}

fn namespace(text: &str) -> Option<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_-.:".contains(c);
    // With one hash tag, a cluster keeps all keys in one slot.
    let plain = match text.split_once('{') {
        None => text.to_owned(),
        Some((before, rest)) => {
            let (tag, after) = rest.split_once('}').filter(|(tag, _)| !tag.is_empty())?;
            format!("{before}{tag}{after}")
        }
    };
    plain.chars().all(fits).then(|| terminated(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(vars: &[(&str, &str)]) -> Result<CacheConfig, ConfigError> {
        CacheConfig::from_vars(vars.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())))
    }

    fn redis(vars: &[(&str, &str)]) -> RedisConfig {
        let on = [("REDIS_ENABLED", "on")];
        config(&[vars, &on].concat())
            .expect("valid")
            .redis
            .expect("on")
    }

    #[test]
    fn sizes_are_read() {
        for (text, size) in [
            ("0", Some(0)),
            ("4096", Some(4096)),
            ("16k", Some(16 << 10)),
            ("16 KB", Some(16 << 10)),
            ("1m", Some(1 << 20)),
            ("1g", None),
            ("100m", None),
            ("-1", None),
            ("k", None),
            ("", None),
        ] {
            assert_eq!(bytes(text), size, "{text}");
        }
    }

    #[test]
    fn a_value_that_is_not_read_back_is_an_error() {
        let limit = |text| config(&[("CACHE_VALUE_LIMIT", text)]).map(|config| config.value_limit);
        assert_eq!(limit("8m"), Ok(8 << 20));
        let error = limit("9m").unwrap_err().to_string();
        assert!(
            error.starts_with("CACHE_VALUE_LIMIT is `9m`; it may hold bytes, 512k or 1m, up to 8m"),
            "{error}"
        );
        let config = CacheConfig::default().value_limit(9 << 20);
        assert_eq!(config.value_limit, 8 << 20);
        let error = config.clone().check().unwrap_err().to_string();
        assert!(
            error.starts_with("value_limit is `9437184`; it may hold 0 to 8388608 bytes"),
            "{error}"
        );
        assert!(config.value_limit(8 << 20).check().is_ok());
        let config = CacheConfig::default().resource("Orders").context("tenant");
        let error = config.check().unwrap_err().to_string();
        assert!(error.contains("`Orders`"), "{error}");
    }

    #[test]
    fn nothing_set_is_the_guides_default() {
        let config = config(&[]).expect("valid");
        assert!(!config.is_enabled());
        assert_eq!(config.default_ttl, Duration::from_secs(300));
        assert_eq!(redis(&[]), RedisConfig::default());
        assert_eq!(redis(&[("REDIS_PASSWORD", "")]).password, None);
    }

    #[test]
    fn booleans_in_any_spelling() {
        for (text, on) in [
            ("True", true),
            ("yes", true),
            ("ON", true),
            ("1", true),
            ("False", false),
            ("no", false),
        ] {
            assert_eq!(
                config(&[("REDIS_ENABLED", text)])
                    .expect("valid")
                    .redis
                    .is_some(),
                on,
                "{text}"
            );
        }
    }

    #[test]
    fn every_unusable_value_is_named_with_what_it_may_hold() {
        let error = config(&[
            ("REDIS_ENABLED", "maybe"),
            ("REDIS_PORT", "66000"),
            ("REDIS_DB", "-1"),
            ("CACHE_TTL", "0"),
            ("CACHE_TTL_USERS", "5m"),
            ("CACHE_LOCAL_MB", "lots"),
            ("CACHE_NAMESPACE", "a b"),
            ("CACHE_TIMEOUT_MS", "0"),
        ])
        .expect_err("all of them are wrong")
        .to_string();
        let lines: Vec<_> = error.lines().collect();
        assert_eq!(lines.len(), 8, "{error}");
        assert!(
            lines.contains(&"REDIS_PORT is `66000`; it may hold a port, 1 to 65535"),
            "{error}"
        );
        assert!(
            lines.contains(&"CACHE_TTL_USERS is `5m`; it may hold whole seconds, 1 or more"),
            "{error}"
        );
        assert!(
            lines.contains(
                &"REDIS_ENABLED is `maybe`; it may hold true or false (1/0, yes/no, on/off)"
            ),
            "{error}"
        );
    }

    #[test]
    fn a_url_wins() {
        let redis = redis(&[
            ("REDIS_URL", "redis://me:p%40ss@cache.local:7000/3"),
            ("REDIS_HOST", "elsewhere"),
        ]);
        let expected = RedisConfig::at("cache.local", 7000)
            .db(3)
            .login(Some("me"), "p@ss");
        assert_eq!(redis, expected);
    }

    #[test]
    fn passwords_are_never_printed() {
        let secret = "hunter2";
        let redis = RedisConfig::default().login(None, secret);
        assert!(
            !format!("{redis:?}{:?}", CacheConfig::default().redis(redis.clone())).contains(secret)
        );
        let url = format!("redis://me:{secret}@host:notaport");
        let error = config(&[("REDIS_ENABLED", "1"), ("REDIS_URL", &url)])
            .expect_err("no port")
            .to_string();
        assert!(
            error.starts_with("REDIS_URL is not usable: its port") && !error.contains(secret),
            "{error}"
        );
    }

    #[test]
    fn a_password_in_the_wrong_variable_is_not_printed() {
        let url = "redis://me:hunter2@cache.local:6379";
        let shown = |vars: &[(&str, &str)]| {
            let on = [("REDIS_ENABLED", "on")];
            let error = config(&[vars, &on].concat());
            error.expect_err("unusable").to_string()
        };
        for (name, held) in [
            ("REDIS_HOST", url),
            ("REDIS_HOST", "me:hunter2@cache.local"),
            ("REDIS_PORT", url),
            ("CACHE_NAMESPACE", "redis://cache.local/?password=hunter2"),
            ("CACHE_TTL_USERS", url),
        ] {
            let error = shown(&[(name, held)]);
            assert!(
                error.starts_with(name) && !error.contains("hunter2"),
                "{error}"
            );
        }
        for secret in SECRETS {
            let error = shown(&[(secret, "hunter2"), ("REDIS_DB", "hunter2")]);
            assert!(
                error.starts_with("REDIS_DB is not usable") && !error.contains("hunter2"),
                "{error}"
            );
        }
        let error = shown(&[("REDIS_PORT", "udp://10.0.0.3:6379"), ("REDIS_DB", "a\nb")]);
        let lines: Vec<_> = error.lines().collect();
        assert_eq!(lines.len(), 2, "{error}");
        assert!(lines[0].starts_with("REDIS_DB is `a\\nb`"), "{error}");
        assert!(
            lines[1].starts_with("REDIS_PORT is `udp://10.0.0.3:6379`"),
            "{error}"
        );
    }

    #[test]
    fn what_has_no_effect_stops_nobody() {
        let link = ("REDIS_PORT", "tcp://10.0.0.5:6380");
        assert!(config(&[link]).is_ok());
        for off in [&[][..], &[("REDIS_ENABLED", "False")]] {
            for wrong in [
                ("REDIS_PORT", "no port"),
                ("REDIS_DB", "-1"),
                ("REDIS_HOST", "a b"),
                ("REDIS_TLS", "maybe"),
                ("REDIS_URL", "redis://:7401#secret@prod"),
            ] {
                assert!(config(&[off, &[wrong]].concat()).is_ok(), "{wrong:?}");
            }
        }
        let url = ("REDIS_URL", "redis://prod:7000");
        for wrong in [
            link,
            ("REDIS_PORT", "x"),
            ("REDIS_DB", "x"),
            ("REDIS_HOST", "a b"),
        ] {
            assert_eq!(
                redis(&[url, wrong]),
                RedisConfig::at("prod", 7000),
                "{wrong:?}"
            );
        }
        let seeds = ("REDIS_CLUSTER", "a:7000,b:7001");
        let sentinels = ("REDIS_SENTINELS", "a:26379");
        for named in [seeds, sentinels] {
            for wrong in [("REDIS_PORT", "udp://10.0.0.5:1"), ("REDIS_HOST", "a b")] {
                let host = redis(&[named, wrong]).host;
                assert_eq!(host, "a", "{named:?} {wrong:?}");
            }
        }
        let is_wrong =
            |vars: &[(&str, &str)]| config(&[vars, &[("REDIS_ENABLED", "1")]].concat()).is_err();
        assert!(is_wrong(&[seeds, ("REDIS_DB", "x")]));
        assert!(is_wrong(&[("REDIS_PORT", "x")]) && is_wrong(&[url, ("REDIS_TLS", "maybe")]));
    }

    #[test]
    fn a_service_link_is_an_address() {
        let link = ("REDIS_PORT", "tcp://10.0.0.5:6380");
        assert_eq!(redis(&[link]), RedisConfig::at("10.0.0.5", 6380));
        assert_eq!(
            redis(&[link, ("REDIS_HOST", "redis")]),
            RedisConfig::at("redis", 6380)
        );
        assert_eq!(
            redis(&[link, ("REDIS_HOST", "redis.shop.svc.cluster.local")]),
            RedisConfig::at("redis.shop.svc.cluster.local", 6380)
        );
        assert_eq!(
            redis(&[link, ("REDIS_HOST", "prod")]),
            RedisConfig::at("prod", 6379)
        );
        // The other variables of a service link are no typos.
        let names = [
            "REDIS_PORT_6379_TCP",
            "REDIS_SERVICE_HOST",
            "REDIS_SERVICE_PORT",
            "REDIS_PORT_6379_TCP_ADDR",
        ];
        assert_eq!(slips::of(names.into_iter()).count(), 0);
    }

    #[test]
    fn a_resources_own_ttl() {
        let config = config(&[("CACHE_TTL_USER_NOTES", "7")]).expect("valid");
        assert_eq!(
            config.operator_ttl("user-notes"),
            Some(Duration::from_secs(7))
        );
        assert_eq!(config.operator_ttl("users"), None);
        // Not every shell can set this name, but Docker can.
        let config = self::config(&[("CACHE_TTL_USER-NOTES", "7")]).expect("valid");
        assert_eq!(
            config.operator_ttl("user_notes"),
            Some(Duration::from_secs(7))
        );
    }

    #[test]
    fn a_host_has_no_port_and_a_secret_keeps_its_spaces() {
        let error = config(&[("REDIS_ENABLED", "1"), ("REDIS_HOST", "redis:6379")]);
        let error = error.expect_err("a port").to_string();
        assert!(error.contains("REDIS_HOST is `redis:6379`"), "{error}");
        let there = config(&[("REDIS_ENABLED", "1"), ("REDIS_HOST", "::1")]);
        assert!(there.is_ok());
        let secret = [("REDIS_ENABLED", "1"), ("REDIS_PASSWORD", " s3cret \n")];
        let redis = config(&secret).expect("right").redis.expect("on");
        assert_eq!(redis.password.as_deref(), Some(" s3cret "));
    }

    #[test]
    fn a_service_named_cache_ttl_stops_nobody() {
        let config = config(&[
            ("CACHE_TTL_PORT", "tcp://10.0.0.5:80"),
            ("CACHE_TTL_PORT_80_TCP_ADDR", "10.0.0.5"),
            ("CACHE_TTL_PORT_80_TCP_PROTO", "tcp"),
            ("CACHE_TTL_PORT_80_TCP_PORT", "80"),
            ("CACHE_TTL_SERVICE_HOST", "10.0.0.5"),
            ("CACHE_TTL_SERVICE_PORT", "80"),
            ("CACHE_TTL_USERS", "7"),
        ]);
        let config = config.expect("right");
        let users = Duration::from_secs(7);
        assert_eq!(config.ttl_by_resource.get("users"), Some(&users));
    }

    #[test]
    fn a_namespace_ends_in_a_colon() {
        assert_eq!(
            config(&[("CACHE_NAMESPACE", "shop")])
                .expect("valid")
                .namespace,
            "shop:"
        );
        assert_eq!(CacheConfig::default().namespace("shop:").namespace, "shop:");
    }
}
