//! State that all parts of a cluster's store share.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use redis::{ErrorKind as RedisErrorKind, RedisError, ServerErrorKind, Value};
use tokio::sync::{Notify, watch};

use super::super::connection::Connection;
use super::super::connection::errors::described;
use super::super::failover::confirmation::Confirmation;
use super::super::failover::fence::Fences;
use super::super::failover::recent::RecentInvalidations;
use super::super::reads::batcher::Batcher;
use super::super::reads::set_aside::SetAside;
use super::super::sent::Sent;
use super::super::slots::{slot_of, untagged};
use super::super::whole_resources::WholeResources;
use super::node::SlotMap;
use super::routing::ScriptCall;
use super::unserved::UnservedReads;
use crate::base::clock::{self, Instant};
use crate::base::error::Error;
use crate::base::join;
use crate::config::{CacheConfig, RedisConfig};
use crate::local::Local;
use crate::store::{Circuit, ConnectionWatch, KeyChange};

/// The pause after a redirection that led nowhere.
pub(super) const REDIRECT_PAUSE: Duration = Duration::from_millis(2);

/// Entries and generations in a cluster.
pub(in crate::store::redis) struct Cluster {
    pub(super) map: ArcSwap<SlotMap>,
    pub(super) fences: Arc<Fences>,
    /// Until when the slot map may be used.
    pub(super) confirmation: Arc<Confirmation>,
    pub(super) watch: ConnectionWatch,
    /// Wakes the task that asks for the owners.
    pub(super) wake: Notify,
    /// How many times it has started to ask, and the last of these that was answered.
    pub(super) rounds: watch::Sender<Rounds>,
    pub(super) budget: Duration,
    pub(super) default_generation_ttl: Duration,
    /// Why there is no slot map.
    pub(super) failure: Mutex<Option<String>>,
    /// Recent invalidations that another primary may not know.
    pub(super) recent: RecentInvalidations,
    /// When generations were last extended, by hash of the key.
    pub(super) touched: Mutex<HashMap<u128, Instant>>,
    /// The local tier of this process, if there is one.
    local: Option<Arc<Local>>,
    pub(super) wholes: Arc<WholeResources>,
    /// The login of all nodes.
    pub(super) redis: RedisConfig,
    /// The reads of all nodes.
    pub(super) batcher: Batcher,
    /// Keys that are read alone.
    pub(super) set_aside: Arc<SetAside>,
    /// Reads that were not served, since the owner of a slot was not certain.
    pub(super) unserved: UnservedReads,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rounds {
    pub(super) begun: u64,
    pub(super) done: u64,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("nodes", &self.map.load().nodes())
            .finish_non_exhaustive()
    }
}

/// The fault of one command.
pub(super) enum Fault {
    /// Another node has the slot; the command was not executed.
    Moved,
    /// The slot is being moved to another node, and the key may be there.
    Moving(Option<String>),
    /// The slot is being moved to another node, and some of the keys may be there: each has to be
    /// asked for separately.
    Split,
    Failed(Error),
}

/// Marks the error of a step whose keys are on two nodes.
#[derive(Debug)]
pub(super) struct KeysApart;

impl fmt::Display for KeysApart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("its keys are on two nodes")
    }
}

impl std::error::Error for KeysApart {}

/// Whether the step can be repeated key by key.
pub(super) fn is_apart(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(|it| it.is::<KeysApart>())
}

/// Finds out what an error says about the command, and about the connection.
pub(super) fn fault(connection: &Connection, error: RedisError) -> Fault {
    use ServerErrorKind as Server;
    match error.kind() {
        RedisErrorKind::Server(Server::Moved) => Fault::Moved,
        RedisErrorKind::Server(Server::Ask) => {
            let node = error.redirect_node().map(|(node, _)| node);
            // Some servers omit the host if it is the same.
            let node = node.map(|node| match node.strip_prefix(':') {
                Some(port) => format!("{}:{port}", connection.address.ip()),
                None => node.to_owned(),
            });
            Fault::Moving(node)
        }
        RedisErrorKind::Server(Server::TryAgain) => Fault::Split,
        // A script has removed a key to write it again, and a new key belongs to the node that the
        // slot moves to. The next attempt is sent there.
        RedisErrorKind::Server(_) if is_on_its_way(&error) => Fault::Moving(None),
        RedisErrorKind::Server(Server::ClusterDown | Server::MasterDown | Server::BusyLoading) => {
            Fault::Failed(described(error))
        }
        _ => Fault::Failed(connection.failed(error)),
    }
}

fn is_on_its_way(error: &RedisError) -> bool {
    // Redis says `Script attempted to ..`, Valkey 9 `Attempted to ..`.
    let of_another = "to access a non local key";
    error.detail().is_some_and(|text| text.contains(of_another))
}

/// The answers of a pipeline, each of which may be an error.
pub(super) type Answers = Vec<Result<Value, RedisError>>;

