//! The rules about a server, given its answers. No I/O.

use std::net::IpAddr;

use super::program::Program;
use super::report::{DiagnosticKind, DoctorReport};
use crate::base::error::Error;
use crate::config::{CacheConfig, RedisConfig};
use crate::stats::OutboxStats;
use crate::store::ServerDiagnostics;

/// The oldest version of Redis that the protocol was tested with.
const OLDEST: (u32, u32) = (6, 2);

/// The rule for a server that did not answer, or refused to.
pub(super) fn unreachable(report: &mut DoctorReport, redis: &RedisConfig, reason: &str) {
    let fix = if reason.contains("max number of clients") {
        "raise `maxclients` in redis.conf, or find the program that leaks connections with `CLIENT LIST`"
    } else if reason.contains("invalid peer certificate") {
        "the server is there, and its certificate was refused"
    } else if reason.contains("REDIS_SENTINEL_PASSWORD") {
        "this is the login of the Sentinels, and not that of the servers"
    } else if reason.contains("NOPERM") && reason.contains("Sentinels name a primary") {
        "permit the user of the Sentinels what the book lists under \"Sentinel\""
    } else if reason.contains("NOPERM") {
        "permit its user what the book lists under \"Deploying and securing Redis\""
    } else if ["WRONGPASS", "NOAUTH", "AUTH"]
        .iter()
        .any(|code| reason.contains(code))
    {
        "correct REDIS_PASSWORD and REDIS_USERNAME"
    } else if reason.contains("DB index is out of range") {
        "correct REDIS_DB, or raise `databases` in redis.conf"
    } else if redis.sentinel.is_some() {
        "start what is away, correct REDIS_SENTINELS and REDIS_SENTINEL_MASTER, or have the Sentinels name an address that this process can connect to (`announce-ip`, REDIS_NAT_MAP)"
    } else if !redis.cluster.is_empty() {
        "start what is away, correct REDIS_CLUSTER, or have the nodes name addresses that this process can connect to (`cluster-announce-ip`, REDIS_NAT_MAP)"
    } else {
        "start it, or correct REDIS_HOST and REDIS_PORT"
    };
    let RedisConfig { host, port, .. } = redis;
    let server = match &redis.sentinel {
        Some(sentinel) => format!("the primary `{}`", sentinel.master),
        None if !redis.cluster.is_empty() => {
            let seeds = redis
                .cluster
                .iter()
                .map(|(host, port)| format!("{host}:{port}"));
            format!("the cluster of {}", seeds.collect::<Vec<_>>().join(", "))
        }
        None => format!("Redis at {host}:{port}"),
    };
    report.advise(
        DiagnosticKind::Unreachable,
        format!("{server} can't be used ({reason}); {fix}"),
    );
    report
        .not_checked
        .push("how Redis is set up, because it can't be asked".into());
}

/// The rules for a server that answered.
pub(super) fn server(
    report: &mut DoctorReport,
    program: &Program,
    config: &CacheConfig,
    redis: &RedisConfig,
    server: &ServerDiagnostics,
) {
    password(report, redis);
    several_servers(report, redis, server);
    match &server.version {
        Some(version) => old_server(report, version),
        None => report
            .not_checked
            .push("Redis's version and memory, because its user may not run INFO".into()),
    }
    memory(report, program, server);
    if !server.away.is_empty() {
        away(report, &server.away);
        return;
    }
    capabilities(report, server);
    permissions(report, redis, server);
    foreign(report, config, server);
}

fn away(report: &mut DoctorReport, nodes: &[String]) {
    for node in nodes {
        report.advise(
            DiagnosticKind::Unreachable,
            format!(
                "the cluster's node {node}: what lies there is loaded each time, and its invalidations wait; start it, let a replica take its place, or correct REDIS_NAT_MAP"
            ),
        );
    }
    report.not_checked.push(
        "permissions, and whether other programs use the namespace, because a node is away".into(),
    );
}

fn password(report: &mut DoctorReport, redis: &RedisConfig) {
    let RedisConfig { host, port, .. } = redis;
    report.checked.push("the password".into());
    if redis.password.is_none() && !is_loopback(host) {
        report.advise(
            DiagnosticKind::NoPassword,
            format!(
                "Redis at {host}:{port} is not on this machine and asks for no password; set `requirepass`, or an ACL user, there and REDIS_PASSWORD here"
            ),
        );
    }
}

fn several_servers(report: &mut DoctorReport, redis: &RedisConfig, server: &ServerDiagnostics) {
    let RedisConfig { host, .. } = redis;
    let Some(address) = &server.address else {
        return;
    };
    report.checked.push("the addresses of Redis".into());
    for silent in &server.silent_addresses {
        report.not_checked.push(format!(
            "which server is at {silent}, because it did not answer or does not say"
        ));
    }
    if !server.other_servers.is_empty() {
        let others = server.other_servers.join(", ");
        report.advise(
            DiagnosticKind::SeveralServers,
            format!(
                "`{host}` leads to several servers: {address}, which is in use here, and {others}; a process that uses another one than the rest gets none of their invalidations: take a name that leads to the primary alone"
            ),
        );
    }
}

