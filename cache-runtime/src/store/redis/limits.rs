//! How much one command or one step takes.

use std::time::Duration;

use crate::base::clock::Millis;
use crate::config::MOST_VALUE_BYTES;
use crate::protocol::entry::Header;

/// How many keys one step of a big read or invalidation takes: enough to be quick, few enough that nobody waits behind it.
pub(super) const STEP: usize = 256;

/// The same of a walk over the keyspace, of which the server looks at each key, and of the entries that one step of it
/// removes: 0.06 and 0.12 ms of the server's time, as measured.
pub(super) const WALK_STEP: usize = 128;

/// The same of a walk that somebody waits for: fewer round trips, 0.4 ms of the server's time each.
pub(super) const WAITED_WALK_STEP: usize = 1_000;

pub(super) const REMOVE_STEP: usize = 64;

/// The same where the server tracks what this connection reads: it then remembers all keys of a script once for each read
/// in the script, so that the cost grows with the square (Redis 7.0: 7.6 ms for 256 keys in place of 1 ms).
pub(super) const TRACKED_REMOVE_STEP: usize = 24;

/// One for whom nobody waits rests after so much work for as long as it took: half of the server's time at most is its own.
pub(super) const STRETCH: Duration = Duration::from_millis(1);

/// An entry larger than this is not decoded: no instance of ours can have stored it under its own limit.
pub(super) const READ_LIMIT: usize = MOST_VALUE_BYTES + Header::LEN;

/// How the value of a key begins that holds write intents in place of an entry; each follows as in a generation.
/// The letter stands where an entry has its kind.
pub(super) const INTENTS: &str = "CRT1 i";

/// Stands in a header where the script writes the server's time.
pub(super) const SCRIPT_SETS_IT: Millis = Millis(0);
