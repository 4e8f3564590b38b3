//! Keeps a connection: makes it, watches it, and replaces it whenever it is lost.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
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
use super::dial::{Identity, IsCluster, dial, identify};
use super::errors::{NO_PRIMARY, described, is_no_answer, refused};
use super::fence::Fences;
use super::health::{self, Ailment, Health};
use super::link::{Link, LinkState};
use super::misplaced::Misplaced;
use super::probe;
use super::recent::Recent;
use super::reply::reading;
use super::scripts::{self, ScriptMode};
use super::sentinel::{self, Named, Sentinels};
use super::set_aside::SetAside;
use super::slots::SlotSet;
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

/// The current connection, which the task of [`keep`] replaces.
pub(super) struct Links {
    current: ArcSwapOption<Link>,
    breaker: Breaker,
    /// For tasks that wait for the next connection.
    pub(super) connection: ConnectionWatch,
    /// Why there was no connection, the last time.
    failure: Mutex<Option<String>>,
    /// Turns true after the first attempt to connect.
    attempted: watch::Sender<bool>,
    /// Delays acknowledgements while a former primary may still answer.
    pub(super) fences: Arc<Fences>,
    /// Counts the servers that have been the primary, for invalidations that have to be repeated.
    pub(super) changes: watch::Sender<u64>,
    /// Recent invalidations that the next primary may not know; only with Sentinels.
    pub(super) recent: Option<Arc<Recent>>,
}

impl Links {
    pub(super) fn new(
        connection: ConnectionWatch,
        attempted: watch::Sender<bool>,
        recent: Option<Arc<Recent>>,
    ) -> Self {
        Self {
            recent,
            current: ArcSwapOption::default(),
            breaker: Breaker::default(),
            connection,
            failure: Mutex::default(),
            attempted,
            fences: Arc::default(),
            changes: watch::Sender::default(),
        }
    }

    pub(super) fn current(&self) -> Result<Arc<Link>, Error> {
        self.using(Arc::clone)
    }

