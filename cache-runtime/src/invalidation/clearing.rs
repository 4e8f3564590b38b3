//! The walk that removes the entries of a namespace, after everything in it has been invalidated.
//!
//! A walk costs as much as the store has keys, everybody's included. So it is shared: whoever comes while one is running
//! waits for the next, since the walk may have passed what the caller wants removed, and any number of callers cost two
//! walks. It runs on the cache's own thread, and a caller that hangs up stops nobody's walk.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::base::background::{Background, supervised};
use crate::base::error::{Error, ErrorKind};
use crate::store::{Matching, Store};

/// For how long paused time stands still for one who waits for a walk.
pub(super) const HELD: Duration = Duration::from_secs(60);

/// The walks of one cache, one at a time.
#[derive(Debug)]
pub(super) struct Clearing {
    pub(super) everything: Matching,
    gathering: Mutex<Gathering>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Gathering {
    /// Those who wait for the next walk.
    next: Option<watch::Sender<Option<Outcome>>>,
    /// There will be no further walk.
    is_over: bool,
}

/// How many entries were removed. An error can't be cloned, so its parts are kept.
type Outcome = Result<u64, (ErrorKind, String)>;

/// A place among those who wait for the next walk.
pub(crate) struct Walked(Option<watch::Receiver<Option<Outcome>>>);

impl Clearing {
    pub(super) fn start(
        store: Arc<dyn Store>,
        namespace: &str,
        background: &Background,
    ) -> Arc<Self> {
        let clearing = Arc::new(Self {
            everything: Matching::all(namespace, "*"),
            gathering: Mutex::default(),
            wake: Notify::new(),
        });
        let end = End(Arc::clone(&clearing));
        let kept = Arc::clone(&clearing);
        background.spawn(async move {
            // Moved in, so that it is dropped even if this never runs.
            let _end = end;
            supervised("clearing", move || {
                Arc::clone(&kept).walk_for_ever(Arc::clone(&store))
            })
            .await;
        });
        clearing
    }

    pub(super) fn join(&self) -> Walked {
        let mut gathering = self.gathering.lock();
        let is_open = !gathering.is_over;
        Walked(is_open.then(|| {
            let next = &mut gathering.next;
            next.get_or_insert_with(|| watch::Sender::new(None))
                .subscribe()
        }))
    }

    /// Lets the next walk begin, if somebody waits for it; says whether somebody does.
    pub(super) fn begin(&self) -> bool {
        let is_waited_for = self.gathering.lock().next.is_some();
        if is_waited_for {
            self.wake.notify_one();
        }
        is_waited_for
    }

    async fn walk_for_ever(self: Arc<Self>, store: Arc<dyn Store>) {
        loop {
            self.wake.notified().await;
            // Taken before the walk begins: who comes later waits for another one. A panic drops it, which tells them.
            let next = self.gathering.lock().next.take();
            if let Some(waiting) = next {
                let walked = store.remove_matching(&self.everything).await;
                let outcome = walked.map_err(|error| (error.kind(), error.to_string()));
                waiting.send_replace(Some(outcome));
            }
        }
    }
}

impl Walked {
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

/// Dropped with the task that walks: nobody waits for a walk that will not come.
struct End(Arc<Clearing>);

impl Drop for End {
    fn drop(&mut self) {
        let mut gathering = self.0.gathering.lock();
        gathering.is_over = true;
        gathering.next = None;
    }
}
