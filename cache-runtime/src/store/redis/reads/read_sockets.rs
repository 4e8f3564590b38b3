//! Which callers read over a connection that only reads ([`ReadSocket`](super::read_socket)), and when
//! a runtime opens one.
//!
//! Such a connection costs both the callers and the server less for each read. Once enough was read
//! over the main connection, the runtime that drives it opens one, which all callers use. If the
//! cache's own thread drives the main connection, each runtime that reads often enough opens one:
//! otherwise each read would wake that thread, and be woken by it, which takes as long as the read
//! itself. Everything else goes over the main connection.
//!
//! A read over such a connection returns what the main one would: it is sent after the read began,
//! to the same server. It is only used while the main connection is, which watches whether the
//! server is still the primary. If it fails, what was not answered is read once more over the main
//! one. With local entries there is none, since the server reports changes only of keys that were
//! read over the main connection; with TLS there is none either.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::runtime::{Handle, Id, RuntimeFlavor};
use tokio::sync::watch;

use super::batcher::Batcher;
use crate::base::nonce::Nonce;
use crate::config::RedisConfig;

/// After so many reads a runtime gets a connection. To connect costs about as much as twenty reads,
/// and most runtimes that read less are those of a test.
const READS: u32 = 256;

/// The same after a connection could not be made, or has failed. It doubles with each further one
/// that could not be made: a server with too many clients is to have fewer, and not more.
const READS_AFTER_FAILURE: u32 = 4_096;

/// How often it doubles at most.
const MOST_DOUBLINGS: u32 = 8;

/// The most runtimes that have a connection. Others use the main connection.
const MOST: usize = 64;

/// The connections that only read, beside one main connection.
#[derive(Default)]
pub(crate) struct ReadSockets {
    /// `None` if there are none.
    server: Option<Arc<ReadServer>>,
    /// The queues of the runtimes that have a connection. Each read looks here, without a lock.
    connected: ArcSwap<Vec<(Id, Arc<Batcher>)>>,
    states: Mutex<HashMap<Id, State>>,
    /// The tasks of the connections end when it is dropped. Nothing is ever sent.
    kept: watch::Sender<()>,
}

/// The server of the main connection, and how reads are sent to it.
pub(crate) struct ReadServer {
    pub(crate) config: RedisConfig,
    pub(crate) address: SocketAddr,
    pub(crate) identity: Nonce,
    pub(crate) round_trip: Duration,
    /// How long the answer to a command may take.
    pub(crate) budget: Duration,
    /// The runtime that drives the main connection.
    pub(crate) home: Handle,
    /// A runtime that no caller blocks, to watch over the reads.
    pub(crate) background: Handle,
}

impl ReadServer {
    /// Whether all callers use the connection of the runtime that drives the main one.
    pub(super) fn is_shared(&self) -> bool {
        self.home.runtime_flavor() != RuntimeFlavor::CurrentThread
    }
}

/// The state of a runtime.
pub(super) enum State {
    /// After so many more reads it gets a connection.
    Counting {
        left: u32,
        /// How many connections in a row could not be made.
        failures: u32,
    },
    /// Its task connects, or sends reads.
    Running,
    /// It can't drive a connection.
    Unable,
}

impl State {
    const NEW: Self = Self::Counting {
        left: READS,
        failures: 0,
    };

    /// After a connection that was made and has failed.
    pub(super) const AFTER_LOSS: Self = Self::Counting {
        left: READS_AFTER_FAILURE,
        failures: 0,
    };

    /// After one more connection that could not be made, and so many before it.
    pub(super) fn after_failures(failures: u32) -> Self {
        let doublings = match crate::base::mutation::is_active("connections-made-on-and-on") {
            true => 0,
            false => failures.min(MOST_DOUBLINGS),
        };
        Self::Counting {
            left: READS_AFTER_FAILURE << doublings,
            failures: failures.saturating_add(1),
        }
    }
}

impl ReadSockets {
    /// Connections to this server, if it says who it is. The main one speaks RESP3 or not.
    pub(crate) fn to(mut server: ReadServer, is_resp3: bool) -> Self {
        let config = &mut server.config;
        if config.tls || server.identity == Nonce::NONE {
            return Self::default();
        }
        // As in RESP3. Without the name, a server that wants no password refuses any.
        if is_resp3
            && config.password.is_some()
            && !crate::base::mutation::is_active("default-user-not-named")
        {
            config.username.get_or_insert_with(|| "default".to_owned());
        }
        Self {
            server: Some(Arc::new(server)),
            ..Self::default()
        }
    }