fn is_loopback(host: &str) -> bool {
    let named = host.eq_ignore_ascii_case("localhost") || host.ends_with(".localhost");
    named
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn old_server(report: &mut DoctorReport, version: &str) {
    report
        .checked
        .push(format!("the version of Redis ({version})"));
    let mut numbers = version.split('.').map(str::parse::<u32>);
    if let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next())
        && (major, minor) < OLDEST
    {
        report.advise(
            DiagnosticKind::OldServer,
            format!("Redis is of version {version}, and the cache needs 6.2 or later; upgrade the server"),
        );
    }
}

/// Capabilities that are missing for want of a permission are reported with that permission
/// instead.
fn capabilities(report: &mut DoctorReport, server: &ServerDiagnostics) {
    report.checked.push("what the server can do".into());
    for missing in &server.missing {
        let is_refused = server
            .refused_commands
            .iter()
            .any(|command| missing.starts_with(&command.to_ascii_uppercase()));
        if !is_refused {
            report.advise(
                DiagnosticKind::MissingCapability,
                format!("Redis lacks {missing}"),
            );
        }
    }
}

fn memory(report: &mut DoctorReport, program: &Program, server: &ServerDiagnostics) {
    let Some(policy) = server.eviction.as_deref() else {
        return;
    };
    report.checked.push("its memory limit and eviction".into());
    let replacement =
        "`maxmemory-policy allkeys-lru`, or `volatile-lru` where it also holds data without a ttl";
    if server.memory_limit == Some(0) {
        report.advise(
            DiagnosticKind::NoMemoryLimit,
            format!("Redis has no memory limit and may take all of its machine; set `maxmemory`, such as 256mb, and {replacement}"),
        );
    } else if policy == "noeviction" {
        report.advise(
            DiagnosticKind::NoEviction,
            format!("Redis has `maxmemory-policy noeviction`, so once full it stores nothing new, and what is not stored yet is loaded each time; set {replacement}"),
        );
    }
    if policy == "volatile-ttl" && program.has_crash_safe() {
        report.advise(
            DiagnosticKind::EvictsIntents,
            "Redis has `maxmemory-policy volatile-ttl`, which evicts the announcements of `crash_safe` writes first; set `maxmemory-policy volatile-lru` or `allkeys-lru`".into(),
        );
    }
}

fn permissions(report: &mut DoctorReport, redis: &RedisConfig, server: &ServerDiagnostics) {
    report.checked.push("permissions".into());
    let user = redis.username.as_deref().unwrap_or("default");
    let commands = &server.refused_commands;
    if !commands.is_empty() {
        report.advise(
            DiagnosticKind::Permissions,
            format!(
                "the Redis user `{user}` may not run {}; permit it: `ACL SETUSER {user} +{}`",
                commands.join(", "),
                commands.join(" +"),
            ),
        );
    }
    let keys = &server.refused_keys;
    if !keys.is_empty() {
        report.advise(
            DiagnosticKind::Permissions,
            format!(
                "the Redis user `{user}` may not use the keys {}; permit it: `ACL SETUSER {user} ~{}`",
                keys.join(", "),
                keys.join(" ~"),
            ),
        );
    }
}

fn foreign(report: &mut DoctorReport, config: &CacheConfig, server: &ServerDiagnostics) {
    match server.keys_seen {
        Some(keys) => report.checked.push(format!("{keys} of the cache's keys")),
        None => report.not_checked.push(
            "whether other programs use the namespace, because permissions are missing".into(),
        ),
    }
    if server.foreign.is_empty() {
        return;
    }
    let names: Vec<String> = server.foreign.iter().map(|key| printable(key)).collect();
    let place = match config.namespace.trim_end_matches(':') {
        "" => "this database without a namespace".to_owned(),
        name => format!("the namespace `{name}`"),
    };
    report.advise(
        DiagnosticKind::Foreign,
        format!(
            "another program uses {place}: {} {} not of this cache; set CACHE_NAMESPACE to a name of its own",
            names.join(", "),
            if names.len() == 1 { "is" } else { "are" },
        ),
    );
}

