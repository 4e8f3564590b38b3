//! Connections that belong to single-threaded runtimes.
//!
//! Without worker threads of the application, the cache's own thread drives the connection. A read
//! from a single-threaded runtime (a worker of actix-web, `current_thread`) then wakes that thread,
//! and is woken by it, which takes as long as the read itself. So such a runtime gets a connection
//! of its own for reads, once it has read often enough, with a batcher of its own, whose workers it
//! runs. Everything else goes over the main connection.
//!
//! A read over it returns what the main connection would: it is sent after the read began, to the
//! same server. It is only used while the main connection is, which watches whether the server is
//! still the primary. With local entries there is none, since the server reports changes only of
//! keys that were read over the main connection.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, OccupiedEntry};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind};
use tokio::runtime::{Handle, Id, RuntimeFlavor};
use tokio::sync::oneshot;

use super::super::connection::dial::{dial, identify};
use super::batcher::Batcher;
use crate::base::error::Error;
use crate::base::nonce::Nonce;
use crate::config::RedisConfig;

/// After so many reads a runtime gets a connection. To connect costs about as much as twenty reads,
/// and most runtimes that read less are those of a test.
const READS: u32 = 256;

/// The same after a connection could not be made, or has failed.
const READS_AFTER_FAILURE: u32 = 4_096;

/// The most runtimes that have a connection. Others use the main connection.
const MOST: usize = 64;

/// How long connecting may take. No caller waits for it.
const CONNECT_BUDGET: Duration = Duration::from_secs(1);

/// The connections of the runtimes that read over one main connection.
#[derive(Default)]
pub(crate) struct RuntimeConnections {
    /// `None` if runtimes get no connections.
    server: Option<Arc<Server>>,
    driver: OnceLock<Driver>,
    runtimes: Arc<Runtimes>,
    attempts: AtomicU64,
}

type Runtimes = Mutex<HashMap<Id, State>>;

/// Sends the batches of a runtime, while the main connection is in use.
pub(crate) type Driver = Arc<dyn Fn(Arc<Batcher>) -> BoxFuture<'static, ()> + Send + Sync>;

/// The server of the main connection.
struct Server {
    config: RedisConfig,
    address: SocketAddr,
    identity: Nonce,
    round_trip: Duration,
    /// Of a command.
    budget: Duration,
    /// The runtime that drives the main connection.
    home: Id,
}

enum State {
    /// So many more reads, then it gets a connection.
    Counting(u32),
    Connecting {
        attempt: u64,
    },
    Connected {
        attempt: u64,
        multiplexed: MultiplexedConnection,
        batcher: Arc<Batcher>,
        /// Ends the task of the runtime when it is dropped.
        _kept: oneshot::Sender<()>,
    },
    /// The runtime can't drive a connection.
    Unable,
}

/// The connection of the current runtime.
pub(crate) struct OwnConnection {
    pub(crate) multiplexed: MultiplexedConnection,
    place: Place,
}

impl OwnConnection {
    /// Whether no call has found that it has failed.
    pub(crate) fn is_in_use(&self) -> bool {
        let mut is_in_use = false;
        self.place.with(|_| is_in_use = true);
        is_in_use
    }

    /// Uses it no more, since it has failed.
    pub(crate) fn failed(&self) {
        self.place.set(State::Counting(READS_AFTER_FAILURE));
    }
}

impl RuntimeConnections {
    /// Connections to the server at this address, if it says who it is. Called on the runtime that
    /// drives the main connection.
    pub(crate) fn to(
        config: &RedisConfig,
        address: SocketAddr,
        identity: Nonce,
        round_trip: Duration,
        budget: Duration,
    ) -> Self {
        let home = Handle::current();
        let is_shared = home.runtime_flavor() != RuntimeFlavor::CurrentThread;
        if is_shared || identity == Nonce::NONE {
            return Self::default();
        }
        Self {
            server: Some(Arc::new(Server {
                config: config.clone(),
                address,
                identity,
                round_trip,
                budget,
                home: home.id(),
            })),
            ..Self::default()
        }
    }

    /// Lets this send the batches of runtimes.
    pub(crate) fn batches_by(&self, driver: Driver) {
        let _ = self.driver.set(driver);
    }

    /// The batcher of the current runtime, if it has a connection.
    pub(crate) fn batcher(&self) -> Option<Arc<Batcher>> {
        self.server.as_ref()?;
        let id = Handle::try_current().ok()?.id();
        match self.runtimes.lock().get(&id)? {
            State::Connected { batcher, .. } => Some(Arc::clone(batcher)),
            _ => None,
        }
    }

    /// Uses the connection of the current runtime no more. `false` if it has none.
    pub(crate) fn give_up_own(&self) -> bool {
        let own = self.own();
        own.inspect(OwnConnection::failed).is_some()
    }

