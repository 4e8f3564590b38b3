//! The results that one request remembers, so that it asks only once: a *request memo*.
//!
//! It does not see the writes of other requests, so a request sees one state of the data that it
//! has read. It does see its own writes: after each of them, everything from before is forgotten,
//! and a read that was under way is not remembered. A write lasts until its invalidation is
//! acknowledged: a read may find the old entry until then. After a write whose outcome is not known,
//! nothing is remembered any more.

use std::any::TypeId;
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt as _;
use futures_util::future::lazy;
use parking_lot::Mutex;

use crate::base::scope_flags::{self, ScopeFlags};
use crate::base::{mutation, task_locals};
use crate::local::AnyValue;

tokio::task_local! {
    static REQUEST: Arc<Request>;
}

/// Which request the current task is part of.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(Arc<Request>);

impl PartialEq for RequestId {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl RequestId {
    /// Whether the request has ended. A task that has inherited it is no part of it any more:
    /// otherwise it would find what the request remembers for as long as the task lasts.
    pub(crate) fn is_over(&self) -> bool {
        self.0.is_over()
    }
}

/// The request around the current task.
pub(crate) fn current() -> Option<RequestId> {
    around().map(RequestId)
}

fn around() -> Option<Arc<Request>> {
    let request = REQUEST.try_with(Arc::clone).ok()?;
    (!request.is_over()).then_some(request)
}

/// Runs `call` as a part of this request. The flags are set by whoever calls this.
pub(crate) fn part_of<T>(request: Option<&RequestId>, call: impl FnOnce() -> T) -> T {
    match request {
        Some(RequestId(request)) => REQUEST.sync_scope(Arc::clone(request), call),
        None => call(),
    }
}

/// Whether [`part_of`] works. It panics while the thread ends and its values are gone.
pub(crate) fn can_be_part_of(request: Option<&RequestId>) -> bool {
    request.is_none_or(|RequestId(it)| task_locals::can_be_set(&REQUEST, Arc::clone(it)))
}

/// How many results a request remembers. Past it, all are forgotten.
const MOST: usize = 4_096;

/// The identity of a call: the engine, the key, the type and its version.
type CallId = (u64, String, TypeId, u32);

/// One request.
#[derive(Debug)]
pub(crate) struct Request {
    /// Whether it remembers all calls, or only those of functions marked `memo`.
    all: bool,
    /// The enclosing request, which has to see this one's writes.
    outer: Option<Arc<Self>>,
    known: Mutex<RequestMemory>,
    is_over: AtomicBool,
}

impl Request {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire) && !mutation::is_active("requests-are-never-over")
    }
}

/// Ends a request when it is dropped.
struct EndOnDrop(Arc<Request>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Release);
    }
}

#[derive(Debug, Default)]
struct RequestMemory {
    /// The number of writes.
    writes: u64,
    /// Whether one of them may still take place, so that nothing is remembered any more.
    is_in_doubt: bool,
    /// The number of times that a caller has asked anew or has got the answer to that.
    anew: u64,
    answers: HashMap<CallId, Option<AnyValue>>,
}

/// A slot for the result of a call.
#[derive(Debug)]
pub(crate) struct MemoSlot {
    request: Arc<Request>,
    id: CallId,
    /// The number of writes when the call began.
    writes: u64,
    /// The same of [`RequestMemory::anew`].
    anew: u64,
    /// Whether the caller asks anew.
    is_anew: bool,
}

/// The request's answer to a call.
#[derive(Debug)]
pub(crate) enum Recalled {
    /// There is no request, or it does not remember such calls.
    Nothing,
    /// The remembered result; `None` is an absence. And the slot for a newer one.
    Answer(Option<AnyValue>, MemoSlot),
    /// The request wants to remember the result.
    Slot(MemoSlot),
}

#[inline]
pub(crate) fn recall(is_memo: bool, id: impl FnOnce() -> CallId) -> Recalled {
    let wanted = match is_memo {
        true => ScopeFlags::REQUEST,
        false => ScopeFlags::MEMO_OF_ALL,
    };
    match ScopeFlags::now().has(wanted) {
        true => recall_from_request(is_memo, id),
        false => Recalled::Nothing,
    }
}

#[inline(never)]
fn recall_from_request(is_memo: bool, id: impl FnOnce() -> CallId) -> Recalled {
    let Some(request) = around() else {
        return Recalled::Nothing;
    };
    if !(is_memo || request.all) {
        return Recalled::Nothing;
    }
    let id = id();
    let (writes, anew, answer) = {
        let known = request.known.lock();
        (known.writes, known.anew, known.answers.get(&id).cloned())
    };
    let slot = MemoSlot {
        request,
        id,
        writes,
        anew,
        is_anew: false,
    };
    match answer {
        Some(answer) => Recalled::Answer(answer, slot),
        None => Recalled::Slot(slot),
    }
}

