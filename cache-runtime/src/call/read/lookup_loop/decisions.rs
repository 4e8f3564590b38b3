//! The decisions of a lookup loop, as plain data.

use super::super::hit::Hit;
use super::super::permit::Permit;
use crate::call::observe::{BypassReason, StaleReason};
use crate::coalesce::load_gate::GateLeader;
use crate::coalesce::single_flight::{LoadResult, Waiter};
use crate::coalesce::waits::WaitEdges;
use crate::protocol::entry::Header;
use crate::store::Expected;

/// The next step of the caller.
#[derive(Debug)]
pub(crate) enum Action {
    /// Serve this entry.
    Hit(Box<Hit>),
    /// Serve this expired entry.
    Stale(Box<Hit>, StaleReason),
    /// Serve this expired entry, and load a new value in the background.
    Revalidate(Box<(Box<Hit>, Permit)>),
    /// Serve the value that another caller has just loaded.
    Joined(LoadResult),
    /// Load, and store the value under this lease.
    Lead(Permit),
    /// Load, and store nothing.
    Bypass(BypassReason),
}

/// The role of a caller that has to load without a lease.
#[derive(Debug)]
pub(crate) enum UnleasedRole {
    /// Load, and hand the value to the waiters.
    Run(GateLeader),
    /// Serve the value that another caller has just loaded.
    Joined(LoadResult),
    /// Load for this caller only.
    Alone,
}

/// The state of an entry, for a reader that has not decided yet.
#[derive(Debug)]
pub(crate) enum EntryState {
    /// It may be served.
    Hit(Box<Hit>),
    /// It has expired but may still be served. The second field is what a lease may replace, unless
    /// another caller is loading.
    Past(Box<Hit>, Option<Expected>),
    /// There is a lease.
    Leased(Header),
    /// A lease may replace it.
    Vacant(Expected),
    /// It may be neither served nor replaced.
    Bypass(BypassReason),
}

/// The decision about a lease.
pub(super) enum LeaseDecision {
    GivesWay(Expected),
    LookAgain,
    Bypass(BypassReason),
    /// Waits for a load in this process, or shares the wait for one elsewhere.
    Joins(Waiter, Option<WaitEdges>),
    /// Polls for a load elsewhere.
    Polls,
}
