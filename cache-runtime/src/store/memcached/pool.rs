//! The connections to one server, and the task that watches the server.
//!
//! An operation takes a connection for itself, since the client answers one caller at a time. While
//! the server does not answer, the circuit is open and nothing is asked: five operations in a row
//! without an answer, or a connection that can't be made, open it. The watching task tries the
//! server again, with pauses, and closes the circuit once it answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{AcquireError, Notify, Semaphore, SemaphorePermit, watch};

use super::clock::ServerClock;
use super::connection::{Connection, Failure, ServerAddress, targets};
use crate::base::error::Error;
use crate::base::join;
use crate::base::nonce::Nonce;
use crate::base::paused::PauseGuard;
use crate::config::MemcachedConfig;
use crate::store::{Circuit, ConnectionWatch, Fullness};

/// The most connections at a time; further operations wait for one.
const CONNECTIONS: usize = 16;
/// Further ones for writes alone: invalidations and announcements don't wait behind reads.
const FOR_WRITES: usize = 4;
/// So many operations in a row without an answer open the circuit.
const FAILURES: u32 = 5;
/// How often the server is asked for its identity while it answers.
const CHECK: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// The same while invalidations wait.
const FIRST_SHORT_PAUSE: Duration = Duration::from_millis(5);
const LAST_SHORT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct ConnectionPool {
    config: MemcachedConfig,
    budget: Duration,
    pub(super) clock: ServerClock,
    fullness: Fullness,
    runtime: Handle,
    permits: Semaphore,
    for_writes: Semaphore,
    state: Mutex<State>,
    failures: AtomicU32,
    /// Wakes the watching task: the server may be away.
    doubt: Notify,
    pub(super) watch: ConnectionWatch,
    closed: watch::Sender<bool>,
}

struct State {
    circuit: Circuit,
    reason: Option<String>,
    /// The server in use.
    server: Option<(ServerAddress, Nonce)>,
    /// The process of the last server.
    process: Nonce,
    idle: Vec<Connection>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("circuit", &self.circuit)
            .field("server", &self.server)
            .field("idle", &self.idle.len())
            .finish()
    }
}

impl ConnectionPool {
    /// Starts the watching task, and returns once it has tried the server for the first time.
    pub(super) async fn start(
        config: &MemcachedConfig,
        budget: Duration,
        runtime: &Handle,
    ) -> Arc<Self> {
        let pool = Arc::new(Self {
            config: config.clone(),
            budget,
            clock: ServerClock::default(),
            fullness: Fullness::default(),
            runtime: runtime.clone(),
            permits: Semaphore::new(CONNECTIONS),
            for_writes: Semaphore::new(FOR_WRITES),
            state: Mutex::new(State {
                circuit: Circuit::HalfOpen,
                reason: None,
                server: None,
                process: Nonce::NONE,
                idle: Vec::new(),
            }),
            failures: AtomicU32::new(0),
            doubt: Notify::new(),
            watch: ConnectionWatch::default(),
            closed: watch::Sender::new(false),
        });
        let (tried, mut first) = watch::channel(false);
        let (watched, mut closed) = (Arc::clone(&pool), pool.closed.subscribe());
        runtime.spawn(async move {
            tokio::select! {
                () = watched.watch_for_ever(tried) => {}
                _ = closed.wait_for(|closed| *closed) => {}
            }
        });
        let _held = PauseGuard::for_at_most(budget * 2);
        // The task ends only with the runtime.
        let _ = first.wait_for(|tried| *tried).await;
        pool
    }

    pub(super) fn circuit(&self) -> Circuit {
        self.state.lock().circuit
    }

    pub(super) fn reason(&self) -> Option<String> {
        let state = self.state.lock();
        match state.circuit {
            Circuit::Closed => self.fullness.reason(),
            _ => state.reason.clone(),
        }
    }

    /// Runs an operation on a connection, within the command budget. An operation may run twice: a
    /// connection that had been idle may have been closed by the server long ago.
    pub(super) async fn run<T, F>(&self, operation: impl Fn(Connection) -> F) -> Result<T, Error>
    where
        F: Future<Output = (Connection, Result<T, Failure>)>,
    {
        self.run_with(self.permits.acquire(), operation).await
    }

