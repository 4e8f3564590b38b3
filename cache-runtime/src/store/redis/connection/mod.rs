//! One connection together with the identity of its server.
//!
//! A [`Connection`] never reconnects. A command that began on one connection ends on it or fails,
//! so that an entry and the generations that it is compared with come from one server. The
//! connection manager of the client library reconnects unseen, so it is not used here.

pub(crate) mod address;
pub(crate) mod breaker;
pub(crate) mod connect_task;
pub(crate) mod connection_watchers;
pub(crate) mod connections;
pub(crate) mod connector;
pub(crate) mod dial;
pub(crate) mod echo;
pub(crate) mod errors;
pub(crate) mod health;
pub(crate) mod probe;
pub(crate) mod supervisor;
pub(crate) mod supervisor_settings;
pub(crate) mod sync_check;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue, PushInfo, PushKind, RedisError, Value};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Notify;

use self::breaker::{End, FAILURES, Failures};
use self::errors::{
    OTHER_HISTORY, described, is_full, is_lost, is_no_answer, is_read_only, is_write_refused,
    refused, unanswered,
};
use self::health::{Health, HealthError};
use self::probe::Capabilities;
use self::sync_check::SyncCheck;
use super::failover::confirmation::Confirmation;
use super::reads::batcher::Batcher;
use super::reads::read_sockets::ReadSockets;
use super::reads::set_aside::SetAside;
use super::reply::counted;
use super::sent::Sent;
use super::tracking::Tracker;
use super::tracking::key_watchers::KeyWatchers;
use crate::base::clock::{self, RemoteClock};
use crate::base::error::Error;
use crate::base::nonce::Nonce;
use crate::base::paused::PauseGuard;
use crate::store::KeyChange;

/// One connection to one server.
pub(super) struct Connection {
    pub(super) multiplexed: MultiplexedConnection,
    /// No other connection of this process has it.
    pub(super) number: u64,
    /// Identifies the server and its history: its `run_id` and `master_replid`.
    pub(super) server: Nonce,
    /// The server's `master_replid`, if its history is looked at.
    pub(super) history: Option<String>,
    /// The node's epoch in a cluster, which all connections to it share; otherwise 0.
    pub(super) epoch: Arc<AtomicU64>,
    pub(super) clock: RemoteClock,
    pub(super) capabilities: Capabilities,
    /// The address of the server.
    pub(super) address: SocketAddr,
    pub(super) state: Arc<ConnectionState>,
    pub(super) health: Health,
    /// The shortest round trip that was measured.
    pub(super) round_trip: Duration,
    /// The runtime that drives the connection.
    pub(super) home: Handle,
    /// The connections that only read.
    pub(super) read_sockets: ReadSockets,
}

#[derive(Default)]
pub(super) struct ConnectionState {
    pub(super) broken: AtomicBool,
    /// Why the connection was closed.
    pub(super) reason: Mutex<Option<(End, String)>>,
    pub(super) failures: Failures,
    /// How many commands the server has refused: the user may not run them, or not with these keys.
    pub(super) refused: AtomicU64,
    /// How many of them a check has known that found that the user may read.
    pub(super) refused_and_checked: AtomicU64,
    pub(super) changed: Notify,
    pub(super) batcher: Batcher,
    /// Readers that wait for another process's load.
    pub(super) key_watchers: KeyWatchers,
    /// Reports key changes to the local tier, if there is one.
    pub(super) tracker: Option<Tracker>,
    pub(super) sync_check: SyncCheck,
    /// Whether an entry under another key than its own was logged.
    pub(super) is_renaming_told: AtomicBool,
    pub(super) set_aside: Arc<SetAside>,
    /// Until when the server may be used, if Sentinels name it. The nodes of a cluster share one.
    pub(super) confirmation: Arc<Confirmation>,
}

impl ConnectionState {
    pub(super) fn give_up(&self, reason: impl FnOnce() -> String) {
        self.end(End::GivenUp, reason);
    }

    pub(super) fn end(&self, end: End, reason: impl FnOnce() -> String) {
        if !self.broken.swap(true, Ordering::AcqRel) {
            *self.reason.lock() = Some((end, reason()));
        }
        // Only now: a read that starts in the next epoch does not use this connection.
        if let Some(tracker) = &self.tracker {
            tracker.lost();
        }
        self.sync_check.end();
        self.batcher.end();
        self.key_watchers.notify_all();
        self.changed.notify_one();
    }

