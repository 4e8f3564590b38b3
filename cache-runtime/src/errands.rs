//! Small duties towards the store for which nobody waits: leases renewed and given back, announcements renewed.
//!
//! One task does them, however many calls there are. What it can't do is forgotten: a lease or an announcement that
//! nobody renews ends with its time, and so does one that nobody gives back.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::sync::mpsc;

use crate::background::Background;
use crate::nonce::Nonce;
use crate::store::{Circuit, Intent, Store};

/// So many may wait to be done.
const WAITING: usize = 10_000;
/// So many are done at a time.
const AT_A_TIME: usize = 64;

/// What is to be done.
#[derive(Debug, Clone)]
pub(crate) enum Errand {
    /// Moves the deadline of a lease. One that can't be renewed lapses, and the fill is refused.
    Renew {
        key: String,
        token: Nonce,
        length: Duration,
    },
    /// The same for many leases at once.
    RenewMany {
        leases: Vec<(String, Nonce)>,
        length: Duration,
    },
    /// Gives a lease back.
    Release { key: String, token: Nonce },
    /// Moves the deadline of an announcement. One that can't be renewed ends as if its process had been killed.
    RenewIntent(Intent),
}

/// The near end of the queue of errands. The task ends when it is dropped, or the cache is closed.
#[derive(Debug)]
pub(crate) struct Errands(mpsc::Sender<Errand>);

impl Errands {
    pub(crate) fn start(store: Arc<dyn Store>, background: &Background) -> Self {
        let (sender, mut waiting) = mpsc::channel(WAITING);
        background.spawn(async move {
            stream::poll_fn(|context| waiting.poll_recv(context))
                .for_each_concurrent(AT_A_TIME, |errand| run(&*store, errand))
                .await;
        });
        Self(sender)
    }

    pub(crate) fn send(&self, errand: Errand) {
        // If too many wait already, the store does not answer.
        let _ = self.0.try_send(errand);
    }
}

async fn run(store: &dyn Store, errand: Errand) {
    if store.circuit() != Circuit::Closed {
        return;
    }
    let _ = match errand {
        Errand::Renew { key, token, length } => store.renew(&key, token, length).await.map(drop),
        Errand::RenewMany { leases, length } => store.renew_many(&leases, length).await,
        Errand::Release { key, token } => store.release(&key, token).await,
        Errand::RenewIntent(intent) => store.renew_intent(&intent).await.map(drop),
    };
}