impl Cluster {
    pub(in crate::store::redis) fn new(
        config: &CacheConfig,
        watch: ConnectionWatch,
        local: Option<Arc<Local>>,
        redis: RedisConfig,
        wholes: Arc<WholeResources>,
    ) -> Self {
        Self {
            map: ArcSwap::default(),
            fences: Arc::default(),
            confirmation: match crate::base::mutation::is_active("slots-known-for-ever") {
                true => Arc::default(),
                false => Arc::new(Confirmation::awaited()),
            },
            watch,
            wake: Notify::new(),
            rounds: watch::Sender::default(),
            budget: config.command_budget,
            default_generation_ttl: crate::base::policy::generation_ttl(config.default_ttl),
            failure: Mutex::default(),
            recent: RecentInvalidations::default(),
            touched: Mutex::default(),
            local,
            wholes,
            redis,
            batcher: Batcher::default(),
            set_aside: Arc::default(),
            unserved: UnservedReads::default(),
        }
    }

    /// Applies changes of this process that the nodes have just acknowledged. They take effect on
    /// the local entries before the caller is told; the push messages about them may arrive at any
    /// time.
    pub(super) fn changed(&self, steps: &[ScriptCall<'_>]) {
        let Some(local) = &self.local else {
            return;
        };
        if crate::base::mutation::is_active("own-write-waits-for-the-push") {
            return;
        }
        for key in steps.iter().flat_map(|step| &step.keys) {
            match untagged(key.as_bytes()) {
                Some(plain) => local.forget([plain.as_str()]),
                None => local.forget([*key]),
            }
        }
    }

    /// Waits until the owners have been asked for again, so that the caller may try again.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) when the time is over.
    pub(super) async fn refreshed(&self, deadline: Instant) -> Result<(), Error> {
        let mut rounds = self.rounds.subscribe();
        let wanted = rounds.borrow_and_update().begun + 1;
        self.wake.notify_one();
        let limit = deadline.saturating_duration_since(clock::now());
        let answered = {
            let _held = Sent::now(limit).held(clock::now());
            let answered = rounds.wait_for(|rounds| rounds.done >= wanted);
            crate::base::time::timeout(limit, answered).await.is_ok()
        };
        if !answered || clock::now() + REDIRECT_PAUSE >= deadline {
            return Err(Error::unavailable("the cluster's slots are being moved"));
        }
        // Nodes don't learn of a change all at once.
        crate::base::time::sleep(REDIRECT_PAUSE).await;
        Ok(())
    }

    pub(in crate::store::redis) fn circuit(&self) -> Circuit {
        let map = self.map.load();
        let mut circuits = map.nodes().iter().map(|node| node.connections.circuit());
        match circuits.clone().any(|it| it == Circuit::Closed) {
            true => Circuit::Closed,
            false => circuits.next().unwrap_or(Circuit::Open),
        }
    }

    /// Why the cluster, or one of its nodes, is not asked, or takes no new entries.
    pub(in crate::store::redis) fn reason(&self) -> Option<String> {
        let map = self.map.load();
        let reasons = map.nodes().iter().filter_map(|node| {
            let reason = match node.connections.circuit() {
                Circuit::Closed => node.connections.full(),
                _ => node.connections.failure(),
            };
            Some(format!("{}: {}", node.address(), reason?))
        });
        let reasons: Vec<_> = reasons.collect();
        match reasons.is_empty() {
            true if map.nodes().is_empty() => self.failure.lock().clone(),
            true => self.confirmed().err().map(|error| error.to_string()),
            false => Some(reasons.join("; ")),
        }
    }

    /// The nodes that are not asked, and why.
    pub(in crate::store::redis) fn away(&self) -> Vec<String> {
        let map = self.map.load();
        let away = map
            .nodes()
            .iter()
            .filter(|node| node.connections.circuit() != Circuit::Closed);
        away.map(|node| {
            let reason = node.connections.failure();
            let reason = reason.unwrap_or_else(|| "it is not connected".to_owned());
            format!("{} can't be used ({reason})", node.address())
        })
        .collect()
    }

    pub(in crate::store::redis) fn is_connected(&self) -> bool {
        self.circuit() == Circuit::Closed
    }

    pub(in crate::store::redis) async fn watch_key(
        &self,
        key: &str,
    ) -> Result<Option<KeyChange>, Error> {
        let connection = self.map.load().connection(slot_of(key))?;
        // If the slot has just moved, the reader polls.
        Ok(connection.watch_key(key, self.budget).await.unwrap_or(None))
    }

    /// Asks all primaries, since it is not known which of them the write concerns.
    pub(in crate::store::redis) async fn ping(&self) -> Result<(), Error> {
        let map = self.map.load_full();
        if map.nodes().is_empty() {
            return Err(self.unknown());
        }
        let pings = map.nodes().iter().map(|node| async {
            let connection = node.connections.current()?;
            connection.check_health().await
        });
        let answers = join::all(pings).await;
        answers.into_iter().collect()
    }

    /// The connection to the owner of a key's slot.
    pub(in crate::store::redis) fn link_of(&self, key: &str) -> Result<Arc<Connection>, Error> {
        self.map.load().connection(slot_of(key))
    }

    /// Has to be called after answers, before they are used or acknowledged.
    ///
    /// # Errors
    /// If too few primaries have confirmed the slot map for too long: slots may have other owners.
    pub(super) fn confirmed(&self) -> Result<(), Error> {
        self.confirmation.check()
    }

    pub(super) fn unknown(&self) -> Error {
        let failure = self.failure.lock().clone();
        Error::unavailable(failure.unwrap_or_else(|| "the cluster is not connected".to_owned()))
    }
}
