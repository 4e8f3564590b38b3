//! Keeps a connection: makes it, watches it, and replaces it whenever it is lost.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use tokio::sync::watch;

use super::super::reads::batcher::{WORKERS, Worker};
use super::Connection;
use super::breaker::End;
use super::connection_watchers::{keep_time, watch_address, watch_health, watch_sentinels};
// Re-exported for `cluster/`.
use super::super::failover::sentinel::{SentinelAnswer, former_primaries_left};
pub(crate) use super::connections::Connections;
use super::connector::{CONNECT_BUDGET, NamedPrimary, RefusesWrites, connect};
use super::dial::IsCluster;
use super::errors::is_forbidden;
pub(crate) use super::supervisor_settings::SupervisorSettings;
use crate::base::clock;
use crate::base::error::Error;
use crate::base::nonce::Nonce;
use crate::config::RedisConfig;

/// At most this many reasons are logged for one outage.
const REASONS: usize = 8;

/// Why a new primary is not in use yet.
const AWAITED: &str =
    "the Sentinels name a new primary, which is used once no process uses the former one";

/// Why a connection has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopReason {
    /// The cache is closed, or the node has no slots any more.
    Closed,
    /// The server is a node of a cluster.
    IsCluster,
}

/// Connects, and connects again, until `closing` is set, or the server turns out to be a node of a
/// cluster.
pub(crate) async fn run(
    connections: Arc<Connections>,
    mut settings: SupervisorSettings,
    mut closing: watch::Receiver<bool>,
) -> StopReason {
    // The reasons that were logged in this outage.
    let mut logged = Vec::new();
    let mut past = Past::default();
    loop {
        connections.breaker.probe();
        let attempt = tokio::select! {
            attempt = connect(&mut settings) => attempt,
            _ = closing.wait_for(|closing| *closing) => break,
        };
        let (end, reason) = match attempt {
            Ok((connection, found)) => {
                logged.clear();
                let ended = keep(&connections, &settings, connection, found, &mut past);
                tokio::select! {
                    end = ended => end,
                    _ = closing.wait_for(|closing| *closing) => break,
                }
            }
            Err(error) => {
                if caused_by::<IsCluster>(&error) {
                    return StopReason::IsCluster;
                }
                (end_of(&error), error.to_string())
            }
        };
        *connections.failure.lock() = Some(reason.clone());
        let pause = connections.breaker.open(clock::now(), end);
        if matches!(
            end,
            End::GivenUp | End::RefusesWrites | End::NotPermitted | End::Failed
        ) {
            connections.watch.failed();
        }
        connections.attempted.send_replace(true);
        log_failure(&settings, &mut logged, reason);
        tokio::select! {
            () = connections.watch.pause(pause.usual, pause.wanted) => {}
            _ = closing.wait_for(|closing| *closing) => break,
        }
    }
    connections.set(None);
    StopReason::Closed
}

fn caused_by<E: std::error::Error + 'static>(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<E>())
}

/// What a failed attempt to connect means for the circuit breaker.
fn end_of(error: &Error) -> End {
    if caused_by::<RefusesWrites>(error) {
        End::RefusesWrites
    } else if is_forbidden(error) {
        End::NotPermitted
    } else {
        End::Failed
    }
}

/// Logs each reason once in an outage. A connection that was closed for one reason may be refused
/// now for another.
fn log_failure(settings: &SupervisorSettings, logged: &mut Vec<String>, reason: String) {
    if logged.len() >= REASONS || logged.contains(&reason) {
        return;
    }
    let RedisConfig { host, port, .. } = &settings.config;
    if settings.is_node {
        tracing::warn!(
            host,
            port,
            reason,
            "✗ the cluster's primary at {host}:{port} failed: {reason}"
        );
    } else {
        tracing::warn!(host, port, reason, "✗ Redis connection failed: {reason}");
        if logged.is_empty() {
            tracing::warn!("  Running without the Redis cache; reconnecting in the background");
        }
    }
    logged.push(reason);
}

/// Logs where the connection leads, and what its server lacks: that once for each capability.
fn log_connected(
    config: &RedisConfig,
    is_node: bool,
    connection: &Connection,
    logged: &mut Vec<String>,
) {
    let RedisConfig { host, port, .. } = config;
    if is_node {
        tracing::info!(
            host,
            port,
            "✓ connected to the cluster's primary at {host}:{port}"
        );
    } else {
        tracing::info!(host, port, "✓ Redis cache enabled at {host}:{port}");
    }
    for missing in &connection.capabilities.missing {
        if !logged.contains(missing) {
            tracing::warn!(host, port, missing, "the server lacks {missing}");
            logged.push(missing.clone());
        }
    }
}

