//! Limits the loads of one key that have no lease: some callers load, the others wait.
//!
//! Without a lease nobody knows whether a running load began before an invalidation. So a reader
//! joins only a load that begins after the reader's own call: callers that come while a load runs
//! wait for the next one. After a failed load its waiters load themselves, but only a few at a
//! time, because the failure may come from too many calls.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{Semaphore, watch};

use crate::base::clock::Instant;
use crate::base::sync::{Mutex, time};
use crate::coalesce::single_flight::LoadResult;
use crate::protocol::fingerprint::Fingerprint;

/// How many loads of a key run at a time while the store is away.
pub(crate) const WITHOUT_STORE: usize = 1;
/// How many loads of a key run at a time after one has failed.
pub(crate) const AFTER_FAILURE: usize = 4;

/// Identifies a load: the entry's key, and the fingerprint of the type.
type GateKey = (String, Fingerprint);

/// The loads of this process that have no lease.
#[derive(Debug, Default)]
pub(crate) struct LoadGates {
    by_key: Mutex<HashMap<GateKey, LoadGate>>,
}

#[derive(Debug, Default)]
struct LoadGate {
    running: usize,
    next_group: Option<Arc<LoadGroup>>,
}

/// The callers that wait for the next load to begin, and then for its value.
#[derive(Debug)]
struct LoadGroup {
    /// Gets one permit once the load may begin. The waiter that acquires it is the leader.
    turn: Semaphore,
    permit: Mutex<Option<GatePermit>>,
    ended: watch::Sender<Option<GroupResult>>,
}

#[derive(Debug, Clone)]
enum GroupResult {
    LoadResult(LoadResult),
    /// The leader was cancelled, or it panicked.
    Gone,
}

/// One of the places of a gate. When dropped, it goes to the waiting callers.
#[derive(Debug)]
struct GatePermit {
    load_gates: Arc<LoadGates>,
    key: GateKey,
}

/// The role of a caller that enters the gate.
#[derive(Debug)]
pub(crate) enum GateRole {
    /// The caller loads.
    Lead(GateLeader),
    /// The caller waits for the next load.
    Wait(GateWaiter),
}

/// The right to load. Held by the caller that loads.
#[derive(Debug)]
pub(crate) struct GateLeader {
    /// The callers that wait for the value. Nobody joins after the load has begun.
    group: Option<Arc<LoadGroup>>,
    /// Declared last, so that it is dropped last.
    _permit: GatePermit,
}

/// Held by a caller that waits.
#[derive(Debug)]
pub(crate) struct GateWaiter(Arc<LoadGroup>);

/// The result of waiting.
#[derive(Debug)]
pub(crate) enum GateResult {
    /// This caller loads, for all callers of its group.
    Lead(GateLeader),
    LoadResult(LoadResult),
    /// The leader was cancelled, or it panicked: enter again.
    Gone,
    TimedOut,
}

impl LoadGates {
    /// Returns the role of a caller that comes now, if `limit` loads may run at a time.
    pub(crate) fn enter(
        self: &Arc<Self>,
        key: &str,
        fingerprint: Fingerprint,
        limit: usize,
    ) -> GateRole {
        let key = (key.to_owned(), fingerprint);
        let mut load_gates = self.by_key.lock();
        let gate = load_gates.entry(key.clone()).or_default();
        let is_unbounded = crate::base::mutation::is_active("loads-not-coalesced-in-an-outage")
            || (limit == AFTER_FAILURE
                && crate::base::mutation::is_active("failures-without-limit"));
        if gate.running < limit || is_unbounded {
            gate.running += 1;
            return GateRole::Lead(GateLeader {
                group: None,
                _permit: GatePermit {
                    load_gates: Arc::clone(self),
                    key,
                },
            });
        }
        let group = gate.next_group.get_or_insert_with(|| {
            Arc::new(LoadGroup {
                turn: Semaphore::new(0),
                permit: Mutex::new(None),
                ended: watch::Sender::new(None),
            })
        });
        GateRole::Wait(GateWaiter(Arc::clone(group)))
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.by_key.lock().len()
    }
}

impl Drop for GatePermit {
    fn drop(&mut self) {
        let group = {
            let mut load_gates = self.load_gates.by_key.lock();
            let Some(gate) = load_gates.get_mut(&self.key) else {
                return;
            };
            let next_group = if crate::base::mutation::is_active("joined-by-key-in-an-outage") {
                gate.next_group.clone()
            } else {
                gate.next_group.take()
            };
            match next_group {
                Some(group) => group,
                None => {
                    gate.running -= 1;
                    if gate.running == 0 {
                        load_gates.remove(&self.key);
                    }
                    return;
                }
            }
        };
        // If all callers of the group have left, this drops the group and its slot with it.
        *group.permit.lock() = Some(Self {
            load_gates: Arc::clone(&self.load_gates),
            key: std::mem::replace(&mut self.key, (String::new(), Fingerprint(0))),
        });
        group.turn.add_permits(1);
    }
}

impl GateLeader {
    /// Hands the value to all waiters. `value` is called only if there are any.
    pub(crate) fn complete(&self, value: impl FnOnce() -> Option<LoadResult>) {
        if let Some(group) = &self.group
            && group.ended.receiver_count() > 0
            && let Some(value) = value()
        {
            group
                .ended
                .send_replace(Some(GroupResult::LoadResult(value)));
        }
    }
}

impl Drop for GateLeader {
    fn drop(&mut self) {
        if let Some(group) = &self.group {
            group.ended.send_if_modified(|ended| {
                let is_open = ended.is_none();
                ended.get_or_insert(GroupResult::Gone);
                is_open
            });
        }
    }
}

impl GateWaiter {
    pub(crate) async fn wait(self, deadline: Instant) -> GateResult {
        let Self(group) = self;
        let mut ended = group.ended.subscribe();
        tokio::select! {
            biased;
            ended = ended.wait_for(Option::is_some) => match ended.ok().and_then(|ended| ended.clone()) {
                Some(GroupResult::LoadResult(load_result)) => GateResult::LoadResult(load_result),
                Some(GroupResult::Gone) | None => GateResult::Gone,
            },
            turn = group.turn.acquire() => {
                if let Ok(turn) = turn {
                    turn.forget();
                }
                let permit = group.permit.lock().take();
                permit.map_or(GateResult::Gone, |permit| {
                    GateResult::Lead(GateLeader { group: Some(Arc::clone(&group)), _permit: permit })
                })
            }
            () = time::sleep_until(deadline) => GateResult::TimedOut,
        }
    }
}

#[cfg(all(test, cache_shuttle))]
mod schedules;
#[cfg(test)]
mod tests;