    /// The connection of the current runtime, if it has one. Begins to connect if the runtime has
    /// read often enough.
    pub(crate) fn own(&self) -> Option<OwnConnection> {
        let server = self.server.as_ref()?;
        let runtime = Handle::try_current().ok()?;
        let id = runtime.id();
        if runtime.runtime_flavor() != RuntimeFlavor::CurrentThread || id == server.home {
            return None;
        }
        let place = |attempt| Place {
            runtimes: Arc::downgrade(&self.runtimes),
            id,
            attempt,
        };
        let mut runtimes = self.runtimes.lock();
        if runtimes.len() >= MOST && !runtimes.contains_key(&id) {
            // Nothing tells when a runtime without a connection ends.
            runtimes.retain(|_, state| {
                matches!(state, State::Connecting { .. } | State::Connected { .. })
            });
            if runtimes.len() >= MOST {
                return None;
            }
        }
        let state = match runtimes.entry(id) {
            Entry::Occupied(state) => state.into_mut(),
            Entry::Vacant(new) => new.insert(State::Counting(READS)),
        };
        match state {
            State::Connected {
                attempt,
                multiplexed,
                ..
            } => Some(OwnConnection {
                multiplexed: multiplexed.clone(),
                place: place(*attempt),
            }),
            State::Counting(0) => {
                let attempt = self.attempts.fetch_add(1, Ordering::Relaxed);
                *state = State::Connecting { attempt };
                drop(runtimes);
                let driver = self.driver.get().cloned();
                runtime.spawn(keep(Arc::clone(server), driver, Guard(place(attempt))));
                None
            }
            State::Counting(left) => {
                *left -= 1;
                None
            }
            State::Connecting { .. } | State::Unable => None,
        }
    }
}

/// Connects, and sends batches until the connection is used no more. When the runtime ends, this is
/// dropped.
async fn keep(server: Arc<Server>, driver: Option<Driver>, guard: Guard) {
    let place = &guard.0;
    let opened = crate::base::time::timeout(CONNECT_BUDGET, server.open(place.clone())).await;
    let Ok(Ok(multiplexed)) = opened else {
        place.set(State::Counting(READS_AFTER_FAILURE));
        return;
    };
    let batcher = Arc::new(Batcher::default());
    batcher.set_round_trip(server.round_trip);
    let queued = QueuedReads(Arc::clone(&batcher));
    let (kept, ended) = oneshot::channel();
    place.set(State::Connected {
        attempt: place.attempt,
        multiplexed,
        batcher,
        _kept: kept,
    });
    let Some(driver) = driver else {
        // Reads are never queued then, since none is sent.
        drop(queued);
        let _ = ended.await;
        return;
    };
    tokio::select! {
        // Nothing is ever sent.
        _ = ended => {}
        () = driver(Arc::clone(&queued.0)) => {}
        never = queued.0.watch(server.budget, || {}) => match never {},
    }
}

/// The reads in the queue of a runtime. When it sends no more batches, they are repeated.
struct QueuedReads(Arc<Batcher>);

impl Drop for QueuedReads {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

impl Server {
    async fn open(&self, place: Place) -> Result<MultiplexedConnection, Error> {
        let on_push = move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                place.set(State::Counting(READS));
            }
        };
        let (mut multiplexed, _) = dial(&self.config, self.address, on_push).await?;
        let found = identify(&mut multiplexed, false, false).await?;
        if found.server != self.identity
            && !crate::base::mutation::is_active("own-connection-to-any-server")
        {
            return Err(Error::unavailable("another server answers at this address"));
        }
        Ok(multiplexed)
    }
}

/// Where an attempt of a runtime to connect is recorded.
#[derive(Clone)]
struct Place {
    runtimes: Weak<Runtimes>,
    id: Id,
    attempt: u64,
}

impl Place {
    /// Records how the attempt goes on.
    fn set(&self, next: State) {
        self.with(|mut state| drop(state.insert(next)));
    }

    fn forget(&self) {
        self.with(|state| drop(state.remove()));
    }

    /// Nothing, if another attempt has taken its place.
    fn with(&self, change: impl FnOnce(OccupiedEntry<'_, Id, State>)) {
        let Some(runtimes) = self.runtimes.upgrade() else {
            return;
        };
        if let Entry::Occupied(state) = runtimes.lock().entry(self.id)
            && let State::Connecting { attempt } | State::Connected { attempt, .. } = state.get()
            && *attempt == self.attempt
        {
            change(state);
        }
    }
}

/// The end of an attempt's task: the connection is used no more, or the runtime has ended.
struct Guard(Place);

impl Drop for Guard {
    fn drop(&mut self) {
        match std::thread::panicking() {
            // The client panics if the runtime was built without its driver for sockets.
            true => self.0.set(State::Unable),
            false => self.0.forget(),
        }
    }
}