impl MemoSlot {
    /// The caller asks anew, and will see a newer result. What is remembered ends at once, since
    /// that result may be one that is not remembered.
    pub(crate) fn asks_anew(&mut self) {
        let mut known = self.request.known.lock();
        self.is_anew = true;
        if mutation::is_active("memo-outlives-newer-results") {
            return;
        }
        known.anew += 1;
        known.answers.remove(&self.id);
    }

    /// Remembers the result, unless there was a write since the call began, or another caller has
    /// asked anew since: its result may be newer.
    pub(crate) fn remember(&self, answer: Option<AnyValue>) {
        let mut known = self.request.known.lock();
        if known.writes != self.writes || known.is_in_doubt {
            return;
        }
        if self.is_anew {
            known.anew += 1;
        } else if known.anew != self.anew && !mutation::is_active("memo-of-overtaken-reads") {
            return;
        }
        if known.answers.len() >= MOST {
            // An import in one request may read millions of rows.
            known.answers.clear();
        }
        known.answers.insert(self.id.clone(), answer);
    }
}

/// A write of the requests around the current task: they forget everything from before it.
///
/// Held until the invalidation is acknowledged, or nobody waits for it any more. Until then a read
/// beside it may find the old entry, so they forget once more when it is dropped. After that, a
/// read finds the entry invalidated, or this process bypasses it.
#[derive(Debug)]
#[must_use]
pub(crate) struct MemoWrite(Option<Arc<Request>>);

/// Begins a write: its body has ended.
pub(crate) fn begin_write() -> MemoWrite {
    // Also while a future is dropped, when there are no flags.
    let writing = MemoWrite(REQUEST.try_with(Arc::clone).ok());
    writing.forget();
    writing
}

/// Begins a write whose outcome is not known: its caller hung up, or it failed. It may take place
/// at any time, also after a read that was answered by the database. So the requests remember
/// nothing any more.
pub(crate) fn begin_write_in_doubt() -> MemoWrite {
    let writing = begin_write();
    if !mutation::is_active("memo-beside-writes-in-doubt") {
        writing
            .requests()
            .for_each(|it| it.known.lock().is_in_doubt = true);
    }
    writing
}

impl MemoWrite {
    fn requests(&self) -> impl Iterator<Item = &Arc<Request>> {
        std::iter::successors(self.0.as_ref(), |it| it.outer.as_ref())
    }

    fn forget(&self) {
        if mutation::is_active("memo-kept-after-writes") {
            return;
        }
        for request in self.requests() {
            let mut known = request.known.lock();
            known.writes += 1;
            known.answers.clear();
        }
    }
}

impl Drop for MemoWrite {
    fn drop(&mut self) {
        if !mutation::is_active("memo-forgets-only-before") {
            self.forget();
        }
    }
}

/// Runs `future` as a request of its own, unless it is part of one already: of one that is around
/// the task when the future is first polled, and not where it was made.
pub(crate) fn request<F: Future>(all: bool, future: F) -> impl Future<Output = F::Output> {
    lazy(move |_| {
        let (own, ends) = match around() {
            Some(around) if around.all || !all => (around, None),
            outer => {
                let own = Arc::new(Request {
                    all,
                    outer,
                    known: Mutex::default(),
                    is_over: AtomicBool::new(false),
                });
                (Arc::clone(&own), Some(EndOnDrop(own)))
            }
        };
        let future = future.map(move |output| {
            drop(ends);
            output
        });
        let flag = match own.all {
            true => ScopeFlags::REQUEST.and(ScopeFlags::MEMO_OF_ALL),
            false => ScopeFlags::REQUEST,
        };
        scope_flags::flagged(flag, REQUEST.scope(own, future))
    })
    .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_requests_around_a_write_hear_of_it() {
        let id = || (1, "users:1".to_owned(), TypeId::of::<u8>(), 0);
        let outer = request(false, async {
            let Recalled::Slot(slot) = recall(true, id) else {
                panic!("nothing is known yet");
            };
            slot.remember(None);
            assert!(matches!(recall(true, id), Recalled::Answer(None, _)));
            // A request that remembers more is a request of its own.
            request(true, async { drop(begin_write()) }).await;
            assert!(matches!(recall(true, id), Recalled::Slot(_)));
        });
        outer.await;
    }

    #[tokio::test]
    async fn reads_during_a_write_are_not_remembered() {
        let id = || (1, "users:1".to_owned(), TypeId::of::<u8>(), 0);
        let reads = || match recall(true, id) {
            Recalled::Slot(slot) => slot.remember(None),
            _ => panic!("nothing is known yet"),
        };
        let asks = request(true, async {
            let writing = begin_write();
            reads();
            drop(writing);
            reads();
        });
        asks.await;
    }

    #[tokio::test]
    async fn a_request_remembers_so_many_results() {
        let asks = request(true, async {
            for row in 0..MOST * 2 + 1 {
                let id = || (1, format!("users:{row}"), TypeId::of::<u8>(), 0);
                let Recalled::Slot(slot) = recall(true, id) else {
                    panic!("it was not asked for before");
                };
                slot.remember(None);
                let known = slot.request.known.lock().answers.len();
                assert_eq!(known, row % MOST + 1);
            }
        });
        asks.await;
    }
}