    /// Like `current`, without a reference count, which all threads would write to.
    pub(super) fn using<T>(&self, using: impl FnOnce(&Arc<Link>) -> T) -> Result<T, Error> {
        let link = self.current.load();
        let link = link.as_ref().filter(|link| link.is_usable());
        link.map(using)
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

    fn set(&self, link: Option<Arc<Link>>) {
        self.current.store(link);
    }
}

/// The error for a server that runs no scripts.
const NO_SCRIPTS: &str = "the server runs no scripts by EVALSHA or EVAL, which every change of the cache is made of; permit them (`+evalsha +script|load`), don't rename them, or use another server";

/// The error for a peer whose answers belong to other commands.
const OUT_OF_STEP: &str = "the peer's answers are not those to what it was asked";

/// Marks the error of a server that answers reads and takes no writes.
#[derive(Debug, thiserror::Error)]
#[error("writes are refused")]
struct RefusesWrites;

/// The settings of the supervisor.
#[derive(Clone)]
pub(super) struct Keeper {
    pub(super) config: RedisConfig,
    pub(super) trust_restart: bool,
    pub(super) health: Health,
    pub(super) tracking: Option<Tracking>,
    pub(super) misplaced: Arc<Misplaced>,
    pub(super) set_aside: Arc<SetAside>,
    /// The budget of one command.
    pub(super) budget: Duration,
    /// The application's runtime, if it has worker threads that poll on their own. A connection
    /// that it drives answers without waking another thread. When that runtime ends, the cache's
    /// own drives the next connection.
    pub(super) application: Option<Handle>,
    /// Whether the server is a node of a cluster, whose messages are logged by other code.
    pub(super) is_node: bool,
}

/// Why a connection has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// The cache is closed, or the node has no slots any more.
    ToTheEnd,
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
pub(super) async fn keep(
    links: Arc<Links>,
    mut keeper: Keeper,
    mut closing: watch::Receiver<bool>,
) -> Kept {
    // The reasons that were logged in this outage.
    let mut said = Vec::new();
    // The missing capabilities that were logged.
    let mut lacking: Vec<String> = Vec::new();
    let mut former = None;
    loop {
        links.breaker.probe();
        let attempt = tokio::select! {
            attempt = connect(&mut keeper) => attempt,
            _ = closing.wait_for(|closing| *closing) => break,
        };
        let (end, reason) = match attempt {
            Ok((link, found)) => {
                said.clear();
                let link = Arc::new(link);
                for number in 0..WORKERS {
                    let way = link.round_trip;
                    let worker = Worker::new(Arc::clone(&link), number, way, keeper.budget);
                    // On the same runtime, so that waking the workers need not wake another thread.
                    link.home.spawn(worker.drive());
                }
                if let Some(Found { named, .. }) = &found {
                    hold_acknowledgements(&links, &keeper.config, named);
                }
                // Before anything is read over it. Otherwise a read would be kept in the epoch of
                // an earlier connection.
                link.state.opens();
                links.set(Some(Arc::clone(&link)));
                if let Some(tracker) = link.tracker() {
                    tracker.is_ready();
                }
                // With the address, since servers that don't identify themselves all have the same
                // identity.
                let server = (link.server, link.address);
                match former.replace(server) {
                    Some(former) if former != server => {
                        links.changes.send_modify(|changes| *changes += 1);
                    }
                    _ => links.recent.iter().for_each(|recent| recent.is_known()),
                }
                links.breaker.close(clock::now());
                links.connection.established();
                let config = found.as_ref().map(|found| found.config.clone());
                let config = config.unwrap_or_else(|| keeper.config.clone());
                let RedisConfig { host, port, .. } = &config;
                match keeper.is_node {
                    true => tracing::info!("✓ connected to the cluster's primary at {host}:{port}"),
                    false => tracing::info!("✓ Redis cache enabled at {host}:{port}"),
                }
                for missing in &link.capabilities.missing {
                    if !lacking.contains(missing) {
                        tracing::warn!("the server lacks {missing}");
                        lacking.push(missing.clone());
                    }
                }
                links.attempted.send_replace(true);
                // A worker that does not get to run, because all threads of its runtime are
                // blocked.
                let overdue = || link.state.unanswered(keeper.budget);
                tokio::select! {
                    () = link.state.changed.notified() => {}
                    never = keep_time(&link) => match never {},
                    never = watch_address(&link, &config) => match never {},
                    never = watch_health(&link) => match never {},
                    never = watch_sentinels(&link, found) => match never {},
                    never = link.batcher().watch(keeper.budget, overdue) => match never {},
                    _ = closing.wait_for(|closing| *closing) => break,
                }
                links.set(None);
                links.recent.iter().for_each(|recent| recent.left());
                let given_up = link.state.reason.lock().take();
                given_up.unwrap_or((End::Lost, String::new()))
            }
            Err(error) => {
                let source = std::error::Error::source(&error);
                if source.is_some_and(|it| it.is::<IsCluster>()) {
                    return Kept::IsCluster;
                }
                let end = match source.is_some_and(|it| it.is::<RefusesWrites>()) {
                    true => End::RefusesWrites,
                    false => End::Failed,
                };
                (end, error.to_string())
            }
        };
        *links.failure.lock() = Some(reason.clone());
        let pause = links.breaker.open(clock::now(), end);
        if matches!(end, End::GivenUp | End::RefusesWrites | End::Failed) {
            links.connection.failed();
        }
        links.attempted.send_replace(true);
        // Each reason once in an outage. A connection that was closed for one reason may be refused
        // now for another.
        if said.len() < REASONS && !said.contains(&reason) {
            let RedisConfig { host, port, .. } = &keeper.config;
            match keeper.is_node {
                true => tracing::warn!("✗ the cluster's primary at {host}:{port} failed: {reason}"),
                false => tracing::warn!("✗ Redis connection failed: {reason}"),
            }
            if said.is_empty() && !keeper.is_node {
                tracing::warn!("  Running without the Redis cache; reconnecting in the background");
            }
            said.push(reason);
        }
        tokio::select! {
            () = links.connection.pause(pause.usual, pause.wanted) => {}
            _ = closing.wait_for(|closing| *closing) => break,
        }
    }
    if let Ok(link) = links.current() {
        link.state.give_up(|| "the cache was shut down".into());
    }
    links.set(None);
    Kept::ToTheEnd
}

/// Reads the server's clock again at intervals.
async fn keep_time(link: &Link) -> Infallible {
    loop {
        tokio::time::sleep(TIME_INTERVAL).await;
        let time = link.ask(CONNECT_BUDGET, async |connection| {
            redis::cmd("TIME").query_async(connection).await
        });
        if let Ok(time) = time.await {
            link.clock.read(reading(time));
        }
    }
}

async fn connect(keeper: &mut Keeper) -> Result<(Link, Option<Found>), Error> {
    if let Some(application) = &keeper.application {
        let mut attempt = application.spawn(open(keeper.clone()));
        match tokio::time::timeout(ANSWER_BUDGET, &mut attempt).await {
            Ok(Ok(link)) => return link,
            Ok(Err(error)) if error.is_panic() => {
                return Err(Error::unavailable("the client panicked while it connected"));
            }
            // That runtime has ended.
            Ok(Err(_)) => keeper.application = None,
            // Its threads are all blocked, perhaps by a caller that waits for this. It may drive
            // the next connection.
            Err(_) => attempt.abort(),
        }
    }
    open(keeper.clone()).await
}

/// A primary that Sentinels have named.
struct Found {
    config: RedisConfig,
    named: Named,
    sentinels: Sentinels,
}

async fn open(mut keeper: Keeper) -> Result<(Link, Option<Found>), Error> {
    let found = match Sentinels::of(&keeper.config) {
        Some(mut sentinels) => {
            let named = sentinels.ask().await?;
            keeper.config = keeper.config.settings_at(&named.host, named.port);
            Some(Found {
                config: keeper.config.clone(),
                named,
                sentinels,
            })
        }
        None => None,
    };
    Ok((open_server(keeper).await?, found))
}

/// Watches the answers of the Sentinels, if there are any.
async fn watch_sentinels(link: &Link, found: Option<Found>) -> Infallible {
    match found {
        Some(Found {
            named, sentinels, ..
        }) => sentinels.watch(link, named.epoch).await,
        None => std::future::pending().await,
    }
}

/// Delays acknowledgements until no other server claims to be the primary. A former primary goes on
/// answering, and taking writes, until it learns of the change.
fn hold_acknowledgements(links: &Links, config: &RedisConfig, named: &Named) {
    for (host, port) in &named.others {
        let mut slots = SlotSet::default();
        slots.add(0);
        let fence = links.fences.put_up(slots);
        tokio::spawn(sentinel::look_after(config.settings_at(host, *port), fence));
    }
}

async fn open_server(keeper: Keeper) -> Result<Link, Error> {
    let opened = tokio::time::timeout(CONNECT_BUDGET, async {
        let addresses = address::of(&keeper.config).await?;
        // The time is divided, so that one server that does not answer leaves time for the others.
        let budget = CONNECT_BUDGET / u32::try_from(addresses.len()).unwrap_or(u32::MAX);
        let mut first_error = None;
        for address in &addresses {
            let attempt = open_at(*address, &keeper);
            let error = match tokio::time::timeout(budget, attempt).await {
                Ok(Ok(link)) => return Ok(link),
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

async fn open_at(address: SocketAddr, keeper: &Keeper) -> Result<Link, Error> {
    let Keeper {
        config,
        trust_restart,
        health,
        tracking,
        ..
    } = keeper;
    let state = Arc::new(LinkState {
        tracker: tracking.as_ref().map(Tracking::tracker),
        misplaced: Arc::clone(&keeper.misplaced),
        set_aside: Arc::clone(&keeper.set_aside),
        ..LinkState::default()
    });
    let (mut connection, is_resp3) = dial(config, address, state.hears()).await?;
    let Identity {
        server,
        epoch,
        clock,
    } = identify(&mut connection, *trust_restart, keeper.is_node).await?;
    // A server that is loading its data, or accepts the login but no reads, must not be used.
    let probe = match health.key() {
        Some(key) => redis::cmd("MGET").arg(key.as_str()).clone(),
        None => redis::cmd("PING"),
    };
    let mut round_trip = Duration::MAX;
    for _ in 0..PROBES {
        let sent = clock::now();
        match probe.query_async::<Value>(&mut connection).await {
            Ok(_) => {}
            // The slot has just moved, which says nothing about the server.
            Err(error) if keeper.is_node && error.code() == Some("MOVED") => {}
            Err(error) => return Err(described(error)),
        }
        round_trip = round_trip.min(sent.elapsed());
    }
    state.batcher.set_round_trip(round_trip);
    let loads = scripts::all().map(|script| {
        let mut connection = connection.clone();
        async move { script.load(&mut connection).await }
    });
    // A user that may not load scripts may not run them, and each script that is run reports that.
    let out_of_step = |loaded| matches!(loaded, Err(error) if is_no_answer(&error));
    if join_all(loads).await.into_iter().any(out_of_step) {
        return Err(Error::unavailable(OUT_OF_STEP));
    }
    let mut scripts = ScriptMode::ByHash;
    let mut checked = health.check(&mut connection, scripts, described).await;
    if let Err(Ailment::RunsNoScripts(_)) = checked {
        scripts = ScriptMode::ByText;
        checked = health.check(&mut connection, scripts, described).await;
    }
    match checked {
        Ok(()) => {}
        Err(Ailment::RefusesWrites(reason)) => {
            return Err(Error::new(ErrorKind::Store, refused(&reason)).with_source(RefusesWrites));
        }
        Err(Ailment::RunsNoScripts(reason)) => {
            // The server answers reads and takes no invalidations: the state is `reads-only`.
            let text = format!("{NO_SCRIPTS} ({reason})");
            return Err(Error::new(ErrorKind::Store, text).with_source(RefusesWrites));
        }
        Err(Ailment::Unusable(reason)) => return Err(Error::new(ErrorKind::Store, reason)),
    }
    let mut capabilities = probe::examine(&mut connection, scripts, is_resp3).await;
    // Before anything is read over the connection.
    health.learn(&mut connection).await;
    match &state.tracker {
        Some(tracker) if is_resp3 => {
            let started = tracker.start(&mut connection).await;
            capabilities.missing.extend(probe::no_tracking(&started));
        }
        Some(tracker) => tracker.refuse("it does not speak RESP3"),
        None if is_resp3 => state.listeners.start(&mut connection).await,
        None => {}
    }
    Ok(Link {
        connection,
        server,
        epoch: AtomicU64::new(epoch),
        clock,
        capabilities,
        address,
        state,
        health: health.clone(),
        round_trip,
        home: Handle::current(),
    })
}

/// Other servers that answer under the same name, and the addresses that did not answer.
pub(super) async fn others(
    link: &Link,
    config: &RedisConfig,
) -> Result<(Vec<SocketAddr>, Vec<SocketAddr>), Error> {
    let (mut others, mut silent) = (Vec::new(), Vec::new());
    for address in address::of(config).await? {
        if address == link.address {
            continue;
        }
        let asked = async {
            let (mut connection, _) = dial(config, address, |_| {}).await?;
            identify(&mut connection, false, false).await
        };
        match tokio::time::timeout(CONNECT_BUDGET, asked).await {
            // Without `run_id`s nothing tells servers apart.
            Ok(Ok(_)) if link.server == Nonce::NONE => silent.push(address),
            Ok(Ok(it)) if it.server == link.server => {}
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
async fn watch_health(link: &Link) -> Infallible {
    loop {
        tokio::time::sleep(health::INTERVAL).await;
        // This closes the connection if the answer is no.
        if link.check_health().await.is_ok() {
            link.health.learn(&mut link.connection()).await;
        }
    }
}

/// Closes the connection when its name no longer leads to its server. If the name can't be
/// resolved, the connection stays.
async fn watch_address(link: &Link, config: &RedisConfig) -> Infallible {
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
            && !addresses.contains(&link.address)
        {
            link.has_moved(&config.host);
        }
    }
}
