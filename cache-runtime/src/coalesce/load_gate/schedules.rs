//! Loads without a lease: no more than the limit at a time, and no caller gets the value of a load
//! that began before its call.

use std::sync::Arc;
use std::time::Duration;

use shuttle::future::{self, block_on, yield_now};
use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::atomic::{AtomicUsize, Ordering};

use super::{GateLeader, GateResult, GateRole, LoadGates};
use crate::base::clock::{self, Instant};
use crate::base::sync::many_orders;
use crate::base::sync::time::never;
use crate::coalesce::single_flight::LoadResult;
use crate::protocol::fingerprint::Fingerprint;

const READERS: usize = 5;
const TYPE: Fingerprint = Fingerprint(1);

struct World {
    load_gates: Arc<LoadGates>,
    limit: usize,
    truth: AtomicUsize,
    acknowledged: AtomicUsize,
    running: AtomicUsize,
}

#[test]
fn one_load_at_a_time_and_no_earlier_one_is_joined() {
    many_orders(10_000, || reads_and_a_write(1));
}

#[test]
fn two_loads_at_a_time_and_no_earlier_one_is_joined() {
    many_orders(10_000, || reads_and_a_write(2));
}

fn reads_and_a_write(limit: usize) {
    block_on(async {
        let world = Arc::new(World {
            load_gates: Arc::default(),
            limit,
            truth: AtomicUsize::new(0),
            acknowledged: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
        });
        let mut tasks = Vec::new();
        for reader in 0..READERS {
            let world = Arc::clone(&world);
            tasks.push(future::spawn(async move {
                // Some give up: at once, or while they wait.
                let deadline = match thread_rng().gen_range(0..4) {
                    0 => clock::now() + Duration::from_millis(reader as u64 % 3),
                    _ => never(),
                };
                world.read(deadline).await;
            }));
        }
        let version = world.truth.fetch_add(1, Ordering::SeqCst) + 1;
        world.acknowledged.store(version, Ordering::SeqCst);
        for task in tasks {
            task.await.expect("it ends");
        }
        // No place is lost: as many as before may run at once.
        let runs: Vec<_> = (0..limit)
            .map(|_| world.load_gates.enter("key", TYPE, limit))
            .collect();
        assert!(
            runs.iter()
                .all(|entered| matches!(entered, GateRole::Lead(_)))
        );
    });
}

impl World {
    async fn read(&self, deadline: Instant) {
        let oldest = self.acknowledged.load(Ordering::SeqCst);
        loop {
            let waiting = match self.load_gates.enter("key", TYPE, self.limit) {
                GateRole::Lead(run) => match self.lead(run).await {
                    Some(version) => return assert!(version >= oldest),
                    None => continue,
                },
                GateRole::Wait(waiting) => waiting,
            };
            if deadline != never() && thread_rng().gen_range(0..2) == 0 {
                // Dropped before it has waited.
                return;
            }
            match waiting.wait(deadline).await {
                GateResult::Lead(run) => {
                    if let Some(version) = self.lead(run).await {
                        return assert!(version >= oldest);
                    }
                }
                GateResult::LoadResult(LoadResult::Value(version)) => {
                    let version: usize = *version.downcast_ref().expect("a version");
                    return assert!(version >= oldest, "a load that began before the write");
                }
                GateResult::LoadResult(_) | GateResult::Gone => {}
                GateResult::TimedOut => return assert!(deadline != never()),
            }
        }
    }

    async fn lead(&self, run: GateLeader) -> Option<usize> {
        let running = self.running.fetch_add(1, Ordering::SeqCst);
        assert!(running < self.limit, "{running} run already");
        let version = self.truth.load(Ordering::SeqCst);
        yield_now().await;
        let is_dropped = thread_rng().gen_range(0..3) == 0;
        self.running.fetch_sub(1, Ordering::SeqCst);
        if !is_dropped {
            run.complete(|| Some(LoadResult::Value(Arc::new(version))));
        }
        (!is_dropped).then_some(version)
    }
}
