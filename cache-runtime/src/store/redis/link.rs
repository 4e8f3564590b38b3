//! The connection: made again for ever, and known by the server it leads to.
//!
//! A [`Link`] is one connection with the identity of its server. When it breaks it is never mended under the
//! hand of a command: a command that began on one link ends on it or fails, so that an entry and the
//! generations it is compared with come from one server. That is why this is not the client library's own
//! connection manager, which reconnects unseen.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, PushInfo, PushKind, RedisError, Value};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Notify, watch};

use super::address;
use super::batcher::{Batcher, WORKERS, Worker};
use super::breaker::{Breaker, End, FAILURES, Failures};
use super::dial::{dial, identify, reading};
use super::errors::{described, is_no_answer, is_read_only, is_write_refused};
use super::health::{Ailment, Health, NO_PRIMARY};
use super::listeners::Listeners;
use super::misplaced::Misplaced;
use super::probe::{self, Capabilities};
use super::scripts::{self, ScriptMode};
use super::set_aside::SetAside;
use super::tracking::{Tracker, Tracking};
use crate::base::clock::{self, RemoteClock};
use crate::base::error::{Error, ErrorKind, shortened};
use crate::base::nonce::Nonce;
use crate::base::paused::Held;
use crate::config::RedisConfig;
use crate::protocol::entry::Stamp;
use crate::store::{Circuit, ConnectionWatch, Word};

/// How long making a connection may take: longer than a command, since nobody waits for it.
const CONNECT_BUDGET: Duration = Duration::from_secs(1);
/// More reasons than these are not said of one outage.
const REASONS: usize = 8;
/// How many times it is tried, to know how long an answer takes at best.
const PROBES: usize = 3;
/// How often the server's clock is read: for as long as this, readers don't know that it was set.
const TIME_INTERVAL: Duration = Duration::from_secs(1);
/// How long the application's runtime may take to have made one; it polls nothing while its threads are blocked.
const ANSWER_BUDGET: Duration = CONNECT_BUDGET.saturating_mul(2);

/// One connection to one server.
pub(super) struct Link {
    connection: MultiplexedConnection,
    /// Names the server and its history: its `run_id` and `master_replid`.
    pub(super) server: Nonce,
    pub(super) clock: RemoteClock,
    pub(super) capabilities: Capabilities,
    /// Where the server was found.
    pub(super) address: SocketAddr,
    state: Arc<LinkState>,
    health: Health,
    /// How long an answer takes at best.
    round_trip: Duration,
    /// The runtime that drives the connection.
    home: Handle,
}

#[derive(Default)]
struct LinkState {
    broken: AtomicBool,
    /// Why it was given up.
    reason: Mutex<Option<(End, String)>>,
    failures: Failures,
    changed: Notify,
    batcher: Batcher,
    /// Those who wait for another process's load.
    listeners: Listeners,
    /// What the local tier learns over this connection, if there is one.
    tracker: Option<Tracker>,
    /// What this and earlier connections have answered for keys that were not its own.
    misplaced: Arc<Misplaced>,
    set_aside: Arc<SetAside>,
}

impl LinkState {
    fn give_up(&self, reason: impl FnOnce() -> String) {
        self.end(End::GivenUp, reason);
    }

    fn end(&self, end: End, reason: impl FnOnce() -> String) {
        if let Some(tracker) = &self.tracker {
            tracker.lost();
        }
        if !self.broken.swap(true, Ordering::AcqRel) {
            *self.reason.lock() = Some((end, reason()));
        }
        self.batcher.end();
        self.listeners.tell_all();
        self.changed.notify_one();
    }

    /// What becomes of what the server says by itself.
    fn hears(self: &Arc<Self>) -> impl Fn(PushInfo) + Send + Sync + 'static {
        let state = Arc::clone(self);
        move |push| match push.kind {
            PushKind::Disconnection => {
                state.end(End::Lost, || "the server closed the connection".into());
            }
            PushKind::Invalidate => {
                if let Some(tracker) = &state.tracker {
                    tracker.pushed(&push.data);
                }
                state.listeners.pushed(&push.data);
            }
            _ => {}
        }
    }

    fn unanswered(&self, budget: Duration) {
        if self.failures.unanswered() {
            self.give_up(|| {
                let budget = budget.as_millis();
                format!("{FAILURES} commands in a row had no answer within {budget} ms")
            });
        }
    }
}

