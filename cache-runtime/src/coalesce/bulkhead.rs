//! Limits how many loads of one function run at a time: `max_loads`.
//!
//! After a whole resource has been invalidated, thousands of entries may be loaded at once, which
//! is more than most databases can handle. So a load takes a permit first, and waits if none is
//! free: a *bulkhead* (Nygard, *Release It!*, 2007; Resilience4j). A waiting load holds the lease
//! of its entry, so that no other caller loads the entry meanwhile.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::registry::CallSite;

/// If no load has ended for this long, the running loads may wait for the waiting ones, in tasks
/// that the cache does not know. Then one more runs.
const NO_PROGRESS: Duration = Duration::from_secs(10);

/// The bulkheads of one cache.
#[derive(Debug, Default)]
pub(crate) struct Bulkheads {
    by_function: Mutex<HashMap<usize, Arc<Bulkhead>>>,
}

impl Bulkheads {
    /// The bulkhead of a function. The first limit that is given counts.
    pub(crate) fn of(&self, site: &'static CallSite, limit: usize) -> Arc<Bulkhead> {
        let mut all = self.by_function.lock();
        let one = all.entry(site.address()).or_insert_with(|| {
            Arc::new(Bulkhead {
                site,
                limit,
                free: Arc::new(Semaphore::new(limit.clamp(1, Semaphore::MAX_PERMITS))),
                ended: AtomicU64::new(0),
            })
        });
        Arc::clone(one)
    }
}

/// The permits of one function's loads.
#[derive(Debug)]
pub(crate) struct Bulkhead {
    site: &'static CallSite,
    limit: usize,
    free: Arc<Semaphore>,
    /// The number of loads that have ended.
    ended: AtomicU64,
}

/// The permit of a running load.
#[derive(Debug)]
pub(crate) struct BulkheadPermit {
    bulkhead: Arc<Bulkhead>,
    /// None if it runs beyond the limit.
    _permit: Option<OwnedSemaphorePermit>,
}

impl BulkheadPermit {
    pub(crate) fn name(&self) -> String {
        self.bulkhead.name()
    }

    /// The function's address.
    pub(crate) fn function(&self) -> usize {
        self.bulkhead.site.address()
    }
}

impl Drop for BulkheadPermit {
    fn drop(&mut self) {
        self.bulkhead.ended.fetch_add(1, Ordering::Relaxed);
    }
}

impl Bulkhead {
    /// The name of the permits in the wait-for graph, in which all other names are keys.
    pub(crate) fn name(&self) -> String {
        format!(" permits of {:x}", self.site.address())
    }

    /// A permit beyond the limit, for a load that the holders of the others wait for.
    pub(crate) fn beyond(self: &Arc<Self>) -> BulkheadPermit {
        self.admit(None)
    }

    /// A permit, if one is free.
    pub(crate) fn try_enter(self: &Arc<Self>) -> Option<BulkheadPermit> {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        Some(self.admit(Some(permit)))
    }

    /// Waits for a permit: in order of arrival, as long as loads end.
    pub(crate) async fn enter(self: Arc<Self>) -> BulkheadPermit {
        let mut waiting = std::pin::pin!(Arc::clone(&self.free).acquire_owned());
        loop {
            let ended = self.ended.load(Ordering::Relaxed);
            match crate::base::time::timeout(NO_PROGRESS, waiting.as_mut()).await {
                Ok(permit) => return self.admit(permit.ok()),
                Err(_) if self.is_first_since(ended) => {
                    tracing::warn!(
                        function = %self.site,
                        max_loads = self.limit,
                        "no load has ended for 10 s, so one runs beyond `max_loads`"
                    );
                    return self.admit(None);
                }
                Err(_) => {}
            }
        }
    }

    /// Whether no load has ended since, and no other caller has continued because of that. Then it
    /// counts as if one had ended.
    fn is_first_since(&self, ended: u64) -> bool {
        let next = ended.wrapping_add(1);
        self.ended
            .compare_exchange(ended, next, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    fn admit(self: &Arc<Self>, permit: Option<OwnedSemaphorePermit>) -> BulkheadPermit {
        BulkheadPermit {
            bulkhead: Arc::clone(self),
            _permit: permit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Role, Site};

    static ONE: Site = Site::new(Role::Reads, "one", "");
    static OTHER: Site = Site::new(Role::Reads, "other", "");

    #[tokio::test(start_paused = true)]
    async fn a_permit_is_waited_for() {
        let bulkheads = Bulkheads::default();
        let (one, same, other) = (
            bulkheads.of(&ONE, 1),
            bulkheads.of(&ONE, 9),
            bulkheads.of(&OTHER, 1),
        );
        let permit = one.try_enter().expect("free");
        assert!(same.try_enter().is_none(), "it is the same one");
        assert!(other.try_enter().is_some());
        let waits = tokio::spawn(Arc::clone(&one).enter());
        tokio::task::yield_now().await;
        drop(permit);
        drop(waits.await.expect("it got the permit"));
        assert!(one.try_enter().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn one_at_a_time_runs_beyond_the_limit() {
        let one = Bulkheads::default().of(&ONE, 1);
        let _held = one.try_enter().expect("free");
        let waiting: Vec<_> = (0..10)
            .map(|_| tokio::spawn(Arc::clone(&one).enter()))
            .collect();
        crate::base::time::sleep(NO_PROGRESS + Duration::from_secs(1)).await;
        let ready = waiting.iter().filter(|it| it.is_finished()).count();
        assert_eq!(ready, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn loads_that_wait_for_each_other_get_on() {
        let one = Bulkheads::default().of(&ONE, 1);
        let _held = one.try_enter().expect("free");
        // Time is paused, and advances as soon as all tasks wait.
        drop(Arc::clone(&one).enter().await);
    }
}
