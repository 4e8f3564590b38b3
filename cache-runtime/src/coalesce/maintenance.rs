//! Small requests to the store that no caller waits for: renewing leases, giving them back, and
//! renewing intents.
//!
//! One task sends them, however many calls there are. A request that can't be sent is dropped: a
//! lease or an intent that is not renewed or given back expires by itself.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::sync::mpsc;

use crate::base::background::Background;
use crate::base::nonce::Nonce;
use crate::store::{Circuit, Intent, Store};

/// The most jobs that wait.
const WAITING: usize = 10_000;
/// The most jobs that run at a time.
const AT_A_TIME: usize = 64;

/// A request to the store that no caller waits for.
#[derive(Debug, Clone)]
pub(crate) enum MaintenanceJob {
    /// Extends a lease. A lease that can't be renewed expires, and its fill is refused.
    Renew {
        key: String,
        token: Nonce,
        length: Duration,
    },
    /// Extends many leases at once.
    RenewMany {
        leases: Vec<(String, Nonce)>,
        length: Duration,
    },
    /// Gives a lease back.
    Release { key: String, token: Nonce },
    /// Extends an intent. An intent that can't be renewed ends as if its process had been killed.
    RenewIntent(Intent),
}

/// The handle of the maintenance queue. The task ends when the handle is dropped or the cache is
/// closed.
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
        // A full queue means that the store does not answer: drop the job.
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
