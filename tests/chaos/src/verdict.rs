//! What is said of a read.

use crate::history::{Read, Stuck, Time, WriteId};

/// Why a read that misses a write breaks no promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Reason {
    Running,
    Pending,
    Unconfirmed,
    UnknownOutcome,
    Killed,
    KilledPending,
    IntentLost,
    IntentUnseen,
    LateCommit,
    Shifted,
    Replaced,
    Returned,
}

impl Reason {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Pending => "pending",
            Self::Unconfirmed => "unconfirmed",
            Self::UnknownOutcome => "unknown-outcome",
            Self::Killed => "killed",
            Self::KilledPending => "killed-pending",
            Self::IntentLost => "intent-lost",
            Self::IntentUnseen => "intent-unseen",
            Self::LateCommit => "late-commit",
            Self::Shifted => "shifted",
            Self::Replaced => "replaced",
            Self::Returned => "returned",
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Violation {
    /// The read shows `shown` of row `id`, though `missed` obliged it; late by so much.
    Stale {
        read: Read,
        id: u32,
        shown: u64,
        missed: WriteId,
        late: Time,
    },
    /// It was excused, but for longer than the reason holds.
    Unbounded {
        read: Read,
        id: u32,
        missed: WriteId,
        reason: Reason,
        late: Time,
    },
    /// Nobody had committed that version when the read ended.
    Invented {
        read: Read,
        id: u32,
        shown: u64,
    },
    /// Another call's value, or another type's.
    Wrong {
        read: Read,
        text: String,
    },
    Stuck(Stuck),
    /// A write that required Redis took place, though Redis refused writes.
    Accepted {
        process: u32,
        at: Time,
    },
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Excused {
    pub(crate) reads: u64,
    pub(crate) latest: Time,
}