/// Facts about earlier connections.
#[derive(Debug, Default)]
struct Past {
    /// The last server, and its address.
    server: Option<(Nonce, SocketAddr)>,
    /// The last primary that Sentinels had named and that was used, by the name that they gave.
    primary: Option<(String, u16)>,
    /// The missing capabilities that were logged.
    lacking: Vec<String>,
}

/// Ends a connection that is not used any more, so that its workers end.
struct EndOnDrop(Arc<Connection>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.give_up(|| "the cache was shut down".into());
    }
}

/// Uses a connection until it ends; returns why.
async fn keep(
    connections: &Connections,
    settings: &SupervisorSettings,
    connection: Connection,
    found: Option<NamedPrimary>,
    past: &mut Past,
) -> (End, String) {
    let connection = Arc::new(connection);
    let _ends = EndOnDrop(Arc::clone(&connection));
    for number in 0..WORKERS {
        let way = connection.round_trip;
        let worker = Worker::new(Arc::clone(&connection), number, way, settings.budget);
        // On the same runtime, so that waking the workers need not wake another thread.
        connection.home.spawn(worker.drive());
    }
    let config = found.as_ref().map(|found| found.config.clone());
    let config = config.unwrap_or_else(|| settings.config.clone());
    let named = found.as_ref().map(|found| found.named.clone());
    // A worker that does not get to run, because all threads of its runtime are blocked.
    let overdue = || connection.state.unanswered(settings.budget);
    let watchers = async {
        tokio::select! {
            never = keep_time(&connection) => never,
            never = watch_address(&connection, &config) => never,
            never = watch_health(&connection) => never,
            never = watch_sentinels(&connection, found) => never,
            never = connection.check_sync_when_needed(settings.budget) => never,
            never = connection.batcher().watch(settings.budget, overdue) => never,
        }
    };
    let mut watchers = pin!(watchers);
    if let Some(named) = &named {
        tokio::select! {
            () = await_former(connections, &settings.config, named, past.primary.as_ref()) => {}
            () = connection.state.changed.notified() => {}
            never = &mut watchers => match never {},
        }
    }
    // It may have ended meanwhile.
    if connection.is_usable() {
        past.primary = named.map(|named| (named.host, named.port));
        use_it(connections, &connection, past);
        log_connected(&config, settings.is_node, &connection, &mut past.lacking);
        connections.attempted.send_replace(true);
        tokio::select! {
            () = connection.state.changed.notified() => {}
            never = &mut watchers => match never {},
        }
        connections.set(None);
        connections.recent.iter().for_each(|recent| recent.left());
    }
    let given_up = connection.state.reason.lock().take();
    given_up.unwrap_or((End::Lost, String::new()))
}

/// Lets callers use a connection.
fn use_it(connections: &Connections, connection: &Arc<Connection>, past: &mut Past) {
    // Before anything is read over it. Otherwise a read would be kept in the epoch of an earlier
    // connection.
    connection.state.opens();
    connections.set(Some(Arc::clone(connection)));
    if let Some(tracker) = connection.tracker() {
        tracker.is_ready();
    }
    // With the address, since servers that don't identify themselves all have the same identity.
    let server = (connection.server, connection.address);
    match past.server.replace(server) {
        Some(former) if former != server => {
            connections.changes.send_modify(|changes| *changes += 1);
        }
        _ => connections
            .recent
            .iter()
            .for_each(|recent| recent.is_known()),
    }
    connections.breaker.close(clock::now());
    connections.watch.established();
}

/// Returns once no process uses a former primary. The application does not wait for that before it
/// starts.
async fn await_former(
    connections: &Connections,
    config: &RedisConfig,
    named: &SentinelAnswer,
    former: Option<&(String, u16)>,
) {
    let mut left = pin!(former_primaries_left(config, named, former));
    if crate::base::time::timeout(CONNECT_BUDGET, &mut left)
        .await
        .is_ok()
    {
        return;
    }
    let SentinelAnswer { host, port, .. } = named;
    tracing::info!(host, port, "{AWAITED}");
    *connections.failure.lock() = Some(AWAITED.into());
    connections.attempted.send_replace(true);
    left.await;
}
