//! Keeps a connection: makes it, watches it, and replaces it whenever it is lost.

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::Value;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;

use super::address;
use super::batcher::{WORKERS, Worker};
use super::breaker::{Breaker, End};
use super::confirmation::{Asked, Confirmation};
use super::connection::{Connection, ConnectionState};
use super::dial::{Identity, IsCluster, dial, identify};
use super::errors::{NO_PRIMARY, described, is_no_answer, refused};
use super::health::{self, Health, HealthError};
use super::own_batches;
use super::probe;
use super::recent::RecentInvalidations;
use super::reply::reading;
use super::runtimes::RuntimeConnections;
use super::scripts::{self, ScriptMode};
use super::sentinel::{LatestEpoch, SentinelAnswer, Sentinels, former_primaries_left};
use super::set_aside::SetAside;
use super::tracking::Tracking;
use crate::base::clock;
use crate::base::error::{Error, ErrorKind};
use crate::base::nonce::Nonce;
use crate::config::RedisConfig;
use crate::store::{Circuit, ConnectionWatch};

/// How long connecting may take. It may take longer than a command, since no caller waits for it.
const CONNECT_BUDGET: Duration = Duration::from_secs(1);

/// At most this many reasons are logged for one outage.
const REASONS: usize = 8;

/// How many round trips are measured, to know the shortest.
const PROBES: usize = 3;

/// How often the server's clock is read. A change of the clock goes unnoticed for at most this
/// time.
const TIME_INTERVAL: Duration = Duration::from_secs(1);

/// How long the application's runtime may take to connect. It polls nothing while its threads are
/// blocked.
const ANSWER_BUDGET: Duration = CONNECT_BUDGET.saturating_mul(2);

/// The current connection to one server, which the task of [`run`] replaces.
pub(super) struct Connections {
    current: ArcSwapOption<Connection>,
    breaker: Breaker,
    /// For tasks that wait for the next connection.
    pub(super) watch: ConnectionWatch,
    /// Why there was no connection, the last time.
    failure: Mutex<Option<String>>,
    /// Turns true after the first attempt to connect.
    attempted: watch::Sender<bool>,
    /// Counts the servers that have been the primary, for invalidations that have to be repeated.
    pub(super) changes: watch::Sender<u64>,
    /// Recent invalidations that the next primary may not know; only with Sentinels.
    pub(super) recent: Option<Arc<RecentInvalidations>>,
}

impl Connections {
    pub(super) fn new(
        watch: ConnectionWatch,
        attempted: watch::Sender<bool>,
        recent: Option<Arc<RecentInvalidations>>,
    ) -> Self {
        Self {
            recent,
            current: ArcSwapOption::default(),
            breaker: Breaker::default(),
            watch,
            failure: Mutex::default(),
            attempted,
            changes: watch::Sender::default(),
        }
    }

    pub(super) fn current(&self) -> Result<Arc<Connection>, Error> {
        self.using(Arc::clone)
    }

    /// Like `current`, without a reference count, which all threads would write to.
    pub(super) fn using<T>(&self, using: impl FnOnce(&Arc<Connection>) -> T) -> Result<T, Error> {
        let connection = self.current.load();
        let connection = connection
            .as_ref()
            .filter(|connection| connection.is_usable());
        connection
            .map(using)
            .ok_or_else(|| Error::unavailable("Redis is not connected"))
    }

    pub(super) fn is_connected(&self) -> bool {
        self.using(|_| ()).is_ok()
    }

    pub(super) fn circuit(&self) -> Circuit {
        match self.breaker.circuit() {
            // It was closed, and the supervisor has not noticed yet.
            Circuit::Closed if !self.is_connected() => Circuit::Open,
            circuit => circuit,
        }
    }

