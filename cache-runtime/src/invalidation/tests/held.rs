//! A store that the tests hold shut.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::LIMIT;
use crate::base::clock::Millis;
use crate::base::error::{Error, ErrorKind};
use crate::base::nonce::Nonce;
use crate::protocol::circuit::Circuit;
use crate::protocol::generation::Dependency;
use crate::store::{
    ConnectionWatch, EntryRef, Fill, Filled, Intent, IntentReply, Invalidated, Invalidation,
    LeaseReply, LeaseRequest, LookupReply, PartlyInvalidated, Representation, ScanFilter,
    ServerInfo, Store,
};

/// A store that takes invalidations when its test allows it, and does nothing else.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) is_away: AtomicBool,
    pub(super) refuses_intents: AtomicBool,
    pub(super) attempts: AtomicUsize,
    /// How many invalidations are refused at once.
    pub(super) refusals: AtomicUsize,
    /// The other invalidations wait here.
    pub(super) gate: Semaphore,
    pub(super) taken: Semaphore,
    pub(super) closed: Semaphore,
    pub(super) connection: Option<ConnectionWatch>,
    /// Whether a refusal means that the connection was lost, and that there is a new one already.
    pub(super) reconnects: AtomicBool,
    /// It has several servers. The one for the invalidation is down, the ones for the intents are
    /// not.
    pub(super) is_partly_away: AtomicBool,
    /// The generations that it refuses while it replaces others.
    pub(super) forbidden: Mutex<Vec<&'static str>>,
    /// How long it takes for an invalidation.
    pub(super) takes: Mutex<Duration>,
    /// The names of the generations in each invalidation that it got, in alphabetical order.
    pub(super) got: Mutex<Vec<Vec<String>>>,
}

impl Held {
    /// Takes everything, and reconnects.
    pub(super) fn connected() -> (Arc<Self>, ConnectionWatch) {
        let watch = ConnectionWatch::default();
        watch.established();
        let mut held = Arc::into_inner(Self::open()).expect("the only one");
        held.connection = Some(watch.clone());
        (Arc::new(held), watch)
    }

    pub(super) fn lose_connection(&self) {
        self.is_away.store(true, Ordering::SeqCst);
    }

    pub(super) fn connect(&self) {
        self.is_away.store(false, Ordering::SeqCst);
        if let Some(connection) = &self.connection {
            connection.established();
        }
    }

    pub(super) fn open() -> Arc<Self> {
        let held = Self::shut();
        held.gate.add_permits(1_000);
        held
    }

    pub(super) fn shut() -> Arc<Self> {
        Arc::new(Self {
            is_away: AtomicBool::new(false),
            refuses_intents: AtomicBool::new(false),
            attempts: AtomicUsize::new(0),
            refusals: AtomicUsize::new(0),
            gate: Semaphore::new(0),
            taken: Semaphore::new(0),
            closed: Semaphore::new(0),
            connection: None,
            reconnects: AtomicBool::new(false),
            is_partly_away: AtomicBool::new(false),
            forbidden: Mutex::default(),
            takes: Mutex::default(),
            got: Mutex::default(),
        })
    }

    /// What it refuses of an invalidation, if anything: also what has to wait for that.
    fn refused_of(&self, invalidation: &Invalidation) -> Option<Invalidation> {
        let forbidden = self.forbidden.lock();
        let rotates = &invalidation.rotates;
        let is_forbidden = |dep: &&Arc<Dependency>| forbidden.contains(&dep.name());
        let windows = Dependency::windows(rotates.iter().filter(is_forbidden));
        let is_undone = |dep: &&Arc<Dependency>| is_forbidden(dep) || dep.waits_for(&windows);
        let undone = Invalidation {
            rotates: rotates.iter().filter(is_undone).cloned().collect(),
            ..Invalidation::default()
        };
        (!undone.is_empty()).then_some(undone)
    }

    /// Returns once it has taken one more invalidation.
    pub(super) async fn takes_one(&self) {
        let taken = crate::base::time::timeout(LIMIT, self.taken.acquire()).await;
        taken.expect("in time").expect("never closed").forget();
    }
}

