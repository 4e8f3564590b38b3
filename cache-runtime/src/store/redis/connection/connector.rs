//! Makes a connection: finds the server, logs in, and checks that the server can be used.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::Value;
use redis::aio::MultiplexedConnection;
use tokio::runtime::{Handle, RuntimeFlavor};

use super::super::failover::confirmation::Asked;
use super::super::failover::sentinel::{SentinelAnswer, Sentinels};
use super::super::reads::read_sockets::{ReadServer, ReadSockets};
use super::super::scripts::{self, ScriptMode};
use super::super::tracking::Tracking;
use super::dial::{Identity, dial, identify};
use super::errors::{OTHER_HISTORY, described, is_no_answer, refused};
use super::health::{Health, HealthError, is_elsewhere};
use super::supervisor_settings::SupervisorSettings;
use super::{Connection, ConnectionState};
use super::{address, probe};
use crate::base::clock;
use crate::base::error::{Error, ErrorKind};
use crate::base::join;
use crate::config::RedisConfig;

/// How long connecting may take. It may take longer than a command, since no caller waits for it.
pub(crate) const CONNECT_BUDGET: Duration = Duration::from_secs(1);

/// How many round trips are measured, to know the shortest.
const PROBES: usize = 3;

/// How long the application's runtime may take to connect. It polls nothing while its threads are
/// blocked.
const ANSWER_BUDGET: Duration = CONNECT_BUDGET.saturating_mul(2);

/// The error for a server that runs no scripts.
const NO_SCRIPTS: &str = "the server runs no scripts by EVALSHA or EVAL, which every change of the cache is made of; permit them (`+evalsha +script|load`), don't rename them, or use another server";

/// The error for a peer whose answers belong to other commands.
const OUT_OF_STEP: &str = "the peer's answers are not those to what it was asked";

/// Marks the error of a server that answers reads and takes no writes.
#[derive(Debug)]
pub(crate) struct RefusesWrites;

impl fmt::Display for RefusesWrites {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("writes are refused")
    }
}

impl std::error::Error for RefusesWrites {}

/// The runtime that drives connections: the caller's, if its threads poll without a caller that
/// blocks on it.
pub(crate) fn driving_runtime() -> Option<Handle> {
    Handle::try_current()
        .ok()
        .filter(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread)
}

/// Makes a connection, on the application's runtime if it can.
pub(crate) async fn connect(
    settings: &mut SupervisorSettings,
) -> Result<(Connection, Option<NamedPrimary>), Error> {
    if let Some(application) = &settings.application {
        let mut attempt = application.spawn(open(settings.clone()));
        match crate::base::time::timeout(ANSWER_BUDGET, &mut attempt).await {
            Ok(Ok(connection)) => return connection,
            Ok(Err(error)) if error.is_panic() => {
                return Err(Error::unavailable("the client panicked while it connected"));
            }
            // That runtime has ended.
            Ok(Err(_)) => settings.application = None,
            // Its threads are all blocked, perhaps by a caller that waits for this. It may drive
            // the next connection.
            Err(_) => attempt.abort(),
        }
    }
    open(settings.clone()).await
}

/// A primary that Sentinels have named.
pub(crate) struct NamedPrimary {
    pub(crate) config: RedisConfig,
    asked: Asked,
    pub(crate) named: SentinelAnswer,
    pub(crate) sentinels: Sentinels,
}

async fn open(
    mut settings: SupervisorSettings,
) -> Result<(Connection, Option<NamedPrimary>), Error> {
    let found = match Sentinels::of(&settings.config, &settings.latest) {
        Some(mut sentinels) => {
            let (named, asked) = sentinels.primary().await?;
            settings.config = settings.config.settings_at(&named.host, named.port);
            Some(NamedPrimary {
                config: settings.config.clone(),
                asked,
                named,
                sentinels,
            })
        }
        None => None,
    };
    let opened = open_server(settings).await;
    let connection = opened.map_err(|error| match &found {
        Some(NamedPrimary { named, .. }) => {
            let SentinelAnswer { host, port, .. } = named;
            error.explained(format_args!(
                " (at {host}:{port}, which the Sentinels name as the primary)"
            ))
        }
        None => error,
    })?;
    if let Some(NamedPrimary { asked, .. }) = &found {
        connection.state.confirmation.confirm(*asked);
    }
    Ok((connection, found))
}

async fn open_server(settings: SupervisorSettings) -> Result<Connection, Error> {
    let opened = crate::base::time::timeout(CONNECT_BUDGET, async {
        let addresses = address::of(&settings.config).await?;
        // The time is divided, so that one server that does not answer leaves time for the others.
        let budget = CONNECT_BUDGET / u32::try_from(addresses.len()).unwrap_or(u32::MAX);
        let mut first_error = None;
        for address in &addresses {
            let attempt = open_at(*address, &settings);
            let error = match crate::base::time::timeout(budget, attempt).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => error,
                Err(_) => unconnected(budget),
            };
            first_error.get_or_insert(error);
        }
        Err(first_error.unwrap_or_else(|| unconnected(budget)))
    });
    opened
        .await
        .unwrap_or_else(|_| Err(unconnected(CONNECT_BUDGET)))
}

fn unconnected(budget: Duration) -> Error {
    Error::unavailable(format!("no answer within {} ms", budget.as_millis()))
}

