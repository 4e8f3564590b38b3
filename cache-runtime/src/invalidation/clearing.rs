//! The scan that removes the entries of a namespace, after all of them have been invalidated.
//!
//! A scan costs as much as the store has keys, including those of other programs. So callers share
//! it. A caller that comes while a scan is running waits for the next one, since the running scan
//! may have passed the entries that this caller wants removed. Any number of callers cost two
//! scans. The scan runs on the cache's own thread, so a caller that hangs up stops nothing.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::base::background::{Background, supervised};
use crate::base::error::{Error, ErrorKind};
use crate::store::{ScanFilter, Store};

/// How long paused time is held for a caller that waits for a scan.
pub(super) const HELD: Duration = Duration::from_secs(60);

/// The scans of one cache, one at a time.
#[derive(Debug)]
pub(super) struct Clearing {
    pub(super) everything: ScanFilter,
    waiting: Mutex<WaitingCallers>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct WaitingCallers {
    /// The callers that wait for the next scan.
    next: Option<watch::Sender<Option<Outcome>>>,
    /// Whether the cache is closed, so that no scan will follow.
    is_over: bool,
}

/// How many entries were removed. An error can't be cloned, so its parts are kept.
type Outcome = Result<u64, (ErrorKind, String)>;

/// Waits for the next scan.
pub(crate) struct PendingScan(Option<watch::Receiver<Option<Outcome>>>);

impl Clearing {
    pub(super) fn start(
        store: Arc<dyn Store>,
        namespace: &str,
        background: &Background,
    ) -> Arc<Self> {
        let clearing = Arc::new(Self {
            everything: ScanFilter::all(namespace, "*"),
            waiting: Mutex::default(),
            wake: Notify::new(),
        });
        let end = EndOnDrop(Arc::clone(&clearing));
        let kept = Arc::clone(&clearing);
        background.spawn(async move {
            // Moved into the task, so that it is dropped even if the task never runs.
            let _end = end;
            supervised("clearing", move || {
                Arc::clone(&kept).walk_for_ever(Arc::clone(&store))
            })
            .await;
        });
        clearing
    }

    pub(super) fn join(&self) -> PendingScan {
        let mut waiting = self.waiting.lock();
        let is_open = !waiting.is_over;
        PendingScan(is_open.then(|| {
            let next = &mut waiting.next;
            next.get_or_insert_with(|| watch::Sender::new(None))
                .subscribe()
        }))
    }

    /// Starts the next scan if a caller waits for it. Returns whether one does.
    pub(super) fn begin(&self) -> bool {
        let is_waited_for = self.waiting.lock().next.is_some();
        if is_waited_for {
            self.wake.notify_one();
        }
        is_waited_for
    }

    async fn walk_for_ever(self: Arc<Self>, store: Arc<dyn Store>) {
        loop {
            self.wake.notified().await;
            // Taken before the scan starts: later callers wait for another one. A panic drops the
            // sender, which tells the waiters.
            let next = self.waiting.lock().next.take();
            if let Some(waiting) = next {
                let walked = match store.lists_keys() {
                    true => store.remove_matching(&self.everything).await,
                    // All entries are dead already, and leave by their time.
                    false => Ok(0),
                };
                let outcome = walked.map_err(|error| (error.kind(), error.to_string()));
                waiting.send_replace(Some(outcome));
            }
        }
    }
}

impl PendingScan {
    pub(super) async fn outcome(self) -> Result<u64, Error> {
        let ended =
            || Error::unavailable("the cache was shut down before its entries were removed");
        let mut outcome = self.0.ok_or_else(ended)?;
        let told = outcome.wait_for(Option::is_some).await;
        match told.ok().as_deref() {
            Some(Some(Ok(removed))) => Ok(*removed),
            Some(Some(Err((kind, said)))) => Err(Error::new(*kind, said.clone())),
            _ => Err(ended()),
        }
    }
}

/// Dropped with the task: nobody may wait for a scan that will not come.
struct EndOnDrop(Arc<Clearing>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting.lock();
        waiting.is_over = true;
        waiting.next = None;
    }
}