    /// Does the same for a write, which does not wait behind reads.
    pub(super) async fn run_write<T, F>(
        &self,
        operation: impl Fn(Connection) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = (Connection, Result<T, Failure>)>,
    {
        if crate::base::mutation::is_active("memcached-writes-wait-behind-reads") {
            return self.run(operation).await;
        }
        let permit = async {
            tokio::select! {
                biased;
                permit = self.for_writes.acquire() => permit,
                permit = self.permits.acquire() => permit,
            }
        };
        self.run_with(permit, operation).await
    }

    async fn run_with<'p, T, F>(
        &'p self,
        permit: impl Future<Output = Result<SemaphorePermit<'p>, AcquireError>>,
        operation: impl Fn(Connection) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = (Connection, Result<T, Failure>)>,
    {
        if self.circuit() != Circuit::Closed {
            return Err(self.unavailable());
        }
        let _held = PauseGuard::for_at_most(self.budget);
        let end = tokio::time::Instant::now() + self.budget;
        // Waiting for a connection says nothing about the server.
        let Ok(_permit) = crate::base::time::timeout_at(end, permit).await else {
            return Err(Error::unavailable(format!(
                "all connections to Memcached were busy for {} ms",
                self.budget.as_millis()
            )));
        };
        match crate::base::time::timeout_at(end, self.attempt(operation)).await {
            Ok(Ok(done)) => {
                if self.failures.load(Ordering::Relaxed) != 0 {
                    self.failures.store(0, Ordering::Relaxed);
                }
                Ok(done)
            }
            Ok(Err(failure)) => {
                match &failure {
                    Failure::Lost(text) => self.open(text),
                    Failure::OtherServer => self.doubt.notify_one(),
                    Failure::NoAnswer(_) => self.unanswered(),
                    Failure::Full(_) => {
                        let error = failure.described();
                        return Err(self.fullness.refused(&self.config, error));
                    }
                    Failure::Refused(_) | Failure::TooLarge | Failure::Several => {}
                }
                Err(failure.described())
            }
            Err(_) => {
                self.unanswered();
                Err(Error::unavailable(self.late()))
            }
        }
    }

    fn late(&self) -> String {
        let budget = self.budget.as_millis();
        format!("Memcached did not answer within {budget} ms")
    }

    async fn attempt<T, F>(&self, operation: impl Fn(Connection) -> F) -> Result<T, Failure>
    where
        F: Future<Output = (Connection, Result<T, Failure>)>,
    {
        let idle = self.state.lock().idle.pop();
        if let Some(connection) = idle {
            match self.used(operation(connection).await) {
                // The other idle ones are as old.
                Err(Failure::Lost(_)) => self.state.lock().idle.clear(),
                done => return done,
            }
        }
        let connection = self.connect().await?;
        self.used(operation(connection).await)
    }

    /// Keeps the connection for the next operation.
    fn used<T>(&self, (connection, done): (Connection, Result<T, Failure>)) -> Result<T, Failure> {
        let is_usable = !connection.is_closed() && !matches!(done, Err(Failure::NoAnswer(_)));
        let mut state = self.state.lock();
        let is_of_this_server = matches!(&state.server, Some((_, id)) if *id == connection.server);
        if is_usable && is_of_this_server && state.circuit == Circuit::Closed {
            state.idle.push(connection);
        }
        done
    }

    /// A new connection to the server in use.
    async fn connect(&self) -> Result<Connection, Failure> {
        let server = self.state.lock().server.clone();
        let Some((target, id)) = server else {
            return Err(Failure::Lost("there is no connection".into()));
        };
        let connection = self.dial(&target).await?;
        match connection.server == id {
            true => Ok(connection),
            false => Err(Failure::OtherServer),
        }
    }

    /// Connects on the cache's own runtime: the caller's may end before the connection does.
    async fn dial(&self, target: &ServerAddress) -> Result<Connection, Failure> {
        // The socket belongs to the runtime in whose context it is made.
        let opened = InRuntime {
            runtime: self.runtime.clone(),
            future: Connection::open(target, &self.clock),
        };
        match crate::base::time::timeout(self.budget, opened).await {
            Ok(opened) => opened,
            Err(_) => Err(Failure::Lost(self.late())),
        }
    }

    fn unavailable(&self) -> Error {
        let reason = self.reason();
        let reason = reason.unwrap_or_else(|| "there is no connection".into());
        Error::unavailable(format!("Memcached is not asked: {reason}"))
    }

    fn unanswered(&self) {
        if self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES {
            self.open(&self.late());
        }
    }

    fn open(&self, reason: &str) {
        let was = {
            let mut state = self.state.lock();
            state.idle.clear();
            state.reason = Some(reason.to_owned());
            std::mem::replace(&mut state.circuit, Circuit::Open)
        };
        self.failures.store(0, Ordering::Relaxed);
        if was == Circuit::Closed {
            tracing::warn!(
                server = %self.config,
                reason,
                "Memcached can't be reached; calls run their functions until it can"
            );
            self.doubt.notify_one();
        }
    }

    async fn watch_for_ever(&self, tried: watch::Sender<bool>) {
        let (mut pause, mut short) = (FIRST_PAUSE, FIRST_SHORT_PAUSE);
        loop {
            match self.find_server().await {
                Ok(connection) => {
                    let since = Instant::now();
                    self.watch.established();
                    tried.send_replace(true);
                    self.check_until_lost(connection).await;
                    if since.elapsed() > CHECK {
                        // Most outages are a restart that is over already.
                        (pause, short) = (FIRST_PAUSE, FIRST_SHORT_PAUSE);
                        continue;
                    }
                }
                Err(failure) => {
                    let reason = failure.described().to_string();
                    if !*tried.borrow() {
                        tracing::warn!(
                            server = %self.config,
                            reason,
                            "Memcached can't be reached; calls run their functions until it can"
                        );
                    }
                    let mut state = self.state.lock();
                    state.circuit = Circuit::Open;
                    state.reason = Some(reason);
                }
            }
            self.watch.failed();
            tried.send_replace(true);
            self.watch.pause(pause, short).await;
            pause = (pause * 2).min(LAST_PAUSE);
            short = (short * 2).min(LAST_SHORT_PAUSE);
        }
    }

    /// Connects, and closes the circuit. If the name has several addresses, all of them have to
    /// lead to one server. Otherwise each process might use another server.
    async fn find_server(&self) -> Result<Connection, Failure> {
        self.state.lock().circuit = Circuit::HalfOpen;
        let found = crate::base::time::timeout(self.budget.max(CHECK), targets(&self.config)).await;
        let late = || Failure::Lost("its name was not resolved in time".into());
        let targets = found.map_err(|_| late())??;
        let tried = targets.into_iter().map(|target| self.try_target(target));
        let tried = join::all(tried).await;
        let (target, connection) = the_only_one(tried, |(_, it)| it.server)?;
        let mut state = self.state.lock();
        if state.process != connection.process {
            self.clock.begins_anew();
        }
        state.process = connection.process;
        state.idle.clear();
        state.server = Some((target, connection.server));
        state.circuit = Circuit::Closed;
        state.reason = None;
        self.failures.store(0, Ordering::Relaxed);
        tracing::info!(server = %self.config, "✓ Memcached connected");
        Ok(connection)
    }

    async fn try_target(
        &self,
        target: ServerAddress,
    ) -> Result<(ServerAddress, Connection), Failure> {
        let mut connection = self.dial(&target).await?;
        let tried = crate::base::time::timeout(self.budget, connection.try_commands()).await;
        tried.map_err(|_| Failure::Lost(self.late()))??;
        Ok((target, connection))
    }

    /// Asks the server for its identity, at intervals and after a failure. Returns when it does not
    /// answer, or another server answers.
    async fn check_until_lost(&self, mut connection: Connection) {
        loop {
            let is_doubted = crate::base::time::timeout(CHECK, self.doubt.notified())
                .await
                .is_ok();
            if self.circuit() != Circuit::Closed {
                return;
            }
            // It is full for values of some sizes and not for others, so no write of its own could
            // tell that it has room.
            self.fullness.has_room(&self.config);
            let asked = connection.ask_who(&self.clock);
            let reason = match crate::base::time::timeout(self.budget.max(CHECK), asked).await {
                Ok(Ok(who)) if who.server == connection.server => match is_doubted
                    && !self.is_alone().await
                {
                    false => continue,
                    true => "several servers answer at this address, so that an invalidation at \
                              one is unknown to the others; name one server"
                        .to_owned(),
                },
                // On this connection no other server can answer. So this one has lost its random
                // number, by `flush_all` or by eviction.
                Ok(Ok(who)) if who.process == connection.process => {
                    connection.server = who.server;
                    self.has_new_mark(who.server);
                    continue;
                }
                Ok(Ok(_)) => "another server answers than before".to_owned(),
                Ok(Err(failure)) => failure.described().to_string(),
                Err(_) => self.late(),
            };
            self.open(&reason);
            return;
        }
    }

    /// The server in use has a new random number. Entries that were stored under the old one are
    /// misses.
    fn has_new_mark(&self, server: Nonce) {
        let mut state = self.state.lock();
        state.idle.clear();
        if let Some((_, known)) = &mut state.server {
            *known = server;
        }
    }

    /// Whether a new connection leads to the same server, which still answers on the old one.
    async fn is_alone(&self) -> bool {
        !matches!(self.connect().await, Err(Failure::OtherServer))
    }

    pub(super) fn close(&self) {
        self.closed.send_replace(true);
        let mut state = self.state.lock();
        state.idle.clear();
        state.server = None;
        state.circuit = Circuit::Open;
        state.reason = Some("the cache was shut down".into());
    }
}

/// The server to use, if all addresses lead to it.
fn the_only_one<T>(
    tried: Vec<Result<T, Failure>>,
    identity: impl Fn(&T) -> Nonce,
) -> Result<T, Failure> {
    let several = tried.len() > 1;
    let mut found: Option<T> = None;
    let mut failed = None;
    for tried in tried {
        match (tried, &found) {
            (Ok(other), Some(one)) if identity(&other) != identity(one) => {
                return Err(Failure::Several);
            }
            (Ok(one), _) => found = Some(one),
            (Err(failure), _) => failed = Some(failure),
        }
    }
    match (found, failed) {
        (Some(one), None) => Ok(one),
        // Another process may reach that one alone.
        (Some(_), Some(failure)) if several => Err(Failure::Lost(format!(
            "one of the addresses of its name does not answer ({}), so it may be another server; \
             name one address",
            failure.described()
        ))),
        (_, Some(failure)) => Err(failure),
        (None, None) => Err(Failure::Lost("its name has no address".into())),
    }
}

pin_project_lite::pin_project! {
    /// A future that is polled in the context of a runtime.
    struct InRuntime<F> {
        runtime: Handle,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for InRuntime<F> {
    type Output = F::Output;

    fn poll(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        let this = self.project();
        let _entered = this.runtime.enter();
        this.future.poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_to_one_server() {
        let found = |tried: &[Option<u128>]| {
            let tried = tried.iter().map(|id| match id {
                Some(id) => Ok(Nonce(*id)),
                None => Err(Failure::Lost("it does not answer".into())),
            });
            let found = the_only_one(tried.collect(), |id| *id);
            found.map_err(|failure| failure.described().to_string())
        };
        assert_eq!(found(&[Some(1)]), Ok(Nonce(1)));
        assert_eq!(found(&[Some(1), Some(1)]), Ok(Nonce(1)));
        for tried in [[Some(1), Some(2)], [Some(2), Some(1)]] {
            let refused = found(&tried).expect_err("two servers");
            assert!(refused.contains("several servers"), "{refused}");
        }
        for tried in [[Some(1), None], [None, Some(1)]] {
            let refused = found(&tried).expect_err("it may be another one");
            assert!(refused.contains("name one address"), "{refused}");
        }
        assert!(found(&[None]).is_err() && found(&[]).is_err());
    }
}