/// The rules about a Memcached.
pub(super) fn memcached(
    report: &mut DoctorReport,
    program: &Program,
    config: &CacheConfig,
    server: &Result<ServerDiagnostics, Error>,
) {
    let Some(address) = &config.memcached else {
        return;
    };
    let server = match server {
        Ok(server) => server,
        Err(error) => {
            report.advise(
                DiagnosticKind::Unreachable,
                format!(
                    "Memcached at {address} can't be used ({error}); start it, or correct MEMCACHED_URL"
                ),
            );
            let what = "how Memcached is set up, because it can't be asked";
            report.not_checked.push(what.into());
            return;
        }
    };
    report.checked.push("the addresses of Memcached".into());
    if let (Some(used), Some(others)) = (&server.address, server.other_servers.first()) {
        report.advise(
            DiagnosticKind::SeveralServers,
            format!(
                "`{}` leads to several addresses: {used}, which is in use here, and {others}; a process that uses another server than the rest gets none of their invalidations: name one server",
                address.host
            ),
        );
    }
    if let Some(version) = &server.version {
        let what = format!("the version of Memcached ({version})");
        report.checked.push(what);
    }
    if program.has_crash_safe() {
        report.advise(
            DiagnosticKind::EvictsIntents,
            "Memcached may evict the announcement of a `crash_safe` write when its memory is full, and then forgets it; give it enough memory (`-m`), or use Redis".into(),
        );
    }
    report.checked.push("what the server can do".into());
    for missing in &server.missing {
        report.advise(
            DiagnosticKind::StoreLimit,
            format!("Memcached lacks {missing}"),
        );
    }
}

/// How long a row may wait, in milliseconds. One is taken within two seconds if all is well.
const LONGEST_WAIT_MS: u64 = 60_000;
/// A transaction that is open for longer has been forgotten.
const LONGEST_TRANSACTION_MS: u64 = 60 * 60_000;

/// More deleted rows than this that are still there are the sign of a transaction that is open for
/// long.
const MOST_DEAD: u64 = 500_000;

/// The rules about the outbox of a database.
pub(super) fn outbox(report: &mut DoctorReport, outbox: &OutboxStats) {
    let OutboxStats { table, .. } = outbox;
    report.checked.push("the outbox".into());
    let mut advise = |text: String| report.advise(DiagnosticKind::Outbox, text);
    if !outbox.connected {
        advise(format!(
            "this process does not read the outbox {table}; its log says why: the database is away, a replica, without the table, or the user lacks a right"
        ));
    } else if outbox.serving == Some(false) {
        advise(format!(
            "nothing is served from the cache, since nothing has come from the outbox {table} for too long; look whether its database answers in time"
        ));
    }
    if outbox.failovers_unknown {
        advise(format!(
            "a failover of the database of the outbox {table} will not be noticed, and entries may be left that were loaded after commits that are gone; let the relay's user run pg_control_system()"
        ));
    }
    if !outbox.not_followed.is_empty() {
        advise(format!(
            "tables with changes that the outbox {table} does not follow: {}; install the triggers again",
            outbox.not_followed.join(", ")
        ));
    }
    if let Some(dead) = outbox.dead.filter(|dead| *dead > MOST_DEAD) {
        advise(format!(
            "{dead} deleted rows of the outbox {table} can't be cleaned up; look in pg_stat_activity for a transaction that has been open for long, and in pg_prepared_xacts for one that nobody has ended"
        ));
    }
    if let Some(open) = outbox
        .oldest_transaction_ms
        .filter(|open| *open > LONGEST_TRANSACTION_MS)
    {
        let prepared = match outbox.prepared {
            0 => String::new(),
            prepared => format!(", and {prepared} are prepared (pg_prepared_xacts)"),
        };
        advise(format!(
            "a transaction in the database of the outbox {table} has been open for {} min{prepared}: what it has changed is invalidated when it ends, and the database can't clean up until then",
            open / 60_000
        ));
    }
    if outbox.set_aside > 0 {
        let dropped = match outbox.set_aside_dropped {
            0 => String::new(),
            dropped => format!(", and {dropped} more that are kept no longer"),
        };
        advise(format!(
            "{} rows of the outbox {table}{dropped} could not be read, and what they may have meant was invalidated; look at their reasons in the table beside it, mend who writes them, and delete them",
            outbox.set_aside
        ));
    }
    // Without Redis rows stay for a while.
    if let Some(oldest) = outbox
        .oldest_ms
        .filter(|oldest| outbox.shared && *oldest > LONGEST_WAIT_MS)
    {
        advise(format!(
            "the oldest of {} rows in the outbox {table} has waited for {} s; look whether Redis takes invalidations, and what holds the row's lock",
            outbox.depth.unwrap_or(1),
            oldest / 1_000
        ));
    }
}

/// Shortens and escapes a key of another program for one line of a log.
fn printable(key: &str) -> String {
    const LONGEST: usize = 60;
    let mut text: String = key.escape_debug().take(LONGEST).collect();
    if key.escape_debug().count() > LONGEST {
        text.push('…');
    }
    format!("`{text}`")
}

#[cfg(test)]
mod tests;
