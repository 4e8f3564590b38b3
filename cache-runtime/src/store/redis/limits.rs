//! Limits on the size of one command or one step.

use std::time::Duration;

use crate::base::clock::Millis;
use crate::config::MOST_VALUE_BYTES;
use crate::protocol::entry::Header;

/// The number of keys in one step of a large read or invalidation: enough to be fast, few enough
/// not to delay other commands.
pub(super) const STEP: usize = 256;

/// The number of steps that are sent at the same time if each key is sent apart, since the user may
/// not write some.
pub(super) const AT_ONCE: usize = 64;

/// The same as `STEP` for a walk over the keyspace, in which the server looks at each key, and for the
/// entries that one of its steps removes: 0.06 and 0.12 ms of the server's time, as measured.
pub(super) const WALK_STEP: usize = 128;

/// The same for a walk that a caller waits for: fewer round trips, 0.4 ms of the server's time
/// each.
pub(super) const WAITED_WALK_STEP: usize = 1_000;

pub(super) const REMOVE_STEP: usize = 64;

/// The same if the server tracks this connection. It then remembers all keys of a script once for
/// each read in the script, so the cost grows with the square (Redis 7.0: 7.6 ms for 256 keys
/// instead of 1 ms).
pub(super) const TRACKED_REMOVE_STEP: usize = 24;

/// A walk that no caller waits for pauses after this much work, for as long as the work took: it
/// uses at most half of the server's time.
pub(super) const WORK_SLICE: Duration = Duration::from_millis(1);

/// An entry larger than this is not decoded: no process can have stored it under its own limit.
pub(super) const READ_LIMIT: usize = MOST_VALUE_BYTES + Header::LEN;

/// The start of a value that holds intents instead of an entry. Each intent follows as in a
/// generation. The letter is at the position of an entry's kind.
pub(super) const INTENTS: &str = "CRT1 i";

/// In a header: the script writes the server's time here.
pub(super) const SCRIPT_SETS_IT: Millis = Millis(0);
