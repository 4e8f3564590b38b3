//! Small duties towards the store for which nobody waits: leases renewed and given back, announcements renewed.
//!
//! One task does them, however many calls there are. What it can't do is forgotten: a lease or an announcement that
//! nobody renews ends with its time, and so does one that nobody gives back.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::sync::mpsc;

use crate::base::background::Background;
use crate::base::nonce::Nonce;
use crate::store::{Circuit, Intent, Store};

/// So many may wait to be done.
const WAITING: usize = 10_000;
/// So many are done at a time.
const AT_A_TIME: usize = 64;

/// What is to be done.
#[derive(Debug, Clone)]
pub(crate) enum MaintenanceJob {
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

/// The near end of the queue of maintenance. The task ends when it is dropped, or the cache is closed.
#[derive(Debug)]
pub(crate) struct Maintenance(mpsc::Sender<MaintenanceJob>);

impl Maintenance {
    pub(crate) fn start(store: Arc<dyn Store>, background: &Background) -> Self {
        let (sender, mut waiting) = mpsc::channel(WAITING);
        background.spawn(async move {
            stream::poll_fn(|context| waiting.poll_recv(context))
                .for_each_concurrent(AT_A_TIME, |job| run(&*store, job))
                .await;
        });
        Self(sender)
    }

    pub(crate) fn send(&self, job: MaintenanceJob) {
        // If too many wait already, the store does not answer.
        let _ = self.0.try_send(job);
    }
}

async fn run(store: &dyn Store, job: MaintenanceJob) {
    if store.circuit() != Circuit::Closed {
        return;
    }
    let _ = match job {
        MaintenanceJob::Renew { key, token, length } => {
            store.renew(&key, token, length).await.map(drop)
        }
        MaintenanceJob::RenewMany { leases, length } => store.renew_many(&leases, length).await,
        MaintenanceJob::Release { key, token } => store.release(&key, token).await,
        MaintenanceJob::RenewIntent(intent) => store.renew_intent(&intent).await.map(drop),
    };
}
