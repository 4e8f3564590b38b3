//! A store that fails on request.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::base::error::{Error, ErrorKind};
use crate::base::nonce::Nonce;
use crate::base::unserved::Unserved;
use crate::store::{
    Circuit, EntryRef, Fill, Filled, Intent, IntentReply, Invalidated, Invalidation, LeaseReply,
    LeaseRequest, LookupReply, Millis, Representation, ScanFilter, ServerInfo, Store, StoreUsage,
};

/// The ways in which the store of a [`TestCache`](super::TestCache) can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It is known to be unreachable: no request is sent.
    Away,
    /// It does not answer: each call waits for its whole command budget.
    Hung,
    /// It refuses every request with an error.
    Refusing,
    /// It is over its memory limit: entries can be read and invalidated, but nothing new is stored.
    Full,
    /// It executes every request, but its answers are lost.
    AnswersLost,
}

/// The current fault.
#[derive(Debug)]
pub(super) struct Switch {
    fault: Mutex<Option<Fault>>,
    budget: Duration,
}

impl Switch {
    pub(super) fn new(budget: Duration) -> Self {
        Self {
            fault: Mutex::new(None),
            budget,
        }
    }

    pub(super) fn set(&self, fault: Option<Fault>) {
        *self.fault.lock() = fault;
    }

    pub(super) fn get(&self) -> Option<Fault> {
        *self.fault.lock()
    }

    async fn run<T>(
        &self,
        adds: bool,
        ask: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        match self.get() {
            None => ask.await,
            Some(Fault::Full) if !adds => ask.await,
            Some(Fault::Full) => {
                Err(refused("OOM command not allowed").with_source(Unserved::Full))
            }
            Some(Fault::Refusing) => Err(refused("the test made the store refuse this")),
            Some(Fault::Away) => Err(Error::unavailable("the test made the store unreachable")),
            Some(Fault::AnswersLost) => {
                let _ = ask.await;
                Err(self.unanswered().await)
            }
            Some(Fault::Hung) => Err(self.unanswered().await),
        }
    }

    async fn unanswered(&self) -> Error {
        tokio::time::sleep(self.budget).await;
        Error::unavailable("the test made the store hang")
    }
}

fn refused(text: &str) -> Error {
    Error::new(ErrorKind::Store, text)
}

/// A store whose fault a switch controls.
pub(super) struct Faulty<S> {
    store: S,
    faults: std::sync::Arc<Switch>,
}

impl<S> Faulty<S> {
    pub(super) fn new(store: S, faults: std::sync::Arc<Switch>) -> Self {
        Self { store, faults }
    }
}

impl<S: fmt::Debug> fmt::Debug for Faulty<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

macro_rules! verbs {
    ($($adds:literal $verb:ident($($arg:ident: $type:ty),*) -> $answer:ty;)*) => {
        #[async_trait]
        impl<S: Store> Store for Faulty<S> {
            fn name(&self) -> &'static str {
                self.store.name()
            }

            fn is_in_process(&self) -> bool {
        self.store.is_in_process()
    }

    fn representation(&self) -> Representation {
                self.store.representation()
            }

            fn lists_keys(&self) -> bool {
                self.store.lists_keys()
            }

            fn circuit(&self) -> Circuit {
                match self.faults.get() {
                    Some(Fault::Away) => Circuit::Open,
                    _ => self.store.circuit(),
                }
            }

            fn usage(&self) -> Option<StoreUsage> {
                self.store.usage()
            }

            $(async fn $verb(&self, $($arg: $type),*) -> Result<$answer, Error> {
                self.faults.run($adds, self.store.$verb($($arg),*)).await
            })*

            async fn close(&self) {
                self.store.close().await;
            }
        }
    };
}

// `true` marks the requests that add something to the store.
verbs! {
    false lookup(entry_ref: &EntryRef) -> LookupReply;
    false examine(entry_ref: &EntryRef) -> LookupReply;
    true lease(entry_ref: &EntryRef, request: &LeaseRequest) -> LeaseReply;
    true renew(key: &str, token: Nonce, length: Duration) -> bool;
    false release(key: &str, token: Nonce) -> ();
    true fill(entry_ref: &EntryRef, fill: Fill) -> Filled;
    false intend(intent: &Intent) -> IntentReply;
    false renew_intent(intent: &Intent) -> IntentReply;
    false prune(entry_ref: &EntryRef) -> ();
    false invalidate(invalidation: &Invalidation) -> Invalidated;
    false remove_matching(filter: &ScanFilter) -> u64;
    false invalidate_namespace(namespace: &str) -> Millis;
    false ping() -> ();
    false server_info() -> ServerInfo;
}