    /// Marks the connection as tracked for reads that start from now on, unless it has ended
    /// already.
    pub(super) fn opens(&self) {
        if let Some(tracker) = &self.tracker {
            tracker.open();
            if self.broken.load(Ordering::Acquire) {
                tracker.lost();
            }
        }
    }

    /// Returns the handler of the server's push messages.
    pub(super) fn on_push(self: &Arc<Self>) -> impl Fn(PushInfo) + Send + Sync + 'static {
        let state = Arc::clone(self);
        move |push| match push.kind {
            PushKind::Disconnection => {
                state.end(End::Lost, || "the server closed the connection".into());
            }
            PushKind::Invalidate => {
                if let Some(tracker) = &state.tracker {
                    tracker.pushed(&push.data);
                }
                state.key_watchers.pushed(&push.data);
            }
            _ => {}
        }
    }

    pub(super) fn unanswered(&self, budget: Duration) {
        if self.failures.unanswered() {
            self.give_up(|| {
                let budget = budget.as_millis();
                format!("{FAILURES} commands in a row had no answer within {budget} ms")
            });
        }
    }
}

/// A command in flight. If its caller gives up before the budget is over, because its call has used
/// up its own budget, the command still counts as unanswered.
struct TimeoutGuard<'a> {
    state: &'a ConnectionState,
    sent: Sent,
    is_over: bool,
}

impl Drop for TimeoutGuard<'_> {
    fn drop(&mut self) {
        if !self.is_over && self.sent.is_late() {
            self.state.unanswered(self.sent.budget);
        }
    }
}

/// The answer to `MGET`.
async fn values(
    multiplexed: &mut MultiplexedConnection,
    mget: &Cmd,
) -> Result<Vec<Value>, RedisError> {
    match multiplexed.send_packed_command(mget).await? {
        Value::Array(values) => Ok(values),
        other => other.extract_error().map(|_| Vec::new()),
    }
}

