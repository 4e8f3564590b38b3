//! The connections that only read.
//!
//! Once enough was read over the main connection, the runtime that drives it opens a connection
//! that only reads ([`ReadSocket`]), which costs both the callers and the server less for each
//! read. If the cache's own thread drives the main connection, each runtime that reads often enough
//! opens one: otherwise each read would wake that thread, and be woken by it, which takes as long
//! as the read itself. Everything else goes over the main connection.
//!
//! A read over such a connection returns what the main one would: it is sent after the read began,
//! to the same server. It is only used while the main connection is, which watches whether the
//! server is still the primary. If it fails, what was not answered is read once more over the main
//! one. With local entries there is none, since the server reports changes only of keys that were
//! read over the main connection; with TLS there is none either.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, OccupiedEntry};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::runtime::{Handle, Id, RuntimeFlavor};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use super::batcher::Batcher;
use super::read_socket::ReadSocket;
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

/// How long connecting may take. No caller waits for it.
const CONNECT_BUDGET: Duration = Duration::from_secs(1);

/// The connections that only read, beside one main connection.
#[derive(Default)]
pub(crate) struct ReadSockets {
    /// `None` if there are none.
    server: Option<Arc<Server>>,
    main: OnceLock<Arc<MainConnection>>,
    runtimes: Arc<Runtimes>,
    attempts: AtomicU64,
}

#[derive(Default)]
struct Runtimes {
    by_id: Mutex<HashMap<Id, State>>,
    /// The reads of the connection of the runtime that drives the main one, if all callers use it.
    shared: ArcSwapOption<Batcher>,
}

/// What these connections know of the main one, which does not know how they read.
pub(crate) struct MainConnection {
    /// Reads what is queued, until the connection can't be used any more.
    pub(crate) drive: Drive,
    /// Counts a read that was not answered in time.
    pub(crate) unanswered: Box<dyn Fn() + Send + Sync>,
    /// How long the answer to a command may take.
    pub(crate) budget: Duration,
    /// A runtime that no caller blocks, to watch over the reads.
    pub(crate) background: Handle,
}

pub(crate) type Drive =
    Box<dyn Fn(ReadSocket, Arc<Batcher>, Duration) -> BoxFuture<'static, ()> + Send + Sync>;

/// The server of the main connection.
struct Server {
    config: RedisConfig,
    address: SocketAddr,
    identity: Nonce,
    round_trip: Duration,
    /// The runtime that drives the main connection.
    home: Handle,
}

enum State {
    /// After so many more reads it gets a connection.
    Counting {
        left: u32,
        /// How many connections in a row could not be made.
        failures: u32,
    },
    Connecting {
        attempt: u64,
    },
    Connected {
        attempt: u64,
        batcher: Arc<Batcher>,
        /// Ends the task of the runtime when it is dropped.
        _kept: oneshot::Sender<()>,
    },
    /// The runtime can't drive a connection.
    Unable,
}

impl State {
    /// After a connection that was made and has failed.
    const AFTER_LOSS: Self = Self::Counting {
        left: READS_AFTER_FAILURE,
        failures: 0,
    };

    const NEW: Self = Self::Counting {
        left: READS,
        failures: 0,
    };

