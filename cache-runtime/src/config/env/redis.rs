//! The settings of Redis, its cluster or its Sentinels.

use super::parse::{TRUE_OR_FALSE, boolean, port};
use super::vars::{Vars, is_quoted};
use crate::config::address::{
    MASTER, SENTINEL_PORT, addresses, host_name, is_master, service_link,
};
#[cfg(feature = "redis")]
use crate::config::url::from_url;
use crate::config::{HostPort, RedisConfig, SentinelConfig};

pub(super) fn redis_from_vars(vars: &mut Vars) -> RedisConfig {
    let tls = vars.take("REDIS_TLS", TRUE_OR_FALSE, boolean);
    let before = vars.problems.len();
    let (host, port) = host_and_port(vars);
    // They name the servers, and leave the rest to the other variables.
    for named in ["REDIS_CLUSTER", "REDIS_SENTINELS"] {
        if vars.is_set(named) {
            vars.ignore_problems(before, &format!("{named} is set"));
        }
    }
    let parts = RedisConfig {
        host,
        port,
        db: vars
            .take("REDIS_DB", "a database number, 0 or more", |text| {
                text.parse().ok()
            })
            .unwrap_or(0),
        username: vars.text("REDIS_USERNAME"),
        password: vars.text("REDIS_PASSWORD"),
        tls: tls.unwrap_or(false),
        ..RedisConfig::default()
    };
    if vars.is_set("REDIS_URL") {
        vars.ignore_problems(before, "REDIS_URL is set");
    }
    let redis = match vars.text("REDIS_URL") {
        None => parts,
        Some(url) => with_url(vars, parts, &url, tls),
    };
    let redis = with_cluster(vars, redis);
    let redis = with_sentinels(vars, redis);
    let redis = with_nat_map(vars, redis);
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

fn host_and_port(vars: &mut Vars) -> (String, u16) {
    let defaults = RedisConfig::default();
    let link = vars.value("REDIS_PORT").and_then(service_link);
    let host = vars.take("REDIS_HOST", "a host name or address", host_name);
    match (host, link) {
        // The link of a service named `redis`. It applies if `REDIS_HOST` is that service's name or
        // address, and not if `REDIS_HOST` is another host.
        (Some(host), Some((linked, port))) => match host == linked || is_redis_service(&host) {
            true => (host, port),
            false => {
                tracing::warn!(
                    variable = "REDIS_PORT",
                    port = defaults.port,
                    "REDIS_PORT is the address of a Kubernetes service, and REDIS_HOST names \
                     another host; the default port is used"
                );
                (host, defaults.port)
            }
        },
        (None, Some(linked)) => linked,
        (host, None) => {
            let port = vars.take("REDIS_PORT", "a port, 1 to 65535", port);
            (host.unwrap_or(defaults.host), port.unwrap_or(defaults.port))
        }
    }
}

/// The settings of a URL, in place of those of single variables.
fn with_url(vars: &mut Vars, parts: RedisConfig, url: &str, tls: Option<bool>) -> RedisConfig {
    let mut redis = match from_url(url) {
        Ok(redis) => redis,
        Err(reason) => {
            let reason = match is_quoted(url) {
                true => "it is in quotation marks".to_owned(),
                false => reason,
            };
            // The URL may hold a password, so it is not shown.
            vars.problems.push(format!(
                "REDIS_URL is not usable: {reason}; it may hold \
                 redis://[user:password@]host[:port][/db], or \
                 redis-sentinel://[user:password@]host[:port],host[:port]/master[/db], \
                 and rediss:// or rediss-sentinel:// for TLS"
            ));
            return parts;
        }
    };
    if redis.tls && tls == Some(false) {
        tracing::warn!(
            variable = "REDIS_TLS",
            "REDIS_TLS is false, and REDIS_URL asks for TLS, which is used"
        );
    }
    redis.tls |= parts.tls;
    let others = [
        "REDIS_HOST",
        "REDIS_PORT",
        "REDIS_DB",
        "REDIS_USERNAME",
        "REDIS_PASSWORD",
    ];
    let overridden: Vec<_> = others.into_iter().filter(|it| vars.is_set(it)).collect();
    if !overridden.is_empty() {
        warn_of_overridden("REDIS_URL", &overridden);
    }
    redis
}

fn warn_of_overridden(variable: &str, overridden: &[&str]) {
    let overridden = overridden.join(", ");
    tracing::warn!(
        variable,
        overridden,
        "{variable} is set and overrides {overridden}"
    );
}

/// `variable` names the servers in place of these.
fn warn_of_overridden_address(vars: &Vars, variable: &str) {
    let others = [
        ("REDIS_HOST", "REDIS_HOST"),
        ("REDIS_PORT", "REDIS_PORT"),
        ("REDIS_URL", "the address in REDIS_URL"),
    ];
    let set = others.into_iter().filter(|(name, _)| vars.is_set(name));
    let overridden: Vec<_> = set.map(|(_, text)| text).collect();
    if !overridden.is_empty() {
        warn_of_overridden(variable, &overridden);
    }
}

/// Without the client for Redis there is no parser for its URL either. `REDIS_ENABLED` is an error
/// then, so nobody uses the result.
#[cfg(not(feature = "redis"))]
fn from_url(_: &str) -> Result<RedisConfig, String> {
    Ok(RedisConfig::default())
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
    warn_of_overridden_address(vars, "REDIS_CLUSTER");
    if redis.db != 0 {
        let db = redis.db;
        let (variable, held) = match vars.is_set("REDIS_URL") {
            true => ("REDIS_URL", format!("redis://…/{db}")),
            false => ("REDIS_DB", db.to_string()),
        };
        let may_hold = "0 where REDIS_CLUSTER is set: a cluster has one database";
        let may_hold = match vars.is_set("REDIS_URL") {
            true => format!("the database {may_hold}"),
            false => may_hold.to_owned(),
        };
        vars.report(variable, &held, &may_hold);
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
        Some(addresses) => {
            warn_of_overridden_address(vars, "REDIS_SENTINELS");
            ("REDIS_SENTINELS", addresses)
        }
        None => match &redis.sentinel {
            Some(named) => ("REDIS_URL", named.addresses.clone()),
            None => {
                for name in [
                    "REDIS_SENTINEL_MASTER",
                    "REDIS_SENTINEL_USERNAME",
                    "REDIS_SENTINEL_PASSWORD",
                ] {
                    if vars.is_set(name) {
                        tracing::warn!(
                            variable = name,
                            "{name} has no effect, because REDIS_SENTINELS is not set"
                        );
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
    let (master, username, password) = match redis.sentinel {
        Some(named) => (Some(named.master), named.username, named.password),
        None => (None, None, None),
    };
    let named = vars.take(
        "REDIS_SENTINEL_MASTER",
        "letters, digits and `.-_`",
        |text| is_master(text).then(|| text.to_owned()),
    );
    let own_username = vars.text("REDIS_SENTINEL_USERNAME");
    let own_password = vars.text("REDIS_SENTINEL_PASSWORD");
    redis.sentinel = Some(SentinelConfig {
        addresses,
        master: named.or(master).unwrap_or_else(|| MASTER.into()),
        username: own_username.or(username),
        password: own_password.or(password),
    });
    redis
}

/// With the addresses that `REDIS_NAT_MAP` replaces. A server that turns out to be a node of a
/// cluster needs them too, so the variable has an effect with any other.
fn with_nat_map(vars: &mut Vars, mut redis: RedisConfig) -> RedisConfig {
    if let Some(pairs) = vars.take("REDIS_NAT_MAP", NAMED_AND_USED, nat_map) {
        redis.nat_map = pairs;
    }
    redis
}

fn nat_map(text: &str) -> Option<Vec<(HostPort, HostPort)>> {
    let one = |text: &str| match &mut nodes(text)?[..] {
        [one] => Some(std::mem::take(one)),
        _ => None,
    };
    let pair = |text: &str| {
        let (named, used) = text.split_once('=')?;
        Some((one(named)?, one(used)?))
    };
    text.split(',').map(|text| pair(text.trim())).collect()
}

const NAMED_AND_USED: &str = "named=used,named=used,.. with a host:port on each side";

fn nodes(text: &str) -> Option<Vec<(String, u16)>> {
    addresses(text, RedisConfig::default().port)
}

fn sentinels(text: &str) -> Option<Vec<(String, u16)>> {
    addresses(text, SENTINEL_PORT)
}

const HOSTS_AND_PORTS: &str = "host:port,host:port,.. of some nodes";
