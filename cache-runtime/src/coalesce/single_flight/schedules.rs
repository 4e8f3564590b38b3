//! One load for all callers that read the same. The leader may be dropped.

use std::sync::Arc;

use shuttle::future::{self, block_on, yield_now};
use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::atomic::{AtomicUsize, Ordering};

use super::{LoadResult, SingleFlight, WaitResult};
use crate::base::nonce::Nonce;
use crate::base::sync::time::never;
use crate::base::sync::{Mutex, many_orders};

const READERS: usize = 4;

#[derive(Default)]
struct World {
    single_flight: Arc<SingleFlight>,
    truth: AtomicUsize,
    /// The newest version whose write has returned.
    acknowledged: AtomicUsize,
    entry: Mutex<Entry>,
}

/// The value in the store under the key.
#[derive(Default)]
struct Entry {
    stamp: usize,
    /// The lease's token, and the stamp that its holder had read.
    lease: Option<(Nonce, usize)>,
    leases: u128,
}

#[test]
fn a_load_is_joined_by_lease_and_stamp_and_nobody_waits_for_a_leader_that_has_gone() {
    many_orders(10_000, reads_and_a_write);
}

fn reads_and_a_write() {
    block_on(async {
        let world = Arc::new(World::default());
        let mut tasks = Vec::new();
        for _ in 0..READERS {
            let world = Arc::clone(&world);
            tasks.push(future::spawn(async move { world.read().await }));
        }
        world.write();
        tasks.push(future::spawn(async move { world.read().await }));
        for task in tasks {
            task.await.expect("it ends");
        }
    });
}

impl World {
    fn write(&self) {
        let version = self.truth.fetch_add(1, Ordering::SeqCst) + 1;
        self.entry.lock().stamp += 1;
        self.acknowledged.store(version, Ordering::SeqCst);
    }

    async fn read(&self) {
        let oldest = self.acknowledged.load(Ordering::SeqCst);
        let version = loop {
            match self.look() {
                (token, true) => {
                    if let Some(version) = self.lead(token).await {
                        break version;
                    }
                }
                (token, false) => match self.single_flight.join(token) {
                    None => yield_now().await,
                    Some(waiter) => match waiter.wait(never(), None).await {
                        WaitResult::LoadResult(LoadResult::Value(version)) => {
                            break *version.downcast_ref().expect("a version");
                        }
                        WaitResult::LoadResult(_) | WaitResult::Gone => {}
                        WaitResult::TimedOut => unreachable!(),
                    },
                },
            }
        };
        assert!(
            version >= oldest,
            "a load that began before the write: {version}"
        );
    }

    /// The lease under the key, and whether it was given to this caller.
    fn look(&self) -> (Nonce, bool) {
        let mut entry = self.entry.lock();
        match entry.lease {
            Some((token, stamp)) if stamp == entry.stamp => (token, false),
            _ => {
                entry.leases += 1;
                let token = Nonce(entry.leases);
                entry.lease = Some((token, entry.stamp));
                (token, true)
            }
        }
    }

    /// `None` if the leader is dropped before it has loaded; the caller then reads again.
    async fn lead(&self, token: Nonce) -> Option<usize> {
        let leader = self.single_flight.start(token);
        yield_now().await;
        let version = self.truth.load(Ordering::SeqCst);
        yield_now().await;
        let is_dropped = thread_rng().gen_range(0..3) == 0;
        if !is_dropped {
            leader.complete(|| Some(LoadResult::Value(Arc::new(version))));
        }
        let mut entry = self.entry.lock();
        if entry.lease.is_some_and(|(lease, _)| lease == token) {
            entry.lease = None;
        }
        drop(entry);
        drop(leader);
        (!is_dropped).then_some(version)
    }
}