pub(super) fn refused<T>() -> Result<T, Error> {
    Err(Error::unavailable("the test refuses it"))
}

#[async_trait]
impl Store for Held {
    fn name(&self) -> &'static str {
        "held"
    }

    fn representation(&self) -> Representation {
        Representation::Decoded
    }

    fn circuit(&self) -> Circuit {
        if self.is_away.load(Ordering::SeqCst) {
            Circuit::Open
        } else {
            Circuit::Closed
        }
    }

    fn connection(&self) -> Option<ConnectionWatch> {
        self.connection.clone()
    }

    async fn lookup(&self, _: &EntryRef) -> Result<LookupReply, Error> {
        refused()
    }

    async fn lease(&self, _: &EntryRef, _: &LeaseRequest) -> Result<LeaseReply, Error> {
        refused()
    }

    async fn renew(&self, _: &str, _: Nonce, _: Duration) -> Result<bool, Error> {
        refused()
    }

    async fn release(&self, _: &str, _: Nonce) -> Result<(), Error> {
        refused()
    }

    async fn fill(&self, _: &EntryRef, _: Fill) -> Result<Filled, Error> {
        refused()
    }

    async fn invalidate(&self, _: &Invalidation) -> Result<Invalidated, Error> {
        self.attempts.fetch_add(1, Ordering::SeqCst);
        let minus_one = |left: usize| left.checked_sub(1);
        if self
            .refusals
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, minus_one)
            .is_ok()
        {
            if self.reconnects.load(Ordering::SeqCst) {
                self.connect();
            }
            return refused();
        }
        self.gate.acquire().await.expect("never closed").forget();
        self.taken.add_permits(1);
        Ok(Invalidated {
            at: Millis(0),
            removed: 0,
        })
    }

    async fn invalidate_partly(&self, invalidation: &Invalidation) -> PartlyInvalidated {
        let none = Invalidated {
            at: Millis(0),
            removed: 0,
        };
        let names = invalidation.rotates.iter().map(|dep| dep.name().to_owned());
        let mut names: Vec<_> = names.collect();
        names.sort();
        self.got.lock().push(names);
        let takes = *self.takes.lock();
        if !takes.is_zero() {
            crate::base::time::sleep(takes).await;
        }
        if let Some(undone) = self.refused_of(invalidation) {
            let kind = match self.is_split() {
                true => ErrorKind::Unavailable,
                false => ErrorKind::Store,
            };
            let error = Error::new(kind, "the test forbids it");
            return PartlyInvalidated::partly(none, undone, error);
        }
        let answer = match self.is_split() && self.forbidden.lock().is_empty() {
            true => refused(),
            false => self.invalidate(invalidation).await,
        };
        match answer {
            Ok(done) => PartlyInvalidated::whole(done),
            Err(error) => PartlyInvalidated::partly(none, invalidation.clone(), error),
        }
    }

    fn is_split(&self) -> bool {
        self.is_partly_away.load(Ordering::SeqCst)
    }

    async fn intend(&self, _: &Intent) -> Result<IntentReply, Error> {
        if self.refuses_intents.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Store, "the test refuses it"));
        }
        let at = self.invalidate(&Invalidation::default()).await?.at;
        Ok(IntentReply {
            at,
            on_whole: false,
        })
    }

    async fn renew_intent(&self, _: &Intent) -> Result<IntentReply, Error> {
        refused()
    }

    async fn prune(&self, _: &EntryRef) -> Result<(), Error> {
        refused()
    }

    async fn remove_matching(&self, _: &ScanFilter) -> Result<u64, Error> {
        refused()
    }

    async fn invalidate_namespace(&self, _: &str) -> Result<Millis, Error> {
        refused()
    }

    async fn ping(&self) -> Result<(), Error> {
        refused()
    }

    async fn server_info(&self) -> Result<ServerInfo, Error> {
        refused()
    }

    async fn close(&self) {
        self.closed.add_permits(1);
    }
}