    pub(super) fn openings(&self) -> u64 {
        self.breaker.openings()
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    fn set(&self, connection: Option<Arc<Connection>>) {
        self.current.store(connection);
    }
}

/// The error for a server that runs no scripts.
const NO_SCRIPTS: &str = "the server runs no scripts by EVALSHA or EVAL, which every change of the cache is made of; permit them (`+evalsha +script|load`), don't rename them, or use another server";

/// The error for a peer whose answers belong to other commands.
const OUT_OF_STEP: &str = "the peer's answers are not those to what it was asked";

/// Why a new primary is not in use yet.
const AWAITED: &str =
    "the Sentinels name a new primary, which is used once no process uses the former one";

/// Marks the error of a server that answers reads and takes no writes.
#[derive(Debug)]
struct RefusesWrites;

impl fmt::Display for RefusesWrites {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("writes are refused")
    }
}

impl std::error::Error for RefusesWrites {}

/// The settings of the supervisor.
#[derive(Clone)]
pub(super) struct SupervisorSettings {
    pub(super) config: RedisConfig,
    pub(super) trust_restart: bool,
    pub(super) health: Health,
    pub(super) tracking: Option<Tracking>,
    pub(super) set_aside: Arc<SetAside>,
    /// The budget of one command.
    pub(super) budget: Duration,
    /// The application's runtime, if it has worker threads that poll on their own. A connection
    /// that it drives answers without waking another thread. When that runtime ends, the cache's
    /// own drives the next connection.
    pub(super) application: Option<Handle>,
    /// Whether the server is a node of a cluster, whose messages are logged by other code.
    pub(super) is_node: bool,
    /// The latest failover that Sentinels have told of.
    pub(super) latest: Arc<LatestEpoch>,
    /// The epoch of a node of a cluster, as far as is known.
    pub(super) epoch: Arc<AtomicU64>,
    /// Until when the nodes of a cluster may be used.
    pub(super) confirmation: Option<Arc<Confirmation>>,
}

/// Why a connection has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopReason {
    /// The cache is closed, or the node has no slots any more.
    Closed,
    /// The server is a node of a cluster.
    IsCluster,
}

/// The runtime that drives connections: the caller's, if its threads poll without a caller that
/// blocks on it.
pub(super) fn driving_runtime() -> Option<Handle> {
    Handle::try_current()
        .ok()
        .filter(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread)
}

/// Connects, and connects again, until `closing` is set, or the server turns out to be a node of a
/// cluster.
pub(super) async fn run(
    connections: Arc<Connections>,
    mut settings: SupervisorSettings,
    mut closing: watch::Receiver<bool>,
) -> StopReason {
    // The reasons that were logged in this outage.
    let mut said = Vec::new();
    let mut past = Past::default();
    loop {
        connections.breaker.probe();
        let attempt = tokio::select! {
            attempt = connect(&mut settings) => attempt,
            _ = closing.wait_for(|closing| *closing) => break,
        };
        let (end, reason) = match attempt {
            Ok((connection, found)) => {
                said.clear();
                let ended = keep(&connections, &settings, connection, found, &mut past);
                tokio::select! {
                    end = ended => end,
                    _ = closing.wait_for(|closing| *closing) => break,
                }
            }
            Err(error) => {
                let source = std::error::Error::source(&error);
                if source.is_some_and(|it| it.is::<IsCluster>()) {
                    return StopReason::IsCluster;
                }
                let end = match source.is_some_and(|it| it.is::<RefusesWrites>()) {
                    true => End::RefusesWrites,
                    false => End::Failed,
                };
                (end, error.to_string())
            }
        };
        *connections.failure.lock() = Some(reason.clone());
        let pause = connections.breaker.open(clock::now(), end);
        if matches!(end, End::GivenUp | End::RefusesWrites | End::Failed) {
            connections.watch.failed();
        }
        connections.attempted.send_replace(true);
        // Each reason once in an outage. A connection that was closed for one reason may be refused
        // now for another.
        if said.len() < REASONS && !said.contains(&reason) {
            let RedisConfig { host, port, .. } = &settings.config;
            match settings.is_node {
                true => tracing::warn!("✗ the cluster's primary at {host}:{port} failed: {reason}"),
                false => tracing::warn!("✗ Redis connection failed: {reason}"),
            }
            if said.is_empty() && !settings.is_node {
                tracing::warn!("  Running without the Redis cache; reconnecting in the background");
            }
            said.push(reason);
        }
        tokio::select! {
            () = connections.watch.pause(pause.usual, pause.wanted) => {}
            _ = closing.wait_for(|closing| *closing) => break,
        }
    }
    connections.set(None);
    StopReason::Closed
}