    /// After one more connection that could not be made, and so many before it.
    fn after_failures(failures: u32) -> Self {
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
    /// Connections to the server at this address, if it says who it is. Called on the runtime that
    /// drives the main connection, which speaks RESP3 or not.
    pub(crate) fn to(
        config: &RedisConfig,
        address: SocketAddr,
        identity: Nonce,
        round_trip: Duration,
        is_resp3: bool,
    ) -> Self {
        if config.tls || identity == Nonce::NONE {
            return Self::default();
        }
        let mut config = config.clone();
        // As in RESP3. Without the name, a server that wants no password refuses any.
        if is_resp3
            && config.password.is_some()
            && !crate::base::mutation::is_active("default-user-not-named")
        {
            config.username.get_or_insert_with(|| "default".to_owned());
        }
        Self {
            server: Some(Arc::new(Server {
                config,
                address,
                identity,
                round_trip,
                home: Handle::current(),
            })),
            ..Self::default()
        }
    }

    /// Lets runtimes open connections beside the main one.
    pub(crate) fn allow(&self, main: MainConnection) {
        // It is called once for each main connection.
        let _ = self.main.set(Arc::new(main));
    }

    /// Uses the reads of the connection that the caller should use, if there is one. Begins to
    /// connect if enough was read.
    pub(crate) fn using<T>(&self, using: impl FnOnce(&Batcher) -> Option<T>) -> Option<T> {
        let server = self.server.as_ref()?;
        if let Some(batcher) = &*self.runtimes.shared.load() {
            return using(batcher);
        }
        if server.is_shared() {
            self.count(server, &server.home);
            return None;
        }
        let runtime = Handle::try_current().ok()?;
        if runtime.id() == server.home.id() {
            return None;
        }
        let batcher = match self.runtimes.by_id.lock().get(&runtime.id()) {
            Some(State::Connected { batcher, .. }) => Some(Arc::clone(batcher)),
            _ => None,
        };
        if batcher.is_none() {
            self.count(server, &runtime);
        }
        using(&*batcher?)
    }

    /// Counts a read of a runtime, and begins to connect if they are enough.
    fn count(&self, server: &Arc<Server>, runtime: &Handle) {
        let id = runtime.id();
        let mut runtimes = self.runtimes.by_id.lock();
        if runtimes.len() >= MOST && !runtimes.contains_key(&id) {
            // Nothing tells when a runtime without a connection ends.
            runtimes.retain(|_, state| {
                matches!(state, State::Connecting { .. } | State::Connected { .. })
            });
            if runtimes.len() >= MOST {
                return;
            }
        }
        let state = match runtimes.entry(id) {
            Entry::Occupied(state) => state.into_mut(),
            Entry::Vacant(new) => new.insert(State::NEW),
        };
        let Some(main) = self.main.get() else {
            return;
        };
        let failures = match state {
            State::Counting { left: 0, failures } => *failures,
            State::Counting { left, .. } => {
                *left -= 1;
                return;
            }
            State::Connecting { .. } | State::Connected { .. } | State::Unable => return,
        };
        let attempt = self.attempts.fetch_add(1, Ordering::Relaxed);
        *state = State::Connecting { attempt };
        drop(runtimes);
        let place = Place {
            runtimes: Arc::downgrade(&self.runtimes),
            id,
            attempt,
            failures,
        };
        let keeper = Keeper {
            server: Arc::clone(server),
            main: Arc::clone(main),
        };
        runtime.spawn(keeper.keep(Guard(place)));
    }
}

impl Server {
    /// Whether all callers use the connection of the runtime that drives the main one.
    fn is_shared(&self) -> bool {
        self.home.runtime_flavor() != RuntimeFlavor::CurrentThread
    }
}

/// Opens a connection, and keeps it.
struct Keeper {
    server: Arc<Server>,
    main: Arc<MainConnection>,
}

impl Keeper {
    /// Connects, and sends batches until the connection is used no more. When the runtime ends,
    /// this is dropped.
    async fn keep(self, guard: Guard) {
        let place = &guard.0;
        let Server {
            config,
            address,
            identity,
            round_trip,
            ..
        } = &*self.server;
        let opening = ReadSocket::open(config, *address, *identity);
        let opened = crate::base::time::timeout(CONNECT_BUDGET, opening).await;
        let Ok(Ok(socket)) = opened else {
            place.set(State::after_failures(place.failures));
            return;
        };
        let batcher = Arc::new(Batcher::default());
        let queued = QueuedReads(Arc::clone(&batcher));
        let is_shared = self.server.is_shared();
        let watch = Watch::new(&self.main, &batcher, is_shared);
        let (kept, ended) = oneshot::channel();
        let _shared = is_shared.then(|| Shared::new(&place.runtimes, &batcher));
        place.set(State::Connected {
            attempt: place.attempt,
            batcher,
            _kept: kept,
        });
        let drive = &self.main.drive;
        let driven = drive(socket, Arc::clone(&queued.0), *round_trip);
        tokio::select! {
            biased;
            // Nothing is ever sent.
            _ = ended => return,
            () = watch.overdue.notified() => {}
            () = driven => {}
        }
        place.set(State::AFTER_LOSS);
    }
}

/// The reads of a connection. When it sends no more of them, they are repeated.
struct QueuedReads(Arc<Batcher>);

impl Drop for QueuedReads {
    fn drop(&mut self) {
        // Those who still find it are told to read elsewhere.
        self.0.give_back();
    }
}

/// That all callers use the reads of a connection.
struct Shared(Weak<Runtimes>);

impl Shared {
    fn new(runtimes: &Weak<Runtimes>, batcher: &Arc<Batcher>) -> Self {
        if let Some(runtimes) = runtimes.upgrade() {
            runtimes.shared.store(Some(Arc::clone(batcher)));
        }
        Self(Weak::clone(runtimes))
    }
}

impl Drop for Shared {
    /// No other attempt can have stored its own: while there is one, no reads are counted.
    fn drop(&mut self) {
        if let Some(runtimes) = self.0.upgrade() {
            runtimes.shared.store(None);
        }
    }
}

/// The task that watches over the reads of a connection.
struct Watch {
    /// A batch was not answered in time.
    overdue: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Watch {
    /// If only the callers of one runtime use the connection, that runtime may be what is late: its
    /// thread is blocked. Then the server does not count as silent, which the main connection finds
    /// out.
    fn new(main: &Arc<MainConnection>, batcher: &Arc<Batcher>, is_shared: bool) -> Self {
        let overdue = Arc::new(Notify::new());
        let (notify, main) = (Arc::clone(&overdue), Arc::clone(main));
        let (batcher, background) = (Arc::clone(batcher), main.background.clone());
        let task = background.spawn(async move {
            let is_overdue = || {
                if is_shared || crate::base::mutation::is_active("blocked-runtimes-count") {
                    (main.unanswered)();
                }
                notify.notify_one();
            };
            match batcher.watch(main.budget, is_overdue).await {}
        });
        Self { overdue, task }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Where an attempt of a runtime to connect is recorded.
#[derive(Clone)]
struct Place {
    runtimes: Weak<Runtimes>,
    id: Id,
    attempt: u64,
    /// How many attempts before this one have failed in a row.
    failures: u32,
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
        if let Entry::Occupied(state) = runtimes.by_id.lock().entry(self.id)
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
            // Tokio panics if the runtime was built without its driver for sockets.
            true => self.0.set(State::Unable),
            false => self.0.forget(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use tokio::runtime::{Builder, Runtime};

    use super::*;

    fn runtime() -> Runtime {
        let runtime = Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime")
    }

    /// Else each process would go on asking a full server for one more.
    #[test]
    fn a_connection_that_can_not_be_made_is_tried_less_and_less() {
        let home = runtime();
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("bound");
        // Connections are refused from now on.
        drop(listener);
        let config = RedisConfig::at("127.0.0.1", address.port());
        let sockets = {
            let _home = home.enter();
            ReadSockets::to(&config, address, Nonce(1), Duration::ZERO, true)
        };
        sockets.allow(MainConnection {
            drive: Box::new(|_, _, _| Box::pin(std::future::ready(()))),
            unanswered: Box::new(|| {}),
            budget: Duration::from_secs(1),
            background: home.handle().clone(),
        });
        let is_connecting = || {
            let runtimes = sockets.runtimes.by_id.lock();
            let mut states = runtimes.values();
            states.any(|state| matches!(state, State::Connecting { .. }))
        };
        runtime().block_on(async {
            for (number, expected) in (1..).zip([257, 4_097, 8_193, 16_385]) {
                let mut reads = 0;
                while sockets.attempts.load(Ordering::Relaxed) < number {
                    reads += 1;
                    assert_eq!(sockets.using(|_| Some(())), None);
                }
                assert_eq!(reads, expected);
                while is_connecting() {
                    tokio::task::yield_now().await;
                }
            }
        });
    }
}
