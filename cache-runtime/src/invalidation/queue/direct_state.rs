//! Which batch the task of a caller sends.

use std::time::Duration;

use crate::base::clock::Instant;

/// How long somebody else's invalidation waits behind a batch that the task of a caller sends.
/// After that the worker sends both, since perhaps nobody polls that task. Longer than the store
/// usually takes.
pub(in crate::invalidation) const TAKEOVER: Duration = Duration::from_millis(10);

/// Whether the batch in flight is sent by the task of its caller.
#[derive(Debug, Default)]
pub(super) struct DirectState {
    current: Option<Direct>,
    /// How many batches such tasks have sent.
    count: u64,
    /// Whether the worker waits for the end of the current one.
    is_waited_for: bool,
}

#[derive(Debug, Clone, Copy)]
struct Direct {
    number: u64,
    since: Instant,
}

impl DirectState {
    /// The task of a caller sends the batch in flight from now on. Returns the number of that.
    pub(super) fn begin(&mut self, now: Instant) -> u64 {
        self.count += 1;
        self.current = Some(Direct {
            number: self.count,
            since: now,
        });
        self.count
    }

    /// Whether the task of a caller sends the batch in flight.
    pub(super) fn is_some(&self) -> bool {
        self.current.is_some()
    }

    /// Whether the batch in flight is the one of this number.
    pub(super) fn is(&self, number: u64) -> bool {
        let current = self.current;
        current.is_some_and(|direct| direct.number == number)
            || crate::base::mutation::is_active("direct-acknowledges-others")
    }

    /// The task no longer sends it. Returns whether the worker has waited for that; `None` if the
    /// worker sends it already.
    pub(super) fn end(&mut self, number: u64) -> Option<bool> {
        self.is(number).then(|| {
            self.current = None;
            std::mem::take(&mut self.is_waited_for)
        })
    }

    /// Whichever task sends the batch in flight, it is no longer waited for.
    pub(super) fn forget(&mut self) {
        self.current = None;
        self.is_waited_for = false;
    }

    /// The worker has something to send. Returns whether it waits for the task of a caller; after
    /// [`TAKEOVER`] it no longer does.
    pub(super) fn is_awaited(&mut self, now: Instant) -> bool {
        let Some(direct) = self.current else {
            return false;
        };
        let is_young = now < direct.since + TAKEOVER;
        if is_young || crate::base::mutation::is_active("direct-holds-up-others") {
            self.is_waited_for = true;
            return true;
        }
        self.forget();
        false
    }

    /// When the worker takes the batch over.
    pub(super) fn takeover(&self) -> Option<Instant> {
        self.current.map(|direct| direct.since + TAKEOVER)
    }
}
