//! The wait for a load of another process.

use std::time::Duration;

use crate::coalesce::single_flight::Leader;
use crate::protocol::entry::Stamp;
use crate::store::KeyChange;

/// The first pause of a reader that polls for another process's load, and the longest.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(1);

pub(super) const LAST_PAUSE: Duration = Duration::from_millis(25);

/// Polls the store for another process's load.
#[derive(Debug)]
pub(super) struct RemoteLoadPoller {
    pub(super) leader: Leader,
    /// The stamp of the lease, which all waiting readers have computed.
    pub(super) stamp: Stamp,
    /// The notification of the entry's next change, if the store has agreed to send one.
    pub(super) word: Option<KeyChange>,
    /// Whether a notification has come since the last pause.
    pub(super) was_told: bool,
}