async fn open_at(address: SocketAddr, settings: &SupervisorSettings) -> Result<Connection, Error> {
    let SupervisorSettings {
        config,
        trust_restart,
        health,
        tracking,
        ..
    } = settings;
    let state = Arc::new(ConnectionState {
        tracker: tracking.as_ref().map(Tracking::tracker),
        set_aside: Arc::clone(&settings.set_aside),
        confirmation: settings.confirmation.clone().unwrap_or_default(),
        ..ConnectionState::default()
    });
    let (mut multiplexed, is_resp3) = dial(config, address, state.on_push()).await?;
    let Identity {
        server,
        history,
        epoch,
        clock,
    } = identify(&mut multiplexed, *trust_restart, settings.is_node).await?;
    // It may have risen meanwhile, as others have said.
    settings.epoch.fetch_max(epoch, Ordering::AcqRel);
    let round_trip = shortest_round_trip(&mut multiplexed, health, settings.is_node).await?;
    state.batcher.set_round_trip(round_trip);
    let past = history.as_deref();
    let scripts = usable_scripts(&mut multiplexed, health, past).await?;
    let mut capabilities = probe::examine(&mut multiplexed, scripts, is_resp3).await;
    // Before anything is read over the connection.
    health.learn(&mut multiplexed).await;
    match &state.tracker {
        Some(tracker) if is_resp3 => {
            let started = tracker.start(&mut multiplexed).await;
            capabilities.missing.extend(probe::no_tracking(&started));
        }
        Some(tracker) => tracker.refuse("it does not speak RESP3"),
        None if is_resp3 => state.key_watchers.start(&mut multiplexed).await,
        None => {}
    }
    let read_sockets = match state.tracker.is_none() && !settings.is_node {
        true => {
            let server = ReadServer {
                config: config.clone(),
                address,
                identity: server,
                round_trip,
                budget: settings.budget,
                home: Handle::current(),
                background: settings.background.clone(),
            };
            ReadSockets::to(server, is_resp3)
        }
        false => ReadSockets::default(),
    };
    static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
    Ok(Connection {
        multiplexed,
        number: CONNECTIONS.fetch_add(1, Ordering::Relaxed),
        server,
        history,
        epoch: Arc::clone(&settings.epoch),
        clock,
        capabilities,
        address,
        state,
        health: health.clone(),
        round_trip,
        home: Handle::current(),
        read_sockets,
    })
}

/// The shortest of a few round trips. A server that is loading its data, or accepts the login but
/// no reads, gives an error, and must not be used.
async fn shortest_round_trip(
    multiplexed: &mut MultiplexedConnection,
    health: &Health,
    is_node: bool,
) -> Result<Duration, Error> {
    let probe = match health.key_to_write() {
        Some(key) => redis::cmd("MGET").arg(key.as_str()).clone(),
        None => redis::cmd("PING"),
    };
    let mut shortest = Duration::MAX;
    for _ in 0..PROBES {
        let sent = clock::now();
        match probe.query_async::<Value>(multiplexed).await {
            Ok(_) => {}
            // The slot is at another node, or on its way: that says nothing about the server.
            Err(error) if is_node && is_elsewhere(&error) => {}
            Err(error) => return Err(described(error)),
        }
        shortest = shortest.min(sent.elapsed());
    }
    Ok(shortest)
}

/// Loads the scripts, and checks that the server may be used with them. Returns how they are run.
async fn usable_scripts(
    multiplexed: &mut MultiplexedConnection,
    health: &Health,
    history: Option<&str>,
) -> Result<ScriptMode, Error> {
    let loads = scripts::all().map(|script| {
        let mut multiplexed = multiplexed.clone();
        async move { script.load(&mut multiplexed).await }
    });
    // A user that may not load scripts may not run them, and each script that is run reports that.
    let out_of_step = |loaded| matches!(loaded, Err(error) if is_no_answer(&error));
    if join::all(loads).await.into_iter().any(out_of_step) {
        return Err(Error::unavailable(OUT_OF_STEP));
    }
    // So that the reason is known before the time to connect is over.
    let at_once = health.clone().within(CONNECT_BUDGET / 2);
    let mut scripts = ScriptMode::ByHash;
    // Without a read, since there has just been one.
    let mut checked = at_once
        .check(multiplexed, scripts, history, false, described)
        .await;
    if let Err(HealthError::RunsNoScripts(_)) = checked {
        scripts = ScriptMode::ByText;
        checked = at_once
            .check(multiplexed, scripts, history, false, described)
            .await;
    }
    match checked {
        Ok(()) => Ok(scripts),
        Err(HealthError::RefusesWrites(reason)) => {
            Err(Error::new(ErrorKind::Store, refused(&reason)).with_source(RefusesWrites))
        }
        Err(HealthError::RunsNoScripts(reason)) => {
            // The server answers reads and takes no invalidations: the state is `reads-only`.
            let text = format!("{NO_SCRIPTS} ({reason})");
            Err(Error::new(ErrorKind::Store, text).with_source(RefusesWrites))
        }
        Err(HealthError::Unusable(reason)) => Err(Error::new(ErrorKind::Store, reason)),
        Err(HealthError::OtherHistory) => Err(Error::unavailable(OTHER_HISTORY)),
    }
}