/// What is known of earlier connections.
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
    own_batches::allow(&connection, settings.budget);
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
        let RedisConfig { host, port, .. } = &config;
        match settings.is_node {
            true => tracing::info!("✓ connected to the cluster's primary at {host}:{port}"),
            false => tracing::info!("✓ Redis cache enabled at {host}:{port}"),
        }
        for missing in &connection.capabilities.missing {
            if !past.lacking.contains(missing) {
                tracing::warn!("the server lacks {missing}");
                past.lacking.push(missing.clone());
            }
        }
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
    if tokio::time::timeout(CONNECT_BUDGET, &mut left)
        .await
        .is_ok()
    {
        return;
    }
    tracing::info!("{AWAITED}");
    *connections.failure.lock() = Some(AWAITED.into());
    connections.attempted.send_replace(true);
    left.await;
}

/// Reads the server's clock again at intervals.
async fn keep_time(connection: &Connection) -> Infallible {
    loop {
        tokio::time::sleep(TIME_INTERVAL).await;
        let time = connection.ask(CONNECT_BUDGET, async |multiplexed| {
            redis::cmd("TIME").query_async(multiplexed).await
        });
        if let Ok(time) = time.await {
            connection.clock.read(reading(time));
        }
    }
}

async fn connect(
    settings: &mut SupervisorSettings,
) -> Result<(Connection, Option<NamedPrimary>), Error> {
    if let Some(application) = &settings.application {
        let mut attempt = application.spawn(open(settings.clone()));
        match tokio::time::timeout(ANSWER_BUDGET, &mut attempt).await {
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
struct NamedPrimary {
    config: RedisConfig,
    asked: Asked,
    named: SentinelAnswer,
    sentinels: Sentinels,
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
    let connection = open_server(settings).await?;
    if let Some(NamedPrimary { asked, .. }) = &found {
        connection.state.confirmation.confirm(*asked);
    }
    Ok((connection, found))
}

/// Watches the answers of the Sentinels, if there are any.
async fn watch_sentinels(connection: &Connection, found: Option<NamedPrimary>) -> Infallible {
    match found {
        Some(NamedPrimary {
            named, sentinels, ..
        }) => sentinels.watch(connection, named).await,
        None => std::future::pending().await,
    }
}

async fn open_server(settings: SupervisorSettings) -> Result<Connection, Error> {
    let opened = tokio::time::timeout(CONNECT_BUDGET, async {
        let addresses = address::of(&settings.config).await?;
        // The time is divided, so that one server that does not answer leaves time for the others.
        let budget = CONNECT_BUDGET / u32::try_from(addresses.len()).unwrap_or(u32::MAX);
        let mut first_error = None;
        for address in &addresses {
            let attempt = open_at(*address, &settings);
            let error = match tokio::time::timeout(budget, attempt).await {
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
    let (mut multiplexed, is_resp3) = dial(config, address, state.hears()).await?;
    let Identity {
        server,
        epoch,
        clock,
    } = identify(&mut multiplexed, *trust_restart, settings.is_node).await?;
    // It may have risen meanwhile, as others have said.
    settings.epoch.fetch_max(epoch, Ordering::AcqRel);
    // A server that is loading its data, or accepts the login but no reads, must not be used.
    let probe = match health.key() {
        Some(key) => redis::cmd("MGET").arg(key.as_str()).clone(),
        None => redis::cmd("PING"),
    };
    let mut round_trip = Duration::MAX;
    for _ in 0..PROBES {
        let sent = clock::now();
        match probe.query_async::<Value>(&mut multiplexed).await {
            Ok(_) => {}
            // The slot has just moved, which says nothing about the server.
            Err(error) if settings.is_node && error.code() == Some("MOVED") => {}
            Err(error) => return Err(described(error)),
        }
        round_trip = round_trip.min(sent.elapsed());
    }
    state.batcher.set_round_trip(round_trip);
    let loads = scripts::all().map(|script| {
        let mut multiplexed = multiplexed.clone();
        async move { script.load(&mut multiplexed).await }
    });
    // A user that may not load scripts may not run them, and each script that is run reports that.
    let out_of_step = |loaded| matches!(loaded, Err(error) if is_no_answer(&error));
    if join_all(loads).await.into_iter().any(out_of_step) {
        return Err(Error::unavailable(OUT_OF_STEP));
    }
    let mut scripts = ScriptMode::ByHash;
    let mut checked = health.check(&mut multiplexed, scripts, described).await;
    if let Err(HealthError::RunsNoScripts(_)) = checked {
        scripts = ScriptMode::ByText;
        checked = health.check(&mut multiplexed, scripts, described).await;
    }
    match checked {
        Ok(()) => {}
        Err(HealthError::RefusesWrites(reason)) => {
            return Err(Error::new(ErrorKind::Store, refused(&reason)).with_source(RefusesWrites));
        }
        Err(HealthError::RunsNoScripts(reason)) => {
            // The server answers reads and takes no invalidations: the state is `reads-only`.
            let text = format!("{NO_SCRIPTS} ({reason})");
            return Err(Error::new(ErrorKind::Store, text).with_source(RefusesWrites));
        }
        Err(HealthError::Unusable(reason)) => return Err(Error::new(ErrorKind::Store, reason)),
    }
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
    let runtimes = match state.tracker.is_none() && !settings.is_node {
        true => RuntimeConnections::to(config, address, server, round_trip, settings.budget),
        false => RuntimeConnections::default(),
    };
    Ok(Connection {
        multiplexed,
        server,
        epoch: Arc::clone(&settings.epoch),
        clock,
        capabilities,
        address,
        state,
        health: health.clone(),
        round_trip,
        home: Handle::current(),
        runtimes,
    })
}

/// Other servers that answer under the same name, and the addresses that did not answer.
pub(super) async fn others(
    connection: &Connection,
    config: &RedisConfig,
) -> Result<(Vec<SocketAddr>, Vec<SocketAddr>), Error> {
    let (mut others, mut silent) = (Vec::new(), Vec::new());
    for address in address::of(config).await? {
        if address == connection.address {
            continue;
        }
        let asked = async {
            let (mut multiplexed, _) = dial(config, address, |_| {}).await?;
            identify(&mut multiplexed, false, false).await
        };
        match tokio::time::timeout(CONNECT_BUDGET, asked).await {
            // Without `run_id`s nothing tells servers apart.
            Ok(Ok(_)) if connection.server == Nonce::NONE => silent.push(address),
            Ok(Ok(it)) if it.server == connection.server => {}
            Ok(Ok(_)) => others.push(address),
            // A replica is skipped when a connection is made.
            Ok(Err(error)) if error.to_string() == NO_PRIMARY => {}
            _ => silent.push(address),
        }
    }
    Ok((others, silent))
}

/// Checks again and again whether the server takes writes and is the primary. Closes the connection
/// if not.
async fn watch_health(connection: &Connection) -> Infallible {
    loop {
        tokio::time::sleep(health::INTERVAL).await;
        // This closes the connection if the answer is no.
        if connection.check_health().await.is_ok() {
            connection.health.learn(&mut connection.multiplexed()).await;
        }
    }
}

/// Closes the connection when its name no longer leads to its server. If the name can't be
/// resolved, the connection stays.
async fn watch_address(connection: &Connection, config: &RedisConfig) -> Infallible {
    if config.host.parse::<IpAddr>().is_ok() {
        return std::future::pending().await;
    }
    loop {
        address::given::changed_or(tokio::time::sleep(address::INTERVAL)).await;
        if crate::base::mutation::is_active("name-resolved-once") {
            continue;
        }
        let resolved = tokio::time::timeout(address::BUDGET, address::of(config)).await;
        if let Ok(Ok(addresses)) = resolved
            && !addresses.contains(&connection.address)
        {
            connection.has_moved(&config.host);
        }
    }
}
