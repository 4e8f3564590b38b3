//! The current connection to a server, for all who use it.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::super::failover::recent::RecentInvalidations;
use super::Connection;
use super::breaker::Breaker;
use crate::base::error::Error;
use crate::store::{Circuit, ConnectionWatch};

/// The current connection to one server, which the supervisor replaces.
pub(crate) struct Connections {
    current: ArcSwapOption<Connection>,
    pub(crate) breaker: Breaker,
    /// For tasks that wait for the next connection.
    pub(crate) watch: ConnectionWatch,
    /// Why there was no connection, the last time.
    pub(crate) failure: Mutex<Option<String>>,
    /// Turns true after the first attempt to connect.
    pub(crate) attempted: watch::Sender<bool>,
    /// Counts the servers that have been the primary, for invalidations that have to be repeated.
    pub(crate) changes: watch::Sender<u64>,
    /// Recent invalidations that the next primary may not know; only with Sentinels.
    pub(crate) recent: Option<Arc<RecentInvalidations>>,
}

impl Connections {
    pub(crate) fn new(
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

    pub(crate) fn current(&self) -> Result<Arc<Connection>, Error> {
        self.using(Arc::clone)
    }

    /// Like `current`, without a reference count, which all threads would write to.
    pub(crate) fn using<T>(&self, using: impl FnOnce(&Arc<Connection>) -> T) -> Result<T, Error> {
        let connection = self.current.load();
        let connection = connection
            .as_ref()
            .filter(|connection| connection.is_usable());
        connection
            .map(using)
            .ok_or_else(|| Error::unavailable("Redis is not connected"))
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.using(|_| ()).is_ok()
    }

    pub(crate) fn circuit(&self) -> Circuit {
        match self.breaker.circuit() {
            // It was closed, and the supervisor has not noticed yet.
            Circuit::Closed if !self.is_connected() => Circuit::Open,
            circuit => circuit,
        }
    }

    pub(crate) fn openings(&self) -> u64 {
        self.breaker.openings()
    }

    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    /// Why the server takes no new entries.
    pub(crate) fn full(&self) -> Option<String> {
        let reason = self.using(|connection| connection.health.fullness().reason());
        reason.ok().flatten()
    }

    pub(crate) fn set(&self, connection: Option<Arc<Connection>>) {
        self.current.store(connection);
    }
}