/// A command on its way. Whoever gives up waiting for it before the budget is over, because the call it is a part of has
/// used up its own, has learnt the same of the server as one who waits to the end.
struct OnItsWay<'a> {
    state: &'a LinkState,
    budget: Duration,
    /// By the clock of the system: the caller may have Tokio's time paused.
    sent: std::time::Instant,
    is_over: bool,
}

impl Drop for OnItsWay<'_> {
    fn drop(&mut self) {
        if !self.is_over && self.sent.elapsed() >= self.budget / 2 {
            self.state.unanswered(self.budget);
        }
    }
}

impl Link {
    /// Runs one command, or a script, within the budget.
    pub(super) async fn ask<T: FromRedisValue>(
        &self,
        budget: Duration,
        ask: impl AsyncFnOnce(&mut MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, Error> {
        let mut connection = self.connection.clone();
        let mut sent = OnItsWay {
            state: &self.state,
            budget,
            sent: std::time::Instant::now(),
            is_over: false,
        };
        let _held = Held::for_at_most(budget);
        let answer = tokio::time::timeout(budget, ask(&mut connection)).await;
        sent.is_over = true;
        match answer {
            Ok(Ok(answer)) => {
                self.state.failures.answered();
                Ok(answer)
            }
            Ok(Err(error)) => {
                let is_over = error.is_connection_dropped() || error.is_io_error();
                let is_demoted = is_read_only(&error);
                // The answer of another command, or no Redis at all.
                let is_amiss = is_no_answer(&error);
                let takes_no_writes = is_write_refused(&error);
                let error = described(error);
                if takes_no_writes {
                    self.refuses_writes(&error.to_string());
                } else if is_over || is_amiss {
                    self.state.end(End::Lost, || error.to_string());
                } else if is_demoted {
                    self.state.give_up(|| error.to_string());
                } else {
                    self.state.failures.answered();
                }
                Err(error)
            }
            Err(_) => {
                self.state.unanswered(budget);
                Err(unanswered(budget))
            }
        }
    }

    pub(super) fn connection(&self) -> MultiplexedConnection {
        self.connection.clone()
    }

    /// Gives the connection up, since the server takes no invalidations.
    pub(super) fn refuses_writes(&self, reason: &str) {
        self.state.end(End::RefusesWrites, || refused(reason));
    }

    /// Writes, and asks for the role; a connection whose answer is no is given up.
    pub(super) async fn check_health(&self) -> Result<(), Error> {
        let scripts = self.capabilities.scripts;
        let mut connection = self.connection();
        let checked = self.health.check(&mut connection, scripts, described);
        match checked.await {
            Ok(()) => Ok(()),
            Err(Ailment::RefusesWrites(reason) | Ailment::RunsNoScripts(reason)) => {
                let error = Error::unavailable(refused(&reason));
                self.refuses_writes(&reason);
                Err(error)
            }
            Err(Ailment::Unusable(reason)) => {
                let error = Error::unavailable(reason.as_str());
                self.give_up(|| reason);
                Err(error)
            }
        }
    }

    pub(super) fn tracker(&self) -> Option<&Tracker> {
        self.state.tracker.as_ref()
    }

    pub(super) fn set_aside(&self) -> &SetAside {
        &self.state.set_aside
    }

    pub(super) fn batcher(&self) -> &Batcher {
        &self.state.batcher
    }

    pub(super) fn give_up(&self, reason: impl FnOnce() -> String) {
        self.state.give_up(reason);
    }

    /// Gives the connection up, since the name of the server leads to other ones.
    pub(super) fn has_moved(&self, name: &str) {
        let reason = || format!("`{name}` no longer leads to {}", self.address);
        self.state.end(End::Moved, reason);
    }

    pub(super) fn abandon(&self) {
        let reason = || "the runtime that drove the connection has ended".into();
        self.state.end(End::Abandoned, reason);
    }

    /// Gives the connection up for an answer that can't be that of the command.
    pub(super) fn answers_amiss(&self, error: Error) -> Error {
        self.state.end(End::Lost, || error.to_string());
        error
    }

    /// Whether an entry of another key under this one is a reason to give the connection up, which is done then: the
    /// first time that it is seen. Seen again on the next connection, it does lie there.
    pub(super) fn is_off_by_others(&self, key: &str, stamp: Stamp) -> bool {
        let is_news = self.state.misplaced.is_news(key, stamp);
        if is_news {
            self.state.end(End::Lost, || {
                let key = shortened(key);
                format!("for `{key}` came an entry of another key; answers may belong to others")
            });
        }
        is_news
    }

    /// Asks for word of a key's next change; `None` if the server sends none.
    pub(super) async fn listen(&self, key: &str, budget: Duration) -> Result<Option<Word>, Error> {
        let listeners = &self.state.listeners;
        let opts_in = listeners.opts_in();
        if !opts_in && !self.tracker().is_some_and(Tracker::is_on) {
            return Ok(None);
        }
        let word = listeners.listen(key);
        let track = async |it: &mut MultiplexedConnection| listeners.track(it, key, opts_in).await;
        self.ask(budget, track).await.map(|()| Some(word))
    }

    fn is_usable(&self) -> bool {
        !self.state.broken.load(Ordering::Acquire)
    }
}

/// What is said of a server that takes no invalidations.
fn refused(reason: &str) -> String {
    format!("Redis answers reads and refuses writes, so nothing is served from it: {reason}")
}

/// What is said of a command that has used up its budget.
pub(super) fn unanswered(budget: Duration) -> Error {
    let budget = budget.as_millis();
    Error::unavailable(format!("Redis did not answer within {budget} ms"))
}

/// The link in use, replaced by the task of [`keep`].
#[derive(Default)]
pub(super) struct Links {
    current: ArcSwapOption<Link>,
    breaker: Breaker,
    /// For those who wait for the next one.
    pub(super) connection: ConnectionWatch,
    /// Why there was none, the last time.
    failure: Mutex<Option<String>>,
}

impl Links {
    pub(super) fn current(&self) -> Result<Arc<Link>, Error> {
        self.using(Arc::clone)
    }

    /// The same without a count, which all threads would write to.
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
            // Given up, and the task that keeps it has not heard of it yet.
            Circuit::Closed if !self.is_connected() => Circuit::Open,
            circuit => circuit,
        }
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    fn set(&self, link: Option<Arc<Link>>) {
        self.current.store(link);
    }
}

/// What is said of a server that runs no scripts.
const NO_SCRIPTS: &str = "the server runs no scripts by EVALSHA or EVAL, which every change of the cache is made of; permit them (`+evalsha +script|load`), don't rename them, or use another server";

/// Marks the error of a server that answers and takes no writes.
#[derive(Debug, thiserror::Error)]
#[error("writes are refused")]
struct RefusesWrites;

/// What the task that keeps the link needs to know.
#[derive(Clone)]
pub(super) struct Keeper {
    pub(super) config: RedisConfig,
    pub(super) trust_restart: bool,
    pub(super) health: Health,
    pub(super) tracking: Option<Tracking>,
    pub(super) misplaced: Arc<Misplaced>,
    pub(super) set_aside: Arc<SetAside>,
    /// For one command.
    pub(super) budget: Duration,
    /// The application's runtime, if it has worker threads that poll on their own: a connection driven there
    /// answers without waking another thread. When that runtime ends, the next link is driven here.
    pub(super) application: Option<Handle>,
}

/// The runtime to drive connections on: the caller's, if it does not depend on somebody blocking on it.
pub(super) fn driving_runtime() -> Option<Handle> {
    Handle::try_current()
        .ok()
        .filter(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread)
}

/// Connects, and connects again, until `closing` says so. `attempted` turns true after the first attempt.
pub(super) async fn keep(
    links: Arc<Links>,
    mut keeper: Keeper,
    attempted: watch::Sender<bool>,
    mut closing: watch::Receiver<bool>,
) {
    // Why there is no connection, as far as it was said.
    let mut said = Vec::new();
    // What its server lacks, as far as it was said.
    let mut lacking: Vec<String> = Vec::new();
    loop {
        links.breaker.probe();
        let attempt = tokio::select! {
            attempt = connect(&mut keeper) => attempt,
            _ = closing.wait_for(|closing| *closing) => break,
        };
        let (end, reason) = match attempt {
            Ok(link) => {
                said.clear();
                let link = Arc::new(link);
                for number in 0..WORKERS {
                    let way = link.round_trip;
                    let worker = Worker::new(Arc::clone(&link), number, way, keeper.budget);
                    // On that very runtime: what wakes them need not wake another thread.
                    link.home.spawn(worker.drive());
                }
                links.set(Some(Arc::clone(&link)));
                if let Some(tracker) = &link.state.tracker {
                    tracker.open();
                }
                links.breaker.close(clock::now());
                links.connection.established();
                tracing::info!(
                    "✓ Redis cache enabled at {}:{}",
                    keeper.config.host,
                    keeper.config.port
                );
                for missing in &link.capabilities.missing {
                    if !lacking.contains(missing) {
                        tracing::warn!("the server lacks {missing}");
                        lacking.push(missing.clone());
                    }
                }
                attempted.send_replace(true);
                // Of a worker that does not get to it: its runtime's threads are all blocked.
                let overdue = || link.state.unanswered(keeper.budget);
                tokio::select! {
                    () = link.state.changed.notified() => {}
                    never = keep_time(&link) => match never {},
                    never = address::watch(&link, &keeper.config) => match never {},
                    never = link.health.watch(&link, described) => match never {},
                    never = link.batcher().watch(keeper.budget, overdue) => match never {},
                    _ = closing.wait_for(|closing| *closing) => break,
                }
                links.set(None);
                let given_up = link.state.reason.lock().take();
                given_up.unwrap_or((End::Lost, String::new()))
            }
            Err(error) => {
                let source = std::error::Error::source(&error);
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
        attempted.send_replace(true);
        // Each reason once in an outage: the connection that was closed may be refused now for another.
        if said.len() < REASONS && !said.contains(&reason) {
            tracing::warn!("✗ Redis connection failed: {reason}");
            if said.is_empty() {
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
}

/// Reads the server's clock again from time to time.
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

async fn connect(keeper: &mut Keeper) -> Result<Link, Error> {
    if let Some(application) = &keeper.application {
        let mut attempt = application.spawn(open(keeper.clone()));
        match tokio::time::timeout(ANSWER_BUDGET, &mut attempt).await {
            Ok(Ok(link)) => return link,
            // That runtime has ended.
            Ok(Err(_)) => keeper.application = None,
            // Its threads are all blocked, perhaps by one who waits for this. The next link may be driven there.
            Err(_) => attempt.abort(),
        }
    }
    open(keeper.clone()).await
}

async fn open(keeper: Keeper) -> Result<Link, Error> {
    let opened = tokio::time::timeout(CONNECT_BUDGET, async {
        let addresses = address::of(&keeper.config).await?;
        // One that does not answer leaves time for the others.
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
    let (server, clock) = identify(&mut connection, *trust_restart).await?;
    // A server that is loading, or lets us log in but not read, is not one to send reads to.
    let mut probe = redis::cmd("MGET");
    probe.arg(health.key());
    let mut round_trip = Duration::MAX;
    for _ in 0..PROBES {
        let sent = clock::now();
        probe
            .query_async::<Value>(&mut connection)
            .await
            .map_err(described)?;
        round_trip = round_trip.min(sent.elapsed());
    }
    state.batcher.set_round_trip(round_trip);
    let loads = scripts::all().map(|script| {
        let mut connection = connection.clone();
        async move { script.load(&mut connection).await }
    });
    // Who may not load them may not run them, and is told so by each.
    let _ = join_all(loads).await;
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
            return Err(Error::new(
                ErrorKind::Store,
                format!("{NO_SCRIPTS} ({reason})"),
            ));
        }
        Err(Ailment::Unusable(reason)) => return Err(Error::new(ErrorKind::Store, reason)),
    }
    let capabilities = probe::examine(&mut connection, scripts, is_resp3).await;
    match &state.tracker {
        Some(tracker) if is_resp3 => tracker.start(&mut connection).await,
        Some(tracker) => tracker.refuse("it does not speak RESP3"),
        None if is_resp3 => state.listeners.start(&mut connection).await,
        None => {}
    }
    Ok(Link {
        connection,
        server,
        clock,
        capabilities,
        address,
        state,
        health: health.clone(),
        round_trip,
        home: Handle::current(),
    })
}

/// Where another server than the one in use answers under the same name, and of which addresses that is not known.
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
            identify(&mut connection, false).await
        };
        match tokio::time::timeout(CONNECT_BUDGET, asked).await {
            // Without `run_id`s nothing tells servers apart.
            Ok(Ok(_)) if link.server == Nonce::NONE => silent.push(address),
            Ok(Ok((server, _))) if server == link.server => {}
            Ok(Ok(_)) => others.push(address),
            // A replica is passed over when a connection is made.
            Ok(Err(error)) if error.to_string() == NO_PRIMARY => {}
            _ => silent.push(address),
        }
    }
    Ok((others, silent))
}
