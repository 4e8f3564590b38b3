//! Counts the reads that are not served because it is not certain who owns a slot, for the log.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::error::Error;
use crate::base::unserved::Unserved;

/// How many reads were not served for these reasons.
#[derive(Debug, Default)]
pub(super) struct UnservedReads {
    fenced: AtomicU64,
    unconfirmed: AtomicU64,
}

impl UnservedReads {
    /// Counts the reads that this error has ended, if it is for such a reason.
    pub(super) fn count(&self, error: &Error, reads: usize) {
        let counter = match Unserved::of(error) {
            Some(Unserved::Fenced) => &self.fenced,
            Some(Unserved::Unconfirmed) => &self.unconfirmed,
            // It is known who owns the slot.
            Some(Unserved::Full) => return,
            None => return,
        };
        counter.fetch_add(reads as u64, Ordering::Relaxed);
    }

    /// The fenced and the unconfirmed ones.
    pub(super) fn counts(&self) -> (u64, u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (count(&self.fenced), count(&self.unconfirmed))
    }
}

/// Which of them were logged.
#[derive(Debug, Default)]
pub(super) struct UnservedLog {
    said: (u64, u64),
}

impl UnservedLog {
    /// The fenced and the unconfirmed reads that have to be logged now: when the owners of all slots
    /// are certain again, so that one outage is logged once, however few reads there are.
    pub(super) fn due(&mut self, counts: (u64, u64), is_certain: bool) -> Option<(u64, u64)> {
        if !is_certain || counts == self.said {
            return None;
        }
        let before = std::mem::replace(&mut self.said, counts);
        Some((counts.0 - before.0, counts.1 - before.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_outage_is_logged_once_when_it_is_over() {
        let (reads, mut log) = (UnservedReads::default(), UnservedLog::default());
        assert_eq!(log.due(reads.counts(), true), None);
        for _ in 0..3 {
            // Rounds without a read do not end the outage.
            reads.count(&Unserved::Unconfirmed.into(), 2);
            assert_eq!(log.due(reads.counts(), false), None);
            assert_eq!(log.due(reads.counts(), false), None);
        }
        reads.count(&Unserved::Fenced.into(), 1);
        reads.count(&Error::unavailable("no connection"), 1);
        assert_eq!(log.due(reads.counts(), true), Some((1, 6)));
        assert_eq!(log.due(reads.counts(), true), None);
        reads.count(&Unserved::Fenced.into(), 1);
        assert_eq!(log.due(reads.counts(), true), Some((1, 0)));
    }
}