impl Connection {
    /// Runs one command, or a script, within the budget. Its answer is held back while it is
    /// doubtful whether answers belong to their commands.
    pub(super) async fn ask<T: FromRedisValue>(
        &self,
        budget: Duration,
        ask: impl AsyncFnOnce(&mut MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, Error> {
        self.ask_at(Sent::now(budget), ask).await
    }

    /// The same for a command that is sent now. If there is no answer within the budget, the command
    /// counts as unanswered.
    pub(super) async fn ask_at<T: FromRedisValue>(
        &self,
        sent: Sent,
        ask: impl AsyncFnOnce(&mut MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, Error> {
        let mut multiplexed = self.multiplexed.clone();
        // Pinned here: a future that takes another one by value has room for it twice.
        let answered = pin!(async {
            (
                ask(&mut multiplexed).await,
                self.state.sync_check.in_sync().await,
            )
        });
        let mut guard = TimeoutGuard {
            state: &self.state,
            sent,
            is_over: false,
        };
        // Each reading of the clock takes as long as a percent of a hit, so the readings are shared.
        let (now, budget) = (clock::now(), sent.budget);
        let _held = PauseGuard::from(sent.at, now, budget);
        let answered = match now.checked_add(budget) {
            Some(end) => crate::base::time::timeout_at(end, answered),
            None => crate::base::time::timeout(budget, answered),
        };
        let answered = answered.await;
        guard.is_over = true;
        match answered {
            Ok((_, Err(error))) => Err(error),
            Ok((Ok(answer), Ok(()))) => {
                self.state.failures.answered();
                Ok(answer)
            }
            Ok((Err(error), Ok(()))) => Err(self.failed(error)),
            Err(_) => {
                self.state.unanswered(budget);
                Err(unanswered(budget))
            }
        }
    }

    /// Runs `MGET`.
    pub(super) async fn mget(&self, sent: Sent, mget: &Cmd) -> Result<Vec<Value>, Error> {
        let ask = async |it: &mut MultiplexedConnection| values(it, mget).await;
        self.ask_at(sent, ask).await
    }

    /// Translates a command's error, and closes the connection if the error is about the
    /// connection.
    pub(super) fn failed(&self, error: RedisError) -> Error {
        let is_over = is_lost(&error);
        let is_demoted = is_read_only(&error);
        // The answer belongs to another command, or the peer is no Redis.
        let is_amiss = is_no_answer(&error);
        let takes_no_writes = is_write_refused(&error);
        let is_full = is_full(&error);
        if error.code() == Some("NOPERM") {
            self.state.refused.fetch_add(1, Ordering::Relaxed);
        }
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
        match is_full {
            true => self.health.fullness().refused(self.address, error),
            false => error,
        }
    }

    /// Identifies the server and its history. A node of a cluster gets a new identity when it gains
    /// a slot, since the slot may hold entries from before the node had lost it.
    pub(super) fn identity(&self) -> Nonce {
        if crate::base::mutation::is_active("epoch-not-in-identity") {
            return self.server;
        }
        let epoch = self.epoch.load(Ordering::Acquire);
        Nonce(self.server.0.wrapping_add(epoch.into()))
    }

    pub(super) fn multiplexed(&self) -> MultiplexedConnection {
        self.multiplexed.clone()
    }

    /// Closes the connection, since the server takes no invalidations.
    pub(super) fn refuses_writes(&self, reason: &str) {
        self.state.end(End::RefusesWrites, || refused(reason));
    }

    /// Writes, and asks for the role. Closes the connection if the server can't be used.
    pub(super) async fn check_health(&self) -> Result<(), Error> {
        let scripts = self.capabilities.scripts;
        let mut multiplexed = self.multiplexed();
        let history = self.history.as_deref();
        let known = self.state.refused.load(Ordering::Relaxed);
        let reads = known != self.state.refused_and_checked.load(Ordering::Relaxed);
        let checked = self
            .health
            .check(&mut multiplexed, scripts, history, reads, described);
        let checked = checked.await;
        self.state.sync_check.in_sync().await?;
        match checked {
            Ok(()) => {
                // Only now: a `required` write that is dropped drops its check.
                let checked = &self.state.refused_and_checked;
                checked.store(known, Ordering::Relaxed);
                Ok(())
            }
            Err(HealthError::RefusesWrites(reason) | HealthError::RunsNoScripts(reason)) => {
                let error = Error::unavailable(refused(&reason));
                self.refuses_writes(&reason);
                Err(error)
            }
            Err(HealthError::Unusable(reason)) => {
                let error = Error::unavailable(reason.as_str());
                self.give_up(|| reason);
                Err(error)
            }
            Err(HealthError::OtherHistory) => {
                self.state.end(End::Moved, || OTHER_HISTORY.into());
                Err(Error::unavailable(OTHER_HISTORY))
            }
        }
    }

    /// Whether the cache's own thread drives the connection, and sends the batches.
    pub(super) fn is_driven_apart(&self) -> bool {
        self.home.runtime_flavor() == RuntimeFlavor::CurrentThread
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

    /// Closes the connection, since the host name now leads to other servers.
    pub(super) fn has_moved(&self, name: &str) {
        let reason = || format!("`{name}` no longer leads to {}", self.address);
        self.state.end(End::Moved, reason);
    }

    pub(super) fn abandon(&self) {
        let reason = || "the runtime that drove the connection has ended".into();
        self.state.end(End::Abandoned, reason);
    }

    /// Closes the connection after an answer that can't belong to the command.
    pub(super) fn answers_amiss(&self, error: Error) -> Error {
        self.state.end(End::Lost, || error.to_string());
        error
    }

    /// The answers, if they are as many as were asked for. Closes the connection if not.
    pub(super) fn counted<T>(&self, answers: Vec<T>, asked: usize) -> Result<Vec<T>, Error> {
        counted(answers, asked).map_err(|error| self.answers_amiss(error))
    }

    /// Asks to be notified of a key's next change; `None` if the server does not notify.
    pub(super) async fn watch_key(
        &self,
        key: &str,
        budget: Duration,
    ) -> Result<Option<KeyChange>, Error> {
        let key_watchers = &self.state.key_watchers;
        let opts_in = key_watchers.opts_in();
        if !opts_in && !self.tracker().is_some_and(Tracker::is_on) {
            return Ok(None);
        }
        let word = key_watchers.watch_key(key);
        let track =
            async |it: &mut MultiplexedConnection| key_watchers.track(it, key, opts_in).await;
        self.ask(budget, track).await.map(|()| Some(word))
    }

    pub(super) fn is_usable(&self) -> bool {
        !self.state.broken.load(Ordering::Acquire)
    }

    /// Whether the server is still the primary as far as is known.
    pub(super) fn is_confirmed(&self) -> bool {
        self.state.confirmation.is_valid()
    }

    /// Has to be called after an answer, before it is used.
    ///
    /// # Errors
    /// If the server was not named for too long: another may be the primary.
    pub(super) fn check_confirmed(&self) -> Result<(), Error> {
        self.state.confirmation.check()
    }
}