    /// Reads over the connection that the caller should use, if there is one. Otherwise the read is
    /// counted. Once they are enough, `connect` is called with the runtime that is to open a
    /// connection, and the number of those in a row that could not be made.
    pub(crate) fn using<T>(
        &self,
        read: impl FnOnce(&Batcher) -> Option<T>,
        connect: impl FnOnce(&Handle, &Arc<ReadServer>, u32),
    ) -> Option<T> {
        let server = self.server.as_ref()?;
        let callers;
        let runtime = match server.is_shared() {
            true => &server.home,
            false => {
                callers = Handle::try_current().ok()?;
                &callers
            }
        };
        let connected = self.connected.load();
        if let Some((_, batcher)) = connected.iter().find(|(id, _)| *id == runtime.id()) {
            return read(batcher);
        }
        if server.is_shared() || runtime.id() != server.home.id() {
            let failures = self.count(runtime.id())?;
            connect(runtime, server, failures);
        }
        None
    }

    /// Counts a read of a runtime. If they are enough, the runtime has to connect, after so many
    /// failures.
    fn count(&self, runtime: Id) -> Option<u32> {
        let mut states = self.states.lock();
        if states.len() >= MOST && !states.contains_key(&runtime) {
            // Nothing tells when a runtime without a connection ends.
            states.retain(|_, state| matches!(state, State::Running));
            if states.len() >= MOST {
                return None;
            }
        }
        let state = states.entry(runtime).or_insert(State::NEW);
        match state {
            State::Counting { left: 0, failures } => {
                let failures = *failures;
                *state = State::Running;
                Some(failures)
            }
            State::Counting { left, .. } => {
                *left -= 1;
                None
            }
            State::Running | State::Unable => None,
        }
    }

    /// Tells a task of a connection, by an error, that the main connection is used no more.
    pub(super) fn until_dropped(&self) -> watch::Receiver<()> {
        self.kept.subscribe()
    }

    /// The runtime has a connection, over which what is queued here is read.
    pub(super) fn connected(&self, runtime: Id, batcher: &Arc<Batcher>) {
        self.connected.rcu(|connected| {
            let mut connected = Vec::clone(connected);
            connected.push((runtime, Arc::clone(batcher)));
            connected
        });
    }

    /// The task of the runtime has ended; `None` if the runtime has, too.
    pub(super) fn ended(&self, runtime: Id, next: Option<State>) {
        self.connected.rcu(|connected| {
            let mut connected = Vec::clone(connected);
            connected.retain(|(id, _)| *id != runtime);
            connected
        });
        let mut states = self.states.lock();
        match next {
            Some(next) => drop(states.insert(runtime, next)),
            None => drop(states.remove(&runtime)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::runtime::{Builder, Runtime};

    use super::*;

    fn runtime() -> Runtime {
        let runtime = Builder::new_current_thread().build();
        runtime.expect("a runtime")
    }

    /// Else each process would go on asking a full server for one more.
    #[test]
    fn a_connection_that_can_not_be_made_is_tried_less_and_less() {
        let home = runtime();
        let server = ReadServer {
            config: RedisConfig::at("127.0.0.1", 6379),
            address: (Ipv4Addr::LOCALHOST, 6379).into(),
            identity: Nonce(1),
            round_trip: Duration::ZERO,
            budget: Duration::ZERO,
            home: home.handle().clone(),
            background: home.handle().clone(),
        };
        let sockets = ReadSockets::to(server, true);
        let runtime = runtime();
        let _callers = runtime.enter();
        for expected in [257, 4_097, 8_193, 16_385] {
            let (mut reads, mut attempt) = (0, None);
            while attempt.is_none() {
                reads += 1;
                let read = sockets.using(
                    |_| Some(()),
                    |runtime, _, failures| attempt = Some((runtime.id(), failures)),
                );
                assert_eq!(read, None);
            }
            assert_eq!(reads, expected);
            let (runtime, failures) = attempt.expect("it was told to connect");
            sockets.ended(runtime, Some(State::after_failures(failures)));
        }
    }
}
