//! Operations on many keys, in steps.

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt as _};

use crate::base::error::Error;

/// How many keys go with one round trip.
pub(super) const STEP: usize = 256;
/// How many keys one operation changes. A change is a round trip for each key, and all of them have
/// one command budget.
pub(super) const CHANGES: usize = 8;
/// How many such operations run at a time.
const AT_A_TIME: usize = 8;

/// Runs operations, some at a time. All of them end, and their results have their order; the first
/// error counts.
pub(super) async fn in_steps<T>(
    operations: Vec<BoxFuture<'_, Result<T, Error>>>,
) -> Result<Vec<T>, Error> {
    let at_a_time = match is_one_by_one() {
        true => 1,
        false => AT_A_TIME,
    };
    let results: Vec<_> = stream::iter(operations).buffered(at_a_time).collect().await;
    results.into_iter().collect()
}

/// How many keys one operation changes.
pub(super) fn steps_of(keys: usize) -> usize {
    match is_one_by_one() {
        true => STEP,
        false => keys,
    }
}

fn is_one_by_one() -> bool {
    crate::base::mutation::is_active("memcached-changes-one-by-one")
}
